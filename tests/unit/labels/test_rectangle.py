from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from backend.labels.geometry import Box, Detection, ImageSize, RotatedBox
from backend.labels.overlap import area, frame, intersection, likeness
from backend.labels.rectangle import bounds, from_regions, is_turned, to_regions
from backend.labels.schema import Control, parse_label_config

LABELS = '<Label value="Car"/><Label value="Plane"/>'
OWN = f"""<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image">{LABELS}</RectangleLabels></View>"""
SPLIT = f"""<View><Image name="image" value="$image"/><Rectangle name="shape" toName="image"/>
<Labels name="label" toName="image">{LABELS}</Labels></View>"""
CONTROL = parse_label_config(OWN).controls[0]
CONTROLS = (CONTROL, parse_label_config(SPLIT).controls[0])
INTERFACES = dict(zip(CONTROLS, (LabelInterface(OWN), LabelInterface(SPLIT)), strict=True))
CLASSES = ("Car", "Plane")
SIZE = ImageSize(640, 480)

sides = st.integers(1, 20_000)
sizes = st.builds(ImageSize, sides, sides)
ordinates = st.floats(-30_000, 30_000, width=32) | st.integers(-30_000, 30_000).map(float)
boxes = st.builds(Box, ordinates, ordinates, ordinates, ordinates)
angles = st.floats(-720, 720) | st.sampled_from([-90.0, 0.0, 30.0, 45.0, 90.0, 135.0, 180.0, 270.0, 360.0])
lengths = st.floats(0.5, 30_000)
rotated = st.builds(RotatedBox, ordinates, ordinates, lengths, lengths, angles)
controls = st.sampled_from(CONTROLS)


def detection(x1: float, y1: float, x2: float, y2: float, score: float = 0.5) -> Detection:
    return Detection(0, score, Box(x1, y1, x2, y2))


def turned(cx: float, cy: float, width: float, height: float, angle: float) -> Detection:
    return Detection(0, 0.5, Box(0, 0, 1, 1), rotated=RotatedBox(cx, cy, width, height, angle))


def draw(found: Detection, control: Control = CONTROL, size: ImageSize = SIZE) -> list[dict[str, Any]]:
    return to_regions(found, "Plane", control, size, lambda: "r")


def value_of(found: Detection, size: ImageSize = SIZE) -> dict[str, Any]:
    (region,) = draw(found, size=size)
    return cast(dict[str, Any], region["value"])


def shown(found: Detection, control: Control = CONTROL, size: ImageSize = SIZE) -> RotatedBox:
    """Where Label Studio's editor draws the answer, by its own rule: turned in pixels about the left top corner."""
    value = draw(found, control, size)[0]["value"]
    x, width = (value[name] / 100 * size.width for name in ("x", "width"))
    y, height = (value[name] / 100 * size.height for name in ("y", "height"))
    to_centre = complex(width / 2, height / 2) * complex(
        math.cos(math.radians(value["rotation"])), math.sin(math.radians(value["rotation"]))
    )
    return RotatedBox(x + to_centre.real, y + to_centre.imag, width, height, value["rotation"])


def distance(found: RotatedBox, other: RotatedBox) -> float:
    """Pixels between the corners of two boxes, whichever of them comes first."""
    return min(float(np.abs(np.roll(found.corners(), shift, axis=0) - other.corners()).max()) for shift in range(4))


def region(**changes: Any) -> dict[str, Any]:
    """What Label Studio stores for a drawn box; `value` is merged, everything else replaced."""
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["Plane"]}
    given_value = changes.pop("value", {})
    return {
        "id": "r",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 640,
        "original_height": 480,
        "image_rotation": 0,
        "origin": "manual",
        "value": {**value, **given_value} if isinstance(given_value, dict) else given_value,
        **changes,
    }


def box(**value: Any) -> Detection:
    (found,) = from_regions([region(value=value)], CONTROL, CLASSES, SIZE)
    return found


def side_values(found: Box) -> tuple[float, float, float, float]:
    return found.x1, found.y1, found.x2, found.y2


