"""`/ready`, with each thing that it checks really broken."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from support.bodies import UID, setup
from support.processes import served, working
from support.shapes import LABELS
from support.waiting import wait_for

from backend.app import create_app
from backend.processes.heartbeat import Pulse
from backend.served_models import cache
from backend.served_models.parts import Part, dump
from backend.server.process import Serving
from backend.store.heartbeats import LATE, Heartbeat

NAMES = ["database", "registry", "home", "worker", "models"]


@pytest.fixture
def pulse(serving: Serving) -> Iterator[Pulse]:
    made = Pulse(Heartbeat(serving.services.store), every=0.1)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def client(serving: Serving, pulse: Pulse) -> FlaskClient:
    """Of a process that is ready, with a worker beside it."""
    client = create_app(serving=serving).test_client()
    wait_for(lambda: client.get("/ready").status_code == 200)
    return client


def ill(client: FlaskClient) -> dict[str, str]:
    """The checks that failed, with what each tells; and the whole answer holds to its form."""
    answer = client.get("/ready")
    said = answer.get_json()
    checks = said["checks"]
    assert [check["name"] for check in checks] == NAMES
    found = {check["name"]: check["told"] for check in checks if not check["ok"]}
    assert answer.status_code == (503 if found else 200)
    assert said["status"] == ("NOT READY" if found else "READY")
    if found:
        assert said["error"] == f"yoloop is not ready: {', '.join(found)}."
        assert said["hint"]
        assert answer.headers["Retry-After"]
    assert all(bool(check["mend"]) is not check["ok"] for check in checks)
    for secret in (tempfile.gettempdir(), "Traceback", "sqlite", ".db'"):
        assert secret not in answer.text
    return found


def test_all_is_well(client: FlaskClient) -> None:
    assert ill(client) == {}


def test_a_worker_that_stops(client: FlaskClient, serving: Serving, pulse: Pulse) -> None:
    pulse.stop()
    assert ill(client) == {"worker": "None runs, so nothing is learned."}
    Heartbeat(serving.services.store).beat(time.time() - LATE - 1, time.time())
    (told,) = ill(client).items()
    assert re.fullmatch(r"worker No sign of life for \d+ s\.", " ".join(told))
    assert client.get("/health").status_code == 200, "it lives all the same"


def test_a_home_that_takes_no_file(client: FlaskClient, serving: Serving) -> None:
    """A file stands in the place of the folder: rights alone would not stop root."""
    home = serving.settings.root
    away = home.with_name("away")
    home.rename(away)
    try:
        home.write_text("")
        found = ill(client)
        assert found["home"] == "It cannot be written: Not a directory."
        assert "database" in found
    finally:
        home.unlink()
        away.rename(home)
    wait_for(lambda: ill(client) == {})


def test_a_broken_database(client: FlaskClient, serving: Serving, pulse: Pulse) -> None:
    pulse.stop()  # what it writes between the next lines would be another fault than this one
    serving.services.store.close()
    database = serving.settings.root / "yoloop.db"
    for ending in ("", "-wal", "-shm"):
        (database.with_name(database.name + ending)).unlink(missing_ok=True)
    database.write_bytes(b"This is no database. " * 1000)
    found = ill(client)
    assert found["database"] == "It cannot be used (DatabaseError)."
    assert "worker" in found, "what the worker says cannot be read"


def test_a_locked_database(client: FlaskClient, serving: Serving) -> None:
    with closing(sqlite3.connect(serving.settings.root / "yoloop.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "locked" in ill(client)["database"]  # said while it is: nobody waits for it to be free
        other.execute("ROLLBACK")
    wait_for(lambda: ill(client) == {})


def test_a_broken_registry(client: FlaskClient, serving: Serving) -> None:
    registry = serving.settings.root / "mlflow.db"
    good = registry.read_bytes()
    registry.write_bytes(b"This is no database. " * 1000)
    wait_for(lambda: set(ill(client)) == {"registry"})
    registry.write_bytes(good)
    wait_for(lambda: ill(client) == {})


def test_what_served_before_a_start_is_waited_for(
    start: Callable[..., Serving], weights: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = start()
    create_app(serving=serving).test_client().post("/setup", json=setup())
    from backend.labels.networks import Network

    part = Part(Network("detect", "detect", LABELS))
    files = {"weights.pt": weights(LABELS, {0: (0, 0.9)})}
    serving.services.registry.register(UID, "a", files, metrics={}, params={}, tags={"networks": dump([part])})
    serving.services.registry.promote(UID, 1, "good")
    serving.close()

    going, load = threading.Event(), cache.load_part

    def slow(*given: Any) -> Any:
        going.wait(20)
        return load(*given)

    monkeypatch.setattr(cache, "load_part", slow)
    again = start()
    pulse = Pulse(Heartbeat(again.services.store), every=0.1)
    pulse.start()
    client = create_app(serving=again).test_client()
    try:
        wait_for(lambda: set(ill(client)) == {"models"})
        time.sleep(0.3)
        assert ill(client) == {"models": "They are still being loaded."}
        going.set()
        wait_for(lambda: ill(client) == {})
        # From then on a version that is loaded or cannot be is no reason to send people away.
        stored = next((again.settings.root / "registry").rglob("artifacts/weights.pt"))
        shutil.copyfile(stored, stored.with_name("kept"))
        again.services.registry.register(UID, "b", files, metrics={}, params={}, tags={"networks": "[]"})
        again.services.registry.promote(UID, 2, "by mistake")
        wait_for(lambda: again.engine.models.loaded().get(UID) == "v2" or again.engine.models.unloadable())
        assert ill(client) == {}
    finally:
        going.set()
        pulse.stop()


@pytest.mark.slow
def test_real_processes(home: Path) -> None:
    """The worker is killed, and started again."""
    credentials = {"YOLOOP_BASIC_AUTH_USER": "me", "YOLOOP_BASIC_AUTH_PASS": "mine"}
    with served(home, YOLOOP_BASE_MODEL="", **credentials) as (url, _):

        def failing() -> set[str]:
            checks = json.loads(requests.get(f"{url}/ready", auth=("me", "mine"), timeout=10).text)["checks"]
            return {check["name"] for check in checks if not check["ok"]}

        def up() -> bool:
            return "yoloop_worker_up 1.0" in requests.get(f"{url}/metrics", auth=("me", "mine"), timeout=10).text

        assert requests.get(f"{url}/ready", timeout=10).status_code == 401
        wait_for(lambda: failing() == {"worker"})
        assert not up()
        with working(home, YOLOOP_BASE_MODEL="") as (worker, _):
            wait_for(lambda: failing() == set())
            assert up()
            worker.send_signal(signal.SIGKILL)
            worker.wait(10)
            wait_for(lambda: failing() == {"worker"}, LATE + 10)
            assert not up()
        with working(home, YOLOOP_BASE_MODEL=""):
            wait_for(lambda: failing() == set())
        assert failing() == {"worker"}, "one that ends in order is missed at once"
