"""Where an image lies: a reference in a task's data to the address that is asked for."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote_plus, urljoin, urlsplit

from backend.errors import ImageUnavailable
from backend.network.urls import PORTS, same_origin

_DATA = re.compile(r"\s*data:[^,\s]{0,200},", re.IGNORECASE)
_STORAGES = ("s3", "gs", "azure-blob")
_AZURE = frozenset(["se", "sp", "sv", "sr", "st", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv"])
_SIGNED = frozenset(["signature", "expires", "awsaccesskeyid", "googleaccessid", "key-pair-id", "policy"])
_TENCENT = frozenset(
    f"q-{name}"
    for name in ("sign-algorithm", "ak", "sign-time", "key-time", "header-list", "url-param-list", "signature")
)
_SIGNS = frozenset(["sign", "hmac", "md5", "st", "verify", "ossaccesskeyid"])
"""Parameters that sign an address where another says until when."""
_CLOUDS = ("x-oss-", "x-cos-", "x-obs-", "hdnts", "hdnea")
_ENDS = frozenset(["expires", "expire", "expiry", "expiration", "exp", "e", "se"])
_MOMENT = re.compile(r"1\d{9}(\d{3})?|20\d\d-\d\d-\d\d[T ][\d:.]+(Z|[+-][\d:]+)?|20\d{6}T\d{6}Z?")
"""Seconds or milliseconds since 1970, from 2001 on, or a date with its time."""
_CREDENTIAL = re.compile(
    r"(?:access|auth|id|refresh|session|security|sas|api|bearer)?[-_]?token|(?:x[-_])?(?:api|auth|access|subscription)[-_]?key"
    r"|(?:client[-_]?)?secret|pass(?:word|wd|phrase)?|pwd|jwt|auth(?:orization)?|credentials?|(?:php)?sess(?:ion)?[-_]?id"
)
"""Names of parameters that let somebody in."""
_OPAQUE = re.compile(r"[\w~+=-]{16,}")
"""What a `key` is that lets somebody in, and not the name of a file."""
_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.")
_USER = re.compile(r"^((?:[a-z][a-z0-9+.-]*:)?//)[^/?#]*@|^[^/?#@]*:[^/?#]*@", re.IGNORECASE)
"""User name and password before a host, and (group 1) what stands before them."""


EMBEDDED = re.compile("yoloop-embedded:([0-9a-f]{64})")
"""What stands for a `data:` address: (group 1) its SHA-256."""


@dataclass(frozen=True)
class Address:
    """Where an image lies.

    `key` names it in the cache, which keeps no key as it is; `name` in messages: it holds no query and no credentials.
    """

    url: str
    key: str
    name: str


def locate(ref: object, task_id: int | None, ls_url: str) -> Address:
    """The address of a reference in a task's data.

    Args:
        ref: as it stands in the data, so it may be anything.
        task_id: needed for cloud storages, whose links Label Studio signs per task.
        ls_url: Label Studio's address as yoloop reaches it; may be empty.

    Raises:
        ImageUnavailable: nothing can be asked for.
    """
    ref = ref.strip() if isinstance(ref, str) else ""
    if not ref:
        raise ImageUnavailable("The task names no image.", "Fill the field that the Image tag reads.")
    if ref[:5].lower() == "data:":
        return Address("data:" + ref[5:], ref, "The embedded image")
    if EMBEDDED.fullmatch(ref):
        return Address(ref, ref, "The embedded image")
    try:
        scheme = urlsplit(ref).scheme
        if scheme in PORTS:
            return _web_address(ref, ls_url)
        if ref.startswith("//"):
            return _web_address(f"{urlsplit(ls_url).scheme or 'https'}:{ref}", ls_url)
        if scheme in _STORAGES:
            return _storage_address(ref, task_id, ls_url)
        if ref.startswith(("/", "upload/")):
            return _web_address(_join(_label_studio(ls_url), ref), ls_url)
    except ValueError:
        raise ImageUnavailable("The image's address is malformed.", "Correct it in the task's data.") from None
    raise ImageUnavailable(
        f"Images cannot be fetched from {scheme}: addresses."
        if scheme
        else "The image's address is a bare relative path.",
        "Use http(s), a cloud storage or a local storage of Label Studio, or upload the image.",
    )


def identity(ref: str) -> str:
    """What names an image for good: its address in the task with its query, which may be all that tells images apart.

    Without user, password, tokens, signatures and the moment at which one ends; http and https are one.
    """
    if _is_data(ref):
        return embedded(ref)
    if EMBEDDED.fullmatch(ref):
        return ref
    try:
        parts = urlsplit(ref.strip())
        parts.port  # noqa: B018  what is none may be half of a password with a slash in it
    except ValueError:
        return _malformed(ref)
    if parts.scheme in PORTS or (not parts.scheme and parts.netloc):
        place, query = f"{_host(parts)}{parts.path}", parts.query
    else:
        plain = _without_user(ref.strip())
        place, _, query = (plain if parts.scheme in _STORAGES else plain.partition("#")[0]).partition("?")
    query = "&".join(_lasting(query.split("&")))
    return f"{place}?{query}" if query else place


def without_query(ref: str) -> str:
    """An image's address in the task as it may be shown: without user, password, signature and tokens.

    The query of a web address is left out whole. `/data/local-files/?d=…` names its file there, so that one stays.
    """
    if ref[:5].lower() == "data:":
        return ref
    try:
        parts = urlsplit(ref.strip())
        parts.port  # noqa: B018
    except ValueError:
        return _malformed(ref)
    if parts.scheme in PORTS:
        return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
    place, mark, query = _without_user(ref).partition("?")
    return f"{place}{mark}{'&'.join(_unsigned(query.split('&')))}" if mark else place


def embedded(ref: str) -> str:
    """A short reference that stands for an image which a task holds itself, as a `data:` address."""
    return f"yoloop-embedded:{hashlib.sha256(ref.encode('utf-8', 'surrogatepass')).hexdigest()}"


def without_embedded(data: Any) -> Any:
    """A task's data with `embedded` in place of each `data:` address: such images are too large to be kept twice."""
    if isinstance(data, str):
        return embedded(data) if _is_data(data) else data
    if isinstance(data, Mapping):
        return {name: without_embedded(value) for name, value in data.items()}
    return [without_embedded(each) for each in data] if isinstance(data, list) else data


