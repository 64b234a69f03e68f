"""How far each project's suggestions are refreshed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, Unpack

from backend.store.database import Store
from backend.store.dialect import upsert
from backend.store.tables import refreshes as table


@dataclass(frozen=True, slots=True)
class Refresh:
    """One project's refresh; times are epoch seconds. See `tables.refreshes` for the numbers."""

    uid: str
    key: str
    version: str
    tasks: int
    total: int
    done: int
    failed: int
    outdated: int
    started_at: float | None
    finished_at: float | None
    message: str

    def __str__(self) -> str:
        said = f"{self.done} of {self.total} unlabelled tasks carry {self.version}"
        if self.failed:
            said += f", {self.failed} failed"
        return said if self.finished_at is not None or not self.message else f"{said}; {self.message}"


class RefreshColumns(TypedDict, total=False):
    """How far a refresh is, see `Refresh`."""

    version: str
    tasks: int
    total: int
    done: int
    failed: int
    outdated: int
    started_at: float | None
    finished_at: float | None
    message: str


class Refreshes:
    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, uid: str) -> Refresh | None:
        with self._store.engine.connect() as db:
            row = db.execute(table.select().where(table.c.uid == uid)).one_or_none()
        return None if row is None else Refresh(**row._mapping)

    def all(self) -> list[Refresh]:
        with self._store.engine.connect() as db:
            return [Refresh(**row._mapping) for row in db.execute(table.select().order_by(table.c.uid))]

    def save(self, uid: str, key: str, **columns: Unpack[RefreshColumns]) -> None:
        """Make or change a project's refresh; columns not named keep their value."""
        with self._store.write() as db:
            upsert(db, table, {"uid": uid, "key": key, **columns})

    def note(self, uid: str, message: str) -> None:
        """Keep the reason why a refresh that has begun could not end."""
        with self._store.write() as db:
            db.execute(table.update().where(table.c.uid == uid).values(message=message))
