"""ultralytics' loop with the minutes on a clock that a test turns: real trainings of tiny networks."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from support.tiny import SIZE, YAML
from ultralytics.engine.trainer import BaseTrainer

from backend.engine.weights import open_model, read_checkpoint
from backend.fit.training import loop
from backend.fit.training import train as training
from backend.fit.training.minutes import Minutes
from backend.fit.training.spec import NetworkSpec, Spec
from backend.fit.training.train import train
from backend.labels.networks import Network, Task

pytestmark = pytest.mark.training

IMAGES = 16
BATCHES = 24
"""Of an epoch: see `recipe.STEPS_AN_EPOCH`."""

CLASSES = ("Disc", "Square")

LINES: dict[Task, str] = {
    "detect": "0.5 0.5 0.4 0.4",
    "obb": "0.3 0.3 0.7 0.3 0.7 0.7 0.3 0.7",
    "segment": "0.3 0.3 0.7 0.3 0.7 0.7 0.3 0.7",
    "pose": "0.5 0.5 0.4 0.4 0.3 0.3 2 0.7 0.7 2",
}
SUFFIX: dict[Task, str] = {"obb": "-obb", "segment": "-seg", "pose": "-pose", "classify": "-cls"}


def spec_of(folder: Path, task: Task = "detect") -> Spec:
    """Sixteen images that teach, and lists that name others to judge: no file of those can be read."""
    network = folder / "network-0"
    images, labels = network / "images" / "train", network / "labels" / "train"
    for each in (images, labels):
        each.mkdir(parents=True)
    random = np.random.default_rng(0)
    paths = [images / f"{number}-image-0.png" for number in range(IMAGES)]
    for number, path in enumerate(paths):
        pixels = random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        pixels[20:44, 20:44] = (0, 0, 255) if number % 2 else (255, 0, 0)
        cv2.imwrite(str(path), pixels)
        if task != "classify":
            (labels / f"{path.stem}.txt").write_text(f"{number % 2} {LINES[task]}")
    held_out = network / "images" / "holdout" / "99-image-0.png"
    held_out.parent.mkdir()
    held_out.write_text("Nobody may look at this.")
    (network / "train.txt").write_text("\n".join(map(str, paths)))
    (network / "holdout.txt").write_text(str(held_out))
    data: dict[str, Any] = {"path": str(network), "train": "epoch.txt", "val": "holdout.txt"}
    data["names"] = dict(enumerate(CLASSES))
    if task == "pose":
        data["kpt_shape"] = [2, 3]
    if task == "classify":
        data["teach"] = [{"image": str(path), "classes": [number % 2]} for number, path in enumerate(paths)]
        data |= {"judge": [{"image": str(held_out), "classes": [0]}], "multiple": False}
    (network / "data.yaml").write_text(json.dumps(data))
    architecture = f"yolo11n{SUFFIX[task]}.yaml" if task in SUFFIX else str(folder / "tiny.yaml")
    (folder / "tiny.yaml").write_text(YAML.format(nc=len(CLASSES)))
    made = Network(task, task, CLASSES, ("label",))
    return Spec(
        str(folder),
        "",
        [NetworkSpec(asdict(made), str(network), architecture, "", IMAGES, SIZE)],
        "",
        5.0,
        1,
        "cpu",
        50,
    )


class Slow:
    """A machine that takes its time for each batch, and may be switched off at one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now, self.seconds = 500.0, seconds
        self.rates: list[float] = []
        self.killed_at = -1
        self._step = BaseTrainer.optimizer_step
        monkeypatch.setattr(BaseTrainer, "optimizer_step", lambda trainer: self._learn(trainer))
        monkeypatch.setattr(training, "Minutes", partial(Minutes, clock=lambda: self.now))

    def _learn(self, trainer: Any) -> None:
        self.now += self.seconds
        self.rates.append(trainer.optimizer.param_groups[0]["lr"] / trainer.optimizer.param_groups[0]["initial_lr"])
        self._step(trainer)
        if len(self.rates) == self.killed_at:
            raise KeyboardInterrupt


def weights_of(folder: Path) -> Path:
    return folder / "network-0" / "run" / "weights"


def noted(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "network-0" / "progress.json").read_text())
    return found


