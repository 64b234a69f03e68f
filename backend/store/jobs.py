"""Trainings as rows: asked for by a request or by the trigger, run by the worker, read by everybody."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypedDict, Unpack

import sqlalchemy as sa

from backend.observability.masking import masked
from backend.store.database import PATIENCE, Store
from backend.store.tables import jobs as table

UNFINISHED = ("queued", "running")
FINISHED = ("done", "failed", "cancelled")
INTERRUPTED = "interrupted; it goes on by itself"
"""What is told of a training that the database calls running, while nobody takes its steps."""

ASKED = "asked for in Label Studio"
"""Why a training was made that a person started with Label Studio's button."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training. Times are epoch seconds; `version` is empty until one is registered."""

    id: str
    uid: str
    status: str
    reason: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    epoch: int | None
    epochs: int | None
    message: str
    version: str
    cancel: bool


def is_cancelled(db: sa.Connection, job_id: str) -> bool:
    """Whether a training was told to stop, as of this transaction."""
    return bool(db.scalar(sa.select(table.c.cancel).where(table.c.id == job_id).with_for_update()))


class JobColumns(TypedDict, total=False):
    """What changes of a training that is not finished, see `Job`."""

    status: str
    started_at: float
    finished_at: float
    epoch: int
    epochs: int
    message: str
    version: str
    cancel: bool


class Jobs:
    """Args:
    lives: whether somebody takes a job's steps just now. What is called running and is not is told as queued: its
        process may have been killed, or the disk may have been too full to write down that it ended.
    """

    def __init__(self, store: Store, lives: Callable[[str], bool] = lambda job_id: True) -> None:
        self._store = store
        self._lives = lives

    def request(self, uid: str, reason: str, now: float, patience: float = PATIENCE) -> tuple[Job, bool]:
        """Ask for a training of a project. An unfinished one is joined: then the second value is False.

        Raises DatabaseLocked when others write for longer than `patience` seconds.
        """
        with self._store.write(patience) as db:
            unfinished = table.select().where(table.c.uid == uid, table.c.finished_at.is_(None))
            row = db.execute(unfinished).one_or_none()
            if row is None:
                db.execute(
                    table.insert().values(
                        id=uuid.uuid4().hex,
                        uid=uid,
                        status="queued",
                        reason=reason,
                        created_at=now,
                        message="waiting",
                    )
                )
                return Job(**db.execute(unfinished).one()._mapping), True
        return self._now(Job(**row._mapping)), False

    def get(self, job_id: str) -> Job | None:
        with self._store.engine.connect() as db:
            row = db.execute(table.select().where(table.c.id == job_id)).one_or_none()
        return None if row is None else self._now(Job(**row._mapping))

    def unfinished(self) -> list[Job]:
        return self._select(table.c.finished_at.is_(None))

    def of_project(self, uid: str, limit: int = 20) -> list[Job]:
        """The newest jobs of a project, newest first."""
        return self._select(table.c.uid == uid, limit=limit)

    def versions(self, uid: str) -> set[int]:
        """Numbers of the versions that trainings of a project made."""
        query = sa.select(table.c.version).where(table.c.uid == uid, table.c.version != "")
        with self._store.engine.connect() as db:
            return {int(name[1:]) for name in db.scalars(query) if name[1:].isdecimal()}

    def ended(self) -> dict[tuple[str, str], int]:
        """Project and final status → how many trainings ended so."""
        which = (table.c.uid, table.c.status)
        query = sa.select(*which, sa.func.count()).where(table.c.finished_at.is_not(None)).group_by(*which)
        with self._store.engine.connect() as db:
            return {(uid, status): count for uid, status, count in db.execute(query)}

    def last_ended(self) -> list[Job]:
        """The job of each project that ended last."""
        last = sa.select(table.c.uid, sa.func.max(table.c.finished_at).label("at")).group_by(table.c.uid).subquery()
        newest = table.select().join(last, (table.c.uid == last.c.uid) & (table.c.finished_at == last.c.at))
        with self._store.engine.connect() as db:
            return list({row.uid: Job(**row._mapping) for row in db.execute(newest)}.values())

    def update(self, job_id: str, **columns: Unpack[JobColumns]) -> None:
        if "message" in columns:
            columns["message"] = masked(columns["message"])
        with self._store.write() as db:
            db.execute(table.update().where(table.c.id == job_id, table.c.finished_at.is_(None)).values(**columns))

    def finish(self, job_id: str, status: str, message: str, now: float, version: str = "") -> None:
        """End a job once; a second end of the same job changes nothing."""
        values: JobColumns = {"status": status, "message": message, "finished_at": now}
        if version:
            values["version"] = version
        self.update(job_id, **values)

    def cancel(self, uid: str | None = None) -> list[Job]:
        """Ask all unfinished jobs, or those of one project, to stop. The worker does it within a second."""
        found = [job for job in self.unfinished() if uid in (None, job.uid)]
        for job in found:
            self.update(job.id, cancel=True)
        return found

    def cancelled(self, job_id: str) -> bool:
        job = self.get(job_id)
        return job is not None and job.cancel

    def _select(self, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> list[Job]:
        query = table.select().where(*conditions).order_by(table.c.created_at.desc()).limit(limit)
        with self._store.engine.connect() as db:
            found = [Job(**row._mapping) for row in db.execute(query)]
        return [self._now(job) for job in found]

    def _now(self, job: Job) -> Job:
        """The job as it is, whatever the database could not be told."""
        if job.finished_at is not None or job.status != "running" or self._lives(job.id):
            return job
        # It may have ended meanwhile, which is written down before the lock goes.
        with self._store.engine.connect() as db:
            row = db.execute(table.select().where(table.c.id == job.id)).one_or_none()
        last = job if row is None else Job(**row._mapping)
        return replace(last, status="queued", message=INTERRUPTED) if last.status == "running" else last
