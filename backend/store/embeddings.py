"""What versions made of the images of tasks, kept to tell near-duplicates apart across requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import sqlalchemy as sa

from backend.store.database import HURRIED, DatabaseLocked, Store
from backend.store.dialect import upsert
from backend.store.tables import embeddings as table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 20_000
"""Embeddings that are compared with; the oldest tasks' are left out beyond."""


class Embeddings:
    """One vector for each task, of the version that looked at it last."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, uid: str, version: str, vectors: Mapping[int, NDArray[np.float32]]) -> None:
        """Remember vectors by task id. Where the database is locked, they are known once they are asked for again."""
        import numpy as np

        rows = [
            {"uid": uid, "task_id": task, "version": version, "vector": vector.astype(np.float32).tobytes()}
            for task, vector in vectors.items()
        ]
        if not rows:
            return
        with suppress(DatabaseLocked), self._store.write(HURRIED) as db:
            upsert(db, table, rows)

    def of(self, uid: str, version: str, without: frozenset[int], size: int) -> NDArray[np.float32]:
        """(n, size): what the version made of the project's tasks, but for those named."""
        import numpy as np

        query = (
            sa.select(table.c.task_id, table.c.vector)
            .where(table.c.uid == uid, table.c.version == version)
            .order_by(table.c.task_id.desc())
            .limit(MOST)
        )
        with self._store.engine.connect() as db:
            found = [row.vector for row in db.execute(query) if row.task_id not in without]
        rows = [vector for each in found if len(vector := np.frombuffer(each, np.float32)) == size]
        return np.stack(rows) if rows else np.zeros((0, size), np.float32)


def forget_tasks(db: sa.Connection, uid: str, task_ids: Collection[int]) -> None:
    """Forget the images of tasks that are gone."""
    db.execute(table.delete().where(table.c.uid == uid, table.c.task_id.in_(task_ids)))
