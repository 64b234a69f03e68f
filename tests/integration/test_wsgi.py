"""Clients that do not keep to the protocol, or are slow, against the real server."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from support.bodies import setup
from support.processes import served

from backend.server.gunicorn_worker import BODY_SECONDS, HEAD_SECONDS

HALF = (
    b"GET /health HTTP/1.1\r\nHost: [::1]\r\nX-Slow: ",
    b"POST /predict HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 1000\r\n\r\n{",
    b"POST /webhook HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{",
    b"POST /setup HTTP/1.1\r\nHost: [::1]\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n{",
)
"""Requests that go on a byte at a time: a head, and bodies of each kind."""

THREADS = 32
"""As many as `yoloop serve` has."""

CONFIG = (Path(__file__).parents[2] / "label_config.xml").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_registry: Path) -> Iterator[tuple[str, Path, Path]]:
    """Address, log and home of a server that nobody needs credentials for."""
    home = tmp_path_factory.mktemp("home")
    (home / "mlflow.db").write_bytes(empty_registry.read_bytes())
    with served(home, YOLOOP_THREADS=str(THREADS), YOLOOP_BASE_MODEL="") as (url, log):
        yield url, log, home


def connect(url: str, timeout: float = 30) -> socket.socket:
    return socket.create_connection((str(urlsplit(url).hostname), int(urlsplit(url).port or 0)), timeout=timeout)


def answer_of(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = b""
    with suppress(ConnectionResetError):
        while data := client.recv(65536):
            found += data
    return found


@contextmanager
def dripping(url: str, count: int) -> Iterator[list[socket.socket]]:
    """Clients that send a byte every second, for as long as they are let."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(url)) for _ in range(count)]
        stop = threading.Event()

        def drip() -> None:
            for number, client in enumerate(clients):
                client.sendall(HALF[number % len(HALF)])
            while not stop.wait(1.0):
                for client in clients:
                    with suppress(OSError):
                        client.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield clients
        finally:
            stop.set()
            thread.join()


@contextmanager
def all_threads_busy(url: str, home: Path) -> Iterator[None]:
    """Whoever asks for trainings waits a moment for the database: twice as many as there are threads, again and again.

    Another one holds the database's lock all the while.
    """
    body = json.dumps({"action": "START_TRAINING", "project": setup()["project"]}).encode()
    head = f"POST /webhook HTTP/1.1\r\nHost: [::1]\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    assert requests.post(f"{url}/setup", json=setup(), timeout=10).ok
    with sqlite3.connect(home / "yoloop.db", isolation_level=None) as db, ExitStack() as stack:
        db.execute("BEGIN IMMEDIATE")
        stack.callback(db.execute, "ROLLBACK")
        for _ in range(2 * THREADS):
            stack.enter_context(connect(url)).sendall((head + body) * 100)
        time.sleep(1)
        yield


def seconds_of(call: Callable[[], requests.Response]) -> float:
    began = time.monotonic()
    assert call().ok
    return time.monotonic() - began


def seconds_of_health(url: str) -> float:
    return seconds_of(lambda: requests.get(f"{url}/health", timeout=10))


@pytest.mark.slow
def test_dripping_clients_and_busy_threads_do_not_keep_health_waiting(server: tuple[str, Path, Path]) -> None:
    url, log, home = server
    began = time.monotonic()
    with dripping(url, 60) as clients:
        time.sleep(1.5)
        assert requests.post(f"{url}/validate", json={"config": CONFIG}, timeout=5).ok  # no thread is held
        with all_threads_busy(url, home):
            assert sorted(seconds_of_health(url) for _ in range(9))[4] < 0.5
            valid = [
                seconds_of(lambda: requests.post(f"{url}/validate", json={"config": CONFIG}, timeout=20))
                for _ in range(3)
            ]
            assert min(valid) > 0.25, "they are not all busy"
            assert sorted(seconds_of_health(url) for _ in range(9))[4] < 0.5
        answers = [answer_of(client).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n") for client in clients]
        assert time.monotonic() - began < HEAD_SECONDS + BODY_SECONDS
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert b'"hint"' in answers[0]
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_more_connections_than_are_kept_leave_room_for_those_that_ask(server: tuple[str, Path, Path]) -> None:
    url, _, _ = server
    with ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(connect(url)).sendall(b"GET / HT")
        assert seconds_of_health(url) < 5
        assert requests.post(f"{url}/validate", json={"config": CONFIG}, timeout=5).ok


def test_a_client_that_does_not_take_its_answers_holds_no_thread(server: tuple[str, Path, Path]) -> None:
    url, _, _ = server
    with ExitStack() as stack:
        for _ in range(3 * THREADS):
            client = stack.enter_context(connect(url))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: [::1]\r\n\r\n" * 100)
        time.sleep(1)
        assert requests.post(f"{url}/validate", json={"config": CONFIG}, timeout=5).ok


def test_bodies_come_in_every_form(server: tuple[str, Path, Path]) -> None:
    url, _, _ = server
    body = json.dumps({"config": CONFIG, "padding": "x" * 100_000}).encode()

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]

    with requests.Session() as session:  # kept alive
        for _ in range(3):
            assert session.post(f"{url}/validate", data=pieces(), timeout=10).json()["valid"]
            assert session.post(f"{url}/validate", data=body, timeout=10).json()["valid"]
            assert session.get(f"{url}/health", timeout=10).ok
    head = b"POST /validate HTTP/1.1\r\nHost: [::1]\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    with connect(url) as client:
        client.sendall(head)
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body + b"GET /health HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
        assert answer_of(client).count(b"HTTP/1.1 200 ") == 2


