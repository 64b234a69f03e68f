"""`yoloop up`: the serving process and the worker as one program, each restarted when it dies."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from backend.processes.child import SUPERVISED

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds before a dead child is started again; doubling when it keeps dying."""

STEADY = 60.0
"""Seconds after which a child counts as healthy again."""

GRACE = 20.0
"""Seconds that children get to end."""


@dataclass(slots=True)
class _Child:
    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    pause: float = field(default=FIRST_PAUSE)


class Supervisor:
    """Keeps `yoloop serve` and `yoloop worker` running.

    Both stay in this process' session: the niceness of a training counts only inside one session. Each gets a
    process group of its own, so that Ctrl-C reaches this process alone, which then ends them in order. Should it be
    killed, they end by themselves.

    Args:
        commands: other programs to keep running, by name.
    """

    def __init__(
        self, commands: Mapping[str, Sequence[str]] | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        chosen = {name: [sys.executable, "-m", "backend.cli.main", name] for name in ("serve", "worker")}
        self._children = [_Child(name, list(command)) for name, command in (commands or chosen).items()]
        self._now = now
        self._stopping = False

    def run(self) -> None:
        """Until SIGINT or SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stop)
        try:
            while not self._stopping:
                for child in self._children:
                    self._tend(child)
                time.sleep(0.2)
        finally:
            self._end()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _tend(self, child: _Child) -> None:
        now = self._now()
        if child.process is not None and child.process.poll() is None:
            return
        if child.process is not None:
            code = child.process.returncode
            child.process = None
            child.pause = FIRST_PAUSE if now - child.started_at > STEADY else min(LONGEST_PAUSE, child.pause * 2)
            child.restart_at = now + child.pause
            log.warning("%s ended with %s; it starts again in %.1f s", child.name, code, child.pause)
        if now >= child.restart_at:
            child.started_at = now
            child.process = subprocess.Popen(  # noqa: S603 - our own modules
                child.command,
                stdin=subprocess.DEVNULL,
                process_group=0,
                env={**os.environ, SUPERVISED: str(os.getpid())},
            )

    def _end(self) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + GRACE
        for process in running:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
