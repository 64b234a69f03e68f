"""A real `yoloop serve`, as people start it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from support.ports import free_port


@contextmanager
def working(home: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A real `yoloop worker`: its process, and the file of what it says."""
    log = home / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "backend.cli.main", "worker"],
            env=_environment(home, **settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + 60
        while "Worker is up" not in log.read_text():
            assert worker.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
        yield worker, log
    finally:
        worker.terminate()
        worker.wait(30)


def _environment(home: Path, **settings: str) -> dict[str, str]:
    ours = ("YOLOOP", "LABEL_STUDIO", "BASIC_AUTH", "MLFLOW")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**env, "YOLOOP_HOME": str(home), "YOLOOP_OFFLINE": "1", **settings}


@contextmanager
def served(home: Path, **settings: str) -> Iterator[tuple[str, Path]]:
    """Its address, and the file of what it says.

    Args:
        settings: environment variables; nothing of the surroundings' own settings counts.
    """
    port = free_port()
    env = _environment(home, **{"YOLOOP_PORT": str(port), **settings})
    log = home / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "backend.cli.main", "serve"], env=env, stdout=output, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while not _up(url):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
        yield url, log
    finally:
        server.terminate()
        server.wait(30)


def _up(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=10).ok
    except (requests.ConnectionError, requests.Timeout):
        return False
