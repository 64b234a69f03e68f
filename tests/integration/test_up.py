"""Real `yoloop up`s: the second one on a home or a port ends at once and says why; commands find the first."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from support.ports import free_port
from support.waiting import wait_for

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


class Terminal:
    """Where somebody types commands: a folder, and a machine of its own as far as yoloop's list goes."""

    def __init__(self, folder: Path, registry: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._registry = registry
        (folder / "tmp").mkdir()
        ours = ("YOLOOP", "LABEL_STUDIO", "BASIC_AUTH", "MLFLOW")
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
            "TMPDIR": str(folder / "tmp"),
            "YOLOOP_OFFLINE": "1",
            "PYTHONPATH": str(ROOT),
        }

    def at(self, name: str) -> Path:
        """A folder to be in, whose home has a registry already: making one takes seconds."""
        made = self.folder / name
        (made / ".yoloop").mkdir(parents=True)
        (made / ".yoloop" / "mlflow.db").write_bytes(self._registry.read_bytes())
        return made

    def start(self, where: Path, *words: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "backend.cli.main", *words],
            cwd=where,
            env=self._env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, where: Path, *words: str, **env: str) -> tuple[int, str]:
        """Exit status, and all that the command said."""
        process = self.start(where, *words, **env)
        try:
            said, _ = process.communicate(timeout=120)
        finally:
            process.kill()
        return process.returncode, said

    def answers(self, port: int | None = None) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{port or self.port}/health", timeout=1).ok
        except requests.RequestException:
            return False


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory, empty_registry: Path) -> Terminal:
    return Terminal(tmp_path_factory.mktemp("up"), empty_registry)


@pytest.fixture(scope="module")
def first(terminal: Terminal) -> Iterator[Path]:
    """The folder in which a yoloop runs that everything was told by options."""
    where = terminal.at("first")
    process = terminal.start(where, "up", "--port", str(terminal.port), "--host", "127.0.0.1", "--home", ".yoloop")
    try:
        wait_for(terminal.answers, 120, "yoloop to answer")
        yield where
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert f"listens on http://127.0.0.1:{terminal.port} and keeps its data in {where / '.yoloop'}" in said
    assert process.returncode == 0
    assert (where / ".yoloop" / "up.lock").read_text() == ""


def test_a_second_one_with_the_same_home(terminal: Terminal, first: Path) -> None:
    code, said = terminal.run(first, "up", "--port", str(free_port()))
    assert code == 1
    assert "yoloop runs already: since 20" in said and str(first / ".yoloop") in said
    assert f"http://127.0.0.1:{terminal.port}" in said and "Traceback" not in said
    assert terminal.answers()


def test_a_second_one_with_the_same_port(terminal: Terminal, first: Path) -> None:
    code, said = terminal.run(terminal.at("second"), "up", YOLOOP_PORT=str(terminal.port))
    assert code == 1
    assert f"Port {terminal.port} is taken by the yoloop with the home {first / '.yoloop'}" in said
    assert "Set YOLOOP_PORT to another" in said and "listens on" not in said and "Traceback" not in said


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_port_that_another_program_has(terminal: Terminal, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = terminal.run(terminal.at(f"taken-{command}"), command, "--port", str(port))
    assert code == 1 and f"Port {port} is taken. Set YOLOOP_PORT" in said and "Connection in use" not in said


@pytest.mark.parametrize("host", ["192.0.2.77", "no-such-host.invalid"])
def test_a_host_that_is_not_here(terminal: Terminal, host: str) -> None:
    code, said = terminal.run(terminal.at(f"host-{host}"), "up", "--host", host, "--port", str(free_port()))
    assert code == 1 and repr(host) in said and "Set YOLOOP_HOST" in said


def test_commands_in_another_folder_find_it(terminal: Terminal, first: Path) -> None:
    elsewhere = terminal.folder / "elsewhere"
    elsewhere.mkdir()
    code, said = terminal.run(elsewhere, "status")
    assert code == 0 and "No project is known yet" in said and f"home: {first / '.yoloop'}" in said
    code, said = terminal.run(elsewhere, "doctor")
    assert "✓ server: " in said and f":{terminal.port}" in said and "✓ worker: " in said
    assert list(elsewhere.iterdir()) == []


def test_one_that_was_killed_is_followed_by_the_next(terminal: Terminal) -> None:
    """Its children take a moment to end, with the port and the home in their hands."""
    where, port = terminal.at("killed"), free_port()
    killed = terminal.start(where, "up", "--port", str(port))
    wait_for(lambda: terminal.answers(port), 120, "yoloop to answer")
    killed.kill()
    killed.wait()
    following = terminal.start(where, "up", "--port", str(port))
    try:

        def served_by_it() -> bool:
            ours = {each.pid for each in psutil.Process(following.pid).children(recursive=True)}
            listening = {
                each.pid
                for each in psutil.net_connections("tcp")
                if each.laddr.port == port and each.status == psutil.CONN_LISTEN
            }
            return bool(listening & ours)

        wait_for(served_by_it, 120, "the next one to serve")
        assert following.poll() is None
    finally:
        following.send_signal(signal.SIGINT)
        said, _ = following.communicate(timeout=60)
    assert "The yoloop before this one was killed" in said and "listens on" in said


def test_a_worker_alone_keeps_a_second_one_out(terminal: Terminal) -> None:
    where = terminal.at("worker")
    worker = terminal.start(where, "worker")
    try:
        wait_for((where / ".yoloop" / "worker.lock").exists, 60)
        time.sleep(0.2)
        code, said = terminal.run(where, "up", "--port", str(free_port()))
        assert code == 1 and "A worker works on this home already" in said
    finally:
        worker.terminate()
        worker.communicate(timeout=60)