def test_region_of_a_detection() -> None:
    assert draw(detection(64, 48, 320, 240, 0.75)) == [
        {
            "id": "r",
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
                "rectanglelabels": ["Plane"],
            },
        }
    ]


def test_a_drawing_tag_and_a_labels_tag_apart_are_two_entries() -> None:
    shape, labels = draw(detection(64, 48, 320, 240), CONTROLS[1])
    assert (shape["from_name"], shape["type"], labels["from_name"], labels["type"]) == (
        "shape",
        "rectangle",
        "label",
        "labels",
    )
    assert shape["id"] == labels["id"]
    assert labels["value"] == {**shape["value"], "labels": ["Plane"]}


def test_a_turned_box_begins_at_its_left_top_corner() -> None:
    # 100 x 40 px at (320, 240): the corner is (-50, -20) turned by 30 degrees.
    cos, sin = math.cos(math.pi / 6), 0.5
    value = value_of(turned(320, 240, 100, 40, 30))
    assert value.pop("rectanglelabels") == ["Plane"]
    assert value == pytest.approx(
        {
            "x": (320 - 50 * cos + 20 * sin) / 6.4,
            "y": (240 - 50 * sin - 20 * cos) / 4.8,
            "width": 100 / 6.4,
            "height": 40 / 4.8,
            "rotation": 30,
        }
    )


@pytest.mark.parametrize(
    ("angle", "rotation", "swapped"),
    [(30, 30, False), (-30, 330, False), (120, 30, True), (70, 340, True), (45, 45, False), (210, 30, False)],
)
def test_the_rotation_is_the_one_nearest_to_none(angle: float, rotation: float, swapped: bool) -> None:
    value = value_of(turned(320, 240, 100, 40, angle))
    assert value["rotation"] == pytest.approx(rotation)
    assert value["width"] * 6.4 == pytest.approx(40 if swapped else 100)


def test_a_rotation_farther_from_none_keeps_the_box_whole() -> None:
    # Turned by 30 degrees its left top corner is left of the image; the right top one is inside.
    found = turned(10, 240, 60, 40, 30)
    assert value_of(found)["rotation"] == pytest.approx(120)
    assert distance(shown(found), cast(RotatedBox, found.rotated)) < 1e-6


@pytest.mark.parametrize("angle", [0, 90, -180, 270, 720, 90 + 1e-6, 180 - 1e-9])
def test_quarter_turns_are_upright(angle: float) -> None:
    value = value_of(turned(20, 240, 60, 100, angle))
    across, down = (60, 100) if round(angle) % 180 == 0 else (100, 60)
    assert value["rotation"] == 0
    assert value["x"] == pytest.approx(max(20 - across / 2, 0) / 6.4, abs=1e-4)
    assert value["width"] == pytest.approx((20 + across / 2 - max(20 - across / 2, 0)) / 6.4, abs=1e-4)
    assert value["height"] == pytest.approx(down / 4.8, abs=1e-4)


@pytest.mark.parametrize(
    ("strip", "least"),
    [
        (RotatedBox(100, 100, 3000, 40, 315), 0.99),
        # Longer on the image than 100 % of its width.
        (RotatedBox(320, 240, 3000, 60, 20), 0.9),
        # Through two corners of the image, so that none of its own is there.
        (RotatedBox(200, 200, 3000, 60, 45), 0.5),
    ],
)
def test_a_strip_across_the_image_is_cut_where_it_leaves_it(strip: RotatedBox, least: float) -> None:
    made = shown(Detection(0, 0.5, Box(0, 0, 1, 1), rotated=strip))
    assert made.angle % 180 == pytest.approx(strip.angle % 180)
    assert made.height == pytest.approx(strip.height, rel=0.2)
    assert least < likeness(made.corners(), intersection(strip.corners(), frame(SIZE)), SIZE) <= 1


def test_a_box_longer_than_the_image_is_wide_is_shortened() -> None:
    square = ImageSize(100, 100)
    value = value_of(turned(50, 50, 130, 4, 45), square)
    assert (value["width"], value["height"], value["rotation"]) == pytest.approx((100, 4, 45))


