"""What the trainer's process says about a candidate and the version in service, with real models of known answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.tiny import SIZE, tiny_yolo

from backend.fit.evaluation.measure import measure
from backend.fit.training.spec import NetworkSpec, Spec
from backend.fit.training.train import checked
from backend.labels.networks import Network

CONFIG = """
<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
  <Label value="Disc"/><Label value="Square"/></RectangleLabels></View>
"""
NETWORK = Network("detect", "detect", ("Disc", "Square"), ("label",))
IMAGES = 12


def cell(label: str, row: int, column: int) -> dict[str, Any]:
    """A region where `tiny_yolo`'s coarsest grid finds one: a stride of 32 pixels around a cell's centre."""
    x, y = (100 * (32 * index + 16 - 32) / SIZE for index in (column, row))
    value = {"x": x, "y": y, "width": 100.0, "height": 100.0, "rotation": 0, "rectanglelabels": [label]}
    return {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}


def spec_of(
    folder: Path,
    candidate: Mapping[int, tuple[int, float]],
    opponent: Mapping[int, tuple[int, float]] | None,
    engine: str = "torch",
) -> Spec:
    network = folder / "network-0"
    weights = tiny_yolo(network / "run" / "weights" / "best.pt", NETWORK.classes, candidate)
    (network / "trained.json").write_text(json.dumps({"seconds": 3.0}))
    (network / "progress.json").write_text(json.dumps({"epoch": 4}))
    held_out = []
    for number in range(IMAGES):
        path = network / f"{number}.png"
        cv2.imwrite(str(path), np.full((SIZE, SIZE, 3), 10 * number, np.uint8))
        held_out.append({"image": str(path), "result": [cell("Disc", 0, 0)], "page": 0, "data_key": "image"})
    (network / "holdout.json").write_text(json.dumps(held_out))
    todo = NetworkSpec(asdict(NETWORK), str(network), "", "", 1, SIZE)
    if opponent is not None:
        other = tiny_yolo(folder / "opponent.pt", NETWORK.classes, opponent)
        todo = NetworkSpec(asdict(NETWORK), str(network), "", "", 1, SIZE, str(other), asdict(NETWORK), SIZE)
    assert weights.exists()
    return Spec(str(folder), CONFIG, [todo], "", 1.0, 1, "cpu", 50, engine)


def test_two_of_the_same_do_not_differ(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {2: (0, 0.8)}, {2: (0, 0.8)})
    found = measure(spec, spec.networks[0])
    assert found["candidate"] == found["champion"]
    assert found["candidate"]["mAP50"] > 0
    assert found["difference"] == {"mean": 0, "low": 0, "high": 0, "rounds": 1000}
    assert found["objects"] == {"Disc": IMAGES}
    assert (found["holdout"], found["epochs"], found["seconds"]) == (IMAGES, 4, 3.0)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("better", [True, False])
def test_one_that_finds_the_wrong_label_is_worse(tmp_path: Path, better: bool) -> None:
    right, wrong = {2: (0, 0.8)}, {2: (1, 0.8)}
    spec = spec_of(tmp_path, right if better else wrong, wrong if better else right)
    found = measure(spec, spec.networks[0])
    low, high = found["difference"]["low"], found["difference"]["high"]
    assert (low > 0) if better else (high < 0)
    # All scores are the same, so that the order within them is open, and the area under the curve a little too.
    difference = found["candidate"]["mAP50-95"] - found["champion"]["mAP50-95"]
    assert low - 0.05 < difference < high + 0.05
    assert found["objects"] == {"Disc": IMAGES}


def test_without_an_opponent_there_is_no_difference(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {2: (0, 0.8)}, None)
    found = measure(spec, spec.networks[0])
    assert found["champion"] is None
    assert found["difference"] is None


@pytest.mark.training
class TestExport:
    def test_one_that_finds_the_same_may_serve(self, tmp_path: Path) -> None:
        spec = spec_of(tmp_path, {2: (0, 0.8)}, None, engine="openvino")
        assert measure(spec, spec.networks[0])["openvino"] in ("auto", "f32")
        written = {path.name for path in (tmp_path / "network-0" / "run" / "weights").iterdir()}
        assert written == {"best.pt", "best.xml", "best.bin"}

    def test_without_held_out_images_the_others_are_looked_at(self, tmp_path: Path) -> None:
        spec = spec_of(tmp_path, {2: (0, 0.8)}, None, engine="openvino")
        network = tmp_path / "network-0"
        (network / "train.txt").write_text("\n".join(str(path) for path in sorted(network.glob("*.png"))))
        (network / "holdout.json").write_text("[]")
        assert measure(spec, spec.networks[0])["openvino"] in ("auto", "f32")

    def test_one_that_finds_something_else_may_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        from backend.fit.evaluation import export_check

        right = export_check.export
        other = tiny_yolo(tmp_path / "other.pt", NETWORK.classes, {1: (0, 0.8)})
        monkeypatch.setattr(export_check, "export", lambda _, path: right(other, path))
        spec = spec_of(tmp_path, {2: (0, 0.8)}, None, engine="openvino")
        found = measure(spec, spec.networks[0])
        assert found["openvino"] == "" and "its export finds something else" in found["export"]
        assert "torch serves it, for its export finds something else" in caplog.text

    def test_one_that_fails_costs_no_training(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        from backend.fit.evaluation import export_check

        def wrong(weights: Path, path: Path) -> None:
            raise RuntimeError("An operation that cannot be converted")

        monkeypatch.setattr(export_check, "export", wrong)
        spec = spec_of(tmp_path, {2: (0, 0.8)}, None, engine="openvino")
        found = measure(spec, spec.networks[0])
        assert found["openvino"] == "" and found["candidate"]["mAP50"] > 0
        assert "could not be exported" in caplog.text

    def test_a_full_disk_is_not_taken_for_one_that_cannot_serve(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from backend.fit.evaluation import export_check

        def full(weights: Path, path: Path) -> None:
            with Path("/dev/full").open("wb", buffering=0) as file:
                file.write(b"network")

        monkeypatch.setattr(export_check, "export", full)
        spec = spec_of(tmp_path, {2: (0, 0.8)}, None, engine="openvino")
        with pytest.raises(OSError, match="No space left"):
            measure(spec, spec.networks[0])


BASE = asdict(Network("x.pt", "detect", (), own=False))


def v5(path: Path) -> None:
    """As a repository of YOLOv5 saves it: with classes of its own."""
    import sys
    import types

    import torch

    module = types.ModuleType("models.yolo")
    module.Model = type("Model", (torch.nn.Module,), {"__module__": "models.yolo"})
    sys.modules |= {"models": types.ModuleType("models"), "models.yolo": module}
    try:
        torch.save({"epoch": -1, "model": module.Model()}, path)
    finally:
        del sys.modules["models"], sys.modules["models.yolo"]


@pytest.mark.parametrize("kind", ["text", "half", "yolov5", "weights alone", "gone"])
def test_a_base_that_cannot_be_opened_costs_only_its_start(tmp_path: Path, kind: str) -> None:
    import torch

    spec = spec_of(tmp_path, {2: (0, 0.8)}, None)
    path = tmp_path / "x.pt"
    if kind == "text":
        path.write_text("this is no model")
    elif kind == "half":
        whole = (tmp_path / "network-0" / "run" / "weights" / "best.pt").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "yolov5":
        v5(path)
    elif kind == "weights alone":
        torch.save({"a": torch.zeros(3)}, path)
    todo = replace(
        spec.networks[0], architecture="yolo11n.yaml", initial=str(path), opponent=str(path), opponent_network=BASE
    )
    found = checked(todo)
    assert (found.initial, found.opponent) == ("", "")
    assert found.note.startswith("x.pt ") and found.note.endswith(" The training began with random weights of yolo11n.")
    assert str(tmp_path) not in found.note
    measured = measure(spec, found)
    assert measured["champion"] is None and (measured["note"], measured["initial"]) == (found.note, "")


def test_a_base_for_another_task_is_told_of(tmp_path: Path) -> None:
    path = tiny_yolo(tmp_path / "x.pt", NETWORK.classes, {})
    outlines = asdict(replace(NETWORK, key="segment", task="segment"))
    todo = NetworkSpec(outlines, "", "yolo11n-seg.yaml", str(path), 1, SIZE, str(path), BASE, SIZE)
    assert checked(todo).note == (
        "x.pt finds boxes, so the model for outlines starts from random weights, but for the layers that both have."
    )
    assert checked(replace(todo, network=asdict(NETWORK))).note == ""
    own = replace(todo, opponent="", opponent_network={})
    assert checked(own).note == "", "a version of ours for another task is meant to be taken"
