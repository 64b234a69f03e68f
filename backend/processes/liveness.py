"""Who lives, told by locks: the system takes a lock away with its process, however that ended.

A process id would say less, as another process may get it; a time in the database cannot be written on a full disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE = 2.0
"""Seconds that a lock is waited for: who only looks whether it is held takes it for a moment."""


def held(path: Path) -> bool:
    """Whether a living process, this one included, holds a lock."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def worker_lives(home: Path) -> bool:
    return held(home / "worker.lock")


def training_lives(home: Path, job_id: str) -> bool:
    """Whether somebody takes a training's steps just now."""
    return held(_lock(home, job_id))


@contextmanager
def training(home: Path, job_id: str) -> Iterator[None]:
    """While this lasts, the training lives. Raises Timeout when it does already, OSError on a full disk."""
    path = _lock(home, job_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, timeout=PATIENCE):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: who waits for the next one makes a new file


def _lock(home: Path, job_id: str) -> Path:
    return home / "jobs" / f"{job_id}.lock"
