"""What events leave: that something changed in a project; and what is kept of them while the database is locked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)

AGAIN = 1.0
"""Seconds between two tries to write what is late."""

SUBMIT_FOLLOWS = 5.0
"""Seconds within which Label Studio tells of the submit at which it asked for a training by itself; it does so when
our answer to that is in, a fraction of a second later."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Events of one project that the worker has not looked into yet, and whether any was a deletion.

    `asked` of them ask for a training while Label Studio's own switch sends such events, too; `submits` tell of a
    submitted or changed annotation.
    """

    uid: str
    first_at: float
    last_at: float
    events: int
    deletions: bool
    asked: int = 0
    submits: int = 0

    def asked_by_a_person(self, changed: int) -> bool:
        """Whether one of the events that ask for a training is a person's, who pressed *Start Training*.

        The switch sends one with each submit at most, and Label Studio tells of the submit as well. Where it tells of
        none, its events do not arrive, or they got lost; then tasks that `changed` since the last look say the same.
        """
        return self.asked > self.submits and (changed == 0 or self.submits > 0)

    def due(self, now: float, debounce: float, debounce_max: float) -> bool:
        """Quiet for `debounce` seconds, or waiting for `debounce_max`; longer where an event is still to come that
        says whether a person asked for a training.

        One from a time that is still to come was written before the clock was set back; it has waited long enough.
        """
        if self.asked > self.submits:
            debounce = max(debounce, SUBMIT_FOLLOWS)
            debounce_max = max(debounce, debounce_max)
        return now - self.last_at >= debounce or abs(now - self.first_at) >= debounce_max

    def with_(self, later: Hint) -> Hint:
        """Both as one."""
        return Hint(
            self.uid,
            min(self.first_at, later.first_at),
            later.last_at,
            self.events + later.events,
            self.deletions or later.deletions,
            self.asked + later.asked,
            self.submits + later.submits,
        )


class LateHints:
    """Hints that could not be written in time: a thread writes them, and ends when there are none.

    Args:
        write: writes hints, or raises an error of the database.
    """

    def __init__(self, write: Callable[[Sequence[Hint]], None]) -> None:
        self._write = write
        self._kept: dict[str, Hint] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @property
    def waits(self) -> bool:
        """Whether some wait to be written; then one more is best kept with them."""
        return self._thread is not None

    def keep(self, hint: Hint) -> None:
        with self._lock:
            self._add(hint)
            if self._thread is None and not self._closed.is_set():
                log.info("The database is locked: events are kept in memory until it is free")
                self._thread = threading.Thread(target=self._run, name="late-hints", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Give what waits a last chance."""
        self._closed.set()
        if (thread := self._thread) is not None:
            thread.join(AGAIN)

    def _add(self, hint: Hint) -> None:
        known = self._kept.pop(hint.uid, None)
        self._kept[hint.uid] = hint if known is None else known.with_(hint)

    def _run(self) -> None:
        while True:
            with self._lock:
                taken = list(self._kept.values())
                self._kept.clear()
                if not taken:
                    self._thread = None
                    return
            try:
                self._write(taken)
            except SQLAlchemyError:
                with self._lock:
                    newer = list(self._kept.values())
                    self._kept.clear()
                    for hint in (*taken, *newer):
                        self._add(hint)
                if self._closed.wait(AGAIN):
                    return
