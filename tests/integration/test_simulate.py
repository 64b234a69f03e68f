"""A project's annotations replayed by real trainings of a tiny model, beside a home that stays as it is."""

from __future__ import annotations

import base64
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.shapes import LABELS, draw_pictures
from support.tiny import SIZE, tiny_yolo

from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.services import Services
from backend.settings import Settings
from backend.simulation.simulate import conclusion, simulate, table

pytestmark = [pytest.mark.training, pytest.mark.group("simulate", minutes=1)]

UID = "3.1767225600"
CONFIG = (Path(__file__).parents[2] / "label_config.xml").read_text()


def test_a_project_is_replayed_without_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'theirs.db'}")
    home = tmp_path / "home"
    tiny_yolo(home / "models" / "tiny.pt", LABELS, {0: (0, 0.9), 1: (1, 0.6)})
    settings = Settings(home=home, base_model="tiny.pt", offline=True, image_size=SIZE, device="cpu", holdout=0.3)
    services = Services(settings)
    services.store.save_project(UID, label_config=CONFIG, hostname="http://studio.invalid")
    services.ledger.update(UID, _tasks(tmp_path / "pictures", 24), 1.0)
    project = services.store.project(UID)
    assert project is not None
    rows, files = _rows(services), _files(home)
    told: list[str] = []

    found = simulate(
        services,
        project,
        minutes=0.1,
        every=[16],
        orders=["least-confidence"],
        told=told.append,
    )

    (curve,) = found.curves
    assert (curve.order, curve.every) == ("least-confidence", 16)
    assert [point.annotations for point in curve.points] == [0, 16, 24]
    assert curve.points[0].version == "v0"
    assert all(0 <= point.score <= 1 for point in curve.points)
    score_of = {point.version: point.score for point in curve.points}
    assert [score_of[point.version] for point in curve.points] == [point.score for point in curve.points]
    assert len(score_of) > 1, f"nothing was promoted: {told}"
    assert len(told) == 2
    assert 0 < found.held_out < 24
    assert json.loads(json.dumps(found.as_json()))["metric"] == "mAP50-95"
    assert len(table(found).splitlines()) == 4
    assert conclusion(found.curves)
    assert _rows(services) == rows
    assert _files(home) == files
    assert not (tmp_path / "theirs.db").exists()
    services.close()


def _tasks(folder: Path, count: int) -> list[TaskRecord]:
    tasks = []
    for number, picture in enumerate(draw_pictures(folder, count, size=SIZE), 1):
        when = datetime.fromtimestamp(1000.0 - number, UTC)
        image = "data:image/jpeg;base64," + base64.b64encode(picture.path.read_bytes()).decode()
        annotation = AnnotationRecord(number, picture.result(), False, False, when, when, None, None, None)
        tasks.append(TaskRecord(number, when, when, {"image": image}, (annotation,)))
    shutil.rmtree(folder)
    return tasks


def _rows(services: Services) -> list[object]:
    from backend.store.tables import metadata

    with services.store.engine.connect() as db:
        return [tuple(row) for table in metadata.sorted_tables for row in db.execute(table.select())]


def _files(home: Path) -> set[Path]:
    return {path for path in home.rglob("*") if path.is_file() and "cache" not in path.relative_to(home).parts}
