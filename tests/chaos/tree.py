"""`yoloop up` as an init system keeps it, and every process that came of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
from support.labelstudio import LabelStudioServer
from support.waiting import wait_for
from support.yoloop import Yoloop

START = 120
"""Seconds that a start may take on a busy machine."""

_PR_SET_CHILD_SUBREAPER = 36


class Tree(Yoloop):
    """A yoloop that can be killed and started again, with a clock of its own where a C compiler is at hand.

    It runs without the privileges of root, so that what a folder's mode forbids is forbidden.
    """

    def __init__(self, home: Path, label_studio: LabelStudioServer, **settings: str) -> None:
        super().__init__(home, label_studio, **settings)
        self.started = 0
        self._clock = home.with_suffix(".clock")
        self._clock.write_bytes(struct.pack("d", 0.0))
        self._shim = _compiled(home.with_suffix(".so"))
        if self._shim is not None:
            self._env |= {"LD_PRELOAD": str(self._shim), "CHAOS_CLOCK": str(self._clock)}
        _adopt_orphans()

    @property
    def has_clock(self) -> bool:
        return self._shim is not None

    def jump(self, seconds: float) -> None:
        """Set the processes' wall clock so far ahead of the machine's."""
        with self._clock.open("r+b") as file:
            file.write(struct.pack("d", seconds))

    def begin(self) -> None:
        """Start it, as an init system would."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_unprivileged(), *self._command("up")], env=self._env, stdout=log, stderr=log, start_new_session=True
            )
        self.started += 1

    def start(self) -> None:
        self.begin()
        wait_for(self.healthy, START, f"yoloop to answer; {self.last_words()}")

    def stop(self) -> None:
        """End it in good order. AssertionError when that takes longer than it may."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                raise AssertionError("yoloop did not stop within 60 s") from None
            self._process = None

    def second(self, *words: str, port: int) -> subprocess.Popen[bytes]:
        """Another one on the same home."""
        env = {**self._env, "YOLOOP_PORT": str(port)}
        with self.log.open("ab") as log:
            return subprocess.Popen([*_unprivileged(), *self._command(*words)], env=env, stdout=log, stderr=log)

    @property
    def gone(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def supervisor(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def all(self) -> list[psutil.Process]:
        """Whatever runs on this home, orphans too."""
        mine = f"{self.home}"
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("YOLOOP_HOME") == mine:
                    found.append(process)
        return found

    def named(self, *words: str) -> list[psutil.Process]:
        found = []
        for process in self.all():
            with contextlib.suppress(psutil.Error):
                if all(word in process.cmdline() for word in words):
                    found.append(process)
        return found

    def kill_all(self) -> None:
        """As a power cut does: everything at once."""
        for process in self.all():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._process is not None:
            self._process.wait(30)

    def zombies(self) -> list[str]:
        """Ended children that their parents, yoloop's own processes, have not taken note of within two seconds."""
        reap(() if self._process is None else (self._process.pid,))
        first = self._unwaited()
        if not first:
            return []
        time.sleep(2)
        return sorted(first & self._unwaited())

    def _unwaited(self) -> set[str]:
        found = set()
        for parent in self.all():
            with contextlib.suppress(psutil.Error):
                for child in parent.children():
                    if child.status() == psutil.STATUS_ZOMBIE:
                        found.add(f"{child.name()} {child.pid} below {' '.join(parent.cmdline()[-2:])}")
        return found

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""


def reap(own: Iterable[int]) -> None:
    """Take note of orphans that have ended, as the first process of a machine does."""
    kept = set(own)
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE and child.pid not in kept and child.ppid() == os.getpid():
                os.waitpid(child.pid, os.WNOHANG)


def _adopt_orphans() -> None:
    """Children of the killed become ours, so that none of them is out of sight."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _unprivileged() -> list[str]:
    program = shutil.which("setpriv")
    return [program, "--bounding-set=-all", "--inh-caps=-all", "--"] if os.geteuid() == 0 and program else []


def _compiled(library: Path) -> Path | None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    source = Path(__file__).with_name("clock.c")
    done = subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source)], check=False)
    return library if done.returncode == 0 else None
