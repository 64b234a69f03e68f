"""How far each project's suggestions are refreshed, and when that is to be done again."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy.dialects.sqlite import insert

from backend.settings import Settings
from backend.store import Project, Store
from backend.tables import refreshes as table

NEW_TASKS = 60.0
"""Seconds after a refresh before tasks that were imported since get their suggestions."""

FAILED = 600.0
"""Seconds before tasks whose image could not be read are tried again."""


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


def key_of(project: Project, champion: int | None, settings: Settings) -> str:
    """What a project's suggestions depend on: the version, the labelling config, and the settings that change them."""
    said = "\n".join([project.label_config, str(settings.score_threshold), settings.sampling])
    return f"{champion}:{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def is_due(refresh: Refresh | None, key: str, champion: int | None, tasks: int, now: float, settings: Settings) -> bool:
    """Whether a project's suggestions are to be refreshed now.

    Args:
        refresh: the last one; None: there was none.
        key: what suggestions depend on now.
        champion: number of the version in service; None: none was trained yet.
        tasks: tasks of the project.

    A refresh that ended after `now` did so before the clock was set back: that is taken for long ago.
    """
    if refresh is None:
        return champion is not None
    if refresh.key != key or refresh.finished_at is None:
        return True
    since = now - refresh.finished_at if now >= refresh.finished_at else math.inf
    return (
        (tasks > refresh.tasks and since > NEW_TASKS)
        or (refresh.failed > 0 and since > FAILED)
        or (refresh.outdated > 0 and since > 60 * settings.keep_minutes)
    )


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

    def save(self, uid: str, key: str, **columns: Any) -> None:
        """Make or change a project's refresh; columns not named keep their value."""
        values = {"key": key, **columns}
        statement = insert(table).values(uid=uid, **values)
        with self._store.write() as db:
            db.execute(statement.on_conflict_do_update(index_elements=["uid"], set_=values))

    def note(self, uid: str, message: str) -> None:
        """Keep the reason why a refresh that has begun could not end."""
        with self._store.write() as db:
            db.execute(table.update().where(table.c.uid == uid).values(message=message))
