"""A real yoloop for the tests: `yoloop up` on a home of its own, driven like a person would."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import requests
from support.labelstudio import LabelStudioServer
from support.ports import free_port
from support.results import evidence
from support.users import as_unknown, give
from support.waiting import wait_for

from backend.store.database import Store

ROOT = Path(__file__).parents[2]


class Yoloop:
    """`yoloop up` for one Label Studio.

    Args:
        home: becomes YOLOOP_HOME; its output goes to yoloop.log beside it.
        label_studio: whose address and token it gets.
        cwd: folder that its processes work in (None: this process').
        unknown_user: run as a user whom the system does not know, without HOME; see `support.users`.
        settings: further settings, by their environment names.
    """

    def __init__(
        self,
        home: Path,
        label_studio: LabelStudioServer,
        *,
        cwd: Path | None = None,
        unknown_user: bool = False,
        **settings: str,
    ) -> None:
        self.home, self._cwd, self._unknown_user = home, cwd, unknown_user
        if unknown_user:
            give(home)
        self.port = free_port()
        self.log = home.with_suffix(".log")
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("YOLOOP", "MLFLOW"))},
            "YOLOOP_HOME": str(home),
            "YOLOOP_PORT": str(self.port),
            "YOLOOP_OFFLINE": "1",
            "YOLOOP_ALLOWED_HOSTS": "127.0.0.1",  # where the tests' own images lie
            "YOLOOP_TRAIN_THREADS": "1",  # several trainings run beside one another; two threads cost a third more
            "PYTHONPATH": str(ROOT),
            "LABEL_STUDIO_URL": label_studio.url,
            "LABEL_STUDIO_API_KEY": label_studio.pat(),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._evidence = contextlib.ExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Yoloop:
        self._evidence.enter_context(evidence("yoloop", self.logs))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command("up"), env=self._env, cwd=self._cwd, stdout=log, stderr=log)
        wait_for(self.healthy, 60, "yoloop to answer")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._evidence.close()
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)

    def run(self, *words: str) -> str:
        """A command of yoloop, in the same environment; what it printed. Raises when it fails."""
        done = subprocess.run(self._command(*words), env=self._env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def versions(self) -> list[dict[str, Any]]:
        """Newest first. Asked over HTTP: a command starts Python anew, and many would starve the training."""
        found: list[dict[str, Any]] = requests.get(f"{self.url}/versions", timeout=30).json()["details"]
        return found

    def logs(self, _: object = None) -> list[Path]:
        """What `yoloop up`, its refreshes and its trainings said so far."""
        return [self.log, *self.home.glob("logs/*.log"), *self.home.glob("jobs/*/train.log")]

    def trouble(self) -> str:
        """Why Label Studio cannot be read; empty when it can."""
        return "".join(project.sync_error for project in self.store.projects())

    @cached_property
    def store(self) -> Store:
        return Store(f"sqlite:///{self.home / 'yoloop.db'}")

    def post(self, path: str, body: Any) -> Any:
        return requests.post(f"{self.url}{path}", json=body, timeout=100).json()

    def healthy(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=1).ok
        except requests.RequestException:
            return False

    def processes(self, *words: str) -> list[psutil.Process]:
        """Processes below `yoloop up` whose command line holds all the words."""
        assert self._process is not None
        below = psutil.Process(self._process.pid).children(recursive=True)
        return [process for process in below if all(word in " ".join(_command_of(process)) for word in words)]

    def _command(self, *words: str) -> list[str]:
        command = [sys.executable, "-m", "backend.cli.main", *words]
        return as_unknown(command) if self._unknown_user else command


def _command_of(process: psutil.Process) -> list[str]:
    try:
        found: list[str] = process.cmdline()
    except psutil.NoSuchProcess:
        return []
    return found
