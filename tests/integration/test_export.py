"""`yoloop export` and `yoloop weights` on a real home, with Label Studio gone once the images are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from support.web import Server, answer, encoded
from typer.testing import CliRunner

from backend.cli.main import app
from backend.fit.dataset.build import build
from backend.labels.schema import parse_label_config
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.services import Services
from backend.settings import Settings

UID, NOON = "1.100", datetime(2026, 11, 23, 12, tzinfo=UTC)
CONFIG = """
<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="Disc"/></RectangleLabels></View>
"""
VALUE = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["Disc"]}
BOX = {"id": "a", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": VALUE}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_a_version_and_its_weights_are_taken_away(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YOLOOP_ALLOWED_HOSTS", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    services = Services(Settings())
    services.store.save_project(UID, label_config=CONFIG)
    tasks = []
    for number in (1, 2, 3):
        picture = Image.effect_noise((100, 50), 90 + number).convert("RGB")
        server.routes[f"/{number}.jpg"] = answer(encoded(picture, "JPEG"))
        made = AnnotationRecord(number, [BOX] if number < 3 else [], False, False, NOON, NOON, 1, 2.0, None)
        tasks.append(TaskRecord(number, NOON, NOON, {"image": f"{server.url}/{number}.jpg"}, (made,)))
    services.ledger.update(UID, tasks)
    project = services.store.find(None)
    load = lambda ids: services.ledger.examples(UID, ids)  # noqa: E731
    schema = parse_label_config(CONFIG)
    build(services, project, schema, services.ledger.teaching(UID), load, tmp_path / "job")
    (tmp_path / "best.pt").write_bytes(b"weights")
    services.registry.register(
        UID,
        "job",
        {"weights.pt": tmp_path / "best.pt", "manifest.json": tmp_path / "job" / "manifest.json"},
        metrics={},
        params={},
        tags={"classes": '["Disc"]'},
    )
    services.close()
    server.routes.clear()
    dataset = tmp_path / "home" / "datasets" / UID
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}

    for out, words in (("now", []), ("then", ["--version", "v1", "--images"])):
        done = CliRunner().invoke(app, ["export", "1", "--out", out, *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        texts = {path.stem: path.read_text() for path in (tmp_path / out / "label" / "labels").rglob("*.txt")}
        assert texts == {path.stem.split("-")[0]: path.read_text() for path in dataset.glob("*/labels/*/*.txt")}
        assert texts["3"] == "" and texts["1"]
        assert json.loads((tmp_path / out / "left_out.json").read_text()) == []
    assert len(list((tmp_path / "then" / "label" / "images").rglob("*.jpg"))) == 3
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before

    done = CliRunner().invoke(app, ["weights", "1", "--version", "1", "--out", "w.pt"], catch_exceptions=False)
    assert done.exit_code == 0 and (tmp_path / "w.pt").read_bytes() == b"weights"
