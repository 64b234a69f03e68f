"""The supervisor with real processes: it runs in a child of the test, and its own children are small programs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.waiting import wait_for

CHILD = """
import os, signal, sys, time
from backend.processes.child import end_with_supervisor
name, folder, manner = sys.argv[1:]
def end(*_):
    if manner != "stubborn":
        open(f"{folder}/{name}.ended", "a").write("x")
        sys.exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
with open(f"{folder}/{name}.log", "a") as log:
    log.write(f"{os.getpid()} {os.getpgrp()} {os.getsid(0)} {os.environ.get('YOLOOP_SUPERVISED', '')}\\n")
if manner == "failing":
    sys.exit(1)
end_with_supervisor()
while True:
    time.sleep(60)
"""

PARENT = """
import json, logging, sys
from backend.processes import supervisor
logging.basicConfig(level="WARNING")
supervisor.GRACE = 1.0
supervisor.FIRST_PAUSE = 0.05
supervisor.Supervisor(json.loads(sys.argv[1])).run()
"""


class Family:
    def __init__(self, folder: Path, **manners: str) -> None:
        self._folder = folder
        commands = {name: [sys.executable, "-c", CHILD, name, str(folder), manner] for name, manner in manners.items()}
        self.parent = subprocess.Popen([sys.executable, "-c", PARENT, json.dumps(commands)])

    def starts(self, name: str) -> list[list[str]]:
        """Process, group, session and mark of each time that a child was started."""
        path = self._folder / f"{name}.log"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def ended(self, name: str) -> bool:
        return (self._folder / f"{name}.ended").exists()

    def wait(self, *names: str, starts: int = 1) -> None:
        wait_for(lambda: all(len(self.starts(name)) >= starts for name in names))

    def kill_all(self) -> None:
        self.parent.kill()
        self.parent.wait()
        for log in self._folder.glob("*.log"):
            for pid, *_ in self.starts(log.stem):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Callable[..., Family]]:
    made: list[Family] = []

    def start(**manners: str) -> Family:
        made.append(Family(tmp_path, **manners))
        return made[-1]

    yield start
    for each in made:
        each.kill_all()


def test_a_killed_child_starts_again_and_the_other_goes_on(family: Callable[..., Family]) -> None:
    both = family(serve="steady", worker="steady")
    both.wait("serve", "worker")
    (worker,) = both.starts("worker")
    os.kill(int(both.starts("serve")[0][0]), signal.SIGKILL)
    both.wait("serve", starts=2)
    assert both.starts("worker") == [worker]
    assert alive(worker[0])
    os.kill(int(both.starts("serve")[1][0]), signal.SIGKILL)
    both.wait("serve", starts=3)


def test_a_child_that_always_fails_is_started_ever_more_slowly(family: Callable[..., Family]) -> None:
    both = family(serve="steady", worker="failing")
    both.wait("serve")
    both.wait("worker", starts=3)
    assert len(both.starts("serve")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_both_end_with_it(family: Callable[..., Family], number: signal.Signals) -> None:
    both = family(serve="steady", worker="steady")
    both.wait("serve", "worker")
    both.parent.send_signal(number)
    assert both.parent.wait(60) == 0
    for name in ("serve", "worker"):
        assert both.ended(name)
        assert len(both.starts(name)) == 1
        assert not alive(both.starts(name)[0][0])


def test_a_child_that_does_not_end_is_ended(family: Callable[..., Family]) -> None:
    both = family(serve="steady", worker="stubborn")
    both.wait("serve", "worker")
    both.parent.terminate()
    assert both.parent.wait(60) == 0
    assert both.ended("serve")
    assert not alive(both.starts("worker")[0][0])


def test_children_of_a_killed_one_end_in_order(family: Callable[..., Family]) -> None:
    """Its successor needs the port that the server listens on, and the home that the worker works on."""
    both = family(serve="steady", worker="steady")
    both.wait("serve", "worker")
    both.parent.kill()
    both.parent.wait()
    wait_for(lambda: both.ended("serve") and both.ended("worker"))


def test_children_share_its_session_but_not_its_group(family: Callable[..., Family]) -> None:
    """In one session niceness counts; in groups of their own Ctrl-C does not reach them."""
    both = family(serve="steady", worker="steady")
    both.wait("serve", "worker")
    for name in ("serve", "worker"):
        ((pid, group, session, mark),) = both.starts(name)
        assert pid == group
        assert int(session) == os.getsid(both.parent.pid)
        assert mark == str(both.parent.pid)
