from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.children import trainers

from backend.errors import LabelStudioError
from backend.fit.sync import Synced
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.services import Services
from backend.settings import Settings
from backend.store.database import GIVES_WAY
from backend.worker import Worker

UID = "1.100"
NOW = 1e9
CONFIG = """
<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
  <Label value="Disc"/></RectangleLabels></View>
"""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(Settings(home=tmp_path, min_new_annotations=10, min_per_class=0, debounce=2.0))
    made.store.save_project(UID, label_config=CONFIG)
    yield made
    made.close()


@pytest.fixture
def worker(services: Services) -> Iterator[Worker]:
    made = Worker(services)
    yield made
    made.stop()
    made._ahead.close()


def annotate(services: Services, count: int) -> None:
    when = datetime.fromtimestamp(NOW, UTC)
    annotation = AnnotationRecord(0, [], False, False, when, when, None, None, None)
    tasks = [TaskRecord(each, when, when, {}, (replace(annotation, id=each),)) for each in range(count)]
    services.ledger.update(UID, tasks, NOW)


def test_an_event_that_completes_what_a_training_needs_starts_its_process(services: Services, worker: Worker) -> None:
    annotate(services, 8)
    services.store.hint(UID, NOW)
    worker.tick(NOW + 0.5)
    assert len(trainers()) == 0
    services.store.hint(UID, NOW + 1)
    worker.tick(NOW + 1.5)
    assert len(trainers()) == 1
    assert not services.jobs.unfinished()


def test_events_that_brought_nothing_new_start_it_once(services: Services, worker: Worker) -> None:
    annotate(services, 9)
    services.store.hint(UID, NOW)
    worker.tick(NOW + 0.5)
    assert len(trainers()) == 1
    worker._ahead.look(NOW + 100)
    services.store.hint(UID, NOW + 100)
    worker.tick(NOW + 100.5)
    assert len(trainers()) == 0


def test_it_waits_behind_a_training(services: Services, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    annotate(services, 9)
    services.jobs.request(UID, "asked for by hand", NOW)
    monkeypatch.setattr(worker, "status", lambda job_id: "ENQUEUED")  # no queue runs here
    services.store.hint(UID, NOW)
    worker.tick(NOW + 0.5)
    assert len(trainers()) == 0


def looks(services: Services) -> list[float]:
    """Times at which the worker looked at a Label Studio that cannot be reached."""
    services.store.save_project(UID, url="http://127.0.0.1:9", api_key="t" * 40)
    worker, found = Worker(services), []

    def look(uid: str, hint: object, now: float) -> None:
        found.append(now)
        worker._next_sync[uid] = now + 60

    worker._look = look  # type: ignore[method-assign]
    for now in (90_000.0, 90_030.0, 90_061.0, 1000.0, 1001.0, 1061.0):
        worker.tick(now)
    return found


def test_it_looks_again_at_once_when_the_clock_was_set_back(services: Services) -> None:
    assert looks(services) == [90_000.0, 90_061.0, 1000.0, 1061.0]


@pytest.mark.parametrize(
    ("events", "changed", "asked"),
    [
        ("switch submit", 1, False),
        ("switch submit switch submit switch submit", 3, False),
        ("switch", 1, False),  # its submit was not told, but is there
        ("button", 0, True),
        ("switch submit button", 1, True),
        ("button switch submit", 1, True),
        ("submit submit", 2, False),
    ],
)
def test_where_label_studio_asks_at_each_submit_only_a_persons_button_trains(
    services: Services, worker: Worker, monkeypatch: pytest.MonkeyPatch, events: str, changed: int, asked: bool
) -> None:
    monkeypatch.setattr("backend.worker.sync", lambda *_, **__: Synced(changed, 0))
    monkeypatch.setattr("backend.worker.Queue.start", lambda queue, job: None)  # no queue runs here
    worker._next_sync[UID] = NOW + 1000
    for each in events.split():
        services.store.hint(UID, NOW, asked=each != "submit", submit=each == "submit")
    (hint,) = services.store.hints()
    if hint.asked > hint.submits:
        worker.tick(NOW + 2.5)  # what says that somebody submitted may still come
        assert services.store.hints() == [hint]
    worker.tick(NOW + 6)
    assert services.store.hints() == []
    assert [job.reason for job in services.jobs.unfinished()] == (["asked for in Label Studio"] if asked else [])


def test_a_disconnected_project_is_left_alone(
    services: Services, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(worker, "_look", lambda uid, hint, now: looked.append(uid))
    services.store.disconnect(UID, NOW)
    worker.tick(NOW + 1)
    assert looked == []
    services.store.save_project(UID, disconnected_at=None)
    worker.tick(NOW + 2)
    assert looked == [UID]


@pytest.mark.parametrize(
    ("code", "connected", "gives_way"), [(404, False, True), (404, True, False), (401, False, False)]
)
def test_what_is_not_there_and_nobody_connected_gives_way(
    services: Services, worker: Worker, monkeypatch: pytest.MonkeyPatch, code: int, connected: bool, gives_way: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LabelStudioError("Refused.", code=code)

    monkeypatch.setattr("backend.worker.sync", fail)
    if connected:
        services.store.save_project(UID, backend_url="http://yoloop")
    worker.tick(NOW)
    assert services.store.find(1).sync_error == ("Refused. " + GIVES_WAY if gives_way else "Refused.")


@pytest.mark.parametrize(
    ("pretrained", "changed", "waits"),
    [(True, {}, ""), (False, {}, "5 of 10 new annotations"), (True, {"min_new_annotations": 7}, "5 of 7 new")],
)
def test_five_annotations_are_enough_for_pretrained_weights_unless_a_number_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: bool, changed: dict[str, int], waits: str
) -> None:
    monkeypatch.setattr("backend.worker.Queue.start", lambda queue, job: None)  # no queue runs here
    settings = Settings(home=tmp_path, base_model="yolo11n.pt", offline=True, min_free_gb=0, **changed)
    if pretrained:
        settings.models_dir.mkdir()
        (settings.models_dir / "yolo11n.pt").write_bytes(b"weights")
    services = Services(settings)
    services.store.save_project(UID, label_config=CONFIG)
    annotate(services, 5)
    Worker(services)._decide(UID, NOW)
    found = services.store.project(UID)
    assert found is not None and found.waiting_for.startswith(waits)
    assert [job.reason for job in services.jobs.unfinished()] == ([] if waits else ["5 new annotations"])
    services.close()
