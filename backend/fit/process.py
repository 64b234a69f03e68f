"""Starts, follows and ends the training's process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backend.background import SUPERVISED, start
from backend.errors import TrainingCancelled, TrainingError

log = logging.getLogger(__name__)

RESTARTS = 3
"""Times that a killed training is started again before it counts as failed."""

GRACE = 5.0
"""Seconds between asking a training to end and ending it."""


def run_training(
    folder: Path,
    *,
    on_progress: Callable[[Mapping[str, Any]], None],
    cancelled: Callable[[], bool],
    poll: float = 0.5,
) -> dict[str, Any]:
    """Run `backend.fit.train` on a folder that holds a `spec.json`, to its end.

    Args:
        on_progress: called with `progress.json` after each epoch.
        cancelled: asked every `poll` seconds; when true, the whole process tree is ended.

    Returns:
        What `result.json` says.

    Raises TrainingCancelled or TrainingError.
    """
    if (folder / "result.json").exists():
        return _read(folder / "result.json")
    for attempt in range(1 + RESTARTS):
        code = _run_once(folder, on_progress, cancelled, poll)
        if code == 0 and (folder / "result.json").exists():
            return _read(folder / "result.json")
        if code >= 0 or attempt == RESTARTS:
            break
        log.warning("The training was killed by signal %d; it goes on where it was", -code)
    raise TrainingError(f"The training's process ended with {code}: {_last_words(folder)}")


def _run_once(
    folder: Path, on_progress: Callable[[Mapping[str, Any]], None], cancelled: Callable[[], bool], poll: float
) -> int:
    """One process' life; its exit code, negative when a signal killed it."""
    supervised = SUPERVISED in os.environ
    spec = _read(folder / "spec.json")
    (folder / "spec.json").write_text(json.dumps({**spec, "parent": os.getpid(), "own_session": not supervised}))
    # Its own process group, to end the whole tree at once.
    process = start("backend.fit.train", [str(folder)], folder / "train.log")
    try:
        seen = None
        while process.poll() is None:
            if cancelled():
                raise TrainingCancelled("The training was cancelled.")
            with contextlib.suppress(OSError, ValueError):
                progress = _read(folder / "progress.json")
                if progress != seen:
                    seen = progress
                    on_progress(progress)
            time.sleep(poll)
    finally:
        end_group(process)
    return process.returncode


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started; does nothing when they have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _last_words(folder: Path) -> str:
    lines = (folder / "train.log").read_text(errors="replace").strip().splitlines()
    last = lines[-1].removeprefix("backend.errors.TrainingError: ") if lines else "it said nothing"
    return last[-300:].replace(str(folder), "…")