def embedded_in(data: Any) -> Iterator[str]:
    """The `data:` addresses in a task's data."""
    if isinstance(data, str):
        if _is_data(data):
            yield data
        return
    for each in data.values() if isinstance(data, Mapping) else data if isinstance(data, list) else ():
        yield from embedded_in(each)


def _is_data(ref: str) -> bool:
    return _DATA.match(ref) is not None


def follow(url: str, target: str, address: Address) -> str:
    """The absolute address that a redirect points to; it must be http(s)."""
    try:
        joined = urljoin(url, target)
        if urlsplit(joined).scheme in PORTS:
            return joined
    except ValueError:
        pass
    raise ImageUnavailable(
        f"{address.name} redirects to an address that is not http(s).", "Check its address in a browser."
    )


def _web_address(url: str, ls_url: str) -> Address:
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("no host")
    host = parts.netloc.rpartition("@")[2]
    parts.port  # noqa: B018  what is none may be half of a password with a slash in it
    query = "&".join(_unsigned(parts.query.split("&"))) if parts.query else ""
    place = f"{parts.scheme}://{host}{parts.path}"
    shown = parts.path if same_origin(url, ls_url) else place
    return Address(
        parts._replace(fragment="").geturl(),
        f"{ls_url.rstrip('/')} {place}?{query}{_told_by_credentials(parts.query)}",
        f"Image {_short(shown)}",
    )


