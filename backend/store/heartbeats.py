"""What the worker leaves in the database for those who watch it: that it lives, and what failed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args

import sqlalchemy as sa

from backend.store.database import DatabaseError, Store
from backend.store.dialect import upsert
from backend.store.tables import failures, heartbeats

LATE = 15.0
"""Seconds after a beat when its process counts as gone."""


STUCK = 900.0
"""Seconds without a turn of its loop when a worker counts as hanging; to read a large project takes minutes."""


Failure = Literal["sync", "refresh", "loop"]


FAILURES: tuple[Failure, ...] = get_args(Failure)


@dataclass(frozen=True, slots=True)
class Beat:
    """The last sign of life of a worker: epoch seconds of the beat, and of its loop's last turn."""

    at: float
    turned_at: float

    def alive(self, now: float) -> bool:
        """A timestamp in the future (the clock was set back) does not count as alive."""
        return abs(now - self.at) < LATE and abs(now - self.turned_at) < STUCK


class Heartbeat:
    """The worker's row in the store, read by the process that serves."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def last(self) -> Beat | None:
        """None: there was never a worker, or the last one ended in order."""
        with self._store.engine.connect() as db:
            row = db.execute(sa.select(heartbeats.c.at, heartbeats.c.turned_at)).first()
        return None if row is None else Beat(*row)

    def beat(self, at: float, turned_at: float) -> None:
        with self._store.write() as db:
            upsert(db, heartbeats, {"process": "worker", "at": at, "turned_at": turned_at})

    def stop(self) -> None:
        """The worker ends in order."""
        with self._store.write() as db:
            db.execute(heartbeats.delete())

    def failed(self, kind: Failure) -> None:
        """Count a failure. Never an error: what failed may well be the database."""
        with suppress(DatabaseError), self._store.write() as db:
            upsert(db, failures, {"kind": kind, "times": 1}, changed={"times": failures.c.times + 1})

    def failures(self) -> dict[str, int]:
        """How often what has failed since the home was made."""
        with self._store.engine.connect() as db:
            return dict.fromkeys(FAILURES, 0) | {row.kind: row.times for row in db.execute(failures.select())}