def test_a_long_side_is_told_along_the_side_of_the_image_that_is_longer() -> None:
    wide = ImageSize(1000, 100)
    found = turned(500, 50, 4, 120, 40)
    value = value_of(found, wide)
    assert [value[name] for name in ("width", "height", "rotation")] == pytest.approx([12, 4, 310])
    assert distance(shown(found, size=wide), cast(RotatedBox, found.rotated)) < 1e-6


def test_a_turned_box_around_the_whole_image_is_upright() -> None:
    value = value_of(turned(320, 240, 5000, 5000, 45))
    assert [value[name] for name in ("x", "y", "width", "height", "rotation")] == pytest.approx([0, 0, 100, 100, 0])


@pytest.mark.parametrize("control", CONTROLS)
def test_a_region_of_numpy_numbers_is_json(control: Control) -> None:
    numbers = np.array([100, 100, 30, 40, 30], np.float32)
    plain = Detection(0, cast(float, np.float32(0.3)), Box(*np.array([1, 2, 30, 40], np.float32)))
    for found in (plain, replace(plain, rotated=RotatedBox(*numbers))):
        made = draw(found, control)
        assert json.loads(json.dumps(made)) == made
        assert made[0]["score"] == pytest.approx(0.3)


@pytest.mark.filterwarnings("error")
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
        turned(320, 240, 0, 40, 30),
        turned(320, 240, 40, -1, 30),
        turned(math.nan, 240, 40, 40, 30),
        turned(320, 240, math.inf, 40, 30),
        turned(320, 240, 1e10, 1e10, 30),
        turned(320, 240, 1e300, 1e300, 30),
        turned(320, 240, 40, 40, math.nan),
        turned(320, 240, 40, 40, math.inf),
        turned(-100, -100, 100, 100, 45),
        # Its upright bounds reach into the image's corner, the box itself does not.
        turned(-40, -40, 200, 20, -45),
    ],
)
def test_what_covers_nothing_is_no_region(found: Detection) -> None:
    assert draw(found) == []


@pytest.mark.parametrize("size", [ImageSize(0, 5), ImageSize(5, 0)])
@pytest.mark.parametrize("found", [detection(0, 0, 1, 1), turned(1, 1, 2, 2, 30)])
def test_an_image_without_pixels_has_no_regions(found: Detection, size: ImageSize) -> None:
    assert draw(found, size=size) == []
    assert from_regions([region(), region(value={"rotation": 30})], CONTROL, CLASSES, size) == []


@given(boxes, st.none() | rotated, st.floats(-1, 2), sizes, controls)
def test_every_region_lies_inside_and_label_studio_accepts_it(
    found: Box, other: RotatedBox | None, score: float, size: ImageSize, control: Control
) -> None:
    made = draw(Detection(0, score, found, rotated=other), control, size)
    for each in made:
        value = each["value"]
        assert all(0 <= value[name] <= 100 for name in ("x", "y", "width", "height"))
        assert value["width"] > 0
        assert value["height"] > 0
        assert 0 <= value["rotation"] < 360
        assert value["rotation"] or value["x"] + value["width"] <= 100
        assert value["rotation"] or value["y"] + value["height"] <= 100
        assert 0 <= each["score"] <= 1
    prediction = {"model_version": "v1", "score": 0.5, "result": made}
    assert INTERFACES[control].validate_prediction(prediction, return_errors=True) == []


@given(boxes, sizes, controls)
def test_round_trip(found: Box, size: ImageSize, control: Control) -> None:
    limits = (size.width, size.height, size.width, size.height)
    expected = [min(max(value, 0), side) for value, side in zip(side_values(found), limits, strict=True)]
    made = draw(Detection(0, 0.5, found), control, size)
    if not made:
        assert expected[2] - expected[0] < 1e-6 or expected[3] - expected[1] < 1e-6
        return
    (back,) = from_regions(json.loads(json.dumps(made)), control, CLASSES, size)
    assert (back.cls, back.score) == (1, 1.0)
    assert side_values(back.box) == pytest.approx(expected, abs=0.01)
    assert back.rotated is not None
    assert back.rotated.angle == 0
    assert side_values(bounds(back.rotated.corners())) == pytest.approx(expected, abs=0.01)


