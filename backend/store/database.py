"""The database: the connection, and the two small things that a request writes there.

These are the project it speaks of, and the hint that something changed there. The other tables (`tables.py`) are
written by the modules they belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import sqlalchemy as sa
from filelock import FileLock

from backend.errors import BadRequest, NotFound
from backend.store.dialect import begin_write, insert_new, prepare, rowid, upsert
from backend.store.migrations import HEAD, revision_of, upgrade
from backend.store.tables import hints, jobs, label_studios, leases, metadata, projects


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
    disconnected_at: float | None

    def __repr__(self) -> str:
        return f"Project({self.uid!r}, {self.title!r})"

    @property
    def id(self) -> int:
        return int(self.uid.partition(".")[0])


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
    disconnected_at: float | None


EVERY_PROJECT = "*"

MOST_NAMED = 500
"""Rows that a query names one by one; of more, all of a project are read."""

_PROJECTS = sa.select(
    *(column for column in projects.c if column.name != "api_key"),
    sa.func.coalesce(label_studios.c.api_key, projects.c.api_key).label("api_key"),
).select_from(projects.outerjoin(label_studios, label_studios.c.url == projects.c.url))

_ONE_PROJECT = _PROJECTS.where(projects.c.uid == sa.bindparam("one"))
"""Made once: it is asked for twice in every prediction, and SQLAlchemy takes longer to make it than to run it."""

_UIDS = sa.select(projects.c.uid).order_by(projects.c.uid)

_CONNECTED = _UIDS.where(projects.c.disconnected_at.is_(None))

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
        """Make or change a project; columns not named keep their value.

        Its `api_key` becomes that of its Label Studio, for all projects there. Without one, a new `url` gets the token
        of the old, if it has none yet: Label Studio has moved.
        """
        with self.write() as db:
            known = db.execute(sa.select(projects.c.url).where(projects.c.uid == uid)).one_or_none()
            if known is None:
                _forget_strangers(db)
            url = columns.get("url", known.url if known else "")
            if url and "api_key" in columns:
                upsert(db, label_studios, {"url": url, "api_key": columns.pop("api_key")})
            elif url and known and known.url and url != known.url:
                key = db.scalar(sa.select(label_studios.c.api_key).where(label_studios.c.url == known.url))
                insert_new(db, label_studios, [{"url": url, "api_key": key}] if key else [])
            upsert(db, projects, {"uid": uid, **columns})

    def project(self, uid: str) -> Project | None:
        with self.engine.connect() as db:
            row = db.execute(_ONE_PROJECT, {"one": uid}).one_or_none()
        return None if row is None else Project(**row._mapping)

    def projects(self) -> list[Project]:
        with self.engine.connect() as db:
            return [Project(**row._mapping) for row in db.execute(_PROJECTS.order_by(projects.c.uid))]

    def uids(self) -> list[str]:
        """Of all projects, without their configs: cheap enough to be asked for all the time."""
        with self.engine.connect() as db:
            return list(db.scalars(_UIDS))

    def connected(self) -> list[str]:
        """Uids of the projects that were not disconnected, without their configs, as `uids`."""
        with self.engine.connect() as db:
            return list(db.scalars(_CONNECTED))

    def label_studios(self) -> dict[str, str]:
        """Address of each Label Studio that a project was connected to → its token."""
        with self.engine.connect() as db:
            used = label_studios.c.url.in_(sa.select(projects.c.url))
            found = db.execute(label_studios.select().where(used).order_by(label_studios.c.url))
            return {row.url: row.api_key for row in found}

    def find(self, named: str | int | None) -> Project:
        """The one project that somebody names.

        Args:
            named: its uid, or its number in Label Studio; None or empty: the only project there is.

        Raises NotFound when there is none, and BadRequest when there are several: two Label Studios give out the same
        numbers, and so does one that was set up anew.
        """
        name = "" if named is None else str(named)
        if "." in name:
            project = self.project(name)
            found = [] if project is None else [project]
        else:
            found = [each for each in self.projects() if not name or str(each.id) == name]
        if not found:
            raise NotFound(
                f"No such project is known{f': {name}' if name else ''}.",
                f"Connect it first: yoloop connect --project {name.partition('.')[0] or 'N'}",
            )
        if len(found) > 1:
            several = f"several projects with the number {name}" if name else "several projects"
            raise BadRequest(f"There are {several}: {_listed(found)}.", "Name one as it stands before its title.")
        return found[0]

    def backend_urls(self) -> list[str]:
        """The addresses at which Label Studio was told to find yoloop."""
        chosen = sa.select(projects.c.backend_url).where(projects.c.backend_url != "").distinct()
        with self.engine.connect() as db:
            return list(db.scalars(chosen))

    @contextmanager
    def expecting(self, url: str) -> Iterator[Callable[[str], None]]:
        """Gives what notes, for a uid, the address at which Label Studio is about to be told to find yoloop: it asks
        there before it agrees. Where the `with` ends by an error, the address of before is the known one again.
        """
        before: dict[str, str] = {}

        def expect(uid: str) -> None:
            known = self.project(uid)
            before[uid] = known.backend_url if known else ""
            self.save_project(uid, backend_url=url)

        try:
            yield expect
        except BaseException:
            for uid, address in before.items():
                self.save_project(uid, backend_url=address)
            raise

    def hint(self, uid: str, now: float, *, deletion: bool = False, asked: bool = False, submit: bool = False) -> None:
        """Remember that something changed in a project: one row a project, however many events.

        Args:
            asked: the event asks for a training, and may be none of a person's, see `Hint.asked_by_a_person`.
            submit: it tells of a submitted or changed annotation.
        """
        with self.write() as db:
            upsert(
                db,
                hints,
                {
                    "uid": uid,
                    "first_at": now,
                    "last_at": now,
                    "events": 1,
                    "deletions": deletion,
                    "asked": int(asked),
                    "submits": int(submit),
                },
                changed={
                    "last_at": now,
                    "events": hints.c.events + 1,
                    "deletions": sa.or_(hints.c.deletions, sa.literal(deletion)),
                    "asked": hints.c.asked + int(asked),
                    "submits": hints.c.submits + int(submit),
                },
            )

    def hints(self) -> list[Hint]:
        with self.engine.connect() as db:
            return [Hint(**row._mapping) for row in db.execute(hints.select())]

    def answered(self, hint: Hint) -> None:
        """Drop a hint that was looked into, unless another event came in the meantime."""
        with self.write() as db:
            db.execute(hints.delete().where(hints.c.uid == hint.uid, hints.c.events == hint.events))

    def disconnect(self, uid: str, now: float) -> None:
        """Note that Label Studio tells of a project no more; what is known of it stays."""
        with self.write() as db:
            db.execute(projects.update().where(projects.c.uid == uid).values(disconnected_at=now, sync_error=""))
            db.execute(hints.delete().where(hints.c.uid == uid))

    def forget(self, uid: str) -> None:
        """Delete every row that is about a project, and the token of its Label Studio when no other project is there.

        A token was given for a Label Studio, and nobody would look for it here once its projects are gone.
        """
        with self.write() as db:
            for table in metadata.tables.values():
                if "uid" in table.c:
                    db.execute(table.delete().where(table.c.uid == uid))
            db.execute(leases.delete().where(leases.c.name.endswith(f" {uid}", autoescape=True)))
            db.execute(label_studios.delete().where(label_studios.c.url.not_in(sa.select(projects.c.url))))

    def close(self) -> None:
        self.engine.dispose()


def _listed(found: Sequence[Project], most: int = 10) -> str:
    """Uids and titles, those that were read last first."""
    newest = sorted(found, key=lambda each: -(each.synced_at or 0.0))
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(f"{each.uid} {each.title[:60]}".strip() for each in newest[:most]) + more


def whole(text: str) -> str:
    """The text with a question mark for each half of a character, which JSON can spell and no database can keep."""
    return text.encode("utf-8", "replace").decode()


def _forget_strangers(db: sa.Connection) -> None:
    """Drop the oldest of the projects that were named in requests and of which Label Studio was never read."""
    never_read = (
        projects.c.synced_at.is_(None),
        projects.c.cursor.is_(None),
        projects.c.url == "",
        projects.c.api_key == "",
    )
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
