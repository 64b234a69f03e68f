"""Memory that several threads share out among themselves: who finds too little left waits for the others."""

from __future__ import annotations

import ctypes
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from backend.errors import Busy

SMALL = 32 * 2**20
"""Bytes of what does not queue behind what is large."""


class DecodingMemory:
    """What all images that are decoded at one time may take together, the large ones and the usual ones apart.

    Args:
        max_pixels: of the largest image. Some kinds take so much for one that even alone it would be too much.

    Attributes:
        most: bytes that one image may need.
    """

    def __init__(self, max_pixels: int) -> None:
        pixels = max(max_pixels, 50_000_000)
        self.most = 7 * pixels
        self._large = MemoryBudget(int(6.6 * pixels))
        self._small = MemoryBudget(3 * SMALL)

    def hold(self, amount: int, deadline: float = float("inf")) -> AbstractContextManager[None]:
        """As `MemoryBudget.hold`."""
        return self._small.hold(amount, deadline) if amount <= SMALL else self._hold_large(amount, deadline)

    @contextmanager
    def _hold_large(self, amount: int, deadline: float) -> Iterator[None]:
        with self._large.hold(amount, deadline):
            try:
                yield
            finally:
                _give_back()


def _give_back() -> None:
    """Let glibc return what was freed to the system: left alone, a thread keeps hundreds of MB for its next image."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class MemoryBudget:
    """So many bytes, handed out in the order in which they were asked for, so that what is large gets its turn.

    Args:
        size: bytes that are held together. Who needs more than all of it gets all of it, alone.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    @contextmanager
    def hold(self, amount: int, deadline: float = float("inf")) -> Iterator[None]:
        """Have so many bytes for oneself, to the end of the block.

        Args:
            deadline: on the clock of `time.monotonic`.

        Raises:
            Busy: others hold them until after the deadline.
        """
        amount = min(amount, self._size)
        self._take(amount, deadline)
        try:
            yield
        finally:
            with self._changed:
                self._left += amount
                self._changed.notify_all()

    def _take(self, amount: int, deadline: float) -> None:
        turn = object()
        with self._changed:
            self._queue.append(turn)
            try:
                rest = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
                if not self._changed.wait_for(lambda: self._queue[0] is turn and self._left >= amount, rest):
                    raise Busy("Other large requests take the memory.", "Ask again in a few seconds.")
                self._left -= amount
            finally:
                self._queue.remove(turn)
                self._changed.notify_all()
