"""The numbers under /metrics, after real requests, a real training, and real failures."""

from __future__ import annotations

import base64
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from support.bodies import UID, event, predict, setup, task
from support.scrape import Scrape
from support.shapes import draw_pictures
from support.tiny import SIZE
from support.waiting import wait_for

from backend import __version__
from backend.app import create_app
from backend.engine.pool import EnginePool
from backend.fit.workflow import Training
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.processes.liveness import training
from backend.server.process import Serving
from backend.store.heartbeats import Heartbeat
from backend.store.refreshes import Refreshes


def test_errors_are_counted_by_kind(client: FlaskClient) -> None:
    client.post("/setup", json=setup("<View"))
    client.post("/setup", json={})
    client.post("/setup", json=setup(), headers={"Origin": "x"})
    client.get("/job_status?job=none")
    client.get("/nowhere")
    client.delete("/setup")
    client.post("/setup", json=setup())
    client.post("/accept", json={"project": UID})
    broken = "data:image/png;base64," + base64.b64encode(b"no image").decode()
    client.post("/predict", json=predict([task(1), task(2, "nowhere.jpg"), task(3, broken)]))
    scrape = Scrape(client)
    kinds = {
        "label_config": 1,
        "bad_request": 2,
        "unauthorized": 1,
        "not_found": 2,
        "label_studio": 1,
        "image_unavailable": 1,
        "image_unreadable": 1,
        "busy": 0,
        "internal": 0,
    }
    assert {kind: scrape("yoloop_errors_total", kind=kind) for kind in kinds} == kinds
    assert scrape("yoloop_info", version=__version__) == 1
    assert (scrape("process_resident_memory_bytes") or 0) > 50 * 2**20
    assert 0 < (scrape("yoloop_disk_free_bytes") or 0) < (scrape("yoloop_disk_total_bytes") or 0)


def test_a_failure_of_ours_is_counted(serving: Serving) -> None:
    client = create_app(serving=serving).test_client()
    serving.services.store.close()
    (serving.settings.root / "yoloop.db").unlink()
    (serving.settings.root / "yoloop.db").mkdir()
    assert client.post("/setup", json=setup()).status_code == 500
    scrape = Scrape(client)  # which tells what it can although there is no database
    assert scrape("yoloop_errors_total", kind="internal") == 1
    assert scrape("yoloop_ready", check="database") == 0
    assert scrape("yoloop_ready", check="home") == 1
    assert "yoloop_jobs" not in scrape.names


def test_who_is_sent_away_is_counted(start: Callable[..., Serving]) -> None:
    serving = start(threads=2)
    client = create_app(serving=serving).test_client()
    client.post("/setup", json=setup())
    assert serving.predicting.acquire(blocking=False)
    try:
        assert client.post("/predict", json=predict([task(1)])).status_code == 503
    finally:
        serving.predicting.release()
    assert client.post("/predict", json=predict([task(1)])).status_code == 200
    scrape = Scrape(client)
    assert scrape("yoloop_refused_requests_total") == 1
    assert scrape("yoloop_errors_total", kind="busy") == 1
    assert scrape("yoloop_predictions_under_way") == 0


class Stuck:
    """A model that does nothing until it is let go."""

    task, names, batch = "detect", {0: "Disc"}, 1

    def __init__(self) -> None:
        self.going = threading.Event()

    def detect(self, images: Any, conf: float, most: int | None = None) -> list[list[Any]]:
        self.going.wait(20)
        return [[] for _ in images]


def test_images_that_wait_are_counted_by_lane(serving: Serving, client: FlaskClient) -> None:
    model, image = Stuck(), np.zeros((8, 8, 3), np.uint8)
    pool: EnginePool = serving.engine.pool
    answers: list[Future[Any]] = [pool.submit(model, image, 0.5)]  # type: ignore[arg-type]
    wait_for(lambda: not any(pool.waiting().values()), pause=0.01)
    answers += [pool.submit(model, image, 0.5, urgent=number < 2) for number in range(5)]  # type: ignore[arg-type]
    scrape = Scrape(client)
    model.going.set()
    for each in answers:
        each.result(10)
    assert (scrape("yoloop_waiting_images", lane="urgent"), scrape("yoloop_waiting_images", lane="others")) == (2, 3)
    assert Scrape(client)("yoloop_waiting_images", lane="others") == 0


def test_what_waits_and_what_was_read_is_told(serving: Serving, client: FlaskClient) -> None:
    store, now = serving.services.store, time.time()
    assert Scrape(client)("yoloop_oldest_event_seconds") == 0
    client.post("/setup", json=setup())
    client.post("/webhook", json=event("ANNOTATION_CREATED"))
    client.post("/webhook", json=event("ANNOTATION_UPDATED"))
    job, _ = serving.services.jobs.request(UID, "asked for", now - 100)
    scrape = Scrape(client)
    assert scrape("yoloop_waiting_events", project=UID) == 2
    assert 0 <= (scrape("yoloop_oldest_event_seconds") or -1) < 10
    assert 100 <= (scrape("yoloop_oldest_job_seconds") or 0) < 110
    assert scrape("yoloop_jobs", project=UID, status="queued") == 1
    assert scrape("yoloop_sync_age_seconds", project=UID) is None, "it was never read"
    store.save_project(UID, synced_at=now - 50)
    serving.services.jobs.update(job.id, status="running", epoch=3, epochs=20)
    with training(serving.settings.root, job.id):
        scrape = Scrape(client)
    assert 50 <= (scrape("yoloop_sync_age_seconds", project=UID) or 0) < 600
    assert scrape("yoloop_sync_failing", project=UID) == 0
    assert (scrape("yoloop_training_epoch"), scrape("yoloop_training_epochs")) == (3, 20)
    assert scrape("yoloop_oldest_job_seconds") == 0, "it runs, and waits no more"
    store.save_project(UID, sync_error="Label Studio cannot be reached.")
    assert Scrape(client)("yoloop_sync_failing", project=UID) == 1


