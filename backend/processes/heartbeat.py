"""A thread that leaves the worker's signs of life in the database.

A process that hangs still holds its lock, so each beat also says when the worker's loop last came round.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress

from backend.errors import unwritable
from backend.store.database import DatabaseError
from backend.store.heartbeats import Heartbeat

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two beats."""


class Pulse:
    """A thread that beats while the worker works.

    Args:
        every: seconds between two beats.
    """

    def __init__(self, heartbeat: Heartbeat, every: float = EVERY) -> None:
        self._heartbeat = heartbeat
        self._every = every
        self._turned_at = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def turned(self, now: float) -> None:
        """The loop has come round."""
        self._turned_at = now

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(self._every)
        with suppress(DatabaseError):
            self._heartbeat.stop()

    def _run(self) -> None:
        well = True
        while not self._stop.is_set():
            try:
                self._heartbeat.beat(time.time(), self._turned_at)
                well = True
            except DatabaseError as error:
                if well:
                    log.warning("No sign of life can be written: %s", unwritable(error) or type(error).__name__)
                well = False
            self._stop.wait(self._every)
