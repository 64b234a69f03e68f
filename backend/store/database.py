"""The database: the connection, and the two small things that a request writes there.

These are the project it speaks of, and the hint that something changed there. The other tables (`tables.py`) are
written by the modules they belong to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import sqlalchemy as sa
from filelock import FileLock

from backend.errors import BadRequest, NotFound
from backend.store.dialect import begin_write, insert_new, is_locked, prepare, rowid, upsert
from backend.store.hints import Hint, LateHints
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

    @property
    def by_name_only(self) -> bool:
        """Whether it was named in requests, and that is all: nobody connected it, and it was never read."""
        return not any(getattr(self, name) for name in _KNOWN_BY)


DatabaseError = sa.exc.SQLAlchemyError
"""What any of this raises when the database cannot be asked."""


class DatabaseLocked(DatabaseError):
    """Somebody else wrote for longer than a writer was ready to wait."""


PATIENCE = 15.0
"""Seconds that a writer waits for others."""

HURRIED = 0.2
"""The same where Label Studio waits for the answer, and will say the same again."""

EVENT_PATIENCE = 0.4
"""The same for an event: Label Studio takes its answer within a second, while an annotator waits for it."""


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

GIVES_WAY = "Nobody connected it by `yoloop connect`, so it gives way to others."
"""How the error of a project ends of which Label Studio said that it is not there, and that is known by name only."""


class Store:
    """The database. One object per process, used from any thread.

    Attributes:
        engine: for reading. Nobody waits for a connection of it, and SQLite's readers wait for no writer.
    """

    def __init__(self, url: str) -> None:
        waits = {"timeout": PATIENCE}
        self.engine = sa.create_engine(url, connect_args=waits, max_overflow=-1)
        # Of one process one writer at a time waits for the lock of the database, the others for that one.
        self._writer = sa.create_engine(url, connect_args=waits, pool_size=1)
        self._writing = threading.Lock()
        self._late = LateHints(self._write_hints)
        for each in (self.engine, self._writer):
            prepare(each)
        path = Path(self.engine.url.database or "")
        with FileLock(path.with_suffix(".lock")):
            _make_private(path)
            with self.engine.connect() as db:
                current = revision_of(db) == HEAD  # then nobody who writes just now is waited for
            if not current:
                with self.write() as db:
                    upgrade(db)

    @contextmanager
    def write(self, patience: float = PATIENCE) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its start, so that reading first cannot deadlock.

        Raises DatabaseLocked when others, of this process or another, write for longer than `patience` seconds.
        """
        until = time.monotonic() + patience
        if not self._writing.acquire(timeout=patience):
            raise DatabaseLocked("database is locked")
        try:
            with self._writer.connect() as connection:
                try:
                    begin_write(connection, max(0.0, until - time.monotonic()))
                except sa.exc.OperationalError as error:
                    if is_locked(error):
                        raise DatabaseLocked("database is locked") from error
                    raise
                yield connection
                connection.commit()
        finally:
            self._writing.release()

    def save_project(self, uid: str, patience: float = PATIENCE, **columns: Unpack[ProjectColumns]) -> None:
        """Make or change a project; columns not named keep their value.

        Its `api_key` becomes that of its Label Studio, for all projects there. Without one, a new `url` gets the token
        of the old, if it has none yet: Label Studio has moved. Raises DatabaseLocked, see `write`.

        One more that is known by name only is not kept where there are `MOST_STRANGERS` that Label Studio may have:
        what was there first stays, and this one is named again whenever somebody opens one of its tasks.
        """
        with self.write(patience) as db:
            known = db.execute(sa.select(projects.c.url).where(projects.c.uid == uid)).one_or_none()
            by_name_only = not any(columns.get(name) for name in _KNOWN_BY)
            if known is None and by_name_only and not _make_room(db):
                return
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
                f"No such project is known: {name}." if name else "No project is known yet.",
                f"Connect it first: yoloop connect {name.partition('.')[0]}"
                if name
                else "Connect one: yoloop connect N",
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

    def hint(self, uid: str, now: float, *, deletion: bool = False, asked: bool = False, submit: bool = False) -> bool:
        """Remember that something changed in a project: one row a project, however many events.

        Where somebody else writes for long, that is kept in memory, and written as soon as it can be: then it is
        False. Should the process end before, the worker still finds what changed at its next look at Label Studio.

        Args:
            asked: the event asks for a training, and may be none of a person's, see `Hint.asked_by_a_person`.
            submit: it tells of a submitted or changed annotation.
        """
        hint = Hint(uid, now, now, 1, deletion, int(asked), int(submit))
        if not self._late.waits:
            with suppress(DatabaseLocked):
                self._write_hints([hint], EVENT_PATIENCE)
                return True
        self._late.keep(hint)
        return False

    def _write_hints(self, found: Sequence[Hint], patience: float = PATIENCE) -> None:
        with self.write(patience) as db:
            for hint in found:
                changed = {
                    "last_at": hint.last_at,
                    "events": hints.c.events + hint.events,
                    "deletions": sa.or_(hints.c.deletions, sa.literal(hint.deletions)),
                    "asked": hints.c.asked + hint.asked,
                    "submits": hints.c.submits + hint.submits,
                }
                upsert(db, hints, asdict(hint), changed=changed)

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
        self._late.close()
        for each in (self.engine, self._writer):
            each.dispose()


def _listed(found: Sequence[Project], most: int = 10) -> str:
    """Uids and titles, those that were read last first."""
    newest = sorted(found, key=lambda each: -(each.synced_at or 0.0))
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(f"{each.uid} {each.title[:60]}".strip() for each in newest[:most]) + more


def whole(text: str) -> str:
    """The text with a question mark for each half of a character, which JSON can spell and no database can keep."""
    return text.encode("utf-8", "replace").decode()


_KNOWN_BY = ("synced_at", "cursor", "url", "api_key", "backend_url")
"""What a project has that Label Studio was read for, or that somebody connected."""


def _make_room(db: sa.Connection) -> bool:
    """Whether there is room for one more project that is known by name only: the oldest that is not there makes it."""
    by_name_only = [sa.func.coalesce(sa.cast(projects.c[name], sa.String), "") == "" for name in _KNOWN_BY]
    strangers = db.scalars(sa.select(projects.c.uid).where(*by_name_only)).all()
    too_many = len(strangers) - MOST_STRANGERS + 1
    if too_many <= 0:
        return True
    gives_way = projects.c.sync_error.endswith(GIVES_WAY)
    oldest = sa.select(projects.c.uid).where(*by_name_only, gives_way).order_by(rowid).limit(too_many)
    gone = db.scalars(oldest).all()
    db.execute(hints.delete().where(hints.c.uid.in_(gone)))
    db.execute(jobs.delete().where(jobs.c.uid.in_(gone), jobs.c.started_at.is_(None)))
    db.execute(projects.delete().where(projects.c.uid.in_(gone)))
    return len(gone) >= too_many


def _make_private(path: Path) -> None:
    """The database holds tokens: only its owner may read it, and SQLite gives its other files the mode of this one."""
    path.touch(0o600)
    for each in (path, *(path.with_name(f"{path.name}-{ending}") for ending in ("wal", "shm"))):
        with suppress(FileNotFoundError):  # the last one to close the database takes these away
            each.chmod(0o600)
