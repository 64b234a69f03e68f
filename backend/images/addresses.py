"""Where an image lies: a reference in a task's data to the address that is asked for."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_plus, urljoin, urlsplit

import urllib3

from backend.errors import ImageUnavailable

_STORAGES = ("s3", "gs", "azure-blob")
_PORTS = {"http": 80, "https": 443}
_AZURE = frozenset(["se", "sp", "sv", "sr", "st", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv"])
_SIGNED = frozenset(["signature", "expires", "awsaccesskeyid", "googleaccessid", "key-pair-id", "policy"])


@dataclass(frozen=True)
class Address:
    """Where an image lies.

    `key` names it in the cache, `name` in messages: it holds no query and no credentials.
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
    try:
        scheme = urlsplit(ref).scheme
        if scheme in _PORTS:
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


def same_origin(url: str, ls_url: str) -> bool:
    """Whether a request would go to Label Studio's own scheme, host and port.

    Asked of the parser that makes the connection: another might read a crafted address differently.
    """
    try:
        here, there = urllib3.util.parse_url(url), urllib3.util.parse_url(ls_url)
    except ValueError:
        return False
    if not here.host or not there.host or here.scheme not in _PORTS:
        return False
    return (here.scheme, here.host.lower(), here.port or _PORTS[here.scheme]) == (
        there.scheme,
        there.host.lower(),
        there.port or _PORTS.get(there.scheme or ""),
    )


def follow(url: str, target: str, address: Address) -> str:
    """The absolute address that a redirect points to; it must be http(s)."""
    try:
        joined = urljoin(url, target)
        if urlsplit(joined).scheme in _PORTS:
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
    query = "&".join(_unsigned(parts.query.split("&"))) if parts.query else ""
    place = f"{parts.scheme}://{host}{parts.path}"
    shown = parts.path if same_origin(url, ls_url) else place
    return Address(
        parts._replace(fragment="").geturl(),
        f"{ls_url.rstrip('/')} {place}?{query}",
        f"Image {_short(shown)}",
    )


def _storage_address(ref: str, task_id: int | None, ls_url: str) -> Address:
    if task_id is None:
        raise ImageUnavailable("An image in a cloud storage needs a task for which Label Studio signs its link.")
    base = _label_studio(ls_url)
    uri = base64.urlsafe_b64encode(ref.encode()).decode()
    url = f"{base}/tasks/{task_id}/presign/?fileuri={uri}"
    return Address(url, f"{base} {ref}", f"Image {_short(ref)}")


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


def _unsigned(pairs: list[str]) -> Iterator[str]:
    """The query's parameters without a signature's: they change while the image stays the same."""
    names = [unquote_plus(pair.partition("=")[0]).lower() for pair in pairs]
    signed = {"sig", *_AZURE} if "sig" in names else set()
    if "signature" in names:
        signed |= _SIGNED
    for name, pair in zip(names, pairs, strict=True):
        if name not in signed and not name.startswith(("x-amz-", "x-goog-")):
            yield pair


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:60]}…{text[-59:]}"
