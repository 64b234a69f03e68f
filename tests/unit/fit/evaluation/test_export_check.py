"""The export of a training, and its proof, of each task with real networks that have random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.lively import lively

from backend.engine.detector import Image
from backend.engine.parity import PRECISIONS
from backend.engine.torch import TorchDetector
from backend.fit.evaluation import export_check
from backend.fit.evaluation.export_check import GLANCED, ExportCheck, Exported
from backend.fit.evaluation.metrics import LOWEST, Tally
from backend.labels.geometry import Detection
from backend.labels.networks import Network, Task

pytestmark = pytest.mark.training  # the last step of one

SUFFIX: dict[Task, str] = {"detect": "", "obb": "-obb", "segment": "-seg", "pose": "-pose", "classify": "-cls"}
SIZE = 96


SHAPES = ((96, 96), (60, 200), (203, 51))


def picture(height: int, width: int) -> Image:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


class Trained:
    """A network; what torch finds at 0.25 is the truth."""

    def __init__(self, folder: Path, task: Task) -> None:
        self.weights = lively(folder / "best.pt", f"yolo11n{SUFFIX[task]}.yaml")
        options: dict[str, Any] = {"whole": True, "device": "cpu", "image_size": SIZE}
        plain = TorchDetector(self.weights, **options)
        self.network = Network(task, task, tuple(plain.names.values()))
        self.torch = TorchDetector(self.weights, names=self.network.classes, **options)
        self.tally = Tally(self.network, {index: index for index in range(len(self.network.classes))})
        self.shown: list[tuple[Image, Sequence[Detection], Sequence[Detection]]] = []
        for image in (picture(*shape) for shape in SHAPES):
            found = self.find(image)
            truth = found[:1] if task == "classify" else [each for each in found if each.score >= 0.25]
            self.shown.append((image, truth, found))
            self.tally.add(found, truth)

    def find(self, image: Image) -> Sequence[Detection]:
        return self.torch.detect([image], LOWEST)[0]

    def check(self, find: Callable[[Image], Sequence[Detection]] | None = None) -> ExportCheck:
        return ExportCheck(self.weights, self.network, find or self.find, image_size=SIZE, max_regions=300, threads=2)

    def decided(self, check: ExportCheck, candidate: Tally | None, images: int = len(SHAPES)) -> Exported:
        """What a check says that sees so many images beside torch, with one precision after the other."""
        while check.trying:
            for image, truth, found in self.shown[:images]:
                check.look(image, truth, found)
            if check.same(candidate):
                break
        return check.result


def never(image: Image) -> Sequence[Detection]:
    raise AssertionError("what torch finds is known already")


@pytest.mark.parametrize("task", SUFFIX)
def test_an_export_of_each_task_may_serve(tmp_path: Path, task: Task) -> None:
    trained = Trained(tmp_path, task)
    assert max(trained.tally.measured().metrics.values()) > 0.5
    found = trained.decided(trained.check(never), trained.tally)
    assert found.precision in ("auto", "f32"), found.note
    assert "finds what torch finds" in found.note and "metrics 0.0" in found.note
    assert {path.name for path in tmp_path.iterdir()} >= {"best.pt", "best.xml", "best.bin"}


def test_metrics_that_differ_are_no_parity(tmp_path: Path) -> None:
    trained = Trained(tmp_path, "detect")
    worse = Tally(trained.network, {index: index for index in range(len(trained.network.classes))})
    for _, truth, found in trained.shown:
        worse.add(found[1:], truth)
    found = trained.decided(trained.check(never), worse)
    assert found.precision == "" and "torch serves it, for its export finds something else" in found.note


def test_one_that_saw_fewer_images_is_compared_by_what_it_finds(tmp_path: Path) -> None:
    trained = Trained(tmp_path, "detect")
    found = trained.decided(trained.check(never), trained.tally, images=1)
    assert found.precision in ("auto", "f32") and "metrics" not in found.note


def test_without_a_hold_out_torch_is_asked(tmp_path: Path) -> None:
    trained = Trained(tmp_path, "detect")
    asked: list[Image] = []

    def find(image: Image) -> Sequence[Detection]:
        asked.append(image)
        return trained.find(image)

    check = trained.check(find)
    tries = 0
    while check.trying:
        tries += 1
        for image, _, _ in trained.shown:
            check.look(image, None)
        if check.same(None):
            break
    assert check.result.precision in ("auto", "f32") and len(asked) == tries * len(SHAPES)


def test_another_network_is_no_parity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Trained(tmp_path, "classify")
    other = lively(tmp_path / "other.pt", "yolo11n-cls.yaml", seed=4)
    right = export_check.export
    monkeypatch.setattr(export_check, "export", lambda _, path: right(other, path))
    check = trained.check()
    seen = 0
    for precision in PRECISIONS:
        assert check.trying, precision
        for image, truth, _ in trained.shown * 3:
            seen += check.promising
            check.look(image, truth)
        assert (not check.same(None) and not check.promising) or check.trying
    assert check.result.precision == "" and "scores" in check.result.note
    assert seen == GLANCED * len(PRECISIONS), "after a glance it is given up"


def test_one_that_cannot_be_exported_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Trained(tmp_path, "detect")

    def wrong(weights: Path, path: Path) -> None:
        raise RuntimeError("An operation that cannot be converted")

    monkeypatch.setattr(export_check, "export", wrong)
    check = trained.check(never)
    check.look(*trained.shown[0][:2])
    assert not check.same(trained.tally) and not check.trying
    assert check.result == Exported("", "torch serves it, for it could not be exported (RuntimeError)")
