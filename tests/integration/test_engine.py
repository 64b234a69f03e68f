"""Which engine serves a trained version and a pretrained model, with real weights and real exports."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient
from support.bodies import UID, config, predict, setup, task
from support.shapes import LABELS
from support.tiny import SIZE
from support.waiting import wait_for
from ultralytics.engine.predictor import BasePredictor

from backend.app import create_app
from backend.engine.export import export
from backend.engine.openvino import OpenVinoDetector
from backend.engine.torch import TorchDetector
from backend.labels.networks import Network
from backend.labels.schema import parse_label_config
from backend.served_models.parts import TAG, Part, dump
from backend.served_models.pretrained_export import exported
from backend.server.process import Serving

pytestmark = [pytest.mark.training, pytest.mark.group("engine", minutes=1)]

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
    assert entry["model_version"].startswith("yoloop-v1")
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

    def inference(self: Any, images: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        # A square is what the base model may be warmed with in this moment.
        if images.shape[2] != images.shape[3] and next(full, False):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return inner(self, images, *args, **kwargs)

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
from backend.server.process import make_serving
from backend.settings import Settings

serving = make_serving(Settings())
body = json.loads(sys.stdin.read())
(entry,) = create_app(serving=serving).test_client().post("/predict", json=body).get_json()["results"]
print(entry["model_version"], len(entry["result"]), "torch" in sys.modules)
serving.close()
"""


def alone(serving: Serving) -> list[str]:
    """What a process that starts anew on this home says: the version, its suggestions, and whether torch is loaded."""
    settings = serving.settings
    options = {"HOME": settings.root, "OFFLINE": 1, "DEVICE": "cpu", "BASE_MODEL": "tiny.pt", "IMAGE_SIZE": SIZE}
    env = {**os.environ, **{f"YOLOOP_{name}": str(value) for name, value in options.items()}}
    body = json.dumps(predict([task(1)]))
    ended = subprocess.run(
        [sys.executable, "-c", ALONE], input=body, capture_output=True, text=True, timeout=120, env=env, check=True
    )
    return ended.stdout.split()


def test_an_export_is_served_without_loading_torch(serving: Serving, weights: Weights, tmp_path: Path) -> None:
    promote(serving, weights(LABELS, {1: (0, 0.8)}), tmp_path)
    served(serving)  # the project is known from here on
    assert alone(serving)[1:] == ["8", "False"]


class TestPretrained:
    def detector(self, serving: Serving) -> object:
        found = serving.engine.models.ready(UID, parse_label_config(config()), time.monotonic() + 30)
        assert found.name == "v0"
        return found.suggests[0].loaded.detector

    def ask(self, client: FlaskClient) -> list[tuple[str, float]]:
        """The base model's suggestions: labels and scores, best first."""
        (entry,) = client.post("/predict", json=predict([task(1)])).get_json()["results"]
        assert entry["model_version"] == "yoloop-v0"
        return [
            (each["value"]["rectanglelabels"][0], pytest.approx(each["score"], abs=0.01)) for each in entry["result"]
        ]

    def outcome(self, serving: Serving) -> Path:
        weights = (serving.settings.models_dir / "tiny.pt").read_bytes()
        return serving.settings.root / "exports" / hashlib.sha256(weights).hexdigest() / "outcome.json"

    def test_torch_serves_until_the_export_is_made(self, start: Start) -> None:
        serving = start(engine="openvino", finds={1: (0, 0.8)})
        client = create_app(serving=serving).test_client()
        assert isinstance(self.detector(serving), TorchDetector)
        before = self.ask(client)
        assert len(before) == 8
        until = time.monotonic() + 600  # the export has the lowest priority
        while not isinstance(self.detector(serving), OpenVinoDetector):
            assert self.ask(client) == before
            assert time.monotonic() < until
            time.sleep(0.5)
        assert self.ask(client) == before
        assert json.loads(self.outcome(serving).read_text())["precision"] in ("auto", "f32")
        serving.close()
        assert alone(serving) == ["yoloop-v0", "8", "False"]

    def test_torch_goes_on_where_the_export_failed_and_that_is_remembered(
        self, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        from backend.served_models import pretrained_export

        caplog.set_level(logging.INFO)
        monkeypatch.setattr(pretrained_export, "LONGEST", 0.1)
        serving = start(engine="openvino", finds={1: (0, 0.8)})
        wait_for(lambda: "torch serves it, for its export took more than" in caplog.text, pause=0.01)
        monkeypatch.undo()
        again = start(engine="openvino", finds={1: (0, 0.8)})
        for each in (serving, again):
            assert isinstance(self.detector(each), TorchDetector)
            assert len(self.ask(create_app(serving=each).test_client())) == 8
            each.close()  # waits for what is under way
        assert caplog.text.count("is being made ready for OpenVINO") == 1
        assert json.loads(self.outcome(serving).read_text())["precision"] == ""

    def test_an_export_under_way_does_not_keep_a_server_from_ending(self, start: Start) -> None:
        serving = start(engine="openvino")
        assert isinstance(self.detector(serving), TorchDetector)
        part = self.outcome(serving).parent.with_suffix(".part")
        wait_for(lambda: (part / "export.log").exists(), pause=0.01)
        serving.close()
        assert not part.exists() and not self.outcome(serving).exists()

    def test_a_damaged_export_leaves_it_to_torch(self, start: Start, caplog: pytest.LogCaptureFixture) -> None:
        serving = start()
        made = exported(serving.settings, serving.settings.models_dir / "tiny.pt", threading.Event())
        assert made is not None and made.precision
        made.path.write_text("<net/>")
        again = start(engine="openvino")
        assert isinstance(self.detector(again), TorchDetector)
        assert len(self.ask(create_app(serving=again).test_client())) > 8
        assert "its export could not be loaded; torch serves it" in caplog.text
