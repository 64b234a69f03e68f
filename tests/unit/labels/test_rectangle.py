from __future__ import annotations

import json
import math
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from backend.labels.geometry import Box, Detection, ImageSize
from backend.labels.rectangle import YoloBox, from_regions, to_region, yolo_line
from backend.labels.schema import parse_label_config

CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="Car"/><Label value="Plane"/></RectangleLabels></View>"""
SCHEMA = parse_label_config(CONFIG)
CONTROL = SCHEMA.controls[0]
CLASSES = SCHEMA.classes
SIZE = ImageSize(640, 480)

sides = st.integers(1, 20_000)
sizes = st.builds(ImageSize, sides, sides)
ordinates = st.floats(-30_000, 30_000, width=32) | st.integers(-30_000, 30_000).map(float)
boxes = st.builds(Box, ordinates, ordinates, ordinates, ordinates)
scores = st.floats(0, 1)


def detection(x1: float, y1: float, x2: float, y2: float, score: float = 0.5) -> Detection:
    return Detection(0, score, Box(x1, y1, x2, y2))


def region(**changes: Any) -> dict[str, Any]:
    """What Label Studio stores for a drawn box; `value` is merged, everything else replaced."""
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["Plane"]}
    return {
        "id": "r",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 640,
        "original_height": 480,
        "image_rotation": 0,
        "origin": "manual",
        **changes,
        "value": {**value, **changes["value"]}
        if isinstance(changes.get("value", {}), dict) and "value" in changes
        else changes.get("value", value),
    }


def box(**value: Any) -> YoloBox:
    (found,) = from_regions([region(value=value)], CONTROL, CLASSES)
    return found


def test_region_of_a_detection() -> None:
    assert to_region(detection(64, 48, 320, 240, 0.75), "Car", CONTROL, SIZE, "r1") == {
        "id": "r1",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 640,
        "original_height": 480,
        "image_rotation": 0,
        "score": 0.75,
        "value": {
            "x": 10.0,
            "y": 10.0,
            "width": 40.0,
            "height": 40.0,
            "rotation": 0,
            "rectanglelabels": ["Car"],
        },
    }


def test_a_region_of_numpy_numbers_is_json() -> None:
    found = Detection(0, cast(float, np.float32(0.3)), Box(*np.array([1, 2, 30, 40], np.float32)))
    assert json.loads(json.dumps(to_region(found, "Car", CONTROL, SIZE, "r")))["original_width"] == 640


@pytest.mark.parametrize(
    "found",
    [
        detection(10, 10, 10, 20),
        detection(20, 10, 10, 20),
        detection(-50, 10, -1, 20),
        detection(640, 10, 700, 20),
        detection(math.nan, 10, 30, 20),
        detection(1, 10, math.inf, 20),
        detection(1, 10, 30, 20, math.nan),
    ],
)
def test_what_covers_nothing_is_no_region(found: Detection) -> None:
    assert to_region(found, "Car", CONTROL, SIZE, "r") is None


def test_an_image_without_pixels_has_no_regions() -> None:
    assert to_region(detection(0, 0, 1, 1), "Car", CONTROL, ImageSize(0, 5), "r") is None


@given(boxes, scores, sizes)
def test_every_region_lies_inside_and_label_studio_accepts_it(found: Box, score: float, size: ImageSize) -> None:
    made = to_region(Detection(0, score, found), "Plane", CONTROL, size, "r")
    if made is None:
        return
    value = made["value"]
    assert all(0 <= value[name] <= 100 for name in ("x", "y", "width", "height"))
    assert value["x"] + value["width"] <= 100
    assert value["y"] + value["height"] <= 100
    assert value["width"] > 0
    assert value["height"] > 0
    prediction = {"model_version": "v1", "score": score, "result": [made]}
    assert LABEL_INTERFACE.validate_prediction(prediction, return_errors=True) == []


LABEL_INTERFACE = LabelInterface(CONFIG)


@given(boxes, sizes)
def test_round_trip(found: Box, size: ImageSize) -> None:
    expected = [
        min(max(value, 0), side)
        for value, side in zip(
            (found.x1, found.y1, found.x2, found.y2),
            (size.width, size.height, size.width, size.height),
            strict=True,
        )
    ]
    made = to_region(Detection(0, 0.5, found), "Plane", CONTROL, size, "r")
    if made is None:
        assert expected[2] - expected[0] < 1e-6 or expected[3] - expected[1] < 1e-6
        return
    (back,) = from_regions([json.loads(json.dumps(made))], CONTROL, CLASSES)
    assert back.cls == 1
    corners = [
        (back.cx - back.w / 2) * size.width,
        (back.cy - back.h / 2) * size.height,
        (back.cx + back.w / 2) * size.width,
        (back.cy + back.h / 2) * size.height,
    ]
    assert corners == pytest.approx(expected, abs=0.01)
    line = [float(number) for number in yolo_line(back).split()[1:]]
    assert line == pytest.approx([back.cx, back.cy, back.w, back.h], abs=0.5 / max(size.width, size.height))


def test_box_of_a_region() -> None:
    found = box()
    assert found.cls == 1
    assert (found.cx, found.cy, found.w, found.h) == pytest.approx((0.25, 0.4, 0.3, 0.4))


def test_line() -> None:
    assert yolo_line(YoloBox(3, 0.5, 0.25, 1.0, 0.125)) == "3 0.50000000 0.25000000 1.00000000 0.12500000"


def test_boxes_over_the_edge_are_cut() -> None:
    found = box(x=-10, y=90, width=30, height=30)
    assert (found.cx, found.cy, found.w, found.h) == pytest.approx((0.1, 0.95, 0.2, 0.1))


def test_a_quarter_turn_is_taken_in_pixels() -> None:
    # 64 x 192 px at (320, 96), turned clockwise about that corner: 192 px to the left, 64 px down.
    found = box(x=50, y=20, width=10, height=40, rotation=90)
    assert (found.cx * 640, found.cy * 480) == pytest.approx((320 - 96, 96 + 32))
    assert (found.w * 640, found.h * 480) == pytest.approx((192, 64))


@given(st.floats(-720, 720), st.floats(1, 20), st.floats(1, 20))
def test_a_turned_box_is_bounded_by_its_corners(angle: float, width: float, height: float) -> None:
    # The same corners through complex numbers: y points down, so a positive angle turns clockwise.
    turn = complex(math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    start = complex(320, 240)
    w, h = width / 100 * 640, height / 100 * 480
    corners = [start + offset * turn for offset in (0, w, 1j * h, w + 1j * h)]
    found = box(x=50, y=50, width=width, height=height, rotation=angle)
    assert (found.cx - found.w / 2) * 640 == pytest.approx(min(c.real for c in corners), abs=0.5)
    assert (found.cx + found.w / 2) * 640 == pytest.approx(max(c.real for c in corners), abs=0.5)
    assert (found.cy - found.h / 2) * 480 == pytest.approx(min(c.imag for c in corners), abs=0.5)
    assert (found.cy + found.h / 2) * 480 == pytest.approx(max(c.imag for c in corners), abs=0.5)


def test_several_labels_are_several_boxes() -> None:
    regions = [region(value={"rectanglelabels": ["Plane", "Ship", "Car", "Plane"]})]
    assert [found.cls for found in from_regions(regions, CONTROL, CLASSES)] == [1, 0]


@pytest.mark.parametrize(
    "bad",
    [
        {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"},
        region(from_name="other"),
        region(to_name="other"),
        region(type="polygonlabels"),
        region(value=None),
        region(value=[1, 2]),
        region(value={"rectanglelabels": []}),
        region(value={"rectanglelabels": None}),
        region(value={"rectanglelabels": "Plane"}),
        region(value={"rectanglelabels": [["Plane"]]}),
        region(value={"rectanglelabels": ["Ship"]}),
        region(value={"width": 0}),
        region(value={"height": -5}),
        region(value={"x": 100}),
        region(value={"x": "10"}),
        region(value={"x": None}),
        region(value={"x": True}),
        region(value={"x": math.nan}),
        region(value={"width": math.inf}),
        region(value={"width": 10**400}),
        region(value={"rotation": "45"}),
        region(value={"rotation": 45}, original_width=None),
        region(value={"rotation": 45}, original_height=0),
        {},
        None,
        "text",
        {"type": "rectanglelabels"},
    ],
)
def test_what_teaches_nothing_is_left_out(bad: Any) -> None:
    assert from_regions([bad, region()], CONTROL, CLASSES) == [box()]


def test_a_missing_rotation_is_none() -> None:
    assert box(rotation=None) == box()


words = st.text("ab1", max_size=3) | st.sampled_from(["Plane", "10"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(sorted(region())), json_values),
    st.dictionaries(st.sampled_from(["x", "y", "width", "height", "rotation", "rectanglelabels"]), json_values),
)
def test_no_region_raises(top: dict[str, Any], value: dict[str, Any]) -> None:
    whole = region()
    for found in from_regions([{**whole, "value": {**whole["value"], **value}, **top}], CONTROL, CLASSES):
        assert all(0 <= number <= 1 for number in (found.cx, found.cy, found.w, found.h))
