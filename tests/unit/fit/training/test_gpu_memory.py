"""Trainings for which a GPU's memory does not suffice: real ones, on a CPU, that are told so where it would happen."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from support.shapes import LABELS, draw_pictures
from support.tiny import SIZE, YAML
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator

from backend.errors import TrainingError
from backend.fit.training import recipe
from backend.fit.training.gpu_memory import SHARE, back_off, prepare_gpu
from backend.fit.training.process import _last_words
from backend.fit.training.spec import NetworkSpec, Spec
from backend.fit.training.train import train
from backend.labels.networks import Network

pytestmark = pytest.mark.training

IMAGES, HELD_OUT = 16, 12
NETWORK = Network("detect", "detect", LABELS, ("label",))
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."

Fits = Callable[[int, int], bool]
"""Of an epoch's number, from 0, and a batch's size."""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """Six epochs of two batches of eight."""
    for name, value in (("STEPS_AN_EPOCH", 2), ("STEPS_FROM_SCRATCH", 12), ("PASSES", 1)):
        monkeypatch.setattr(recipe, name, value)
    folder = tmp_path / "network-0"
    for side, count in (("train", IMAGES), ("holdout", HELD_OUT)):
        (folder / "labels" / side).mkdir(parents=True)
        drawn = draw_pictures(folder / "images" / side, count, seed=count, size=SIZE)
        for each in drawn:
            lines = []
            for shape in each.shapes:
                left, top, right, bottom = (value / SIZE for value in shape.box)
                centre = f"{(left + right) / 2} {(top + bottom) / 2} {right - left} {bottom - top}"
                lines.append(f"{LABELS.index(shape.label)} {centre}")
            (folder / "labels" / side / f"{each.path.stem}.txt").write_text("\n".join(lines))
        if side == "train":
            (folder / "train.txt").write_text("\n".join(str(each.path) for each in drawn))
    names = dict(enumerate(LABELS))
    data = {"path": str(folder), "train": "epoch.txt", "val": "images/holdout", "names": names}
    (folder / "data.yaml").write_text(json.dumps(data))
    (tmp_path / "tiny.yaml").write_text(YAML.format(nc=len(LABELS)))
    todo = NetworkSpec(asdict(NETWORK), str(folder), str(tmp_path / "tiny.yaml"), "", IMAGES, SIZE)
    return Spec(str(tmp_path), "", [todo], "", 5.0, 1, "cpu", 50)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[int, int]]]:
    """Lets only those batches through that fit; gives the epoch and size of each that taught."""

    def only(teaches: Fits = lambda *_: True, judges: Fits = lambda *_: True) -> list[tuple[int, int]]:
        taught: list[tuple[int, int]] = []
        teach, judge = DetectionTrainer.preprocess_batch, DetectionValidator.preprocess

        def preprocess_batch(self: Any, batch: Any) -> Any:
            size = len(batch["img"])
            if not teaches(self.epoch, size):
                raise torch.cuda.OutOfMemoryError(FULL)
            taught.append((self.epoch, size))
            return teach(self, batch)

        def preprocess(self: Any, batch: Any) -> Any:
            if not judges(0, len(batch["img"])):
                raise torch.cuda.OutOfMemoryError(FULL)
            return judge(self, batch)

        monkeypatch.setattr(DetectionTrainer, "preprocess_batch", preprocess_batch)
        monkeypatch.setattr(DetectionValidator, "preprocess", preprocess)
        return taught

    return only


def run_of(spec: Spec) -> Path:
    return Path(spec.networks[0].folder) / "run"


def epochs_of(spec: Spec) -> list[int]:
    with (run_of(spec) / "results.csv").open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def test_the_first_epoch_begins_again_with_less(spec: Spec, tmp_path: Path, room: Any) -> None:
    taught = room(lambda _, size: size <= 4)
    train(tmp_path, spec, 0, 300)
    assert {size for _, size in taught} == {4}
    assert epochs_of(spec) == [1, 2, 3, 4, 5, 6]
    assert (run_of(spec) / "weights" / "best.pt").exists()


def test_a_later_epoch_goes_on_where_it_was(
    spec: Spec, tmp_path: Path, room: Any, caplog: pytest.LogCaptureFixture
) -> None:
    taught = room(lambda epoch, size: epoch < 3 or size <= 4)
    train(tmp_path, spec, 0, 300)
    assert "full with batches of 8 images; going on with 4" in caplog.text
    assert {size for epoch, size in taught if epoch < 3} == {8}
    assert {size for epoch, size in taught if epoch >= 3} == {4}
    assert epochs_of(spec) == [1, 2, 3, 4, 5, 6]
    assert all(sum(size for each, size in taught if each == epoch) == IMAGES for epoch in range(6))


def test_a_validation_takes_smaller_batches_too(spec: Spec, tmp_path: Path, room: Any) -> None:
    taught = room(judges=lambda _, size: size <= 8)  # ultralytics judges with twice the batch
    train(tmp_path, spec, 0, 300)
    assert [size for _, size in taught[:1]] == [8]
    assert {size for epoch, size in taught if epoch > 0} == {4}
    assert (Path(spec.networks[0].folder) / "trained.json").exists()


def test_one_that_never_fits_says_what_to_do(spec: Spec, tmp_path: Path, room: Any) -> None:
    room(lambda *_: False)
    with pytest.raises(TrainingError, match=r"not enough memory .* Lower YOLOOP_IMAGE_SIZE"):
        train(tmp_path, spec, 0, 300)
    assert not (Path(spec.networks[0].folder) / "trained.json").exists()


def test_another_error_ends_it(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, batch: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(DetectionTrainer, "preprocess_batch", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        train(tmp_path, spec, 0, 300)


@pytest.mark.parametrize(
    ("first", "fits", "tried"),
    [(16, 16, [None]), (16, 4, [None, 8, 4]), (16, 2, [None, 8, 4, 2]), (5, 2, [None, 2]), (3, 2, [None, 2])],
)
def test_the_batch_is_halved_until_it_fits(first: int, fits: int, tried: list[int | None]) -> None:
    seen: list[int | None] = []

    def run(batch: int | None) -> int:
        seen.append(batch)
        size = batch or first
        return 0 if size <= fits else size

    back_off(run)
    assert seen == tried


@pytest.mark.parametrize("full", [1, 2])
def test_the_smallest_batch_is_the_last_try(full: int) -> None:
    with pytest.raises(TrainingError, match=f"batches of {full} images"):
        back_off(lambda _: full)


def test_a_cpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.engine import trainer

    before = trainer.check_amp
    assert prepare_gpu("cpu") is False
    assert trainer.check_amp is before


class TestPrepareGpu:
    """On a GPU that is only a name."""

    @pytest.fixture
    def shares(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Any]]:
        from ultralytics.engine import trainer

        taken: list[tuple[float, Any]] = []
        monkeypatch.setattr(trainer, "check_amp", trainer.check_amp)  # put back after the test
        monkeypatch.setattr(
            torch.cuda, "set_per_process_memory_fraction", lambda share, device: taken.append((share, device))
        )
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
        return taken

    @pytest.mark.parametrize(("name", "half"), [("NVIDIA L4", True), ("NVIDIA GeForce GTX 1650", False)])
    def test_the_chip_decides_and_nothing_is_downloaded(
        self, spec: Spec, monkeypatch: pytest.MonkeyPatch, shares: list[tuple[float, Any]], name: str, half: bool
    ) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
        assert prepare_gpu("cuda:1") is half
        assert shares == [(SHARE, torch.device("cuda:1"))]
        todo = spec.networks[0]
        (Path(todo.folder) / "epoch.txt").write_text((Path(todo.folder) / "train.txt").read_text())
        arguments = {"model": todo.architecture, "data": f"{todo.folder}/data.yaml", "project": todo.folder}
        made = DetectionTrainer(overrides={**arguments, "imgsz": SIZE, "device": "cpu", "amp": True, "plots": False})
        made._setup_train()
        assert made.amp is half


def test_the_reason_is_what_a_job_tells(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(
        "Traceback (most recent call last):\nbackend.errors.TrainingError: The GPU is full. Do this.\n"
    )
    assert _last_words(tmp_path, tmp_path) == "The GPU is full. Do this."
