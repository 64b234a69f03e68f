"""Annotated tasks of which an image could not be read: they are no news, and are tried again by time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from backend.store.database import Store
from backend.store.dialect import upsert
from backend.store.tables import ledger
from backend.store.tables import unreadable as table

FIRST_RETRY = 60.0
LAST_RETRY = 86400.0
"""Seconds before the first try after the one that failed and, doubling each time, at most."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A task, why its image could not be read, and how often that was tried; `tried_at` in epoch seconds."""

    task_id: int
    reason: str
    tries: int
    tried_at: float

    def due(self, now: float) -> bool:
        wait = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(self.tries - 1, 16))
        return not self.tried_at <= now < self.tried_at + wait


class UnreadableTasks:
    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self, uid: str) -> list[Unreadable]:
        """By the ids of the tasks."""
        query = sa.select(table.c.task_id, table.c.reason, table.c.tries, table.c.tried_at).where(table.c.uid == uid)
        with self._store.engine.connect() as db:
            return [Unreadable(*row) for row in db.execute(query.order_by(table.c.task_id))]

    def failed(self, uid: str, reasons: Mapping[int, str], now: float) -> None:
        """Task id → why its image could not be read just now."""
        rows = [
            {"uid": uid, "task_id": task_id, "data": "", "reason": reason, "since": now, "tries": 1, "tried_at": now}
            for task_id, reason in reasons.items()
        ]
        with self._store.write() as db:
            for row in rows:
                changed = {"reason": row["reason"], "tries": table.c.tries + 1, "tried_at": now}
                upsert(db, table, row, changed=changed)

    def read(self, uid: str, task_ids: Collection[int]) -> None:
        """These can be read now: what was annotated there is news."""
        with self._store.write() as db:
            for task_id in task_ids:
                forget_tasks(db, uid, [task_id])


def known(uid: str) -> sa.ColumnElement[bool]:
    """Whether a row of the ledger is of such a task."""
    return ledger.c.task_id.in_(sa.select(table.c.task_id).where(table.c.uid == uid))


def forget_tasks(db: sa.Connection, uid: str, task_ids: Collection[int]) -> None:
    """Forget tasks that are gone, or whose data is another one."""
    db.execute(table.delete().where(table.c.uid == uid, table.c.task_id.in_(task_ids)))
