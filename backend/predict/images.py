"""Images of tasks: where they lie, fetching them within limits, decoding them as a browser shows them."""

from __future__ import annotations

import base64
import binascii
import http.cookiejar
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote_plus, unquote_to_bytes, urljoin, urlsplit

import cv2
import numpy as np
import numpy.typing as npt
import requests
import urllib3
from PIL import Image

from backend.errors import ImageError, ImageUnavailable, ImageUnreadable, LabelStudioError
from backend.predict.cache import ImageCache

Pixels = npt.NDArray[np.uint8]
"""Height x width x 3, BGR, of the upright image."""

log = logging.getLogger(__name__)

_REDIRECTS = 5
_CHUNK = 64 * 1024
_STORAGES = ("s3", "gs", "azure-blob")
_PORTS = {"http": 80, "https": 443}
_ORIENTATION = 0x0112
# What browsers show, and TIFF. Everything else Pillow knows stays out: EPS, for one, runs a program.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "ICO", "TIFF")
_AZURE = frozenset(["se", "sp", "sv", "sr", "st", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv"])
_SIGNED = frozenset(["signature", "expires", "awsaccesskeyid", "googleaccessid", "key-pair-id", "policy"])


@dataclass(frozen=True)
class Source:
    """One image of one task.

    Attributes:
        ref: the address as it stands in the task's data.
        task_id: needed for cloud storages, whose links Label Studio signs per task.
        ls_url: Label Studio's address as yoloop reaches it; may be empty.
        auth: headers for Label Studio's own host and no other; asked only when needed, may raise
            LabelStudioError.
    """

    ref: str
    task_id: int | None
    ls_url: str
    auth: Callable[[], dict[str, str]]


class Images:
    """Fetches and decodes images; safe under threads.

    Args:
        cache: where fetched files stay.
        timeout: seconds one image may take to arrive, redirects included. A server that falls silent
            half-way is noticed after at most twice that.
        max_bytes: largest file.
        max_pixels: largest decoded image, width x height.
        workers: images fetched and decoded at the same time by `load_many`.
    """

    def __init__(self, cache: ImageCache, *, timeout: float, max_bytes: int, max_pixels: int, workers: int) -> None:
        self._cache = cache
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
        self._local = threading.local()
        self._sessions: weakref.WeakSet[requests.Session] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._coming: dict[str, Future[Path]] = {}

    def fetch(self, source: Source) -> Path:
        """The image's file, as it was sent; the cache may drop it later.

        Threads that want the same image at the same time share one request.

        Raises:
            ImageUnavailable: it cannot be had.
        """
        address = _locate(source)
        cached = self._cache.get(address.key)
        if cached is not None:
            return cached
        with self._lock:
            coming = self._coming.get(address.key)
            mine = Future[Path]()
            if coming is None:
                self._coming[address.key] = mine
        if coming is not None:
            return coming.result()
        try:
            # Another thread may have stored it between the look above and the lock.
            path = self._cache.get(address.key) or self._store(source, address)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(path)
            return path
        finally:
            with self._lock:
                del self._coming[address.key]

    def decode(self, path: Path) -> Pixels:
        """The first frame of an image file: EXIF orientation applied, transparency over white.

        Raises:
            ImageUnreadable: not an image, broken, or of too many pixels.
            ImageUnavailable: the file is gone.
        """
        try:
            data = path.read_bytes()
        except OSError:
            raise ImageUnavailable("The image's file is gone.", "Ask again.") from None
        return _decode(data, self._max_pixels, "The image")

    def load(self, source: Source) -> Pixels:
        """Fetches and decodes.

        Raises:
            ImageUnavailable: it cannot be had.
            ImageUnreadable: what came is not an image.
        """
        address = _locate(source)
        if address.url.startswith("data:"):
            return _decode(self._embedded(address), self._max_pixels, address.name)
        for _ in range(2):  # between fetching and reading, a full cache may drop the file
            path = self.fetch(source)
            try:
                data = path.read_bytes()
            except OSError:
                continue
            try:
                return _decode(data, self._max_pixels, address.name)
            except ImageUnreadable:
                # It may be repaired at its place: ask for it again next time.
                self._cache.discard(address.key)
                raise
        raise ImageUnavailable(f"{address.name} left the cache before it was read.", "Raise YOLOOP_CACHE_GB.")

    def load_many(self, sources: Iterable[Source], deadline: float) -> Iterator[tuple[int, Pixels | ImageError]]:
        """Yields (index, image or its error) for every source, each as soon as it is there.

        Those not there at the deadline are given up, as ImageUnavailable. Only a few decoded images wait
        at a time, so a slow consumer does not fill the memory. Sources of one image share one array.

        Args:
            deadline: on the clock of `time.monotonic`.
        """
        groups: dict[str, tuple[Source, str, list[int]]] = {}
        for index, source in enumerate(sources):
            try:
                address = _locate(source)
            except ImageError as error:
                yield index, error
            else:
                groups.setdefault(address.key, (source, address.name, []))[2].append(index)

        waiting = list(reversed(groups.values()))
        running: dict[Future[Pixels | ImageError], tuple[str, list[int]]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self._workers and time.monotonic() < deadline:
                    source, name, indexes = waiting.pop()
                    running[self._submit(source)] = (name, indexes)
                done, _ = wait(running, max(0.0, deadline - time.monotonic()), FIRST_COMPLETED)
                if not done:
                    break
                future = done.pop()
                name, indexes = running.pop(future)
                outcome = _outcome(future, name)
                for index in indexes:
                    yield index, outcome
            for name, indexes in [*running.values(), *((name, rest) for _, name, rest in reversed(waiting))]:
                late = ImageUnavailable(
                    f"{name} did not fit the time budget.", "Ask again: what has arrived by then is kept."
                )
                for index in indexes:
                    yield index, late
        finally:
            for future in running:
                future.cancel()

    def close(self) -> None:
        """Stops taking work; what is under way ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.close()

    def _submit(self, source: Source) -> Future[Pixels | ImageError]:
        try:
            return self._pool.submit(self._attempt, source)
        except RuntimeError:  # closed meanwhile
            stopped: Future[Pixels | ImageError] = Future()
            stopped.cancel()
            stopped.set_running_or_notify_cancel()
            return stopped

    def _attempt(self, source: Source) -> Pixels | ImageError:
        try:
            return self.load(source)
        except ImageError as error:
            return error

    def _store(self, source: Source, address: _Address) -> Path:
        data = self._embedded(address) if address.url.startswith("data:") else self._download(source, address)
        try:
            return self._cache.put(address.key, data)
        except OSError as error:
            raise ImageUnavailable(
                f"{address.name} could not be stored: {error.strerror}.",
                "Check the space and the rights of YOLOOP_HOME.",
            ) from None

    def _embedded(self, address: _Address) -> bytes:
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

    def _download(self, source: Source, address: _Address) -> bytes:
        deadline = time.monotonic() + self._timeout
        url = address.url
        for _ in range(_REDIRECTS + 1):
            own = _same_origin(url, source.ls_url)
            with self._get(url, _auth(source) if own else {}, deadline, address) as response:
                target = self._session().get_redirect_target(response)
                if target is None:
                    return self._body(response, deadline, address, own)
            url = _follow(url, target, address)
        raise ImageUnavailable(f"{address.name} redirects too often.", "Check its address in a browser.")

    def _get(self, url: str, auth: dict[str, str], deadline: float, address: _Address) -> requests.Response:
        headers = {"User-Agent": "yoloop", "Accept-Encoding": "identity", **auth}
        for last in (False, True):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                return self._session().get(url, headers=headers, stream=True, allow_redirects=False, timeout=left)
            # Nothing is chained: requests' own errors quote whole addresses, signatures included.
            except requests.Timeout:
                break
            except requests.ConnectionError as error:
                # A kept connection that the server has just closed deserves a second try.
                if last:
                    raise _unreachable(address, error) from None
            except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                raise _unreachable(address, error) from None
        raise _too_slow(address, self._timeout)

    def _body(self, response: requests.Response, deadline: float, address: _Address, own: bool) -> bytes:
        if response.status_code != 200:
            raise _refused(address, response.status_code, own)
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
            raise _unreachable(address, error) from None
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

    def _session(self) -> requests.Session:
        """This thread's session: it keeps connections, and neither cookies nor credentials."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            # Cookies know no ports, and ~/.netrc would put its passwords before our headers.
            session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
            session.auth = _unchanged
            with self._lock:
                self._sessions.add(session)
        return session


@dataclass(frozen=True)
class _Address:
    """Where an image lies.

    `key` names it in the cache, `name` in messages: it holds no query and no credentials.
    """

    url: str
    key: str
    name: str


def _locate(source: Source) -> _Address:
    ref = source.ref.strip() if isinstance(source.ref, str) else ""
    if not ref:
        raise ImageUnavailable("The task names no image.", "Fill the field that the Image tag reads.")
    if ref[:5].lower() == "data:":
        return _Address("data:" + ref[5:], ref, "The embedded image")
    try:
        scheme = urlsplit(ref).scheme
        if scheme in _PORTS:
            return _web_address(ref, source.ls_url)
        if ref.startswith("//"):
            return _web_address(f"{urlsplit(source.ls_url).scheme or 'https'}:{ref}", source.ls_url)
        if scheme in _STORAGES:
            return _storage_address(ref, source)
        if ref.startswith(("/", "upload/")):
            return _web_address(_join(_label_studio(source), ref), source.ls_url)
    except ValueError:
        raise ImageUnavailable("The image's address is malformed.", "Correct it in the task's data.") from None
    raise ImageUnavailable(
        f"Images cannot be fetched from {scheme}: addresses."
        if scheme
        else "The image's address is a bare relative path.",
        "Use http(s), a cloud storage or a local storage of Label Studio, or upload the image.",
    )


def _web_address(url: str, ls_url: str) -> _Address:
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("no host")
    host = parts.netloc.rpartition("@")[2]
    query = "&".join(_unsigned(parts.query.split("&"))) if parts.query else ""
    place = f"{parts.scheme}://{host}{parts.path}"
    shown = parts.path if _same_origin(url, ls_url) else place
    return _Address(
        parts._replace(fragment="").geturl(),
        f"{ls_url.rstrip('/')} {place}?{query}",
        f"Image {_short(shown)}",
    )


def _storage_address(ref: str, source: Source) -> _Address:
    if source.task_id is None:
        raise ImageUnavailable("An image in a cloud storage needs a task for which Label Studio signs its link.")
    base = _label_studio(source)
    uri = base64.urlsafe_b64encode(ref.encode()).decode()
    url = f"{base}/tasks/{source.task_id}/presign/?fileuri={uri}"
    return _Address(url, f"{base} {ref}", f"Image {_short(ref)}")


def _label_studio(source: Source) -> str:
    if not source.ls_url:
        raise ImageUnavailable("The image lies in Label Studio, whose address is not known.", "Set LABEL_STUDIO_URL.")
    return source.ls_url.rstrip("/")


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


def _same_origin(url: str, ls_url: str) -> bool:
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


def _auth(source: Source) -> dict[str, str]:
    try:
        return source.auth()
    except LabelStudioError as error:
        raise ImageUnavailable(error.message, error.hint) from None


def _follow(url: str, target: str, address: _Address) -> str:
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


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:60]}…{text[-59:]}"


def _too_large(address: _Address, limit: int) -> ImageUnavailable:
    return ImageUnavailable(
        f"{address.name} is larger than {limit / 2**20:g} MiB.", "Raise YOLOOP_MAX_IMAGE_MB if it should be."
    )


def _too_slow(address: _Address, timeout: float) -> ImageUnavailable:
    return ImageUnavailable(
        f"{address.name} did not arrive within {timeout:g} s.", "Ask again, or raise YOLOOP_FETCH_TIMEOUT."
    )


def _unreachable(address: _Address, error: Exception) -> ImageUnavailable:
    return ImageUnavailable(
        f"{address.name} could not be fetched ({type(error).__name__}).",
        "Check that the machine of yoloop reaches its address.",
    )


def _refused(address: _Address, status: int, own: bool) -> ImageUnavailable:
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
    host = "Label Studio" if own else "its host"
    return ImageUnavailable(f"{address.name} could not be fetched: {host} answered HTTP {status}.", hint)


def _outcome(future: Future[Pixels | ImageError], name: str) -> Pixels | ImageError:
    try:
        return future.result()
    except CancelledError:
        return ImageUnavailable(f"{name} was not fetched: yoloop is stopping.", "Ask again.")
    except Exception as error:
        log.exception("%s could not be loaded", name)
        return ImageUnreadable(f"{name} could not be loaded ({type(error).__name__}).", "See the log.")


def _decode(data: bytes, max_pixels: int, name: str) -> Pixels:
    try:
        # Only the header is read here: a bomb is refused before it is decoded.
        with Image.open(BytesIO(data), formats=_known_formats()) as image:
            if image.width * image.height > max_pixels:
                raise _too_many_pixels(name, f"{image.width} x {image.height} pixels")
            pixels = _decode_fast(data, image)
            if pixels is None:
                pixels = _decode_any(image)
            return _upright(pixels, _orientation(image))
    except ImageUnreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(name, "more pixels than Pillow opens") from None
    # Pillow's decoders raise nearly anything on broken files.
    except Exception as error:
        raise ImageUnreadable(
            f"{name} is not an image that can be read ({type(error).__name__}).",
            "Open it in a browser: it may be broken or of an unknown format.",
        ) from None


def _too_many_pixels(name: str, size: str) -> ImageUnreadable:
    return ImageUnreadable(f"{name} has {size}.", "Raise YOLOOP_MAX_IMAGE_MEGAPIXELS if that should be.")


def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _decode_fast(data: bytes, image: Image.Image) -> Pixels | None:
    """OpenCV for whole, plain JPEG and PNG files, about twice as fast; None for all others."""
    if image.mode not in ("RGB", "L") or "transparency" in image.info or getattr(image, "is_animated", False):
        return None
    # OpenCV fills what is missing with grey and says nothing, Pillow refuses: leave cut files to it.
    if image.format == "JPEG":
        whole = data.endswith(b"\xff\xd9")
    else:
        whole = image.format == "PNG" and data[-8:-4] == b"IEND" and b"eXIf" not in data
    if not whole:
        return None
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return None if decoded is None else np.asarray(decoded, np.uint8)


def _decode_any(image: Image.Image) -> Pixels:
    image.load()
    if image.mode.startswith("I;16"):
        # Pillow would clip at 255; a browser shows the upper eight bits.
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        rgb = Image.alpha_composite(page, layer).convert("RGB")
    else:
        rgb = image.convert("RGB")
    return np.asarray(rgb, np.uint8)[:, :, ::-1]


def _orientation(image: Image.Image) -> int:
    """EXIF's value 1..8. Pillow's getexif would also believe XMP, which browsers do not."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    except Exception:
        return 1  # a broken tag harms no pixel


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