def test_requests_in_one_breath_are_answered_in_order(server: tuple[str, Path, Path]) -> None:
    url, _, _ = server
    with connect(url) as client:
        chunked = b'Transfer-Encoding: chunked\r\n\r\n5;a=b\r\n{"a":\r\n2\r\n1}\r\n0\r\nX: y\r\n\r\n'
        client.sendall(
            b"GET /health HTTP/1.1\r\nHost: [::1]\r\n\r\n"
            b"POST /validate HTTP/1.1\r\nHost: [::1]\r\n" + chunked + b"GET /nowhere HTTP/1.1\r\nHost: [::1]\r\n\r\n"
            b"HEAD /health HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n"
        )
        answer = answer_of(client)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400", b"404", b"200"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /webhook HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 3000000\r\n\r\n{", 413),
        (b"POST /setup HTTP/1.1\r\nHost: [::1]\r\nContent-Length: %d\r\n\r\n{" % 2**40, 413),
        (b"POST /predict HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 70000000\r\n\r\n{", 413),
        (b"POST /accept HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 1000000\r\n\r\n{", 413),
        (
            b"POST /accept HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n" + bytes(300_000),
            413,
        ),
        (b"POST /setup HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 9000, 400),
        (b"POST /setup HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /setup HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n", 400),
        (b"POST /setup HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST /setup HTTP/1.1\r\nHost: [::1]\r\nContent-Length: -5\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\nHost: x\n\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /" + b"x" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nHost: [::1]\r\n" + b"X: %s\r\n" % (b"x" * 100) * 1000 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused_and_harms_nobody(
    server: tuple[str, Path, Path], sent: bytes, status: int
) -> None:
    url, log, _ = server
    with connect(url) as client:
        client.sendall(sent)
        answer = answer_of(client)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert requests.get(f"{url}/health", timeout=5).ok
    assert "Traceback" not in log.read_text()


def test_a_large_request_is_answered_and_its_memory_given_back(server: tuple[str, Path, Path]) -> None:
    url, _, _ = server
    body = b'{"tasks": [%s]}' % b",".join([b"[]"] * 8_000_000)
    answers = [requests.post(f"{url}/predict", data=body, timeout=60) for _ in range(3)]
    assert {answer.status_code for answer in answers} <= {400, 413}


def test_who_may_not_ask_is_told_so_before_the_body_is_read(home: Path) -> None:
    with (
        served(home, YOLOOP_BASE_MODEL="", YOLOOP_BASIC_AUTH_USER="a", YOLOOP_BASIC_AUTH_PASS="b") as (url, _),
        ExitStack() as stack,
    ):
        process = next(
            each
            for each in psutil.Process().children(recursive=True)
            if each.ppid() != psutil.Process().pid and "serve" in each.cmdline()
        )
        before = process.memory_info().rss
        for _ in range(20):
            client = stack.enter_context(connect(url))
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 60000000\r\n\r\n")
            with suppress(ConnectionError):
                client.sendall(bytes(200_000))
            assert client.recv(20).startswith(b"HTTP/1.1 401 ")
        assert process.memory_info().rss - before < 50 * 2**20
        assert requests.post(f"{url}/predict", json={"tasks": [0] * 100_000}, auth=("a", "b"), timeout=30).status_code
