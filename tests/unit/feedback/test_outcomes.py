from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import mask2rle

from backend.feedback.outcomes import Outcome, labels_of, outcomes

Region = dict[str, Any]


def region(kind: str, label: str | list[Any], region_id: str = "a", score: float | None = 0.9, **value: Any) -> Region:
    key = f"{kind}labels" if kind not in ("choices", "taxonomy") else kind
    labels = label if isinstance(label, list) else [label]
    found = {
        "id": region_id,
        "from_name": "label",
        "to_name": "image",
        "type": key,
        "original_width": 200,
        "original_height": 100,
        "value": {**value, key: labels},
    }
    return found if score is None else {**found, "score": score}


def box(label: str = "Car", region_id: str = "a", x: float = 10.0, width: float = 20.0, **more: Any) -> Region:
    place = {"x": x, "y": 10.0, "width": width, "height": 20.0, "rotation": 0}
    return region("rectangle", label, region_id, more.pop("score", 0.9), **(place | more))


def fates(found: list[Outcome]) -> dict[str, str]:
    return {each.region_id: each.outcome for each in found}


class TestBoxes:
    def test_every_fate(self) -> None:
        suggested = [box(region_id=each, score=0.5) for each in ("kept", "moved", "named", "gone")]
        drawn = [
            box(region_id="kept"),
            box(region_id="moved", x=15.0),
            box("Plane", region_id="named"),
            box("Plane", "new", score=None),
        ]
        found = {each.region_id: each for each in outcomes(suggested, drawn)}
        assert found["kept"] == Outcome("kept", "label", "Car", "accepted", 0.5)
        assert found["moved"].outcome == "moved" and found["moved"].iou == pytest.approx(15 / 25, abs=1e-4)
        assert found["named"] == Outcome("named", "label", "Car", "relabelled", 0.5)
        assert found["gone"] == Outcome("gone", "label", "Car", "deleted", 0.5)
        assert found["new"] == Outcome("new", "label", "Plane", "missed")
        assert [each.right for each in found.values()] == [True, False, False, False, False]

    @pytest.mark.parametrize(("x", "right"), [(10.0, True), (10.009, True), (13.0, True), (14.0, False), (60.0, False)])
    def test_right_is_what_moved_little(self, x: float, right: bool) -> None:
        (found,) = outcomes([box()], [box(x=x)])
        assert found.right == right
        assert found.outcome == ("accepted" if x < 10.02 else "moved")

    def test_of_turned_boxes_the_overlap_is_that_of_the_turned_ones(self) -> None:
        turned = box(rotation=45)
        (found,) = outcomes([turned], [box(rotation=135)])
        assert found.outcome == "moved" and found.iou is not None and found.iou < 0.5
        assert fates(outcomes([turned], [box(rotation=45.005)])) == {"a": "accepted"}

    def test_a_missing_rotation_is_none(self) -> None:
        other = box()
        del other["value"]["rotation"]
        assert fates(outcomes([box()], [other])) == {"a": "accepted"}

    def test_an_unlabelled_region_is_another_label_and_nothing_missed(self) -> None:
        bare = box()
        bare["value"]["rectanglelabels"] = []
        assert fates(outcomes([box()], [bare, {**bare, "id": "b"}])) == {"a": "relabelled"}

    def test_another_page_is_another_place(self) -> None:
        (found,) = outcomes([box()], [{**box(), "item_index": 2}])
        assert (found.outcome, found.iou) == ("moved", 0.0)

    @given(st.floats(0, 70), st.floats(1, 25))
    def test_what_stays_is_accepted_wherever_it_is(self, x: float, width: float) -> None:
        assert fates(outcomes([box(x=x, width=width)], [box(x=x, width=width)])) == {"a": "accepted"}


def ellipse(x: float) -> Region:
    return region("ellipse", "Car", x=x, y=50.0, radiusX=10.0, radiusY=10.0, rotation=0)


def polygon(x: float) -> Region:
    return region("polygon", "Car", points=[[x, 10.0], [x + 20, 10.0], [x + 20, 30.0], [x, 30.0]], closed=True)


def brush(x: float) -> Region:
    mask = np.zeros((100, 200), np.uint8)
    mask[10:30, int(2 * x) : int(2 * x) + 40] = 255
    return region("brush", "Car", format="rle", rle=mask2rle(mask))


@pytest.mark.parametrize("draw", [lambda x: box(x=x), ellipse, polygon, brush])
def test_overlap_of_every_shape(draw: Callable[[float], Region]) -> None:
    assert fates(outcomes([draw(20)], [draw(20)])) == {"a": "accepted"}
    (little,), (much,) = outcomes([draw(20)], [draw(21)]), outcomes([draw(20)], [draw(35)])
    assert little.outcome == much.outcome == "moved"
    assert little.iou == pytest.approx(19 / 21, abs=0.02) and much.iou == pytest.approx(5 / 35, abs=0.02)
    assert little.right and not much.right


def test_the_same_mask_in_other_words_is_unmoved() -> None:
    one, other = brush(20), brush(20)
    assert one["value"]["rle"] == other["value"]["rle"]
    half = np.zeros((100, 200), np.uint8)
    half[10:30, 40:80] = 200  # paint that is not quite opaque covers the same pixels
    other["value"]["rle"] = mask2rle(half)
    assert fates(outcomes([one], [other])) == {"a": "accepted"}