def test_what_the_worker_tells(serving: Serving, client: FlaskClient) -> None:
    heartbeat = Heartbeat(serving.services.store)
    scrape = Scrape(client)
    assert scrape("yoloop_worker_up") == 0
    assert scrape("yoloop_worker_heartbeat_age_seconds") is None
    assert scrape("yoloop_worker_errors_total", kind="sync") == 0
    heartbeat.beat(time.time() - 3, time.time() - 7)
    heartbeat.failed("sync")
    Refreshes(serving.services.store).save(UID, "1:a", version="v1", total=5, done=3, failed=1)
    scrape = Scrape(client)
    assert scrape("yoloop_worker_up") == scrape("yoloop_ready", check="worker") == 1
    assert 3 <= (scrape("yoloop_worker_heartbeat_age_seconds") or 0) < 60
    assert 7 <= (scrape("yoloop_worker_turn_age_seconds") or 0) < 60
    assert scrape("yoloop_worker_errors_total", kind="sync") == 1
    assert scrape("yoloop_refreshing", project=UID) == 1


@pytest.mark.training
def test_a_real_training_is_told(start: Callable[..., Serving], tmp_path: Path) -> None:
    serving = start(train_minutes=0.1, holdout=0.3)
    client = create_app(serving=serving).test_client()
    client.post("/setup", json=setup())
    services, began = serving.services, time.time()
    services.ledger.update(UID, annotated(tmp_path / "pictures", 20), 1.0)
    services.store.save_project(UID, synced_at=began)
    job, _ = services.jobs.request(UID, "asked for", began)
    training = Training(services, step=lambda name, function: function(), read=lambda *given, **named: None)
    assert training.run(job.id) == "done"
    champion = services.registry.champion(UID)
    assert champion is not None and champion.name == "v1"
    wait_for(lambda: serving.engine.models.loaded().get(UID) == "v1", pause=0.1)
    services.jobs.request(UID, "asked for once more", time.time())
    scrape = Scrape(client)
    assert scrape("yoloop_served", project=UID, version="v1") == 1
    since = scrape("yoloop_served_since_timestamp_seconds", project=UID, version="v1")
    assert since is not None and began < since < time.time()
    assert scrape("yoloop_served_fitness", project=UID, version="v1") == pytest.approx(champion.metrics["fitness"])
    assert scrape("yoloop_trainings_total", project=UID, status="done") == 1
    ended = [scrape("yoloop_last_training", project=UID, status=status) for status in ("done", "failed", "cancelled")]
    assert ended == [1, 0, 0]
    assert began < (scrape("yoloop_last_training_timestamp_seconds", project=UID) or 0) < time.time()
    assert 0 < (scrape("yoloop_last_training_seconds", project=UID) or 0) < time.time() - began
    assert scrape("yoloop_annotations", project=UID, state="known") == 20
    assert scrape("yoloop_annotations", project=UID, state="new") == 0
    assert scrape("yoloop_annotations_not_understood", project=UID) == 0
    counts = services.readings.annotations(UID)
    assert counts.used == counts.training + counts.validation == 20 and counts.validation
    assert scrape("yoloop_jobs", project=UID, status="queued") == 1


def test_what_is_not_understood_is_told(serving: Serving, client: FlaskClient, tmp_path: Path) -> None:
    client.post("/setup", json=setup())
    tasks = annotated(tmp_path / "pictures", 3)
    for entry in (tasks[1].annotations[0].result, tasks[2].annotations[0].result):
        entry[0]["value"]["rectanglelabels"] = ["car"]  # type: ignore[index]
    serving.services.ledger.update(UID, tasks, 1.0)
    serving.services.store.save_project(UID, synced_at=time.time())
    scrape = Scrape(client)
    assert scrape("yoloop_annotations_not_understood", project=UID) == 2
    assert scrape("yoloop_annotations", project=UID, state="known") == 1
    (reported,) = client.get("/report").get_json()["projects"]
    told = reported["annotations"]
    assert (told["total"], told["used"], told["not_understood"]) == (3, 1, 2)
    assert told["reasons"] == {"label `car` is not in the config": 2}


def test_a_version_that_cannot_be_loaded_is_told(serving: Serving, client: FlaskClient, tmp_path: Path) -> None:
    client.post("/setup", json=setup())
    (tmp_path / "junk.pt").write_bytes(b"junk")
    registry = serving.services.registry
    registry.register(UID, "a", {"weights.pt": tmp_path / "junk.pt"}, metrics={}, params={}, tags={})
    registry.promote(UID, 1, "by mistake")
    told = wait_for(lambda: Scrape(client)("yoloop_unloadable", project=UID, version="v1"), pause=0.1)
    assert told == 1


def annotated(folder: Path, count: int) -> list[TaskRecord]:
    tasks = []
    for number, drawn in enumerate(draw_pictures(folder, count, size=SIZE), 1):
        when = datetime.fromtimestamp(1000.0 + number, UTC)
        image = "data:image/jpeg;base64," + base64.b64encode(drawn.path.read_bytes()).decode()
        annotation = AnnotationRecord(number, drawn.result(), False, False, when, when, None, None, None)
        tasks.append(TaskRecord(number, when, when, {"image": image}, (annotation,)))
    shutil.rmtree(folder)
    return tasks
