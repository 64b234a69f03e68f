from __future__ import annotations

from typing import Any

import pytest

from backend.feedback.selection import accepted, groups_of, note, run_of
from backend.labels.geometry import Box, Detection, ImageSize, Point
from backend.labels.keypoint import to_regions
from backend.labels.schema import parse_label_config

Region = dict[str, Any]
SIZE = ImageSize(200, 100)


def box(region_id: str, score: float, label: str = "Car", **more: Any) -> Region:
    value = {"x": 1.0, "y": 1.0, "width": 5.0, "height": 5.0, "rectanglelabels": [label]}
    return {"id": region_id, "from_name": "l", "type": "rectanglelabels", "score": score, "value": value, **more}


def sure(result: list[Region], min_score: float = 0.8, **labels: float) -> list[list[str]]:
    return [[each["id"] for each in group.regions] for group in groups_of(result, min_score, labels) if group.sure]


def test_at_or_above_the_score() -> None:
    assert sure([box("a", 0.81), box("b", 0.8), box("c", 0.799)]) == [["a"], ["b"]]
    assert sure([]) == []


def test_a_label_may_have_a_score_of_its_own() -> None:
    result = [box("a", 0.85), box("b", 0.85, "Plane"), box("c", 0.5, "Ship")]
    assert sure(result, Car=0.9, Ship=0.4) == [["b"], ["c"]]


def test_of_several_labels_the_strictest_decides() -> None:
    both = box("a", 0.85)
    both["value"]["rectanglelabels"] = ["Plane", "Car"]
    assert sure([both], Car=0.9) == []
    assert sure([both], Car=0.85) == [["a"]]


def test_a_suggestion_without_a_score_is_never_sure() -> None:
    bare = box("a", 0.9)
    del bare["score"]
    assert sure([bare], 0.0) == []


def test_two_entries_with_one_id_are_one_region() -> None:
    shape = box("a", 0.9) | {"type": "rectangle", "value": {"x": 1.0}}
    label = box("a", 0.9) | {"type": "labels", "value": {"x": 1.0, "labels": ["Car"]}}
    (group,) = groups_of([shape, label], 0.8, {"Car": 0.95})
    assert not group.sure and group.labels == ("Car",) and group.objects == ["Car"]


def skeleton(add: str, score: float, *points: float) -> list[Region]:
    config = (
        '<View><Image name="image" value="$image"/>'
        f'<KeyPointLabels name="p" toName="image" model_add_bboxes="{add}"><Label value="Nose"/><Label value="Tail"/>'
        '</KeyPointLabels><RectangleLabels name="p_bbox" toName="image"><Label value="Dog"/></RectangleLabels></View>'
    )
    control = next(each for each in parse_label_config(config).controls if each.kind == "keypoint")
    ids = iter(f"{score}-{number}" for number in range(9))
    found = Detection(0, score, Box(10, 10, 90, 90), points=tuple(Point(20, 20, each) for each in points))
    return to_regions(found, "Dog", control, SIZE, lambda: next(ids))


def test_a_skeleton_goes_with_its_box_and_by_its_score() -> None:
    result = [*skeleton("true", 0.9, 0.3, 0.4), *skeleton("true", 0.7, 0.99, 0.99)]
    assert len(result) == 6
    assert sure(result) == [["0.9-0", "0.9-1", "0.9-2"]]
    assert groups_of(result, 0.8, {})[0].objects == ["Dog", "Nose", "Tail"]
    assert sure(result, Dog=0.95) == []


def test_points_without_a_box_go_together_by_the_least_of_them() -> None:
    result = [*skeleton("false", 0.9, 0.9, 0.4), *skeleton("false", 0.8, 0.95, 0.85)]
    assert len(result) == 4
    assert sure(result) == [["0.8-0", "0.8-1"]]


def test_parents_in_a_circle_end() -> None:
    result = [box("a", 0.9, parentID="b"), box("b", 0.9, parentID="a"), box("c", 0.9, parentID="c")]
    assert sorted(each for group in sure(result) for each in group) == ["a", "b", "c"]


def test_accepted_regions_say_where_they_are_from() -> None:
    plain, noted = box("a", 0.9), box("b", 0.9, meta={"text": ["Dog a"], "colour": "red"})
    groups = groups_of([plain, noted], 0.8, {})
    (first,), (second,) = (accepted(group, "run7") for group in groups)
    assert first == plain | {"origin": "prediction", "meta": {"text": ["Accepted by yoloop at 0.8 or above, run run7"]}}
    assert second["meta"] == {"text": ["Dog a", note(0.8, "run7")], "colour": "red"}
    assert "meta" not in plain and noted["meta"]["text"] == ["Dog a"]


@pytest.mark.parametrize("least", [0.8, 1.0, 0.123456, 0.0, 0.00001])
def test_a_run_is_known_by_its_note(least: float) -> None:
    mine = box("a", 1.0, meta={"text": ["Dog a", note(least, "run7")]})
    assert run_of([mine, mine]) == "run7"
    assert run_of([mine, box("b", 1.0)]) == run_of([]) == run_of([box("b", 1.0, meta={"text": "a note"})]) == ""
    assert run_of([mine, box("b", 1.0, meta={"text": [note(0.8, "run8")]})]) == ""
