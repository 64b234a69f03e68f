"""Lines of the log and the requests, jobs and projects that they belong to, in the processes that people start."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from support.bodies import UID, config, event, predict, setup, task
from support.processes import served, working
from support.web import Server, answer

from backend.app import ID, create_app
from backend.fit.training.process import start_training, tell
from backend.observability.logs import Ids, about, known
from backend.processes.child import SUPERVISED, end_group, start
from backend.server.process import Serving
from backend.store.database import Store
from backend.store.jobs import Jobs

pytestmark = pytest.mark.group("logs", minutes=1)

NEW = re.compile("[0-9a-f]{32}")


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_every_answer_carries_the_id_of_its_request(client: FlaskClient) -> None:
    for response in (
        client.get("/health"),
        client.post("/setup", json=setup()),
        client.post("/setup", json=setup("<View")),
        client.get("/nowhere"),
        client.delete("/setup"),
        client.get("/ready"),
    ):
        assert NEW.fullmatch(response.headers[ID])
    assert client.get("/health", headers={ID: "mine-1"}).headers[ID] == "mine-1"
    assert NEW.fullmatch(client.get("/health", headers={ID: "not mine"}).headers[ID])
    assert client.get("/health").headers[ID] != client.get("/health").headers[ID]


def test_a_refused_and_a_failed_request_have_an_id(serving: Serving, tmp_path: Path) -> None:
    client = create_app(serving=serving).test_client()
    assert client.post("/setup", json=setup(), headers={"Origin": "x", ID: "r1"}).headers[ID] == "r1"
    serving.services.store.close()
    database = tmp_path / "home" / "yoloop.db"
    while not database.is_dir():  # whoever looks for promotions makes it anew
        database.unlink(missing_ok=True)
        with suppress(FileExistsError):
            database.mkdir()
    failed = client.post("/setup", json=setup(), headers={ID: "r2"})
    assert (failed.status_code, failed.headers[ID]) == (500, "r2")


class Kept(logging.Handler):
    """Records with the ids that they were made under."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, Ids]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append((record.getMessage(), known()))


