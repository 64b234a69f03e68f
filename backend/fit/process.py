"""Starts, follows and ends the training's process.

What it imports takes seconds, so it may be started while there is nothing to train yet; then it waits for a word on
its input. The end of that input, which is that of this process too, is its own end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backend.background import start
from backend.errors import TrainingCancelled, TrainingError
from backend.logs import last_words

log = logging.getLogger(__name__)

RESTARTS = 3
"""Times that a killed training is started again before it counts as failed."""

BEGIN = b"begin\n"
"""What a waiting process is told."""

GRACE = 5.0
"""Seconds between asking a training to end and ending it."""


def start_training(folder: Path, home: Path) -> subprocess.Popen[bytes]:
    """Start `backend.fit.train` for a folder that need not be filled yet: it waits to be told to begin.

    Whoever starts it hands it to `run_training` or ends it with `end_group`.
    """
    # Its own process group, to end the whole tree at once.
    arguments = [str(folder), str(home), str(os.getpid())]
    return start("backend.fit.train", arguments, folder / "train.log", stdin=subprocess.PIPE)


def run_training(
    folder: Path,
    *,
    on_progress: Callable[[Mapping[str, Any]], None],
    cancelled: Callable[[], bool],
    poll: float = 0.5,
    started: subprocess.Popen[bytes] | None = None,
) -> dict[str, Any]:
    """Run `backend.fit.train` on a folder that holds a `spec.json`, to its end.

    Args:
        on_progress: called with `progress.json` after each epoch.
        cancelled: asked every `poll` seconds; when true, the whole process tree is ended.
        started: what `start_training` gave for this folder, if it was called; it is used up.

    Returns:
        What `result.json` says.

    Raises TrainingCancelled or TrainingError.
    """
    if (folder / "result.json").exists():
        return _read(folder / "result.json")
    home = Path(_read(folder / "spec.json")["home"])
    for attempt in range(1 + RESTARTS):
        process = started if attempt == 0 and started is not None else start_training(folder, home)
        code = _run_once(folder, process, on_progress, cancelled, poll)
        if code == 0 and (folder / "result.json").exists():
            return _read(folder / "result.json")
        if code >= 0 or attempt == RESTARTS:
            break
        log.warning("The training was killed by signal %d; it goes on where it was", -code)
    raise TrainingError(f"The training's process ended with {code}: {_last_words(folder)}")


def _run_once(
    folder: Path,
    process: subprocess.Popen[bytes],
    on_progress: Callable[[Mapping[str, Any]], None],
    cancelled: Callable[[], bool],
    poll: float,
) -> int:
    """One process' life from its beginning on; its exit code, negative when a signal killed it."""
    try:
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already; its code tells how
            process.stdin.write(BEGIN)
            process.stdin.flush()
        seen = None
        while process.poll() is None:
            if cancelled():
                raise TrainingCancelled("The training was cancelled.")
            with contextlib.suppress(OSError, ValueError):
                progress = _read(folder / "progress.json")
                if progress != seen:
                    seen = progress
                    on_progress(progress)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(poll)
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
    if process.stdin is not None:
        with contextlib.suppress(OSError):  # what was never read goes with its reader
            process.stdin.close()


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _last_words(folder: Path) -> str:
    said = last_words((folder / "train.log").read_text(errors="replace")) or "it said nothing"
    return said.removeprefix("backend.errors.TrainingError: ")[-300:].replace(str(folder), "…")
