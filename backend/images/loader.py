"""Images of tasks: fetched once, kept, decoded; many at a time."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from backend.errors import Busy, ImageError, ImageNotStored, ImageUnavailable, ImageUnreadable
from backend.images.addresses import EMBEDDED, Address, embedded, locate
from backend.images.allowed_hosts import AllowedHosts
from backend.images.cache import ImageCache, content_of
from backend.images.decode import Decoded, decode, memory_needed
from backend.images.download import Downloads
from backend.images.memory import DecodingMemory

log = logging.getLogger(__name__)

_SHRUNK = 2
"""The version of kept pixels: raised when others would be made of the same image."""


@dataclass(frozen=True)
class Source:
    """One image of one task.

    Attributes:
        ref: the address as it stands in the task's data.
        task_id: needed for cloud storages, whose links Label Studio signs per task.
        ls_url: Label Studio's address as yoloop reaches it; may be empty.
        auth: headers for Label Studio's own host and no other; asked only when needed, may raise
            LabelStudioError.
        embedded: where `ref` stands for an image that the task holds itself (see `addresses.embedded`), gives its
            `data:` address; may raise ImageUnavailable.
    """

    ref: str
    task_id: int | None
    ls_url: str
    auth: Callable[[], dict[str, str]]
    embedded: Callable[[], str] | None = None


class Images:
    """Fetches and decodes images; safe under threads.

    Args:
        cache: where fetched files stay.
        timeout: seconds one image may take to arrive, redirects included. A server that falls silent
            half-way is noticed after at most twice that.
        max_bytes: largest file.
        max_pixels: largest decoded image, width x height.
        workers: images fetched and decoded at the same time by `load_many`.
        allowed: hosts that may be asked although their address is a reserved one.
    """

    def __init__(
        self,
        cache: ImageCache,
        *,
        timeout: float,
        max_bytes: int,
        max_pixels: int,
        workers: int,
        allowed: AllowedHosts | None = None,
    ) -> None:
        self._cache = cache
        self._downloads = Downloads(timeout, max_bytes, allowed or AllowedHosts())
        self._max_pixels = max_pixels
        self._memory = DecodingMemory(max_pixels)
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
        self._urgent = ThreadPoolExecutor(workers, thread_name_prefix="urgent-images")
        self._lock = threading.Lock()
        self._coming: dict[str, Future[Path]] = {}

    def fetch(self, source: Source) -> Path:
        """The image's file, as it was sent; the cache may drop it later.

        Threads that want the same image at the same time share one request.

        Raises:
            ImageUnavailable: it cannot be had.
        """
        address = _located(source)
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

    def cached(self, source: Source) -> Path | None:
        """The image's file if it is here already."""
        try:
            return self._cache.get(_located(source).key)
        except ImageError:
            return None

    def keep_embedded(self, ref: str) -> None:
        """Keep an image that a task holds itself, a `data:` address, under what stands for it, so that Label Studio
        need not be asked for it; what is no image, or has no space, is not kept."""
        key = embedded(ref)
        with contextlib.suppress(ImageError, OSError):
            if self._cache.get(key) is None:
                self._cache.put(key, self._downloads.get(locate(ref, None, ""), "", dict))

    def keep(self, original: Path, name: str, data: bytes) -> None:
        """Keep what was made of an image beside it, under a name; without space on the disk, nothing is kept.

        Args:
            original: what `fetch` gave; images of the same bytes share what was made of them.
        """
        with contextlib.suppress(OSError):
            self._cache.put(f"{name} of {content_of(original)}", data, made=True)

    def kept(self, original: Path, name: str) -> bytes | None:
        """What `keep` was given, unless it has left the cache."""
        try:
            path = self._cache.get(f"{name} of {content_of(original)}")
            return None if path is None else path.read_bytes()
        except OSError:
            return None

    def load(self, source: Source, cover: int = 0, deadline: float = float("inf")) -> Decoded:
        """Fetches and decodes; `cover` as in `decode`.

        Args:
            deadline: on the clock of `time.monotonic`, for the memory that others have taken meanwhile.

        Raises:
            ImageUnavailable: it cannot be had.
            ImageUnreadable: what came is not an image.
        """
        address = _located(source)
        if address.url.startswith("data:"):
            data = self._downloads.get(address, source.ls_url, source.auth)
            return self._decode(BytesIO(data), address.name, cover, deadline)
        for _ in range(2):  # between fetching and reading, a full cache may drop the file
            try:
                path = self.fetch(source)
            except ImageNotStored as error:  # a full disk makes it slower, and keeps nobody from suggestions
                return self._decode(BytesIO(error.data), address.name, cover, deadline)
            shrunk = self._shrunk(path, cover)
            if shrunk is not None:
                return shrunk
            try:
                file = path.open("rb")
            except OSError:
                continue
            try:
                with file:
                    size = path.stat().st_size
                    image = self._decode(file, address.name, cover, deadline)
            except OSError:
                continue
            except ImageUnreadable:
                # It may be repaired at its place: ask for it again next time.
                self._cache.discard(address.key)
                raise
            # What takes more room than the image is quick to decode, and would fill the cache.
            if image.shrunk and image.pixels.nbytes < size:
                self.keep(path, _shrunk_name(cover), image.dump())
            return image
        raise ImageUnavailable(f"{address.name} left the cache before it was read.", "Raise YOLOOP_CACHE_GB.")

    def load_many(
        self, sources: Iterable[Source], deadline: float, *, urgent: bool = False, cover: int = 0
    ) -> Iterator[tuple[int, Decoded | ImageError]]:
        """Yields (index, image or its error) for every source, each as soon as it is there.

        Those not there at the deadline are given up, as ImageUnavailable. Only a few decoded images wait
        at a time, so a slow consumer does not fill the memory. Sources of one image share one array.

        Args:
            deadline: on the clock of `time.monotonic`.
            urgent: do not queue behind the images of other requests.
            cover: pixels of the longer side that are enough; 0: all (see `decode`).
        """
        groups: dict[str, tuple[Source, str, list[int]]] = {}
        for index, source in enumerate(sources):
            try:
                address = _located(source)
            except ImageError as error:
                yield index, error
            else:
                groups.setdefault(address.key, (source, address.name, []))[2].append(index)

        if urgent and len(groups) == 1 and time.monotonic() < deadline:
            ((key, (source, name, indexes)),) = groups.items()
            if self._cache.get(key) is not None:
                # There is no network to wait for, and to hand it to another thread and back costs a millisecond or two.
                outcome = self._attempt(source, name, cover, deadline)
                for index in indexes:
                    yield index, outcome
                return
        waiting = list(reversed(groups.values()))
        running: dict[Future[Decoded | ImageError], tuple[str, list[int]]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self._workers and time.monotonic() < deadline:
                    source, name, indexes = waiting.pop()
                    running[self._submit(source, name, urgent, cover, deadline)] = (name, indexes)
                done, _ = wait(running, max(0.0, deadline - time.monotonic()), FIRST_COMPLETED)
                if not done:
                    break
                future = done.pop()
                name, indexes = running.pop(future)
                outcome = _outcome(future, name)
                for index in indexes:
                    yield index, outcome
            for name, indexes in [*running.values(), *((name, rest) for _, name, rest in reversed(waiting))]:
                for index in indexes:
                    yield index, _late(name)
        finally:
            for future in running:
                future.cancel()

    def close(self) -> None:
        """Stops taking work; what is under way ends by itself."""
        for pool in (self._pool, self._urgent):
            pool.shutdown(wait=False, cancel_futures=True)
        self._downloads.close()

    def _decode(self, file: BinaryIO, name: str, cover: int, deadline: float) -> Decoded:
        needed = memory_needed(file, self._max_pixels, cover)
        if needed > self._memory.most:
            raise ImageUnreadable(
                f"{name} takes {needed / 1e6:,.0f} MB of memory to decode.",
                "Save it as JPEG or PNG, or raise YOLOOP_MAX_IMAGE_MEGAPIXELS.",
            )
        try:
            with self._memory.hold(needed, deadline):
                file.seek(0)
                return decode(file.read(), self._max_pixels, name, cover=cover)
        except Busy:
            raise _late(name) from None

    def _shrunk(self, original: Path, cover: int) -> Decoded | None:
        """What a large image was decoded to before: to read it takes a tenth of the time."""
        kept = self.kept(original, _shrunk_name(cover)) if cover else None
        if kept is None:
            return None
        try:
            image = Decoded.parse(kept)
        except ValueError:
            return None
        return image if image.size.width * image.size.height <= self._max_pixels else None

    def _submit(
        self, source: Source, name: str, urgent: bool, cover: int, deadline: float
    ) -> Future[Decoded | ImageError]:
        try:
            pool = self._urgent if urgent else self._pool
            return pool.submit(copy_context().run, self._attempt, source, name, cover, deadline)
        except RuntimeError:  # closed meanwhile
            stopped: Future[Decoded | ImageError] = Future()
            stopped.cancel()
            stopped.set_running_or_notify_cancel()
            return stopped

    def _attempt(self, source: Source, name: str, cover: int, deadline: float) -> Decoded | ImageError:
        try:
            return self.load(source, cover, deadline)
        except ImageError as error:
            return error
        except Exception as error:
            log.exception("%s could not be loaded", name)
            return ImageUnreadable(f"{name} could not be loaded ({type(error).__name__}).", "See the log.")

    def _store(self, source: Source, address: Address) -> Path:
        data = self._downloads.get(_at_its_place(source, address), source.ls_url, source.auth)
        try:
            return self._cache.put(address.key, data)
        except OSError as error:
            raise ImageNotStored(
                f"{address.name} could not be stored: {error.strerror}.",
                "Check the space and the rights of YOLOOP_HOME.",
                data,
            ) from None


def _at_its_place(source: Source, address: Address) -> Address:
    """The address to ask: for what stands for an embedded image, the one that the task holds."""
    if not EMBEDDED.fullmatch(address.url):
        return address
    if source.embedded is None:
        raise ImageUnavailable("The embedded image is not here any more.", "Import its task again.")
    return locate(source.embedded(), source.task_id, source.ls_url)


def _late(name: str) -> ImageUnavailable:
    return ImageUnavailable(f"{name} did not fit the time budget.", "Ask again: what has arrived by then is kept.")


def _shrunk_name(cover: int) -> str:
    return f"pixels {_SHRUNK} {cover}"


def _located(source: Source) -> Address:
    return locate(source.ref, source.task_id, source.ls_url)


def _outcome(future: Future[Decoded | ImageError], name: str) -> Decoded | ImageError:
    try:
        return future.result()
    except CancelledError:
        return ImageUnavailable(f"{name} was not fetched: yoloop is stopping.", "Ask again.")
