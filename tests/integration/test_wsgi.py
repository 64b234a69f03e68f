"""Clients that do not keep to the protocol, against the real server."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from support.processes import served

from backend.wsgi import SILENCE

HALF = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\n",
    b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
)


@pytest.mark.slow
def test_clients_that_fall_silent_hold_nobody_up_for_long(home: Path) -> None:
    with served(home, YOLOOP_THREADS="4", YOLOOP_BASE_MODEL="") as (url, log), ExitStack() as silent:
        place = (str(urlsplit(url).hostname), int(urlsplit(url).port or 0))
        for number in range(4):
            client = silent.enter_context(socket.create_connection(place))
            client.sendall(HALF[number % 2])
        # The silent ones hold all threads, and would for as long as this test lives.
        assert requests.get(f"{url}/health", timeout=6 * SILENCE).ok
        assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_body_without_end_is_not_read_to_its_end(home: Path) -> None:
    claim = str(2**40).encode()
    with served(home, YOLOOP_BASE_MODEL="") as (url, _):
        place = (str(urlsplit(url).hostname), int(urlsplit(url).port or 0))
        with socket.create_connection(place, timeout=10) as client:
            client.sendall(b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: " + claim + b"\r\n\r\n{")
            assert client.recv(100).startswith(b"HTTP/1.1 413 ")
        assert requests.get(f"{url}/health", timeout=10).ok
