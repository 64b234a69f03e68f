"""What must survive: projects, hints of change, the ledger of annotations and the jobs, in one database.

This module holds the tables, the connection, and the two small things that a request writes: the project it
speaks of, and the hint that something changed there. `fit/ledger.py` and `fit/jobs.py` own the other tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.dialects.sqlite import insert

metadata = sa.MetaData()

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("label_config", sa.Text, nullable=False, server_default=""),
    sa.Column("title", sa.String, nullable=False, server_default=""),
    # As `yoloop connect` was told; the secret is what the webhook's header must carry.
    sa.Column("url", sa.String, nullable=False, server_default=""),
    sa.Column("api_key", sa.String, nullable=False, server_default=""),
    # As Label Studio says itself in /setup; its token is a legacy one, which new installs refuse.
    sa.Column("hostname", sa.String, nullable=False, server_default=""),
    sa.Column("access_token", sa.String, nullable=False, server_default=""),
    sa.Column("baseline", sa.String, nullable=False, server_default=""),
    sa.Column("cursor", sa.Float),
    sa.Column("synced_at", sa.Float),
    sa.Column("sync_error", sa.Text, nullable=False, server_default=""),
    sa.Column("waiting_for", sa.Text, nullable=False, server_default=""),
)

hints = sa.Table(
    "hints",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("first_at", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("deletions", sa.Boolean, nullable=False),
)

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("task_created_at", sa.Float, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    # The annotation that teaches; null when the task has none.
    sa.Column("annotation_id", sa.Integer),
    sa.Column("result", sa.JSON(none_as_null=True)),
    sa.Column("content", sa.String),
    # The content that the last finished training saw.
    sa.Column("seen", sa.String),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("uid", sa.String, nullable=False, index=True),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("epoch", sa.Integer),
    sa.Column("epochs", sa.Integer),
    sa.Column("message", sa.Text, nullable=False, server_default=""),
    sa.Column("version", sa.String, nullable=False, server_default=""),
    sa.Column("cancel", sa.Boolean, nullable=False, server_default=sa.false()),
    # One unfinished job per project: a second request joins the first.
    sa.Index("one_unfinished_job", "uid", unique=True, sqlite_where=sa.text("finished_at IS NULL")),
)


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
        """Quiet for `debounce` seconds, or waiting for `debounce_max`."""
        return now - self.last_at >= debounce or now - self.first_at >= debounce_max


EVERY_PROJECT = "*"


class Store:
    """The database. One object per process, used from any thread.

    SQLite is written through a log with a full sync, so what a request was told is kept is on the disk.
    """

    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url, connect_args={"timeout": 15})
        sa.event.listen(self.engine, "connect", _configure)
        path = Path(self.engine.url.database or "")
        with FileLock(path.with_suffix(".lock")):
            metadata.create_all(self.engine)
        path.chmod(0o600)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its start, so that reading first cannot deadlock."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def save_project(self, uid: str, **columns: Any) -> None:
        """Make or change a project; columns not named keep their value."""
        with self.write() as db:
            statement = insert(projects).values(uid=uid, **columns)
            if columns:
                db.execute(statement.on_conflict_do_update(index_elements=["uid"], set_=columns))
            else:
                db.execute(statement.on_conflict_do_nothing())

    def project(self, uid: str) -> Project | None:
        with self.engine.connect() as db:
            row = db.execute(projects.select().where(projects.c.uid == uid)).one_or_none()
        return None if row is None else Project(**row._mapping)

    def projects(self) -> list[Project]:
        with self.engine.connect() as db:
            return [Project(**row._mapping) for row in db.execute(projects.select().order_by(projects.c.uid))]

    def hint(self, uid: str, now: float, *, deletion: bool = False) -> None:
        """Remember that something changed in a project: one row a project, however many events."""
        with self.write() as db:
            db.execute(
                insert(hints)
                .values(uid=uid, first_at=now, last_at=now, events=1, deletions=deletion)
                .on_conflict_do_update(
                    index_elements=["uid"],
                    set_={
                        "last_at": now,
                        "events": hints.c.events + 1,
                        "deletions": sa.or_(hints.c.deletions, sa.literal(deletion)),
                    },
                )
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


def _configure(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
