"""How far the ids and times of a project's tasks, as Label Studio lists them, are compared with the ledger."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from backend.store.database import Store
from backend.store.dialect import insert_new
from backend.store.leases import Lease, held
from backend.store.tables import listings as table


@dataclass(frozen=True, slots=True)
class Listing:
    """`after` is the last id that was compared, None where no listing goes on; see `tables.listings`."""

    wanted: bool = True
    after: int | None = None
    finished_at: float | None = None
    counted: str = ""


class Listings:
    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, uid: str) -> Listing:
        query = sa.select(table.c.wanted, table.c.after, table.c.finished_at, table.c.counted)
        with self._store.engine.connect() as db:
            row = db.execute(query.where(table.c.uid == uid)).one_or_none()
        return Listing() if row is None else Listing(*row)

    def want(self, uid: str) -> None:
        """All ids are to be compared. One that goes on ends first, so that it ends at all."""
        self._save(uid, None, wanted=True)

    def begin(self, uid: str, lease: Lease) -> None:
        """What was wanted is under way; who wants one from now on wants another one after it."""
        self._save(uid, lease, wanted=False, after=0)

    def reached(self, uid: str, after: int, lease: Lease) -> None:
        """All ids up to `after` are compared."""
        self._save(uid, lease, after=after)

    def finished(self, uid: str, now: float, counted: str, lease: Lease) -> None:
        """All ids are compared. `counted`: numbers of tasks that differ all the same; empty: they do not."""
        self._save(uid, lease, after=None, finished_at=now, counted=counted)

    def _save(self, uid: str, lease: Lease | None, **columns: object) -> None:
        with self._store.write() as db:
            held(db, lease)
            insert_new(db, table, [{"uid": uid}])
            db.execute(table.update().where(table.c.uid == uid).values(**columns))
