"""One HTTP request as it arrives, piece by piece. Nothing here waits or knows a socket; gunicorn reads the heads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gunicorn.http import RequestParser
from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import InvalidChunkSize, InvalidRequestLine, NoMoreData

LONGEST_HEAD = 64 * 1024
"""Bytes of request line and headers."""

LONGEST_LINE = 4096
"""Bytes of the line before a chunk, and of all lines after the last one."""

MANY_CHUNKS, LEAST_CHUNK = 4096, 256
"""Chunks that may be of any size; of more, each must bring this many bytes on the average, for each costs time."""

_END_OF_HEAD = re.compile(rb"\n\r?\n")
"""gunicorn refuses lines that end otherwise than with CR and LF, but only once it sees them."""

_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})(?:[ \t]*;[^\r\n]*)?")
"""A chunk's size, and extensions, which nobody uses."""


class HeadTooLong(Exception):
    """Request line and headers take more than `LONGEST_HEAD`."""


class Incoming:
    """A request that is being read.

    Args:
        cfg: gunicorn's settings.
        peer: the client's address.
        limit: most bytes of a body, by method and path.

    Attributes:
        request: gunicorn's request, from the end of its head on.
        whole: nothing is missing.
        too_large: the body is larger than its path may have.
    """

    def __init__(self, cfg: Any, peer: Any, limit: Callable[[str], int]) -> None:
        self._cfg = cfg
        self._peer = peer
        self._limit = limit
        self._most = 0
        self._length: int | None = None
        self._chunks: _Chunks | None = None
        self._buffer = bytearray()
        self.request: Any = None
        self.whole = False
        self.too_large = False

    @property
    def begun(self) -> bool:
        return self.request is not None or bool(self._buffer)

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return len(self._buffer) + (len(self._chunks.body) if self._chunks else 0)

    def take(self) -> tuple[bytes, bytes]:
        """The body, and what came after the request's end: the next request's first bytes."""
        with memoryview(self._buffer) as buffer:
            if self._chunks is not None:
                return bytes(self._chunks.body), bytes(buffer)
            return bytes(buffer[: self._length]), bytes(buffer[self._length or 0 :])

    def feed(self, data: bytes) -> None:
        """Take in what has come.

        Raises:
            HeadTooLong: see there.
            Exception: gunicorn's own, for what is no HTTP.
        """
        searched = max(0, len(self._buffer) - 2)
        self._buffer += data
        if self.request is None and not self._read_head(searched):
            return
        if self._chunks is not None:
            self.whole = self._chunks.take(self._buffer)
            self.too_large = self._chunks.taken > self._most
        else:
            self.whole = len(self._buffer) >= (self._length or 0)

    def _read_head(self, searched: int) -> bool:
        end = _END_OF_HEAD.search(self._buffer, searched)
        if (end.end() if end else len(self._buffer)) > LONGEST_HEAD:
            raise HeadTooLong
        if end is None:
            return False
        head = bytes(self._buffer[: end.end()])
        del self._buffer[: end.end()]
        try:
            self.request = next(RequestParser(self._cfg, [head], self._peer))
        except (NoMoreData, StopIteration):
            raise InvalidRequestLine("") from None
        self._most = self._limit(self.request.path)
        reader = self.request.body.reader
        if isinstance(reader, ChunkedReader):
            self._chunks = _Chunks()
        else:
            self._length = int(reader.length)
            self.too_large = self._length > self._most
        return True


class _Chunks:
    """A body in chunks (RFC 9112, 7.1), decoded as they come.

    Attributes:
        body: what was decoded.
        taken: bytes as they were sent.
    """

    def __init__(self) -> None:
        self.body = bytearray()
        self.taken = 0
        self._number = 0
        self._missing = 0
        self._after = self._ended = False
        self._trailers = 0

    def take(self, buffer: bytearray) -> bool:
        """Move what is there into the body; True at the end, whose successors stay in the buffer.

        Raises InvalidChunkSize.
        """
        at = 0
        try:
            while True:
                if self._missing:
                    piece = buffer[at : at + self._missing]
                    self.body += piece
                    at += len(piece)
                    self._missing -= len(piece)
                    if self._missing:
                        return False
                    self._after = True
                end = buffer.find(b"\r\n", at)
                if end < 0:
                    if len(buffer) - at > LONGEST_LINE:
                        raise InvalidChunkSize(b"a line without end")
                    return False
                line, at = bytes(buffer[at:end]), end + 2
                if self._after:
                    if line:
                        raise InvalidChunkSize(b"a chunk that goes on after its end")
                    self._after = False
                elif self._ended:
                    self._trailers += len(line)
                    if not line:
                        return True
                    if self._trailers > LONGEST_LINE:
                        raise InvalidChunkSize(b"trailers without end")
                else:
                    self._missing = _size(line)
                    self._ended = not self._missing
                    self._number += 1
                    if self._number > MANY_CHUNKS + len(self.body) // LEAST_CHUNK:
                        raise InvalidChunkSize(b"too many small chunks")
        finally:
            self.taken += at
            del buffer[:at]


def _size(line: bytes) -> int:
    found = _SIZE.fullmatch(line)
    if found is None or len(line) > LONGEST_LINE:
        raise InvalidChunkSize(line[:20])
    return int(found[1], 16)