def test_points_have_no_overlap_and_stand_for_themselves() -> None:
    def points(x: float) -> list[Region]:
        frame = box("Person", "frame")
        nose = region("keypoint", "Nose", "nose", 0.6, x=x, y=20.0, width=1.0) | {"from_name": "points"}
        tail = region("keypoint", "Tail", "tail", 0.3, x=20.0, y=20.0, width=1.0) | {"from_name": "points"}
        return [frame, {**nose, "parentID": "frame"}, {**tail, "parentID": "frame"}]

    found = {each.region_id: each for each in outcomes(points(15), points(18)[:2])}
    assert fates(list(found.values())) == {"frame": "accepted", "nose": "moved", "tail": "deleted"}
    assert found["nose"].iou is None and not found["nose"].right and found["nose"].control == "points"


def test_a_drawing_with_its_labels_apart_counts_once() -> None:
    def pair(x: float, label: str) -> list[Region]:
        value = {"x": x, "y": 10.0, "width": 20.0, "height": 20.0, "rotation": 0}
        common = {"id": "a", "to_name": "image", "original_width": 200, "original_height": 100, "score": 0.7}
        shape = {**common, "from_name": "rect", "type": "rectangle", "value": value}
        return [
            shape,
            {**common, "from_name": "name", "type": "labels", "value": {**value, "labels": [label]}},
        ]

    assert outcomes(pair(10, "Car"), pair(10, "Car")) == [Outcome("a", "name", "Car", "accepted", 0.7)]
    assert fates(outcomes(pair(10, "Car"), pair(10, "Plane"))) == {"a": "relabelled"}
    (moved,) = outcomes(pair(10, "Car"), pair(11, "Car"))
    assert moved.outcome == "moved" and moved.right
    assert fates(outcomes(pair(10, "Car"), [])) == {"a": "deleted"}
    assert fates(outcomes([], pair(10, "Car"))) == {"a": "missed"}


class TestAnswers:
    def test_a_changed_answer_is_relabelled_whatever_its_id(self) -> None:
        one, other = region("choices", "Day", "a", 0.8), region("choices", "Night", "z", None)
        assert outcomes([one], [other]) == [Outcome("a/Day", "label", "Day", "relabelled", 0.8)]
        assert fates(outcomes([one], [{**one, "id": "z"}])) == {"a/Day": "accepted"}
        assert fates(outcomes([one], [])) == {"a/Day": "deleted"}
        assert fates(outcomes([], [other])) == {"z/Night": "missed"}

    def test_several_answers_are_told_apart(self) -> None:
        one, other = region("choices", ["Wet", "Cold"]), region("choices", ["Cold", "Dark", "Loud"])
        assert fates(outcomes([one], [other])) == {
            "a/Wet": "relabelled",
            "a/Cold": "accepted",
            "a/Loud": "missed",
        }

    def test_paths_of_a_taxonomy(self) -> None:
        one, other = region("taxonomy", [["Land", "Wood"]]), region("taxonomy", [["Land", "Sand"]])
        assert fates(outcomes([one], [other])) == {"a/Land / Wood": "relabelled"}

    def test_answers_about_a_region_are_no_region(self) -> None:
        about = region("choices", "Broken", "a", None)
        assert fates(outcomes([box()], [box(), about])) == {"a": "accepted"}


def test_only_the_named_controls_count() -> None:
    drawn = [box(), box(region_id="b") | {"from_name": "other"}]
    assert fates(outcomes([], drawn, {"label"})) == {"a": "missed"}
    assert fates(outcomes([], drawn)) == {"a": "missed", "b": "missed"}


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "relation", "from_id": "a", "to_id": "b"},
        {"id": 3, "type": "rectanglelabels", "from_name": "label", "value": {"rectanglelabels": ["Car"]}},
        {"id": "b", "type": "textarea", "from_name": "text", "value": {"text": ["Car"]}},
        {"id": "b", "type": "rectanglelabels", "from_name": "label", "value": None},
        {"id": "b", "type": "labels", "from_name": "label", "value": {"labels": ["Car"]}},
        {},
    ],
)
def test_what_is_no_region_is_left_out(broken: Region) -> None:
    assert fates(outcomes([box(), broken], [box(), broken])) == {"a": "accepted"}


def test_a_place_that_cannot_be_read_is_no_error() -> None:
    (found,) = outcomes([box()], [box(x=float("nan"))])
    assert (found.outcome, found.iou) == ("moved", 0.0)


def test_labels_of_an_entry() -> None:
    assert labels_of(region("taxonomy", [["a", "b"], ["c"]])) == ("a / b", "c")
    assert labels_of(region("choices", [["a", "b"]])) == ("b",)
    assert labels_of({"type": "rectangle", "value": {"x": 1}}) == ()


@pytest.mark.parametrize("size", [(10**9, 10**9), (10**308, 10**308), (1, 10**12), (0, 0), (-5, 5)])
def test_a_size_past_all_measure_costs_no_memory(size: tuple[int, int]) -> None:
    def drawn(far: float) -> dict[str, object]:
        return {
            **{"id": "r", "from_name": "l", "to_name": "image", "type": "polygonlabels"},
            **{"original_width": size[0], "original_height": size[1]},
            "value": {"points": [[0, 0], [far, 0], [far, 50], [0, 50]], "polygonlabels": ["a"]},
        }

    (found,) = outcomes([drawn(50.0)], [drawn(100.0)])
    assert found.outcome == "moved"
    assert found.iou == pytest.approx(0.5)