def _storage_address(ref: str, task_id: int | None, ls_url: str) -> Address:
    if task_id is None:
        raise ImageUnavailable("An image in a cloud storage needs a task for which Label Studio signs its link.")
    base = _label_studio(ls_url)
    uri = base64.urlsafe_b64encode(ref.encode()).decode()
    url = f"{base}/tasks/{task_id}/presign/?fileuri={uri}"
    return Address(url, f"{base} {ref}", f"Image {_short(_without_user(ref).partition('?')[0])}")


def _label_studio(ls_url: str) -> str:
    if not ls_url:
        raise ImageUnavailable("The image lies in Label Studio, whose address is not known.", "Set LABEL_STUDIO_URL.")
    return ls_url.rstrip("/")


def _join(base: str, ref: str) -> str:
    """Label Studio's address and a path on it; a Label Studio below a prefix may write the prefix itself."""
    path = ref if ref.startswith("/") else f"/{ref}"
    if path.startswith("/upload/"):
        path = f"/data{path}"  # so uploads are named in exports
    prefix = urlsplit(base).path
    return base + (path.removeprefix(prefix) if prefix and path.startswith(f"{prefix}/") else path)


def _malformed(ref: str) -> str:
    return f"malformed {hashlib.sha256(ref.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _host(parts: SplitResult) -> str:
    """Host and port of a web address, the port only where it is not the scheme's own."""
    host = parts.netloc.rpartition("@")[2].lower()
    return host.removesuffix(f":{PORTS[parts.scheme]}") if parts.scheme else host


def _without_user(ref: str) -> str:
    return _USER.sub(lambda found: found[1] or "", ref)


def _unsigned(pairs: list[str], *, keep_keys: bool = False) -> Iterator[str]:
    """The query's parameters without a signature's and without tokens: neither tells images apart, nor may be kept.

    Args:
        keep_keys: what is called `key` stays, whatever it is.
    """
    names = [unquote_plus(pair.partition("=")[0]).lower() for pair in pairs]
    signed = {"sig", *_AZURE} if "sig" in names else set()
    if "signature" in names:
        signed |= _SIGNED
    for name, pair in zip(names, pairs, strict=True):
        if name in signed or name.startswith(("x-amz-", "x-goog-")):
            continue
        if not _is_credential(name, pair) or (keep_keys and name == "key"):
            yield pair


def _lasting(pairs: list[str]) -> Iterator[str]:
    """The query's parameters that are an image's own, for good. Of a `key` that may let somebody in, a digest stays:
    it may as well name the image."""
    names = {unquote_plus(pair.partition("=")[0]).lower() for pair in pairs}
    stamped = any(_is_stamp(pair) for pair in pairs)
    signed = _TENCENT if "q-signature" in names else frozenset()
    if stamped or any(name.startswith("x-oss-") for name in names) or "signature" in names:
        signed |= _SIGNS
    for pair in _unsigned(pairs, keep_keys=True):
        name, _, value = pair.partition("=")
        name = unquote_plus(name).lower()
        if not pair or name in signed or name.startswith(_CLOUDS) or _is_stamp(pair):
            continue
        if name == "key" and _OPAQUE.fullmatch(unquote_plus(value)):
            yield f"key={hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
        else:
            yield pair


def _is_stamp(pair: str) -> bool:
    """Whether a parameter is the moment at which a signed address ends."""
    name, _, value = pair.partition("=")
    return unquote_plus(name).lower() in _ENDS and bool(_MOMENT.fullmatch(unquote_plus(value)))


def _is_credential(name: str, pair: str) -> bool:
    value = unquote_plus(pair.partition("=")[2])
    return bool(_CREDENTIAL.fullmatch(name) or (name == "key" and _OPAQUE.fullmatch(value)) or _JWT.match(value))


def _told_by_credentials(query: str) -> str:
    """A digest of the tokens in a query: to the cache, images of different tokens are different ones."""
    pairs = query.split("&") if query else []
    tokens = [pair for pair in pairs if _is_credential(unquote_plus(pair.partition("=")[0]).lower(), pair)]
    return f" {hashlib.sha256('&'.join(tokens).encode()).hexdigest()}" if tokens else ""


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:60]}…{text[-59:]}"