@given(st.data(), sizes, angles, controls)
def test_round_trip_of_turned_boxes(data: st.DataObject, size: ImageSize, angle: float, control: Control) -> None:
    shares = st.floats(0, 1)
    width, height = (data.draw(st.floats(0.5, max(each, 1))) for each in (size.width / 2, size.height / 2))
    centre = data.draw(shares) * size.width, data.draw(shares) * size.height
    found = RotatedBox(*centre, width, height, angle)
    on = found.corners()
    inside = ((on >= 0) & (on <= (size.width, size.height))).all(1)
    small = max(width, height) <= min(size.width, size.height)
    upright = abs((angle + 45) % 90 - 45) < 1e-3
    # A box that is longer than both sides of the image cannot be told in percent.
    told = max(width, height) <= max(size.width, size.height)
    assume((inside.all() and told) or (inside.any() and small and not upright))
    made = draw(Detection(0, 0.5, Box(0, 0, 1, 1), rotated=found), control, size)
    (back,) = from_regions(json.loads(json.dumps(made)), control, CLASSES, size)
    assert back.rotated is not None
    assert distance(back.rotated, found) < 0.5
    expected = bounds(np.clip(on, 0, (size.width, size.height)))
    assert side_values(back.box) == pytest.approx(side_values(expected), abs=0.5)


@given(rotated, sizes, controls)
def test_a_box_over_the_edge_keeps_most_of_what_is_seen(found: RotatedBox, size: ImageSize, control: Control) -> None:
    seen = intersection(found.corners(), frame(size))
    detected = Detection(0, 0.5, Box(0, 0, 1, 1), rotated=found)
    if not area(seen):
        assert draw(detected, control, size) == []
        return
    # What counts as upright may be off by a pixel, which is much of a sliver.
    assume(area(seen) > 1 and abs((found.angle + 45) % 90 - 45) > 0.002)
    # An upright box around what is seen, or better.
    around = bounds(seen)
    upright = area(seen) / ((around.x2 - around.x1) * (around.y2 - around.y1))
    kept = likeness(shown(detected, control, size).corners(), seen, size)
    assert kept >= min(upright, 0.99) - 1e-3


def test_box_of_a_region() -> None:
    found = box()
    assert (found.cls, found.score) == (1, 1.0)
    assert side_values(found.box) == pytest.approx((64, 96, 256, 288))
    assert found.rotated == RotatedBox(pytest.approx(160), pytest.approx(192), 192, 192, 0)


def test_boxes_over_the_edge_are_cut() -> None:
    found = box(x=-10, y=90, width=30, height=30)
    assert side_values(found.box) == pytest.approx((0, 432, 128, 480))
    assert found.rotated is not None
    assert side_values(bounds(found.rotated.corners())) == pytest.approx((0, 432, 128, 480))


def test_turned_boxes_over_the_edge_stay_whole() -> None:
    found = box(x=0, y=50, width=10, height=10, rotation=45)
    assert found.box.x1 == 0
    assert found.rotated is not None
    assert (found.rotated.width, found.rotated.height) == pytest.approx((64, 48))
    assert found.rotated.corners()[3].tolist() == pytest.approx([-48 / 2**0.5, 240 + 48 / 2**0.5])


def test_a_quarter_turn_is_taken_in_pixels() -> None:
    # 64 x 192 px at (320, 96), turned clockwise about that corner: 192 px to the left, 64 px down.
    found = box(x=50, y=20, width=10, height=40, rotation=90)
    assert side_values(found.box) == pytest.approx((128, 96, 320, 160))
    assert found.rotated == RotatedBox(pytest.approx(224), pytest.approx(128), pytest.approx(192), pytest.approx(64), 0)


