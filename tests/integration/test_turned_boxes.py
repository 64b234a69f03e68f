"""A person turns a box while a version that knows upright ones serves: one real training at 64 pixels."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.shapes import LABELS, draw_pictures
from support.tiny import SIZE, tiny_yolo

from backend.fit.training.train import work
from backend.fit.workflow import Training
from backend.labels.networks import Network
from backend.labels.schema import parse_label_config
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.served_models.parts import TAG, Part, dump, parts_of
from backend.served_models.served import trained, unloaded
from backend.services import Services
from backend.settings import Settings
from backend.store.jobs import Job

UID = "3.1767225600"
CONFIG = (Path(__file__).parents[2] / "label_config.xml").read_text()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    settings = Settings(
        home=tmp_path / "home", image_size=SIZE, device="cpu", engine="torch", holdout=0.3, train_minutes=5
    )
    made = Services(settings)
    made.store.save_project(UID, label_config=CONFIG, hostname="http://studio.invalid")
    yield made
    made.close()


def serve_upright_boxes(services: Services, folder: Path) -> None:
    """v1: a detector whose answers are known, and wrong: whatever the image, the same boxes."""
    weights = tiny_yolo(folder / "weights.pt", LABELS, {2: (0, 0.8)})
    part = Part(Network("detect", "detect", LABELS, ("label",)), "weights.pt", SIZE)
    number = services.registry.register(
        UID, "job", {"weights.pt": weights}, metrics={}, params={}, tags={TAG: dump([part])}
    ).number
    services.registry.promote(UID, number, "better")


def annotate(services: Services, folder: Path, rotation: float) -> None:
    tasks = []
    for number, picture in enumerate(draw_pictures(folder, 24, size=SIZE), 1):
        result = picture.result()
        if number == 1:
            result[0]["value"]["rotation"] = rotation
        image = "data:image/jpeg;base64," + base64.b64encode(picture.path.read_bytes()).decode()
        when = datetime.fromtimestamp(1000.0 + number, UTC)
        annotation = AnnotationRecord(number, result, False, False, when, when, None, None, None)
        tasks.append(TaskRecord(number, when, when, {"image": image}, (annotation,)))
    services.ledger.update(UID, tasks, 2000.0)


def idle() -> subprocess.Popen[bytes]:
    """In place of the trainer's process, which would import all of torch once more."""
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)


def train(services: Services) -> Job:
    job, _ = services.jobs.request(UID, "asked for by a test", 3000.0)

    def step(name: str, function: Callable[[], Any]) -> Any:
        if name == "train":
            work(training.folder(job.id))
        return function()

    training = Training(services, step, lambda *given, **named: None, idle)
    training.run(job.id)
    done = services.jobs.get(job.id)
    assert done is not None
    return done


@pytest.mark.training
@pytest.mark.group("turned-boxes", minutes=1)
def test_the_model_of_turned_boxes_is_compared_with_what_serves_and_replaces_it(
    services: Services, tmp_path: Path
) -> None:
    serve_upright_boxes(services, tmp_path)
    annotate(services, tmp_path / "pictures", rotation=5.0)
    job = train(services)
    assert job.status == "done", job.message
    version = services.registry.champion(UID)
    assert version is not None and version.name == job.version == "v2", job.message
    parts = parts_of(version)
    assert [part.network.key for part in parts] == ["obb"], "nothing of the old boxes is taken along"
    ((_, served),) = [
        (each.control.name, each.loaded.network) for each in trained(parse_label_config(CONFIG), map(unloaded, parts))
    ]
    assert (served.task, served.classes) == ("obb", LABELS)
    gate = json.loads(version.tags["gate"])["networks"]["obb"]
    assert gate["rule"] == "not worse" and "champion" in gate, job.message
    assert "instead of 0.000 of v1" in job.message and "held-out images" in job.message
