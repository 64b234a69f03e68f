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
from model_registry import Comparison

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
    compared = Comparison.load(found["comparison"])
    assert (compared.score.difference, compared.score.error, compared.work.difference) == (0, 0, 0)
    assert (compared.against, compared.labels, compared.added) == ("v0", NETWORK.classes, ())
    assert (compared.images, compared.groups, compared.objects) == (IMAGES, IMAGES, IMAGES)
    assert found["objects"] == {"Disc": IMAGES}
    assert (found["holdout"], found["epochs"], found["seconds"]) == (IMAGES, 4, 3.0)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("better", [True, False])
def test_one_that_finds_the_wrong_label_is_worse(tmp_path: Path, better: bool) -> None:
    right, wrong = {2: (0, 0.8)}, {2: (1, 0.8)}
    spec = spec_of(tmp_path, right if better else wrong, wrong if better else right)
    found = measure(spec, spec.networks[0])
    compared = Comparison.load(found["comparison"])
    assert (compared.score.loss < 0) is better
    assert min(compared.score.chance, 1 - compared.score.chance) < 1e-6
    assert found["scored"]["score"] == compared.score.candidate
    assert found["scored"]["work"] == compared.work.candidate
    # A suggestion with the wrong label is relabelled, where a right one is not touched.
    assert compared.work.difference == (-IMAGES if better else IMAGES)
    assert found["objects"] == {"Disc": IMAGES}


def test_without_an_opponent_there_is_no_difference(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {2: (0, 0.8)}, None)
    found = measure(spec, spec.networks[0])
    assert found["champion"] is None
    assert found["comparison"] is None
    assert found["scored"] == {
        "metric": "mAP50-95",
        "score": pytest.approx(found["candidate"]["mAP50-95"], abs=0.01),
        "work": 3 * IMAGES,
        "images": IMAGES,
        "objects": IMAGES,
    }


def test_what_people_would_see_is_what_the_control_says(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {2: (0, 0.8)}, None)
    strict = spec.label_config.replace("<RectangleLabels ", '<RectangleLabels model_score_threshold="0.9" ')
    for changed in (replace(spec, label_config=strict), replace(spec, score_threshold=0.9)):
        found = measure(changed, changed.networks[0])["scored"]
        assert found["work"] == IMAGES, "nothing is suggested, so that all is drawn"
        assert found["score"] > 0


def test_a_version_is_judged_at_the_thresholds_that_it_would_serve_at(tmp_path: Path) -> None:
    """One of four suggestions is right: nothing that saves work, so it would show nothing, and all is drawn."""
    spec = replace(spec_of(tmp_path, {2: (0, 0.8)}, {2: (0, 0.8)}), own_thresholds=True)
    found = measure(spec, spec.networks[0])
    assert {label: each["least"] for label, each in found["thresholds"].items()} == {"Disc": None}
    compared = Comparison.load(found["comparison"])
    assert (compared.work.candidate, compared.work.other) == (IMAGES, 3 * IMAGES), "the other one has none of its own"
    both = replace(spec, networks=[replace(spec.networks[0], opponent_thresholds=True)])
    compared = Comparison.load(measure(both, both.networks[0])["comparison"])
    assert (compared.work.candidate, compared.work.other) == (IMAGES, IMAGES)


def test_without_a_held_out_object_nothing_says_that_suggestions_save_work(tmp_path: Path) -> None:
    spec = replace(spec_of(tmp_path, {2: (0, 0.8)}, None), own_thresholds=True)
    (tmp_path / "network-0" / "holdout.json").write_text("[]")
    found = measure(spec, spec.networks[0])["thresholds"]
    assert {label: each["least"] for label, each in found.items()} == dict.fromkeys(NETWORK.classes)
    assert measure(replace(spec, own_thresholds=False), spec.networks[0])["thresholds"] == {}


def test_images_of_one_group_are_drawn_together(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {2: (0, 0.8)}, {2: (1, 0.8)})
    path = tmp_path / "network-0" / "holdout.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([{**each, "group": f"scene {number % 3}"} for number, each in enumerate(entries)]))
    compared = Comparison.load(measure(spec, spec.networks[0])["comparison"])
    assert (compared.images, compared.groups, compared.score.freedom) == (IMAGES, 3, 2)


def test_only_labels_that_both_know_are_compared(tmp_path: Path) -> None:
    """The version in service knows no Square: it is no worse for it, and the candidate's are told."""
    spec = spec_of(tmp_path, {2: (1, 0.8)}, {2: (0, 0.8)})
    todo = replace(spec.networks[0], opponent_network=asdict(replace(NETWORK, classes=("Disc", "Car"))))
    compared = Comparison.load(measure(spec, todo)["comparison"])
    assert (compared.labels, compared.added) == (("Disc",), ("Square",))
    assert compared.score.candidate == 0 < compared.score.other
    # What the candidate calls a Square is not compared: it misses each Disc, and the other finds three too many.
    assert (compared.work.candidate, compared.work.other) == (IMAGES, 3 * IMAGES)


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
    assert Comparison.load(found["others"]["v1"]["comparison"]).score.difference == 0
    assert found["others"]["v2"] == {
        "metrics": found["champion"],
        "comparison": {**found["comparison"], "against": "v2"},
    }


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
        assert Comparison.load(found["comparison"]).score.interval[0] > 0
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
