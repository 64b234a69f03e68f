"""One line for a disk that takes nothing, however many libraries meet it and however often.

Each of them would write a traceback for every try, hundreds of lines an hour, of what only a person can change.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from backend.errors import unwritable, unwritable_by

OVER = 60.0
"""Seconds without any such line after which the next one is of another event."""

REMIND = 3600.0
"""Seconds after which it is told again while it lasts."""


def message_of(why: str) -> str:
    """The line that the log gets."""
    return (
        f"YOLOOP_HOME takes nothing: {why}. Trainings and reading wait, and go on by themselves within a minute after "
        "there is room"
    )


class OneLine(logging.Filter):
    """Lets the first record of an event through, in our words and without a traceback.

    Args:
        now: a clock that only counts, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._lock = threading.Lock()
        self._met = self._told = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        why = _why(record)
        if not why:
            return True
        now = self._now()
        with self._lock:
            again = now - self._met < OVER and now - self._told < REMIND
            self._met = now
            if again:
                return False
            self._told = now
        record.msg, record.args = message_of(why), None
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def _why(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and (why := unwritable(error)):
        return why
    return unwritable_by(record.getMessage()) if record.levelno >= logging.WARNING else ""
