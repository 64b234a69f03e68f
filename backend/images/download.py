"""The bytes behind an address: over HTTP and within limits, or out of a `data:` address."""

from __future__ import annotations

import base64
import binascii
import http.cookiejar
import threading
import time
import weakref
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import requests
import urllib3

from backend.errors import ImageUnavailable, LabelStudioError
from backend.images.addresses import Address, follow
from backend.images.allowed_hosts import AllowedHosts
from backend.images.ssrf import PinnedAdapter, ReservedAddress
from backend.network.proxies import proxies_of, proxy_hint
from backend.network.urls import is_below, same_origin

_REDIRECTS = 5
_CHUNK = 64 * 1024


class Downloads:
    """Fetches bytes; safe under threads, each of which keeps its connections.

    Args:
        timeout: seconds one image may take to arrive, redirects included. A server that falls silent
            half-way is noticed after at most twice that.
        max_bytes: largest file.
        allowed: hosts that may be asked although their address is a reserved one.
    """

    def __init__(self, timeout: float, max_bytes: int, allowed: AllowedHosts) -> None:
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._allowed = allowed
        self._local = threading.local()
        self._sessions: weakref.WeakSet[requests.Session] = weakref.WeakSet()
        self._lock = threading.Lock()

    def get(self, address: Address, ls_url: str, auth: Callable[[], dict[str, str]]) -> bytes:
        """The file at an address, whole.

        Args:
            ls_url: Label Studio's address, whose host may be at a reserved one; `auth` is asked for headers for this
                address, for paths below it, and for no other, wherever a redirect leads.

        Raises:
            ImageUnavailable: it cannot be had.
        """
        if address.url.startswith("data:"):
            return self._embedded(address)
        return self._download(address, ls_url, auth)

    def close(self) -> None:
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.close()

    def _embedded(self, address: Address) -> bytes:
        head, comma, body = address.url.partition(",")
        # Base64 with every character percent-encoded is the longest spelling: four characters a byte.
        if len(body) > 4 * self._max_bytes + 16:
            raise _too_large(address, self._max_bytes)
        try:
            data = unquote_to_bytes(body)
            if head.lower().endswith(";base64"):
                data = base64.b64decode(data + b"==")
        except (binascii.Error, ValueError):
            data = b""
        if not comma or not data:
            raise ImageUnavailable("The data: address of the image is malformed.", "Export it again.")
        if len(data) > self._max_bytes:
            raise _too_large(address, self._max_bytes)
        return data

    def _download(self, address: Address, ls_url: str, auth: Callable[[], dict[str, str]]) -> bytes:
        deadline = time.monotonic() + self._timeout
        url = address.url
        for _ in range(_REDIRECTS + 1):
            own = is_below(url, ls_url)
            session = self._session(checked=not same_origin(url, ls_url))
            with self._get(session, url, _headers(auth) if own else {}, deadline, address) as response:
                target = session.get_redirect_target(response)
                if target is None:
                    return self._body(response, deadline, address, url, own)
            url = follow(url, target, address)
        raise ImageUnavailable(f"{address.name} redirects too often.", "Check its address in a browser.")

    def _get(
        self, session: requests.Session, url: str, auth: dict[str, str], deadline: float, address: Address
    ) -> requests.Response:
        headers = {"User-Agent": "yoloop", "Accept-Encoding": "identity", **auth}
        for last in (False, True):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                return session.get(
                    url, headers=headers, stream=True, allow_redirects=False, timeout=left, proxies=proxies_of(url)
                )
            # Nothing is chained: requests' own errors quote whole addresses, signatures included.
            except requests.Timeout:
                break
            except ReservedAddress as error:
                raise _reserved(address, url, error.host) from None
            except requests.ConnectionError as error:
                # A kept connection that the server has just closed deserves a second try.
                if last:
                    raise _unreachable(address, url, error) from None
            except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                raise _unreachable(address, url, error) from None
        raise _too_slow(address, self._timeout)

    def _body(self, response: requests.Response, deadline: float, address: Address, url: str, own: bool) -> bytes:
        if response.status_code != 200:
            raise _refused(address, url, response.status_code, own)
        body = bytearray()
        try:
            # read1 returns what is there: a server that drips cannot hold it past the deadline.
            while chunk := response.raw.read1(_CHUNK, decode_content=True):
                body += chunk
                if len(body) > self._max_bytes:
                    raise _too_large(address, self._max_bytes)
                if time.monotonic() > deadline:
                    raise _too_slow(address, self._timeout)
        except urllib3.exceptions.ReadTimeoutError:
            raise _too_slow(address, self._timeout) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreachable(address, url, error) from None
        if not body:
            raise ImageUnavailable(f"{address.name} is empty.", "Upload it again.")
        if response.headers.get("Content-Type", "").lower().startswith("text/html") and (
            body[:512].lstrip().startswith(b"<")
        ):
            raise ImageUnavailable(
                f"{address.name} came as a web page, probably a login page, not as an image.",
                "Check LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY." if own else "Check its address in a browser.",
            )
        return bytes(body)

    def _session(self, *, checked: bool) -> requests.Session:
        """This thread's session: it keeps connections, and neither cookies nor credentials.

        Label Studio has one of its own, so that nobody else rides on a connection that nobody checked.
        """
        name = "checked" if checked else "own"
        session: requests.Session | None = getattr(self._local, name, None)
        if session is None:
            session = requests.Session()
            setattr(self._local, name, session)
            if checked:
                for scheme in ("http://", "https://"):
                    session.mount(scheme, PinnedAdapter(self._allowed))
            # Cookies know no ports, and ~/.netrc would put its passwords before our headers.
            session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
            session.auth = _unchanged
            with self._lock:
                self._sessions.add(session)
        return session


