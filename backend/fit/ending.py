"""How a training ends, whoever sees to it: the one that takes its steps, the worker, or a person where none works."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from backend.services import Services
from backend.store.jobs import Job

log = logging.getLogger(__name__)


def folder_of(services: Services, job_id: str) -> Path:
    return services.settings.root / "jobs" / job_id


def end(services: Services, job: Job, status: str, message: str, version: str = "") -> None:
    """Write down a job's end, and remove its folder. Safe to repeat.

    `status` is one of `store.jobs.FINISHED`. What a failed training said is kept.
    """
    if status == "cancelled":
        # What a person stopped is not started again until there is as much news again.
        teaching = services.ledger.teaching(job.uid)
        services.ledger.mark_seen(job.uid, {task_id: content for task_id, (_, content) in teaching.items()})
    services.jobs.finish(job.id, status, message, time.time(), version)
    log.log(logging.INFO if status == "done" else logging.WARNING, "Project %s: %s", job.uid, message)
    folder = folder_of(services, job.id)
    said = folder / "train.log"
    if status == "failed" and said.exists() and said.stat().st_size:
        logs = services.settings.root / "logs"
        logs.mkdir(exist_ok=True)
        shutil.move(said, logs / f"train-{job.id}.log")
    shutil.rmtree(folder, ignore_errors=True)
