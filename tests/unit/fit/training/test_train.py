"""What a training makes of what it is told to start from."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from support.tiny import SIZE, tiny_yolo

from backend.fit.training.spec import NetworkSpec
from backend.fit.training.train import checked
from backend.labels.networks import Network

NETWORK = Network("detect", "detect", ("Disc", "Square"), ("label",))
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

    path = tmp_path / "x.pt"
    if kind == "text":
        path.write_text("this is no model")
    elif kind == "half":
        whole = tiny_yolo(tmp_path / "whole.pt", NETWORK.classes, {2: (0, 0.8)}).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "yolov5":
        v5(path)
    elif kind == "weights alone":
        torch.save({"a": torch.zeros(3)}, path)
    todo = NetworkSpec(asdict(NETWORK), "", "yolo11n.yaml", str(path), 1, SIZE, str(path), BASE, SIZE)
    found = checked(todo)
    assert (found.initial, found.opponent) == ("", "")
    assert found.note.startswith("x.pt ") and found.note.endswith(" The training began with random weights of yolo11n.")
    assert str(tmp_path) not in found.note


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
