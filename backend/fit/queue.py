"""Trainings from the database to DBOS, which runs them one at a time, and back when their thread is gone.

A training may lose the thread that takes its steps without its end being written down: nothing can be written on a
full disk, neither by the training nor by DBOS, which then calls it pending for ever. So what the database calls
unfinished is compared with what lives.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Protocol

from backend.fit.ending import end
from backend.processes.liveness import training_lives
from backend.processes.room import missing_space
from backend.services import Services
from backend.store.jobs import Job

log = logging.getLogger(__name__)

ENDED = ("SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED")
PENDING = "PENDING"

CHECK = 2.0
"""Seconds between two looks at what became of a job."""

GRACE = 8.0
"""Seconds after which a job that was begun, and that nobody works on, is taken up again."""

MOST = 5
"""Times that this is done for one job while there is room."""


WAITS = "waits for room"
"""How the message of a training begins for which there is no room yet."""


class Workflows(Protocol):
    """What is needed of DBOS. A workflow's id is its job's."""

    def status(self, job_id: str) -> str:
        """Its own word; empty for one that it does not know."""

    def enqueue(self, job_id: str) -> None: ...

    def resume(self, job_id: str) -> None:
        """Take the steps once more that were not written down."""


@dataclass(slots=True)
class _Seen:
    """One job: when it was looked at last, since when nobody works on it, how often it was taken up (monotonic)."""

    looked: float = float("-inf")
    missing: float | None = None
    resumed: int = 0


@dataclass(slots=True)
class Queue:
    """The unfinished trainings of all projects. `look` is called several times a second, by one thread."""

    services: Services
    workflows: Workflows
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def look(self, *, room: bool = True) -> None:
        """Start, take up, or end what is unfinished. Without `room` for anything only what is cancelled ends."""
        unfinished = self.services.jobs.unfinished()
        self._seen = {job.id: self._seen.get(job.id, _Seen()) for job in unfinished}
        for job in reversed(unfinished):
            if not room:
                self._seen[job.id].resumed = 0  # this explains it
            if training_lives(self.services.settings.root, job.id):
                self._seen[job.id].missing = None  # its thread sees to it, and to its end
            elif job.cancel:
                begun = job.started_at is not None
                self._end(job, "cancelled", "Cancelled." if begun else "Cancelled before it began.")
            elif room:
                self._start(job)

    def start(self, job: Job) -> None:
        """Hand a job over that was just asked for."""
        self._seen.setdefault(job.id, _Seen())
        self._start(job)

    def _start(self, job: Job) -> None:
        seen, now = self._seen[job.id], time.monotonic()
        if now - seen.looked < CHECK:
            return
        seen.looked = now
        settings = self.services.settings
        if why := missing_space(settings.root, settings.min_free_gb):
            self._wait(job, why)
            return
        if job.message.startswith(WAITS):
            self.services.jobs.update(job.id, message="waiting")
        status = self.workflows.status(job.id)
        if status in ENDED:
            # A training tells its end itself, unless even that failed; an ended job stays ended.
            self._end(job, "failed", "It ended without a version; the worker's log says why.")
        elif not status:
            self.workflows.enqueue(job.id)
        elif status != PENDING:
            seen.missing = None
        elif seen.missing is None:
            seen.missing = now
        elif now - seen.missing >= GRACE:
            seen.missing = None
            self._resume(job, seen)

    def _resume(self, job: Job, seen: _Seen) -> None:
        seen.resumed += 1
        if seen.resumed > MOST:
            self._end(job, "failed", "The training was interrupted too often; the worker's log says why.")
            return
        log.warning("Project %s: the training was interrupted, as nobody works on it; it goes on where it was", job.uid)
        self.workflows.resume(job.id)

    def _wait(self, job: Job, why: str) -> None:
        self._seen[job.id].resumed = 0
        message = f"{WAITS}, as {why}"
        if not job.message.startswith(WAITS):
            log.warning("Project %s: its training %s", job.uid, message)
        if job.message != message:
            self.services.jobs.update(job.id, status="queued", message=message)

    def _end(self, job: Job, status: str, message: str) -> None:
        end(self.services, job, status, message)
