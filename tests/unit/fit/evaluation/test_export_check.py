"""The export of a training, and its proof, of each task with real networks that have random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.lively import lively

from backend.engine.detector import Image
from backend.engine.torch import TorchDetector
from backend.fit.evaluation import export_check
from backend.fit.evaluation.export_check import COMPARED, Exported, Keeping, exported
from backend.fit.evaluation.metrics import Measured, measured
from backend.labels.geometry import Detection
from backend.labels.networks import Network, Task

pytestmark = pytest.mark.training  # the last step of one

SUFFIX: dict[Task, str] = {"detect": "", "obb": "-obb", "segment": "-seg", "pose": "-pose", "classify": "-cls"}
SIZE = 96


SHAPES = ((96, 96), (60, 200), (203, 51))


def picture(height: int, width: int) -> Image:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


class Trained:
    """A network, and what torch found on the hold-out; what it finds at 0.25 is the truth there."""

    def __init__(self, folder: Path, task: Task) -> None:
        self.weights = lively(folder / "best.pt", f"yolo11n{SUFFIX[task]}.yaml")
        options: dict[str, Any] = {"whole": True, "device": "cpu", "image_size": SIZE}
        plain = TorchDetector(self.weights, **options)
        self.network = Network(task, task, tuple(plain.names.values()))
        self.torch = Keeping(TorchDetector(self.weights, names=self.network.classes, **options))
        self.images = [picture(*shape) for shape in SHAPES]
        found = [plain.detect([image], 0.25)[0] for image in self.images]
        self.truths = [each[:1] if task == "classify" else each for each in found]
        self.measured = self.measure()

    def measure(self) -> Measured:
        labels = {index: index for index in range(len(self.network.classes))}
        return measured(self.torch, labels, self.images, self.truths, self.network)

    def export(self, candidate: Measured | None, seen: list[list[Detection]] | None) -> Exported:
        return exported(
            self.weights,
            self.network,
            self.images,
            self.truths,
            candidate,
            seen,
            image_size=SIZE,
            max_regions=300,
            threads=2,
        )


@pytest.mark.parametrize("task", SUFFIX)
def test_an_export_of_each_task_may_serve(tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Trained(tmp_path, task)
    assert max(trained.measured.metrics.values()) > 0.5

    def again(*given: Any) -> None:
        raise AssertionError("what torch finds is known already")

    monkeypatch.setattr(TorchDetector, "detect", again)
    found = trained.export(trained.measured, trained.torch.found)
    assert found.precision in ("auto", "f32"), found.note
    assert "finds what torch finds" in found.note
    assert {path.name for path in tmp_path.iterdir()} >= {"best.pt", "best.xml", "best.bin"}


def test_metrics_that_differ_are_no_parity(tmp_path: Path) -> None:
    trained = Trained(tmp_path, "detect")
    metrics = {**trained.measured.metrics, "mAP50-95": trained.measured.metrics["mAP50-95"] + 0.01}
    found = trained.export(Measured(metrics, trained.measured.evidence, {}), trained.torch.found)
    assert found.precision == "" and "torch serves it, for its export finds something else" in found.note


def test_without_a_hold_out_torch_looks_at_the_images_here(tmp_path: Path) -> None:
    assert Trained(tmp_path, "detect").export(None, None).precision in ("auto", "f32")


def test_another_network_is_no_parity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Trained(tmp_path, "classify")
    other = lively(tmp_path / "other.pt", "yolo11n-cls.yaml", seed=4)
    right = export_check.export
    monkeypatch.setattr(export_check, "export", lambda _, path: right(other, path))
    found = trained.export(None, trained.torch.found)
    assert found.precision == "" and "scores" in found.note


def test_what_would_be_seen_is_kept_of_the_first_images(tmp_path: Path) -> None:
    plain = TorchDetector(lively(tmp_path / "n.pt", "yolo11n.yaml"), device="cpu", image_size=64)
    keeping = Keeping(plain)
    images = [picture(60 + number % 3, 64) for number in range(COMPARED + 2)]
    found = [each for image in images for each in keeping.detect([image], 0.001)]
    assert found == [plain.detect([image], 0.001)[0] for image in images]  # nothing is kept back from who asks
    assert len(keeping.found) == COMPARED
    assert keeping.found == [[one for one in each if one.score >= 0.2] for each in found[:COMPARED]]
    assert 0 < sum(map(len, keeping.found)) < sum(map(len, found))
