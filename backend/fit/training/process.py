"""Starts, follows and ends the training's process.

What it imports takes seconds, so it may be started while there is nothing to train yet; then it waits to be told its
folder, and what its log lines are about, on its input. The end of that input, which is that of this process too, is
its own end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backend.errors import NoRoom, TrainingCancelled, TrainingError
from backend.observability.logs import known, last_words
from backend.processes.child import end_group, has_ended, start, wait_for_end
from backend.processes.room import trouble

log = logging.getLogger(__name__)

RESTARTS = 3
"""Times that a killed training is started again before it counts as failed."""

EXPECTED = 60.0
"""Seconds that a process waits for a training that was expected, at most."""


def start_training(home: Path) -> subprocess.Popen[bytes]:
    """Start `backend.fit.training.train`, which waits to be told its folder.

    Whoever starts it hands it to `run_training` or ends it with `end_group`.
    """
    log = _first_log(home)
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    # Its own process group, to end the whole tree at once.
    return start("backend.fit.training.train", [str(home), str(os.getpid())], log, stdin=subprocess.PIPE)


def tell(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Let a process begin that `start_training` gave; what it logs carries the ids that are known here."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it has ended already; its code tells how
        process.stdin.write(json.dumps({"folder": str(folder), **asdict(known())}).encode() + b"\n")
        process.stdin.flush()


class Ahead:
    """At most one training's process that was started before the training. To be used from any thread.

    Times are those of `time.monotonic`.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._until = 0.0

    def expect(self, now: float) -> None:
        """A training is likely to begin within seconds."""
        with self._lock:
            if self._process is None:
                try:
                    self._process = start_training(self._home)
                except OSError as error:  # the training itself will tell, if it is still so then
                    log.debug("No process could be started ahead of a training: %s", error)
            self._until = now + EXPECTED

    def look(self, now: float) -> None:
        """End a process that waits in vain."""
        with self._lock:
            if self._process is not None and (now > self._until or has_ended(self._process)):
                end_group(self._process)
                self._process = None

    def take(self) -> subprocess.Popen[bytes]:
        """The process for a training that begins; see `start_training`."""
        with self._lock:
            found, self._process = self._process, None
        if found is not None and not has_ended(found):
            return found
        if found is not None:
            end_group(found)
        return start_training(self._home)

    def close(self) -> None:
        with self._lock:
            if self._process is not None:
                end_group(self._process)
                self._process = None


def run_training(
    folder: Path,
    *,
    on_progress: Callable[[Mapping[str, Any]], None],
    cancelled: Callable[[], bool],
    poll: float = 0.5,
    started: subprocess.Popen[bytes] | None = None,
) -> dict[str, Any]:
    """Run `backend.fit.training.train` on a folder that holds a `spec.json`, to its end.

    Args:
        on_progress: called with `progress.json` after each epoch.
        cancelled: asked every `poll` seconds; when true, the whole process tree is ended.
        started: what `start_training` gave, if it was called; it is used up.

    Returns:
        What `result.json` says.

    Raises TrainingCancelled, TrainingError, or NoRoom where it ended for want of room on the disk: called once more, it
    goes on where it was.
    """
    if (folder / "result.json").exists():
        return _read(folder / "result.json")
    home = Path(_read(folder / "spec.json")["home"])
    for attempt in range(1 + RESTARTS):
        process = started if attempt == 0 and started is not None else start_training(home)
        code = _run_once(folder, process, on_progress, cancelled, poll)
        if code == 0 and (folder / "result.json").exists():
            return _read(folder / "result.json")
        if (why := trouble(folder)) or code == os.EX_TEMPFAIL:
            raise NoRoom(f"The training was interrupted: {why or 'the disk is full'}.")
        if code >= 0 or attempt == RESTARTS:
            break
        log.warning("The training was killed by signal %d; it goes on where it was", -code)
    raise TrainingError(f"The training's process ended with {code}: {_last_words(folder, home)}")


def said(progress: Mapping[str, Any]) -> str:
    """What people are told while a training runs: how far it is, and what it scores on some images it learns from."""
    epochs = int(progress["epochs"])
    text = f"epoch {min(int(progress['epoch']), epochs)} of {epochs}, {progress['metric']} {progress['value']:.3f}"
    if progress["networks"] > 1:
        text = f"{progress['network']} ({progress['number']} of {progress['networks']}): {text}"
    return f"{text} on training images"


def _run_once(
    folder: Path,
    process: subprocess.Popen[bytes],
    on_progress: Callable[[Mapping[str, Any]], None],
    cancelled: Callable[[], bool],
    poll: float,
) -> int:
    """One process' life from its beginning on; its exit code, negative when a signal killed it."""
    try:
        tell(process, folder)
        seen = None
        while not has_ended(process):
            if cancelled():
                raise TrainingCancelled("The training was cancelled.")
            with contextlib.suppress(OSError, ValueError):
                progress = _read(folder / "progress.json")
                if progress != seen:
                    seen = progress
                    on_progress(progress)
            wait_for_end(process, poll)
    finally:
        end_group(process)
    return process.returncode


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _first_log(home: Path) -> Path:
    """What the process that was started last said before it knew its folder."""
    return home / "logs" / "trainer.log"


def _last_words(folder: Path, home: Path) -> str:
    logs = (log for log in (folder / "train.log", _first_log(home)) if log.exists())
    said = next(filter(None, (last_words(log.read_text(errors="replace")) for log in logs)), "it said nothing")
    return said.removeprefix("backend.errors.TrainingError: ")[-300:].replace(str(folder), "…")