def _headers(auth: Callable[[], dict[str, str]]) -> dict[str, str]:
    try:
        return auth()
    except LabelStudioError as error:
        raise ImageUnavailable(error.message, error.hint) from None


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _too_large(address: Address, limit: int) -> ImageUnavailable:
    return ImageUnavailable(
        f"{address.name} is larger than {limit / 2**20:g} MiB.", "Raise YOLOOP_MAX_IMAGE_MB if it should be."
    )


def _too_slow(address: Address, timeout: float) -> ImageUnavailable:
    return ImageUnavailable(
        f"{address.name} did not arrive within {timeout:g} s.", "Ask again, or raise YOLOOP_FETCH_TIMEOUT."
    )


def _reserved(address: Address, url: str, host: str) -> ImageUnavailable:
    where = "is" if url == address.url else f"leads to {host}, which is"
    return ImageUnavailable(
        f"{address.name} {where} at a reserved address.",
        "Add its host to YOLOOP_ALLOWED_HOSTS if yoloop may fetch from it.",
    )


def _unreachable(address: Address, url: str, error: Exception) -> ImageUnavailable:
    return ImageUnavailable(
        f"{address.name} could not be fetched ({type(error).__name__}).",
        proxy_hint(url) or "Check that the machine of yoloop reaches its address.",
    )


def _refused(address: Address, url: str, status: int, own: bool) -> ImageUnavailable:
    if status in (401, 403) and own:
        hint = "Check LABEL_STUDIO_API_KEY, and that its user may see the project."
    elif status in (401, 403):
        hint = "Its host lets nobody in without credentials; use a cloud storage of Label Studio."
    elif status == 404 and own:
        hint = "Check the project's storage in Label Studio, and that local files are served if it is one."
    elif status in (404, 410):
        hint = "Check its address in a browser."
    else:
        hint = "Ask again later."
    if status == 407 or status >= 500:
        hint = f"{hint} {proxy_hint(url)}".strip()
    host = "Label Studio" if own else "its host"
    return ImageUnavailable(f"{address.name} could not be fetched: {host} answered HTTP {status}.", hint)