def test_a_first_epoch_that_would_take_hours_ends_within_the_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch, 1000.0)
    spec = spec_of(tmp_path)
    train(tmp_path, spec, 0, 12_000)
    assert len(slow.rates) == 8, "and the epoch has 24"
    assert slow.now - 500 <= 12_000 * 1.05 + 1000
    assert max(slow.rates) > 0.7, "the warm-up is short enough to be left behind"
    assert slow.rates[-1] < 0.2 and slow.rates[-3:] == sorted(slow.rates[-3:], reverse=True)
    assert (noted(tmp_path)["epoch"], noted(tmp_path)["epochs"]) == (1, 1)
    last, best = (read_checkpoint(weights_of(tmp_path) / name) for name in ("last.pt", "best.pt"))
    assert last["epoch"] == best["epoch"] == -1
    started = open_model(Path(spec.networks[0].architecture), "detect").model.state_dict()
    model = open_model(weights_of(tmp_path) / "best.pt").model
    assert all(torch.isfinite(each).all() for each in model.state_dict().values())
    assert any(not torch.equal(each.float(), started[name].float()) for name, each in model.state_dict().items())


def test_later_epochs_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch, 10.0)
    train(tmp_path, spec_of(tmp_path), 0, 600)
    assert 57 <= len(slow.rates) <= 63, "two epochs and a half"
    assert slow.rates[-1] < 0.1
    with (tmp_path / "network-0" / "run" / "results.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3]
    assert (noted(tmp_path)["epoch"], noted(tmp_path)["epochs"]) == (3, 3)


def test_one_with_time_enough_follows_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the machine's clock is set meanwhile."""
    monkeypatch.setattr("backend.fit.training.recipe.STEPS_FROM_SCRATCH", 3 * BATCHES)
    slow = Slow(monkeypatch, 0.001)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 3600 * (len(slow.rates) // 20 % 3 - 1))
    train(tmp_path, spec_of(tmp_path), 0, 600)
    assert len(slow.rates) == 3 * BATCHES
    assert slow.rates[0] == 0 and slow.rates[BATCHES] == max(slow.rates), "one epoch to warm up"
    assert slow.rates[BATCHES] == pytest.approx(2 / 3, abs=0.02)
    assert slow.rates[-1] < 0.03
    same = [read_checkpoint(weights_of(tmp_path) / name)["model"].state_dict() for name in ("last.pt", "best.pt")]
    assert all(torch.equal(each, same[1][name]) for name, each in same[0].items())


def test_one_that_is_killed_within_its_first_epoch_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch, 10.0)
    slow.killed_at = 20
    spec = spec_of(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, spec, 0, 300)
    assert noted(tmp_path)["seconds"] == 190, "all but the batch in which it was killed"
    there = read_checkpoint(weights_of(tmp_path) / "last.pt")
    assert there["epoch"] == 0 and there["ema"] is not None
    slow.now += 5000  # it was off
    began = slow.now
    train(tmp_path, spec, 0, 300)
    assert 300 - 50 <= slow.now - began + 190 <= 300 * 1.05 + 10
    assert slow.rates[20] < 0.5 and slow.rates[-1] < 0.1, "the learning rate goes on where it was"
    assert read_checkpoint(weights_of(tmp_path) / "best.pt")["epoch"] == -1
    assert json.loads((tmp_path / "network-0" / "trained.json").read_text())["seconds"] == noted(tmp_path)["seconds"]


def test_one_that_is_killed_when_all_was_learned_is_only_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch, 100.0)
    spec = spec_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "finish", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, spec, 0, 800)
    learned = len(slow.rates)
    train(tmp_path, spec, 0, 800)
    assert len(slow.rates) == learned
    assert read_checkpoint(weights_of(tmp_path) / "best.pt")["epoch"] == -1


@pytest.mark.parametrize("task", ["obb", "segment", "pose", "classify"])
def test_every_task_ends_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Task) -> None:
    slow = Slow(monkeypatch, 100.0)
    train(tmp_path, spec_of(tmp_path, task), 0, 700)
    assert len(slow.rates) == 3
    assert open_model(weights_of(tmp_path) / "best.pt").task == task
    assert noted(tmp_path)["metric"] == ("accuracy" if task == "classify" else "mAP50")
    if task != "classify":
        watched = sorted(path.name for path in (tmp_path / "network-0" / "watched" / "images").iterdir())
        assert watched == sorted(path.name for path in (tmp_path / "network-0" / "images" / "train").iterdir())


def test_few_images_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "WATCHED", 5)
    spec_of(tmp_path)
    folder = tmp_path / "network-0"
    assert loop.watched(folder, "detect") == {"val": str(folder / "watched" / "images")}
    names = {path.stem for path in (folder / "watched" / "images").iterdir()}
    assert len(names) == 5 == len({path.stem for path in (folder / "watched" / "labels").iterdir()} & names)
    assert loop.watched(folder, "detect"), "once more, for one that goes on"
