"""What a process behind the server gets of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import wait_for

from backend.processes import child

SLEEP = ("-s", "import time", "time.sleep(60)")

STAND_BACK = """
import os, sys
from backend.processes.child import stand_back
stand_back(0, own_session=sys.argv[1] == "own")
path = "/proc/self/autogroup"
print(os.nice(0), open(path).read().split()[-1] if os.path.exists(path) else "none")
"""


@pytest.mark.parametrize(("of_server", "supervised"), [(True, False), (False, True), (False, False)])
def test_it_shares_the_servers_session_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_server: bool, supervised: bool
) -> None:
    monkeypatch.delenv(child.SUPERVISED, raising=False)
    if supervised:
        monkeypatch.setenv(child.SUPERVISED, str(os.getpid()))
    process = child.start("timeit", ["-n", "1", *SLEEP], tmp_path / "log", of_server=of_server)
    try:
        wait_for(lambda: os.getpgid(process.pid) == process.pid)  # a signal to the server's group spares it
        assert os.getsid(process.pid) == (os.getsid(0) if of_server or supervised else process.pid)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("session", "group"), [("own", "10"), ("shared", "0")])
def test_a_session_of_its_own_gets_a_share_beside_other_work(session: str, group: str) -> None:
    command = [sys.executable, "-c", STAND_BACK, session]
    said = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=True).stdout
    grouped = Path("/proc/self/autogroup").exists()  # not every system groups processes by session
    assert said.split() == ["19", group if grouped else "none"]
