from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.labels.geometry import ImageSize
from backend.labels.region import Drawn, classes_of, draw, drawn, number, span
from backend.labels.schema import parse_label_config

LABELS = '<Label value="Car"/><Label value="Plane"/>'
OWN = parse_label_config(
    f"""<View><Image name="image" value="$image"/>
    <PolygonLabels name="label" toName="image">{LABELS}</PolygonLabels></View>"""
).controls[0]
SHARED = parse_label_config(
    f"""<View><Image name="image" value="$image"/><Labels name="label" toName="image">{LABELS}</Labels>
    <Rectangle name="box" toName="image"/><Ellipse name="round" toName="image"/></View>"""
).controls
BOX, ROUND = SHARED
SIZE = ImageSize(640, 480)
VALUE = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}


def entry(from_name: str, kind: str, region_id: str = "r", **changes: Any) -> dict[str, Any]:
    """One entry of a result, as Label Studio stores it."""
    value = {**VALUE, "labels": ["Car"]} if kind == "labels" else VALUE
    common = {"id": region_id, "to_name": "image", "original_width": 640, "original_height": 480, "value": value}
    return {**common, "from_name": from_name, "type": kind, **changes}


def test_a_tag_with_labels_draws_one_entry() -> None:
    value = {"points": [[1, 2], [3, 4], [5, 6]], "closed": True}
    assert draw(OWN, ["Car"], value, 0.5, SIZE, "r") == [
        {
            "id": "r",
            "from_name": "label",
            "to_name": "image",
            "type": "polygonlabels",
            "original_width": 640,
            "original_height": 480,
            "image_rotation": 0,
            "score": 0.5,
            "value": {**value, "polygonlabels": ["Car"]},
        }
    ]


def test_tags_apart_draw_two_entries_with_one_id() -> None:
    common = {
        "id": "r",
        "to_name": "image",
        "original_width": 640,
        "original_height": 480,
        "image_rotation": 0,
        "score": 0.5,
    }
    assert draw(BOX, ["Car"], VALUE, 0.5, SIZE, "r") == [
        {**common, "from_name": "box", "type": "rectangle", "value": VALUE},
        {**common, "from_name": "label", "type": "labels", "value": {**VALUE, "labels": ["Car"]}},
    ]


@pytest.mark.parametrize("control", [OWN, BOX])
def test_parent_and_note_stand_on_every_entry(control: Any) -> None:
    for made in draw(control, ["Car"], VALUE, 0.5, SIZE, "r", parent_id="p", meta={"text": ["a"]}):
        assert (made["parentID"], made["meta"]) == ("p", {"text": ["a"]})
    for made in draw(control, ["Car"], VALUE, 0.5, SIZE, "r"):
        assert not {"parentID", "meta"} & set(made)


@pytest.mark.parametrize(("score", "expected"), [(-0.5, 0), (0.25, 0.25), (1.5, 1)])
def test_scores_are_clamped(score: float, expected: float) -> None:
    assert [made["score"] for made in draw(BOX, ["Car"], VALUE, score, SIZE, "r")] == [expected, expected]


@pytest.mark.parametrize("control", [OWN, BOX, ROUND])
def test_what_is_drawn_is_read_back(control: Any) -> None:
    made = draw(control, ["Plane", "Car"], VALUE, 0.5, SIZE, "r", parent_id="p")
    (back,) = drawn(made, control)
    assert {name: back.value[name] for name in VALUE} == VALUE
    assert replace(back, value={}) == Drawn("r", "p", {}, ("Plane", "Car"), 640, 480)


def test_each_of_two_drawing_tags_reads_its_own_shapes() -> None:
    result = [
        *draw(BOX, ["Car"], VALUE, 0.5, SIZE, "a"),
        *draw(ROUND, ["Plane"], VALUE, 0.5, SIZE, "b"),
    ]
    assert [(each.id, each.labels) for each in drawn(result, BOX)] == [("a", ("Car",))]
    assert [(each.id, each.labels) for each in drawn(result, ROUND)] == [("b", ("Plane",))]


def test_the_shape_may_come_after_its_labels_and_says_where_it_is() -> None:
    labels = entry("label", "labels", value={"labels": ["Car"]})
    shape = entry("box", "rectangle", parentID="p")
    (back,) = drawn([labels, shape], BOX)
    assert (back.value, back.labels, back.parent_id) == (VALUE, ("Car",), "p")


def test_a_shape_and_its_labels_in_one_entry_are_read() -> None:
    merged = entry("label", "rectanglelabels", value={**VALUE, "rectanglelabels": ["Plane"]})
    (back,) = drawn([merged], BOX)
    assert (back.id, back.labels) == ("r", ("Plane",))
    assert list(drawn([merged], ROUND)) == []


def test_a_shape_without_labels_is_left_out_and_labels_without_their_shape_too() -> None:
    assert list(drawn([entry("box", "rectangle")], BOX)) == []
    assert list(drawn([entry("label", "labels")], BOX)) == []
    assert list(drawn([entry("box", "rectangle", "a"), entry("label", "labels", "b")], BOX)) == []


