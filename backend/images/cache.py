"""A bounded disk cache of image files, keyed by content, shared by threads and processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import threading
import time
from pathlib import Path

_PART = ".part"
_POINTER = ".at"
_MADE = ".made"
_NAME = re.compile("([0-9a-f]{64}(?:[.]made)?)(?: ([0-9]+))?")
"""What a pointer says: a file's name, and its size in bytes, which an earlier release left out."""

_STALE_SECONDS = 600.0
"""A writer holds all its bytes before it starts: a part this old belongs to a killed one."""


class ImageCache:
    """Files by the SHA-256 of their bytes, and which of them each key stands for.

    Keys with the same bytes share one file. When the cache is full, the least recently used leave, and what was made
    of images leaves before any image does: to make it again is cheaper than to fetch.

    A file is complete from the moment it can be seen, and may leave at any moment: a reader must be
    ready to find a returned path gone. The image put last always stays, even when it alone is over the bound.
    Each process knows its own writes and looks at the folder again after every sixteenth of the bound, so
    n processes on one folder may together exceed it by n sixteenths for a while.

    Args:
        folder: made when something is put; nothing else may live in it.
        max_bytes: bound of the files' sizes together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._size: int | None = None
        self._written = 0

    def get(self, key: str) -> Path | None:
        """The file of a key, marked as just used; None when there is none."""
        try:
            told = _NAME.fullmatch(self._pointer(key).read_text())
        except (OSError, ValueError):
            return None
        return self._there(self._path(told[1]), told[2]) if told else None

    def put(self, key: str, data: bytes, *, made: bool = False) -> Path:
        """Stores the bytes, replacing what the key had.

        Args:
            made: of an image that lies here too.

        Raises:
            ValueError: no bytes.
            OSError: the disk is full or not writable.
        """
        if not data:
            raise ValueError("an empty file is not an image")
        name = hashlib.sha256(data).hexdigest() + _MADE * made
        path = self._path(name)
        written = 0
        if self._there(path, str(len(data))) is None:
            _write(path, data)
            written = len(data)
        _write(self._pointer(key), f"{name} {len(data)}".encode())
        self._account(written, path)
        return path

    def discard(self, key: str) -> None:
        """Forgets a key and its file, which turned out to be of no use."""
        path = self.get(key)
        with contextlib.suppress(OSError):
            self._pointer(key).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            if path is not None:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name[2:]

    def _pointer(self, key: str) -> Path:
        path = self._path(hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest())
        return path.with_name(path.name + _POINTER)

    def _there(self, path: Path, size: str | None) -> Path | None:
        try:
            found = path.stat().st_size
            if found == 0 or (size is not None and found != int(size)):
                # A crash of the whole machine can leave the name without its bytes, or without some of them.
                path.unlink(missing_ok=True)
                return None
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return path

    def _account(self, written: int, newest: Path) -> None:
        with self._lock:
            self._written += written
            if (
                self._size is None
                or self._size + self._written > self._max_bytes
                or self._written > self._max_bytes / 16
            ):
                self._size = self._evict(newest)
                self._written = 0

    def _evict(self, newest: Path) -> int:
        """Removes leftovers and, when over the bound, the oldest down to nine tenths; returns the size.

        For what was made, no image leaves: these only do when they are too many by themselves.
        """
        files, pointers = [], []
        for entry in self._entries():
            try:
                stat = entry.stat()
                if entry.name.endswith(_POINTER):
                    pointers.append(Path(entry.path))
                elif not entry.name.endswith(_PART):
                    path = Path(entry.path)
                    files.append((path.suffix != _MADE, stat.st_mtime_ns, stat.st_size, path))
                elif time.time() - stat.st_mtime > _STALE_SECONDS:
                    Path(entry.path).unlink(missing_ok=True)
            except OSError:
                continue  # another process was faster
        size = sum(file[2] for file in files)
        if size <= self._max_bytes:
            return size
        images = sum(file[2] for file in files if file[0])
        for image, _, length, path in sorted(files):
            if image and images <= self._max_bytes:
                break
            if path != newest or not image:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    size -= length
            if size <= self._max_bytes * 0.9:
                break
        for pointer in pointers:
            with contextlib.suppress(OSError, ValueError):
                if not self._path(pointer.read_text().partition(" ")[0]).exists():
                    pointer.unlink(missing_ok=True)
        return size

    def _entries(self) -> list[os.DirEntry[str]]:
        found: list[os.DirEntry[str]] = []
        with os.scandir(self._folder) as shelves:
            for shelf in shelves:
                if len(shelf.name) == 2 and shelf.is_dir(follow_symlinks=False):
                    with os.scandir(shelf.path) as entries:
                        found.extend(entry for entry in entries if entry.is_file(follow_symlinks=False))
        return found


def content_of(path: Path) -> str:
    """The SHA-256 of a cached file's bytes, in hexadecimal, which is its name."""
    return path.parent.name + path.name


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(suffix=_PART, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
