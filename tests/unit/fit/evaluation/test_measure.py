"""A candidate and its opponents, measured with real models of known answers."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.tiny import SIZE, tiny_yolo

from backend.fit.evaluation import measure as measuring
from backend.fit.evaluation.held_out import rank
from backend.fit.evaluation.measure import measure
from backend.fit.training.spec import NetworkSpec, Opponent, Spec
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


def test_others_are_measured_on_the_same_images(tmp_path: Path) -> None:
    right, wrong = {2: (0, 0.8)}, {2: (1, 0.8)}
    spec = spec_of(tmp_path, right, wrong)
    others = [
        Opponent(name, str(tiny_yolo(tmp_path / f"{name}.pt", NETWORK.classes, finds)), asdict(NETWORK), SIZE)
        for name, finds in (("v1", right), ("v2", wrong))
    ]
    spec.networks[0].others.extend(others)
    spec.save(tmp_path)
    found = measure(spec, Spec.load(tmp_path).networks[0])
    assert list(found["others"]) == ["v1", "v2"]
    assert found["others"]["v1"]["metrics"] == found["candidate"]
    assert found["others"]["v1"]["difference"] == {"mean": 0, "low": 0, "high": 0, "rounds": 1000}
    assert found["others"]["v2"] == {"metrics": found["champion"], "difference": found["difference"]}


def test_what_is_told_of_its_start_is_handed_on(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {2: (0, 0.8)}, None)
    found = measure(spec, replace(spec.networks[0], note="It began anew.", initial="x.pt"))
    assert (found["note"], found["initial"]) == ("It began anew.", "x.pt")


class Watched:
    """Reads images; knows how many of them are in memory, and lets time go by at each one."""

    def __init__(self, seconds: float) -> None:
        self.now, self._seconds = 0.0, seconds
        self.names: list[str] = []
        self.most = 0
        self._there: list[weakref.ref[Any]] = []
        self._read = cv2.imread

    def clock(self) -> float:
        return self.now

    def __call__(self, name: str) -> Any:
        image = self._read(name)
        self.now += self._seconds
        self.names.append(name)
        self._there = [each for each in self._there if each() is not None] + [weakref.ref(image)]
        self.most = max(self.most, len(self._there))
        return image


class TestSlow:
    """On a machine where an image takes a second, of which there are 12."""

    def watch(self, monkeypatch: pytest.MonkeyPatch, fewest: int) -> Watched:
        watched = Watched(1.0)
        monkeypatch.setattr(cv2, "imread", watched)
        monkeypatch.setattr(measuring, "FEWEST", fewest)
        return watched

    def test_so_many_judge_as_there_is_time_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = spec_of(tmp_path, {2: (0, 0.8)}, {2: (1, 0.8)})
        watched = self.watch(monkeypatch, 2)
        found = measure(spec, spec.networks[0], seconds=7, clock=watched.clock)
        assert found["holdout"] == 6 and found["objects"] == {"Disc": 6}
        assert found["difference"]["low"] > 0
        assert watched.names[:6] == sorted(watched.names[:6], key=rank)
        assert watched.names[:6] == sorted(map(str, (tmp_path / "network-0").glob("*.png")), key=rank)[:6]

    def test_but_not_fewer_than_allow_a_decision(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = spec_of(tmp_path, {2: (0, 0.8)}, None)
        watched = self.watch(monkeypatch, 9)
        assert measure(spec, spec.networks[0], seconds=2, clock=watched.clock)["holdout"] == 9

    def test_one_image_is_in_memory_at_a_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = spec_of(tmp_path, {2: (0, 0.8)}, {2: (1, 0.8)})
        watched = self.watch(monkeypatch, 2)
        assert measure(spec, spec.networks[0], seconds=600, clock=watched.clock)["holdout"] == IMAGES
        assert watched.most <= 2  # ultralytics' predictor holds the last one

    @pytest.mark.training
    def test_an_export_is_looked_at_within_that_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = spec_of(tmp_path, {2: (0, 0.8)}, {2: (1, 0.8)}, engine="openvino")
        watched = self.watch(monkeypatch, 2)
        found = measure(spec, spec.networks[0], seconds=8, clock=watched.clock)
        assert found["holdout"] == 5, "a quarter is left for another precision"
        assert found["openvino"] in ("auto", "f32") and watched.now <= 9 and watched.most <= 2


def test_measuring_takes_a_part_of_the_minutes() -> None:
    spec = Spec("", CONFIG, [NetworkSpec({}, "", "", "", 1, SIZE)], "", 10.0, 1, "cpu", 50)
    assert measuring.seconds_to_measure(spec) == 120
    assert measuring.seconds_to_measure(replace(spec, minutes=0.1)) == 30
    assert measuring.seconds_to_measure(replace(spec, networks=spec.networks * 2)) == 60


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