@pytest.fixture
def kept() -> Any:
    handler, logger = Kept(), logging.getLogger("backend")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_threads_that_work_for_a_request_know_it(serving: Serving, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image is fetched and decoded in a pool, and run by the one thread that owns the device."""
    client = create_app(serving=serving).test_client()
    client.post("/setup", json=setup())
    assert client.post("/predict", json=predict([task(1)])).status_code == 200
    fetching, images = logging.getLogger("backend.images.loader"), type(serving.services.images)
    load = images.load

    def told(self: Any, *given: Any, **named: Any) -> Any:
        fetching.info("fetching")
        return load(self, *given, **named)

    monkeypatch.setattr(images, "load", told)
    served_now = serving.engine.models.loaded()
    assert served_now == {UID: "v0"}
    detector = next(iter(serving.engine.models._pretrained.values())).loaded.detector
    monkeypatch.setattr(detector, "detect", lambda images, conf: 1 / 0)
    response = client.post("/predict", json=predict([task(1)]), headers={ID: "r1"})
    assert "error" in response.get_json()["results"][0]
    of_request = {message: ids for message, ids in kept.found if ids.request_id == "r1"}
    assert set(of_request) >= {"fetching", "An image could not be run through the model"}
    assert all(ids.project == UID for ids in of_request.values())
    kept.found.clear()
    client.post("/predict", json=predict([task(1)], uid="8.1"), headers={ID: "r2"})
    assert {ids.request_id for _, ids in kept.found} == {"r2"}
    assert known() == Ids(), "nothing of a request sticks to its thread"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "json"])
def test_one_line_tells_of_each_request_but_those_of_machines(home: Path, form: str) -> None:
    with served(home, YOLOOP_BASE_MODEL="", YOLOOP_LOG_FORMAT=form) as (url, log):
        for path in ("/health", "/ready", "/metrics"):
            requests.get(url + path, timeout=30)
        requests.post(f"{url}/setup?access_token=hush", json=setup(), headers={ID: "r1"}, timeout=30)
        requests.get(f"{url}/no%0Aline/token=hush", headers={ID: "r2"}, timeout=30)
        requests.post(f"{url}/webhook", json=event("ANNOTATION_CREATED"), headers={ID: "r3"}, timeout=30)
    said = log.read_text()
    assert "hush" not in said
    assert "/health" not in said and "/ready" not in said and "/metrics" not in said
    if form == "text":
        line = next(line for line in said.splitlines() if "request=r1 " in line)
        assert re.search(rf"serve   INFO    \[request=r1 project={re.escape(UID)}\] POST /setup 200 \d+ ms$", line)
        assert len([line for line in said.splitlines() if "[request=" in line]) == 3
        return
    told = {line["request_id"]: line for line in lines(log) if line["logger"] == "backend.access"}
    assert set(told) == {"r1", "r2", "r3"}
    assert re.fullmatch(r"POST /setup 200 \d+ ms", told["r1"]["message"])
    assert re.fullmatch(r"GET /no�line/token=… 404 \d+ ms", told["r2"]["message"])
    assert (told["r1"]["project"], told["r2"]["project"], told["r3"]["project"]) == (UID, None, UID)


@pytest.mark.slow
def test_gunicorn_writes_in_the_same_form(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It warns of itself when its address is taken."""
    second = tmp_path_factory.mktemp("second")
    shutil.copyfile(home / "mlflow.db", second / "mlflow.db")
    with served(home, YOLOOP_BASE_MODEL="") as (url, _):
        taken = url.rpartition(":")[2]
        # As `yoloop up` starts it again: it does not look first whether the port is free.
        supervised = {"YOLOOP_PORT": taken, "YOLOOP_LOG_FORMAT": "json", SUPERVISED: str(os.getpid())}
        with pytest.raises(AssertionError), served(second, **supervised):
            pass
    said = [line for line in lines(second / "serve.log") if line["logger"] == "gunicorn.error"]
    assert any("Address already in use" in line["message"] for line in said)


@pytest.mark.slow
def test_the_worker_names_job_and_project(home: Path, studio: Server) -> None:
    """A sync that fails, and a training that fails as it begins with one; both with secrets in their words."""
    studio.routes["/api/projects/7/"] = answer(b'{"detail": "token=hush-hush"}', 500)
    store = Store(f"sqlite:///{home / 'yoloop.db'}")
    store.save_project(UID, label_config=config(), url=studio.url, api_key="0123456789abcdef" * 2 + "01234567")
    job, _ = Jobs(store).request(UID, "asked for", time.time())
    with working(home, YOLOOP_BASE_MODEL="", YOLOOP_LOG_FORMAT="json") as (_, log):
        until = time.monotonic() + 60
        while (ended := Jobs(store).get(job.id)) is None or ended.finished_at is None:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
    assert ended.status == "failed"
    said = lines(log)
    (synced,) = [line for line in said if "cannot be read" in line["message"]]
    assert synced["project"] == UID
    assert re.fullmatch("sync-[0-9a-f]{8}", synced["job_id"])
    trained = [line for line in said if line["logger"] == "backend.fit.ending"]
    assert [(line["job_id"], line["project"]) for line in trained] == [(job.id, UID)]
    assert "hush" not in log.read_text() and "0123456789abcdef" not in log.read_text()
    store.close()


@pytest.mark.training
def test_the_process_of_a_training_writes_for_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOOP_LOG_FORMAT", "json")
    process = start_training(tmp_path)
    try:
        with about(job_id="j1", project=UID):
            tell(process, tmp_path)  # there is nothing to train, which it ends with
        assert process.wait(600) == 1
    finally:
        end_group(process)
    last = lines(tmp_path / "train.log")[-1]
    assert "FileNotFoundError" in last["exception"]
    assert (last["job_id"], last["project"]) == ("j1", UID)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["backend.suggestions.refresh", "backend.served_models.pretrained_export"])
def test_so_do_the_processes_of_refreshes_and_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Of a project that nobody knows, and of weights that nobody named."""
    monkeypatch.setenv("YOLOOP_LOG_FORMAT", "json")
    monkeypatch.setenv("YOLOOP_HOME", str(tmp_path))
    with about(job_id="j1", project=UID):
        process = start(module, [str(tmp_path) if "engine" in module else UID, "0"], tmp_path / "log")
    assert process.wait(600) == 1
    said = lines(tmp_path / "log")
    assert {(line["job_id"], line["project"]) for line in said} == {("j1", UID)}
