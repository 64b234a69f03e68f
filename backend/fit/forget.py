"""Deletes all that yoloop keeps of one project; nothing of Label Studio's."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from backend.errors import Busy
from backend.services import Services

PATIENCE = 60.0
"""Seconds that a training gets to end."""


def forget(services: Services, uid: str, now: float, patience: float = PATIENCE) -> Iterator[str]:
    """Delete the project's versions, datasets, trainings and rows, and tell what went. Safe to repeat.

    The rows go last, so that a crash leaves a project that can be named once more. Images in the cache are not known
    by their project; they go when there is need of the room.

    Args:
        now: epoch seconds.
        patience: seconds that a training, which is cancelled first, gets to end.

    Raises Busy while a training, a refresh or an acceptance of the project goes on.
    """
    home = services.settings.root
    services.store.disconnect(uid, now)  # the worker begins nothing new
    _end_training(services, uid, patience)
    with contextlib.ExitStack() as held:
        locks = [home / f"{what}-{uid}.lock" for what in ("refresh", "accept")]
        for path in locks:
            try:
                held.enter_context(FileLock(path, timeout=patience))
            except Timeout:
                raise Busy("Suggestions of this project are being stored.", "Try again when that is done.") from None
        jobs = services.jobs.of_project(uid, limit=1_000_000)
        count = services.registry.forget(uid)
        yield f"Versions, with their weights and metrics: {count}."
        for folder in (home / "datasets" / uid, *(home / "jobs" / job.id for job in jobs)):
            _remove(folder)
        yield "Its training images and the logs of its trainings are deleted."
        services.store.forget(uid)
        yield "Its annotations, outcomes, thumbnails and embeddings are deleted."
        for path in locks:
            path.unlink(missing_ok=True)


def _end_training(services: Services, uid: str, patience: float) -> None:
    """Cancel what waits or runs, and wait for its end; a training whose worker does not run ends with its row."""
    until = time.monotonic() + patience
    cancelled = False
    while any(job.status == "running" for job in services.jobs.unfinished() if job.uid == uid):
        if not cancelled:
            services.jobs.cancel(uid)
            cancelled = True
        if not _worker_runs(services):
            return
        if time.monotonic() >= until:
            raise Busy("A training of this project does not end.", "Look into the worker's log, and try again.")
        time.sleep(0.2)
    services.jobs.cancel(uid)


def _worker_runs(services: Services) -> bool:
    try:
        with FileLock(services.settings.root / "worker.lock", timeout=0):
            return False
    except Timeout:
        return True


def _remove(folder: Path) -> None:
    """A folder with all that is in it; files that a training still writes are in the way for a moment."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.2)
    shutil.rmtree(folder)
