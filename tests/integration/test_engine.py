"""Which engine serves a trained version, with real weights and real exports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient
from integration.bodies import UID, config, predict, setup, task
from shapes import LABELS
from tiny import SIZE
from ultralytics.engine.predictor import BasePredictor

from backend.app import create_app
from backend.labels.networks import Network
from backend.labels.schema import parse_label_config
from backend.parts import TAG, Part, dump
from backend.predict.engine.export import export
from backend.predict.engine.openvino import OpenVinoDetector
from backend.predict.engine.torch import TorchDetector
from backend.serving import Serving

Start = Callable[..., Serving]
Weights = Callable[..., Path]

PART = Part(Network("detect", "detect", LABELS, ("label",)), image_size=SIZE)


def promote(serving: Serving, weights: Path, folder: Path, *, damaged: bool = False) -> None:
    """A version with an export, in service."""
    export(weights, folder / "weights.xml")
    if damaged:
        (folder / "weights.xml").write_text("<net/>")
    registry = serving.services.registry
    part = replace(PART, openvino="f32")
    files = {"weights.pt": weights, **{name: folder / name for name in part.exported}}
    made = registry.register(UID, "a training", files, metrics={}, params={}, tags={TAG: dump([part])})
    registry.promote(UID, made.number, "for the test")


def served(serving: Serving) -> object:
    """The detector that answers once v1 is in memory."""
    client: FlaskClient = create_app(serving=serving).test_client()
    schema = parse_label_config(config())
    found = serving.engine.models.ready(UID, schema, time.monotonic() + 30)
    assert found.name == "v1"
    client.post("/setup", json=setup())
    (entry,) = client.post("/predict", json=predict([task(1)])).get_json()["results"]
    assert entry["model_version"].startswith("v1")
    assert len(entry["result"]) == 8  # the grid of 4 x 4, cut to the image's 2 : 1
    return found.suggests[0].loaded.detector


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("auto", OpenVinoDetector),
        ("openvino", OpenVinoDetector),
        ("torch", TorchDetector),
        ("tensorrt", TorchDetector),
    ],
)
def test_the_setting_chooses(start: Start, weights: Weights, tmp_path: Path, engine: str, expected: type) -> None:
    serving = start(engine=engine)
    promote(serving, weights(LABELS, {1: (0, 0.8)}), tmp_path)
    assert isinstance(served(serving), expected)


def test_a_pretrained_model_is_exported_before_it_serves(start: Start) -> None:
    serving = start(engine="auto")
    found = serving.engine.models.ready(UID, parse_label_config(config()), time.monotonic() + 60)
    assert isinstance(found.suggests[0].loaded.detector, OpenVinoDetector)
    client: FlaskClient = create_app(serving=serving).test_client()
    client.post("/setup", json=setup())
    (entry,) = client.post("/predict", json=predict([task(1)])).get_json()["results"]
    assert entry["model_version"] == "v0" and entry["result"]


def test_torch_takes_over_when_the_export_cannot_be_loaded(
    start: Start, weights: Weights, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serving = start(engine="openvino")
    promote(serving, weights(LABELS, {1: (0, 0.8)}), tmp_path, damaged=True)
    assert isinstance(served(serving), TorchDetector)
    assert "its export could not be loaded; torch serves it" in caplog.text


def test_an_image_without_room_on_the_gpu_is_asked_for_again(
    start: Start, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = start(engine="torch")
    promote(serving, weights(LABELS, {1: (0, 0.8)}), tmp_path)
    served(serving)
    client = create_app(serving=serving).test_client()
    inner, full = BasePredictor.inference, iter([True])

    def inference(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(full, False):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(BasePredictor, "inference", inference)
    entries = client.post("/predict", json=predict([task(1), task(2)])).get_json()["results"]
    assert sorted("result" in entry for entry in entries) == [False, True]
    (failed,) = (entry for entry in entries if "result" not in entry)
    assert failed["error"].startswith("The GPU has no memory left for this image.")
    entries = client.post("/predict", json=predict([task(1), task(2)])).get_json()["results"]
    assert [len(entry["result"]) for entry in entries] == [8, 8]


def test_what_is_kept_says_so(serving: Serving, weights: Weights, tmp_path: Path) -> None:
    promote(serving, weights(LABELS, {1: (0, 0.8)}), tmp_path)
    version = serving.services.registry.version(UID, 1)
    assert set(version.hashes) == {"weights.pt", "weights.xml", "weights.bin"}
    assert json.loads(version.tags[TAG])[0]["openvino"] == "f32"


ALONE = """
import json, sys
from backend.app import create_app
from backend.serving import make_serving
from backend.settings import Settings

serving = make_serving(Settings())
body = json.loads(sys.stdin.read())
(entry,) = create_app(serving=serving).test_client().post("/predict", json=body).get_json()["results"]
print(entry["model_version"], len(entry["result"]), "torch" in sys.modules)
serving.close()
"""


def test_an_export_is_served_without_loading_torch(serving: Serving, weights: Weights, tmp_path: Path) -> None:
    promote(serving, weights(LABELS, {1: (0, 0.8)}), tmp_path)
    served(serving)  # the project is known from here on
    home = {"YOLOOP_HOME": str(serving.settings.root), "YOLOOP_OFFLINE": "1", "YOLOOP_DEVICE": "cpu"}
    command = [sys.executable, "-c", ALONE]
    body = json.dumps(predict([task(1)]))
    ended = subprocess.run(
        command, input=body, capture_output=True, text=True, timeout=120, env={**os.environ, **home}, check=True
    )
    assert ended.stdout.split()[1:] == ["8", "False"]