def test_a_tag_with_labels_takes_no_shape_of_another() -> None:
    assert list(drawn([entry("", "polygon"), entry("label", "labels")], OWN)) == []


def test_several_labels_entries_of_one_shape_are_several() -> None:
    result = [
        entry("box", "rectangle"),
        entry("label", "labels"),
        entry("label", "labels", value={"labels": ["Plane"]}),
    ]
    assert [each.labels for each in drawn(result, BOX)] == [("Car",), ("Plane",)]


def test_pages_are_told_apart() -> None:
    result = [
        entry("label", "polygonlabels", str(page), **({} if page is None else {"item_index": page}))
        for page in (None, 0, 1, 2)
    ]
    assert [each.id for each in drawn(result, OWN)] == ["None", "0", "1", "2"]
    assert [each.id for each in drawn(result, OWN, 0)] == ["None", "0"]
    assert [each.id for each in drawn(result, OWN, 1)] == ["1"]
    assert list(drawn(result, OWN, 3)) == []


def test_pages_of_split_tags_are_told_apart() -> None:
    result = [
        entry(name, kind, str(page), item_index=page)
        for page in (0, 1)
        for name, kind in (("box", "rectangle"), ("label", "labels"))
    ]
    assert [each.id for each in drawn(result, BOX, 1)] == ["1"]


@pytest.mark.parametrize("side", [None, 0, -5, "640", True, math.nan, math.inf, 0.5])
def test_a_size_that_is_none(side: Any) -> None:
    (back,) = drawn([entry("label", "polygonlabels", original_width=side, original_height=side)], OWN)
    assert (back.width, back.height) == (None, None)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "text",
        [],
        {},
        {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"},
        entry("other", "polygonlabels"),
        entry("label", "polygonlabels", to_name="other"),
        entry("label", "rectanglelabels"),
        entry("label", "polygonlabels", value=None),
        entry("label", "polygonlabels", value=[1]),
    ],
)
def test_what_is_not_drawn_with_the_control(bad: Any) -> None:
    good = entry("label", "polygonlabels", "good")
    assert [each.id for each in drawn([bad, good], OWN)] == ["good"]


@pytest.mark.parametrize("labels", [None, "Car", {"Car": 1}, 3])
def test_labels_that_are_no_list_are_none(labels: Any) -> None:
    (back,) = drawn([entry("label", "polygonlabels", value={"polygonlabels": labels})], OWN)
    assert back.labels == ()


def test_labels_are_texts_each_once() -> None:
    labels = ["Plane", 1, None, ["Car"], "Car", "Plane"]
    (back,) = drawn([entry("label", "polygonlabels", value={"polygonlabels": labels})], OWN)
    assert back.labels == ("Plane", "Car")


words = st.text("ab1", max_size=2) | st.sampled_from(["label", "box", "image", "rectangle", "labels", "r"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(sorted({*entry("label", "labels"), "parentID", "item_index"}))


@given(st.lists(st.dictionaries(keys, json_values), max_size=3), st.sampled_from([None, 0, 1]))
def test_no_result_raises(changes: list[dict[str, Any]], page: int | None) -> None:
    result = [{**entry(*given_names), **each} for given_names, each in zip(NAMES, changes, strict=False)]
    for control in (OWN, BOX, ROUND):
        for each in drawn(result, control, page):
            assert all(isinstance(label, str) for label in each.labels)
            assert isinstance(each.parent_id, str)


NAMES = (("box", "rectangle"), ("label", "labels"), ("label", "polygonlabels"))


def test_the_first_of_equal_classes_counts() -> None:
    assert classes_of(["b", "x", "a", "b"], ["a", "b", "a", "b"]) == [1, 0]


@pytest.mark.parametrize("value", [True, False, None, "1", [1], {}, math.nan, math.inf, -math.inf, 10**400])
def test_what_is_no_number(value: Any) -> None:
    assert number(value) is None


@pytest.mark.parametrize("value", [0, -3, 2.5, 10**20])
def test_a_number(value: Any) -> None:
    assert number(value) == value
    assert isinstance(number(value), float)


def test_span() -> None:
    assert span(64, 320, 640) == (10, 40)
    assert span(-64, 320, 640) == (0, 50)
    assert span(320, 6400, 640) == (50, 50)


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [(5, 5, 10), (6, 5, 10), (-5, 0, 10), (10, 15, 10), (math.nan, 5, 10), (0, math.inf, 10), (0, 5, 0)],
)
def test_nothing_on_the_image_has_no_span(low: float, high: float, side: int) -> None:
    assert span(low, high, side) is None


@given(st.floats(), st.floats(), st.integers(1, 20_000))
def test_a_span_stays_on_the_image(low: float, high: float, side: int) -> None:
    found = span(low, high, side)
    if found is not None:
        start, length = found
        assert start >= 0
        assert length > 0
        assert start + length <= 100
        assert start / 100 * side == pytest.approx(max(low, 0), abs=1e-6)
        assert (start + length) / 100 * side == pytest.approx(min(high, side), abs=1e-6)