@given(st.floats(-720, 720), st.floats(1, 20), st.floats(1, 20))
def test_a_turned_box_is_bounded_by_its_corners(angle: float, width: float, height: float) -> None:
    # The same corners through complex numbers: y points down, so a positive angle turns clockwise.
    turn = complex(math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    w, h = width / 100 * 640, height / 100 * 480
    corners = [complex(320, 240) + offset * turn for offset in (0, w, w + 1j * h, 1j * h)]
    found = box(x=50, y=50, width=width, height=height, rotation=angle)
    xs, ys = [each.real for each in corners], [each.imag for each in corners]
    assert side_values(found.box) == pytest.approx((min(xs), min(ys), max(xs), max(ys)), abs=0.01)
    assert found.rotated is not None
    if found.rotated.angle:
        assert found.rotated.corners() == pytest.approx(np.array([xs, ys]).T, abs=0.01)


def test_the_size_counts_that_is_given() -> None:
    (found,) = from_regions([region(original_width=1, original_height=None)], CONTROL, CLASSES, ImageSize(100, 50))
    assert side_values(found.box) == pytest.approx((10, 10, 40, 30))


def test_several_labels_are_several_boxes() -> None:
    regions = [region(value={"rectanglelabels": ["Plane", "Ship", "Car", "Plane"]})]
    assert [found.cls for found in from_regions(regions, CONTROL, CLASSES, SIZE)] == [1, 0]


def test_pages_are_told_apart() -> None:
    regions = [region(value={"rectanglelabels": ["Car"]}), region(item_index=1)]
    assert [found.cls for found in from_regions(regions, CONTROL, CLASSES, SIZE)] == [0, 1]
    assert [found.cls for found in from_regions(regions, CONTROL, CLASSES, SIZE, 1)] == [1]


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        *[(each, False) for each in (0, 90, 180.9, 359.1, -0.5, None, "45", math.nan, 10**400)],
        *[(each, True) for each in (1.1, 45, 88.8, -30)],
    ],
)
def test_a_slip_of_the_hand_is_no_turn(rotation: Any, expected: bool) -> None:
    assert is_turned([region(), region(value={"rotation": rotation})], CONTROL) is expected


def test_turned_regions_of_others_do_not_count() -> None:
    other = region(from_name="other", value={"rotation": 45})
    second = region(item_index=1, value={"rotation": 45})
    assert not is_turned([other, {}, cast(Any, None)], CONTROL)
    assert not is_turned([second], CONTROL, 0)
    assert is_turned([second], CONTROL, 1)
    assert is_turned([second], CONTROL)


def test_turned_regions_of_split_tags_count() -> None:
    made = to_regions(turned(320, 240, 100, 40, 30), "Car", CONTROLS[1], SIZE, lambda: "r")
    assert is_turned(made, CONTROLS[1])


@pytest.mark.filterwarnings("error")
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
        region(value={"x": 1e300}),
        region(value={"x": 1e300, "rotation": 30}),
        region(value={"width": math.inf}),
        region(value={"width": 1e308, "height": 1e308, "rotation": 30}),
        region(value={"width": 10**400}),
        region(value={"rotation": "45"}),
        region(value={"x": -20, "y": -20, "width": 10, "height": 10, "rotation": 45}),
        {},
        None,
        "text",
        {"type": "rectanglelabels"},
    ],
)
def test_what_teaches_nothing_is_left_out(bad: Any) -> None:
    assert from_regions([bad, region()], CONTROL, CLASSES, SIZE) == [box()]


def test_a_missing_rotation_is_none() -> None:
    assert box(rotation=None) == box()


words = st.text("ab1", max_size=3) | st.sampled_from(["Plane", "10"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.filterwarnings("error")
@given(
    st.dictionaries(st.sampled_from(sorted(region())), json_values),
    st.dictionaries(st.sampled_from(["x", "y", "width", "height", "rotation", "rectanglelabels"]), json_values),
)
def test_no_region_raises(top: dict[str, Any], value: dict[str, Any]) -> None:
    whole = region()
    broken = [{**whole, "value": {**whole["value"], **value}, **top}]
    assert is_turned(broken, CONTROL) in (True, False)
    for found in from_regions(broken, CONTROL, CLASSES, SIZE):
        assert 0 <= found.box.x1 <= found.box.x2 <= SIZE.width
        assert 0 <= found.box.y1 <= found.box.y2 <= SIZE.height
        assert found.rotated is not None
        assert np.isfinite(found.rotated.corners()).all()
