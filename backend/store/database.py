"""The database: the connection, and the two small things that a request writes there.

These are the project it speaks of, and the hint that something changed there. The other tables (`tables.py`) are
written by the modules they belong to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import sqlalchemy as sa
from filelock import FileLock

from backend.errors import NotFound
from backend.store.dialect import begin_write, prepare, rowid, upsert
from backend.store.migrations import HEAD, revision_of, upgrade
from backend.store.tables import hints, jobs, projects


@dataclass(frozen=True, slots=True)
class Project:
    """A Label Studio project as yoloop knows it; `uid` is Label Studio's own `<id>.<created_at epoch>`."""

    uid: str
    label_config: str
    title: str
    url: str
    api_key: str
    hostname: str
    access_token: str
    baseline: str
    cursor: float | None
    synced_at: float | None
    sync_error: str
    waiting_for: str
    active_learning: bool
    backend_url: str

    def __repr__(self) -> str:
        return f"Project({self.uid!r}, {self.title!r})"

    @property
    def id(self) -> int:
        return int(self.uid.partition(".")[0])


@dataclass(frozen=True, slots=True)
class Hint:
    """Events of one project that the worker has not looked into yet, and whether any was a deletion."""

    uid: str
    first_at: float
    last_at: float
    events: int
    deletions: bool

    def due(self, now: float, debounce: float, debounce_max: float) -> bool:
        """Quiet for `debounce` seconds, or waiting for `debounce_max`.

        One from a time that is still to come was written before the clock was set back; it has waited long enough.
        """
        return now - self.last_at >= debounce or abs(now - self.first_at) >= debounce_max


DatabaseError = sa.exc.SQLAlchemyError
"""What any of this raises when the database cannot be asked."""


class ProjectColumns(TypedDict, total=False):
    """What can be said of a project, see `Project`."""

    label_config: str
    title: str
    url: str
    api_key: str
    hostname: str
    access_token: str
    baseline: str
    cursor: float | None
    synced_at: float | None
    sync_error: str
    waiting_for: str
    active_learning: bool
    backend_url: str


EVERY_PROJECT = "*"

MOST_NAMED = 500
"""Rows that a query names one by one; of more, all of a project are read."""

_ONE_PROJECT = projects.select().where(projects.c.uid == sa.bindparam("one"))
"""Made once: it is asked for twice in every prediction, and SQLAlchemy takes longer to make it than to run it."""

_UIDS = sa.select(projects.c.uid).order_by(projects.c.uid)

MOST_STRANGERS = 200
"""Projects that are known by name only: whoever may ask can name as many as there are numbers."""


class Store:
    """The database. One object per process, used from any thread."""

    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url, connect_args={"timeout": 15})
        prepare(self.engine)
        path = Path(self.engine.url.database or "")
        with FileLock(path.with_suffix(".lock")):
            _make_private(path)
            with self.engine.connect() as db:
                current = revision_of(db) == HEAD  # then nobody who writes just now is waited for
            if not current:
                with self.write() as db:
                    upgrade(db)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its start, so that reading first cannot deadlock."""
        with self.engine.connect() as connection:
            begin_write(connection)
            yield connection
            connection.commit()

    def save_project(self, uid: str, **columns: Unpack[ProjectColumns]) -> None:
        """Make or change a project; columns not named keep their value."""
        with self.write() as db:
            known = db.scalar(sa.select(sa.func.count()).where(projects.c.uid == uid))
            if not known:
                _forget_strangers(db)
            upsert(db, projects, {"uid": uid, **columns})

    def project(self, uid: str) -> Project | None:
        with self.engine.connect() as db:
            row = db.execute(_ONE_PROJECT, {"one": uid}).one_or_none()
        return None if row is None else Project(**row._mapping)

    def projects(self) -> list[Project]:
        with self.engine.connect() as db:
            return [Project(**row._mapping) for row in db.execute(projects.select().order_by(projects.c.uid))]

    def uids(self) -> list[str]:
        """Of all projects, without their configs: cheap enough to be asked for all the time."""
        with self.engine.connect() as db:
            return list(db.scalars(_UIDS))

    def find(self, number: int | None) -> Project:
        """The project of that number in Label Studio; without a number, the only one there is. Raises NotFound."""
        found = [each for each in self.projects() if number in (None, each.id)]
        if not found:
            raise NotFound("No such project is known.", "Connect it first: yoloop connect --project N")
        if number is None and len(found) > 1:
            raise NotFound("There are several projects.", "Name one with --project N.")
        # A reset Label Studio hands out a number again: the project synced last is the living one.
        return max(found, key=lambda each: each.synced_at or 0.0)

    def hint(self, uid: str, now: float, *, deletion: bool = False) -> None:
        """Remember that something changed in a project: one row a project, however many events."""
        with self.write() as db:
            upsert(
                db,
                hints,
                {"uid": uid, "first_at": now, "last_at": now, "events": 1, "deletions": deletion},
                changed={
                    "last_at": now,
                    "events": hints.c.events + 1,
                    "deletions": sa.or_(hints.c.deletions, sa.literal(deletion)),
                },
            )

    def hints(self) -> list[Hint]:
        with self.engine.connect() as db:
            return [Hint(**row._mapping) for row in db.execute(hints.select())]

    def answered(self, hint: Hint) -> None:
        """Drop a hint that was looked into, unless another event came in the meantime."""
        with self.write() as db:
            db.execute(hints.delete().where(hints.c.uid == hint.uid, hints.c.events == hint.events))

    def close(self) -> None:
        self.engine.dispose()


def whole(text: str) -> str:
    """The text with a question mark for each half of a character, which JSON can spell and no database can keep."""
    return text.encode("utf-8", "replace").decode()


def _forget_strangers(db: sa.Connection) -> None:
    """Drop the oldest of the projects that were named in requests and of which Label Studio was never read."""
    never_read = (projects.c.synced_at.is_(None), projects.c.cursor.is_(None), projects.c.api_key == "")
    found = db.scalars(sa.select(projects.c.uid).where(*never_read).order_by(rowid)).all()
    gone = found[: max(0, len(found) - MOST_STRANGERS + 1)]
    db.execute(hints.delete().where(hints.c.uid.in_(gone)))
    db.execute(jobs.delete().where(jobs.c.uid.in_(gone), jobs.c.started_at.is_(None)))
    db.execute(projects.delete().where(projects.c.uid.in_(gone)))


def _make_private(path: Path) -> None:
    """The database holds tokens: only its owner may read it, and SQLite gives its other files the mode of this one."""
    path.touch(0o600)
    for each in (path, *(path.with_name(f"{path.name}-{ending}") for ending in ("wal", "shm"))):
        with suppress(FileNotFoundError):  # the last one to close the database takes these away
            each.chmod(0o600)
