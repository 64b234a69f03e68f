from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import ports
from support.ports import BLOCK, BLOCKS, FIRST, free_port

TESTS = Path(__file__).parents[2]


def test_ports_lie_below_those_of_outgoing_connections_and_come_once() -> None:
    found = [free_port() for _ in range(50)]
    assert len(set(found)) == 50
    assert all(FIRST <= port < FIRST + BLOCK * BLOCKS <= 32_768 for port in found)


def test_a_port_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        monkeypatch.setattr(ports, "_numbers", iter([port - FIRST, port - FIRST + 1]))
        assert free_port() != port


def test_two_workers_have_blocks_of_their_own() -> None:
    code = "from support.ports import free_port; print([free_port() for _ in range(20)])"
    answers = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(TESTS), "PYTEST_XDIST_WORKER": worker},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for worker in ("gw0", "gw1")
    ]
    first, second = ({(int(port) - FIRST) // BLOCK for port in answer.strip("[]\n").split(",")} for answer in answers)
    assert len(first) == len(second) == 1 and first != second
