"""An answer on its way: what the socket does not take at once waits here, and never longer than it may."""

from __future__ import annotations

import json
import select
import socket
import time
from http import HTTPStatus

STREAMED = 2**20
"""Bytes that may wait while an application still makes more: then it waits, too."""


class Gone(Exception):
    """The client has left, or takes its answer too slowly."""


class Outgoing:
    """What gunicorn takes for a socket, to write an answer to.

    Args:
        sock: the client's, which does not block.
        seconds: for the answer to be taken, from its first byte on.
        pace: bytes a second; what is taken lengthens the time by its share of this.

    Attributes:
        lost: the rest of the answer cannot be sent.
    """

    def __init__(self, sock: socket.socket, seconds: float, pace: float) -> None:
        self._sock = sock
        self._seconds = seconds
        self._pace = pace
        self._began = 0.0
        self._sent = 0
        self._pieces: list[bytes] = []
        self._rest = memoryview(b"")
        self.lost = False

    @property
    def waiting(self) -> int:
        """Bytes."""
        return len(self._rest) + sum(map(len, self._pieces))

    @property
    def until(self) -> float:
        """When the client must have taken all, as `time.monotonic()` tells."""
        return self._began + self._seconds + self._sent / self._pace

    def sendall(self, data: bytes) -> None:
        self._pieces.append(data)

    send = sendall

    def gettimeout(self) -> float:
        return 0.0

    def flush(self, *, wait: bool = True) -> None:
        """Send what the client takes now.

        Args:
            wait: while more waits than `STREAMED`, and more is to come.

        Raises:
            Gone: see there.
        """
        streaming = self._began > 0
        if self._pieces:
            self._rest = memoryview(b"".join((self._rest, *self._pieces)))
            self._pieces.clear()
        self._began = self._began or time.monotonic()
        while self._rest:
            try:
                sent = self._sock.send(self._rest)
            except BlockingIOError:
                if not wait or not streaming or len(self._rest) <= STREAMED:
                    return
                if not self._taken_before_late():
                    self.lost = True
                    raise Gone from None
            except OSError:
                self.lost = True
                raise Gone from None
            else:
                self._sent += sent
                self._rest = self._rest[sent:]

    def _taken_before_late(self) -> bool:
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        return bool(poll.poll(max(0.0, 1000 * (self.until - time.monotonic()))))


def plain(status: int, message: str, hint: str) -> bytes:
    """An answer that the application does not give, in its form."""
    body = json.dumps({"error": message, "hint": hint}).encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
