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

from backend.labels.ellipse import from_regions, to_regions
from backend.labels.geometry import Box, Detection, ImageSize, RotatedBox
from backend.labels.rectangle import is_turned
from backend.labels.schema import Control, parse_label_config

LABELS = '<Label value="Cell"/><Label value="Nucleus"/>'
OWN = f"""<View><Image name="image" value="$image"/>
<EllipseLabels name="label" toName="image">{LABELS}</EllipseLabels></View>"""
SPLIT = f"""<View><Image name="image" value="$image"/><Ellipse name="shape" toName="image"/>
<Labels name="label" toName="image">{LABELS}</Labels></View>"""
CONTROL = parse_label_config(OWN).controls[0]
CONTROLS = (CONTROL, parse_label_config(SPLIT).controls[0])
INTERFACES = dict(zip(CONTROLS, (LabelInterface(OWN), LabelInterface(SPLIT)), strict=True))
CLASSES = ("Cell", "Nucleus")
SIZE = ImageSize(640, 480)

sides = st.integers(1, 20_000)
sizes = st.builds(ImageSize, sides, sides)
ordinates = st.floats(-30_000, 30_000, width=32) | st.integers(-30_000, 30_000).map(float)
boxes = st.builds(Box, ordinates, ordinates, ordinates, ordinates)
angles = st.floats(-720, 720) | st.sampled_from([-90.0, 0.0, 30.0, 45.0, 90.0, 135.0, 180.0, 270.0, 360.0])
lengths = st.floats(0.5, 30_000)
rotated = st.builds(RotatedBox, ordinates, ordinates, lengths, lengths, angles)
controls = st.sampled_from(CONTROLS)


def upright(x1: float, y1: float, x2: float, y2: float, score: float = 0.5) -> Detection:
    return Detection(0, score, Box(x1, y1, x2, y2))


def turned(cx: float, cy: float, width: float, height: float, angle: float) -> Detection:
    return Detection(0, 0.5, Box(0, 0, 1, 1), rotated=RotatedBox(cx, cy, width, height, angle))


def draw(found: Detection, control: Control = CONTROL, size: ImageSize = SIZE) -> list[dict[str, Any]]:
    return to_regions(found, "Nucleus", control, size, lambda: "r")


def value_of(found: Detection, size: ImageSize = SIZE) -> dict[str, Any]:
    value = dict(draw(found, size=size)[0]["value"])
    assert value.pop("ellipselabels") == ["Nucleus"]
    return value


def edge(value: dict[str, Any], size: ImageSize) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Points on the ellipse as Label Studio's editor draws it: turned in pixels about its centre."""
    rx, ry = value["radiusX"] / 100 * size.width, value["radiusY"] / 100 * size.height
    turn = np.exp(1j * math.radians(value["rotation"]))
    around = np.linspace(0, 2 * math.pi, 3600)
    points = complex(value["x"] / 100 * size.width, value["y"] / 100 * size.height) + turn * (
        rx * np.cos(around) + 1j * ry * np.sin(around)
    )
    return np.stack([points.real, points.imag], axis=1)


def is_in(points: Any, box: RotatedBox) -> Any:
    """Whether the ellipse in the box holds the points; by its equation, not by its outline."""
    turn = np.exp(-1j * math.radians(box.angle))
    own = (np.asarray(points) @ np.array([1, 1j]) - complex(box.cx, box.cy)) * turn
    return (own.real / (box.width / 2)) ** 2 + (own.imag / (box.height / 2)) ** 2 <= 1


def share(found: RotatedBox, other: Any, size: ImageSize) -> float:
    """Intersection over union of two ellipses on the image, counted on a grid."""
    xs, ys = ((np.arange(150) + 0.5) / 150 * side for side in (size.width, size.height))
    grid = np.stack(np.meshgrid(xs, ys), axis=-1)
    a, b = is_in(grid, found), is_in(grid, other)
    return float((a & b).sum() / max((a | b).sum(), 1))


def shown(found: Detection, size: ImageSize = SIZE) -> RotatedBox:
    value = value_of(found, size)
    return RotatedBox(
        value["x"] / 100 * size.width,
        value["y"] / 100 * size.height,
        value["radiusX"] / 50 * size.width,
        value["radiusY"] / 50 * size.height,
        value["rotation"],
    )


def distance(found: RotatedBox, other: RotatedBox) -> float:
    """Pixels between the corners of two boxes, whichever of them comes first."""
    return min(float(np.abs(np.roll(found.corners(), shift, axis=0) - other.corners()).max()) for shift in range(4))


def region(**changes: Any) -> dict[str, Any]:
    """What Label Studio stores for a drawn ellipse; `value` is merged, everything else replaced."""
    value = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 0, "ellipselabels": ["Nucleus"]}
    given_value = changes.pop("value", {})
    return {
        "id": "r",
        "from_name": "label",
        "to_name": "image",
        "type": "ellipselabels",
        "original_width": 640,
        "original_height": 480,
        "image_rotation": 0,
        "value": {**value, **given_value} if isinstance(given_value, dict) else given_value,
        **changes,
    }


def ellipse(**value: Any) -> Detection:
    (found,) = from_regions([region(value=value)], CONTROL, CLASSES, SIZE)
    return found


def side_values(found: Box) -> tuple[float, float, float, float]:
    return found.x1, found.y1, found.x2, found.y2


def test_region_of_a_detection() -> None:
    assert draw(upright(64, 48, 320, 240, 0.75)) == [
        {
            "id": "r",
            "from_name": "label",
            "to_name": "image",
            "type": "ellipselabels",
            "original_width": 640,
            "original_height": 480,
            "image_rotation": 0,
            "score": 0.75,
            "value": {
                "x": 30.0,
                "y": 30.0,
                "radiusX": 20.0,
                "radiusY": 20.0,
                "rotation": 0,
                "ellipselabels": ["Nucleus"],
            },
        }
    ]


def test_a_drawing_tag_and_a_labels_tag_apart_are_two_entries() -> None:
    shape, labels = draw(upright(64, 48, 320, 240), CONTROLS[1])
    assert [shape[name] for name in ("from_name", "type")] == ["shape", "ellipse"]
    assert [labels[name] for name in ("from_name", "type")] == ["label", "labels"]
    assert shape["id"] == labels["id"]
    assert labels["value"] == {**shape["value"], "labels": ["Nucleus"]}


def test_a_box_over_the_edge_is_cut_first() -> None:
    assert value_of(upright(-64, 240, 64, 960)) == pytest.approx(
        {"x": 5, "y": 75, "radiusX": 5, "radiusY": 25, "rotation": 0}
    )


@pytest.mark.parametrize(
    ("angle", "rotation", "swapped"),
    [(30, 30, False), (-30, 330, False), (120, 30, True), (70, 340, True), (45, 45, False), (210, 30, False)],
)
def test_a_turned_ellipse(angle: float, rotation: float, swapped: bool) -> None:
    across, down = (40, 100) if swapped else (100, 40)
    assert value_of(turned(160, 240, 100, 40, angle)) == pytest.approx(
        {"x": 25, "y": 50, "radiusX": across / 12.8, "radiusY": down / 9.6, "rotation": rotation}
    )


@pytest.mark.parametrize("angle", [0, 90, -180, 270, 720, 90 + 1e-6, 180 - 1e-9])
def test_quarter_turns_are_upright(angle: float) -> None:
    across, down = (60, 100) if round(angle) % 180 == 0 else (100, 60)
    assert value_of(turned(320, 240, 60, 100, angle)) == pytest.approx(
        {"x": 50, "y": 50, "radiusX": across / 12.8, "radiusY": down / 9.6, "rotation": 0}, abs=1e-4
    )


def test_a_turned_ellipse_over_the_edge_stays_whole() -> None:
    found = turned(10, 240, 200, 60, 30)
    assert found.rotated is not None
    assert distance(shown(found), found.rotated) < 1e-6


def test_a_turned_ellipse_whose_centre_is_outside_becomes_what_is_seen() -> None:
    found = turned(-10, 240, 200, 60, 30)
    assert found.rotated is not None
    made = shown(found)
    assert 0 <= made.cx <= 640
    assert made.angle == pytest.approx(30)
    assert made.width < 150
    assert share(made, found.rotated, SIZE) > 0.6


def test_an_ellipse_longer_than_the_image_is_wide_is_shortened() -> None:
    square = ImageSize(100, 100)
    value = value_of(turned(50, 50, 130, 4, 45), square)
    assert value == pytest.approx({"x": 50, "y": 50, "radiusX": 50, "radiusY": 2, "rotation": 45})


def test_a_turned_ellipse_around_the_whole_image_is_upright() -> None:
    value = value_of(turned(500, 50, 9000, 9000, 45), ImageSize(1000, 100))
    assert value == pytest.approx({"x": 50, "y": 50, "radiusX": 50, "radiusY": 50, "rotation": 0})


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
        upright(10, 10, 10, 20),
        upright(20, 10, 10, 20),
        upright(-50, 10, -1, 20),
        upright(640, 10, 700, 20),
        upright(math.nan, 10, 30, 20),
        upright(1, 10, math.inf, 20),
        upright(1, 10, 30, 20, math.nan),
        turned(320, 240, 0, 40, 30),
        turned(320, 240, 40, -1, 30),
        turned(math.nan, 240, 40, 40, 30),
        turned(320, 240, math.inf, 40, 30),
        turned(320, 240, 1e10, 1e10, 30),
        turned(320, 240, 1e300, 1e300, 30),
        turned(320, 240, 40, 40, math.nan),
        turned(-100, -100, 100, 100, 45),
        # A corner of its box is on the image, the ellipse is not.
        turned(-58, 240, 100, 100, 44),
    ],
)
def test_what_covers_nothing_is_no_region(found: Detection) -> None:
    assert draw(found) == []


@pytest.mark.parametrize("size", [ImageSize(0, 5), ImageSize(5, 0)])
@pytest.mark.parametrize("found", [upright(0, 0, 1, 1), turned(1, 1, 2, 2, 30)])
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
        assert all(0 <= value[name] <= 100 for name in ("x", "y"))
        assert all(0 < value[name] <= 50 for name in ("radiusX", "radiusY"))
        assert 0 <= value["rotation"] < 360
        if not value["rotation"]:
            for place, radius in (("x", "radiusX"), ("y", "radiusY")):
                assert value[place] - value[radius] >= -1e-9
                assert value[place] + value[radius] <= 100 + 1e-9
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
    back = from_regions(json.loads(json.dumps(made)), control, CLASSES, size)
    if not back:
        assert expected[2] - expected[0] < 1e-6 or expected[3] - expected[1] < 1e-6
        return
    assert (len(back), back[0].cls, back[0].score) == (1, 1, 1.0)
    assert side_values(back[0].box) == pytest.approx(expected, abs=0.01)
    assert back[0].rotated is not None
    assert back[0].rotated.angle == 0
    assert (back[0].rotated.width, back[0].rotated.height) == pytest.approx(
        (expected[2] - expected[0], expected[3] - expected[1]), abs=0.01
    )


@given(st.data(), sizes, angles, controls)
def test_round_trip_of_turned_ellipses(data: st.DataObject, size: ImageSize, angle: float, control: Control) -> None:
    # Sides up to 100 % of both, so that any rotation can be told; the centre anywhere on the image.
    lengths_on = st.floats(0.5, max(min(size.width, size.height), 0.5))
    x, y = data.draw(st.floats(0, 1)) * size.width, data.draw(st.floats(0, 1)) * size.height
    found = RotatedBox(x, y, data.draw(lengths_on), data.draw(lengths_on), angle)
    # An upright one over the edge is cut; that is another test.
    inside = ((found.corners() >= 0) & (found.corners() <= (size.width, size.height))).all()
    assume(inside or abs((angle + 45) % 90 - 45) > 0.002)
    made = draw(Detection(0, 0.5, Box(0, 0, 1, 1), rotated=found), control, size)
    (back,) = from_regions(json.loads(json.dumps(made)), control, CLASSES, size)
    assert back.cls == 1
    assert back.rotated is not None
    assert distance(back.rotated, found) < 0.5
    points = np.clip(edge(made[0]["value"], size), 0, (size.width, size.height))
    expected = (*points.min(0), *points.max(0))
    assert side_values(back.box) == pytest.approx(expected, abs=max(size.width, size.height) * 1e-5 + 1e-3)


@given(rotated, sizes)
def test_an_ellipse_over_the_edge_keeps_most_of_what_is_seen(found: RotatedBox, size: ImageSize) -> None:
    # What an upright one keeps is decided by its box.
    assume(abs((found.angle + 45) % 90 - 45) > 0.002)
    made = draw(Detection(0, 0.5, Box(0, 0, 1, 1), rotated=found), size=size)
    xs, ys = ((np.arange(150) + 0.5) / 150 * side for side in (size.width, size.height))
    seen = np.argwhere(is_in(np.stack(np.meshgrid(xs, ys), axis=-1), found))
    if not made:
        assert len(seen) <= 10  # of 22500: the polygon that stands for the ellipse lacks a sliver
        return
    assume(len(seen) > 500)
    (y1, x1), (y2, x2) = seen.min(0) / 150, (seen.max(0) + 1) / 150
    around = RotatedBox(
        (x1 + x2) / 2 * size.width,
        (y1 + y2) / 2 * size.height,
        (x2 - x1) * size.width,
        (y2 - y1) * size.height,
        0,
    )
    # As much as the upright ellipse in the bounds of what is seen, or more.
    kept = share(shown(Detection(0, 0.5, Box(0, 0, 1, 1), rotated=found), size), found, size)
    assert kept >= share(around, found, size) - 0.1


def test_box_of_a_region() -> None:
    found = ellipse()
    assert (found.cls, found.score) == (1, 1.0)
    assert side_values(found.box) == pytest.approx((256, 144, 384, 336))
    assert found.rotated == RotatedBox(pytest.approx(320), pytest.approx(240), 128, 192, 0)


def test_ellipses_over_the_edge_are_cut() -> None:
    found = ellipse(x=0, y=100)
    assert side_values(found.box) == pytest.approx((0, 384, 64, 480))
    assert found.rotated == RotatedBox(pytest.approx(32), pytest.approx(432), pytest.approx(64), pytest.approx(96), 0)


def test_a_turned_ellipse_is_bounded_exactly() -> None:
    # 128 x 96 px, turned by 45 degrees: it reaches as far as half the diagonal of its radii.
    found = ellipse(radiusX=10, radiusY=10, rotation=45)
    reach = math.hypot(64, 48) / 2**0.5
    assert side_values(found.box) == pytest.approx((320 - reach, 240 - reach, 320 + reach, 240 + reach))
    assert found.rotated == RotatedBox(pytest.approx(320), pytest.approx(240), 128, 96, 45)
    over = ellipse(x=0, radiusX=10, radiusY=10, rotation=45)
    assert over.box.x1 == 0
    assert over.rotated == RotatedBox(pytest.approx(0), pytest.approx(240), 128, 96, 45)


def test_a_quarter_turn_is_taken_in_pixels() -> None:
    found = ellipse(radiusX=10, radiusY=10, rotation=90)
    assert side_values(found.box) == pytest.approx((272, 176, 368, 304))
    assert found.rotated == RotatedBox(pytest.approx(320), pytest.approx(240), pytest.approx(96), pytest.approx(128), 0)


def test_the_size_counts_that_is_given() -> None:
    (found,) = from_regions([region(original_width=1, original_height=None)], CONTROL, CLASSES, ImageSize(100, 50))
    assert side_values(found.box) == pytest.approx((40, 15, 60, 35))


def test_several_labels_are_several_boxes() -> None:
    regions = [region(value={"ellipselabels": ["Nucleus", "Other", "Cell", "Nucleus"]})]
    assert [found.cls for found in from_regions(regions, CONTROL, CLASSES, SIZE)] == [1, 0]


def test_pages_are_told_apart() -> None:
    regions = [region(value={"ellipselabels": ["Cell"]}), region(item_index=1)]
    assert [found.cls for found in from_regions(regions, CONTROL, CLASSES, SIZE)] == [0, 1]
    assert [found.cls for found in from_regions(regions, CONTROL, CLASSES, SIZE, 1)] == [1]


@pytest.mark.parametrize("control", CONTROLS)
def test_turned_ellipses_are_told(control: Control) -> None:
    assert is_turned(draw(turned(320, 240, 100, 40, 30), control), control)
    assert not is_turned(draw(turned(320, 240, 100, 40, 90), control), control)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "bad",
    [
        {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"},
        region(from_name="other"),
        region(type="rectanglelabels"),
        region(value=None),
        region(value={"ellipselabels": None}),
        region(value={"ellipselabels": ["Other"]}),
        region(value={"radiusX": 0}),
        region(value={"radiusY": -5}),
        region(value={"x": 120}),
        region(value={"x": "10"}),
        region(value={"x": None}),
        region(value={"x": math.nan}),
        region(value={"x": 1e300, "rotation": 30}),
        region(value={"radiusX": 1e308, "radiusY": 1e308, "rotation": 30}),
        region(value={"radiusX": 10**400}),
        region(value={"rotation": "45"}),
        # A corner of its box is on the image, the ellipse is not.
        region(value={"x": -9, "y": -9, "radiusX": 10, "radiusY": 10}),
        region(value={"x": -12, "y": 50, "radiusX": 10, "radiusY": 10 * 4 / 3, "rotation": 40}),
        {},
        None,
        "text",
    ],
)
def test_what_teaches_nothing_is_left_out(bad: Any) -> None:
    assert from_regions([bad, region()], CONTROL, CLASSES, SIZE) == [ellipse()]


words = st.text("ab1", max_size=3) | st.sampled_from(["Nucleus", "10"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.filterwarnings("error")
@given(
    st.dictionaries(st.sampled_from(sorted(region())), json_values),
    st.dictionaries(st.sampled_from(["x", "y", "radiusX", "radiusY", "rotation", "ellipselabels"]), json_values),
)
def test_no_region_raises(top: dict[str, Any], value: dict[str, Any]) -> None:
    whole = region()
    for found in from_regions([{**whole, "value": {**whole["value"], **value}, **top}], CONTROL, CLASSES, SIZE):
        assert 0 <= found.box.x1 <= found.box.x2 <= SIZE.width
        assert 0 <= found.box.y1 <= found.box.y2 <= SIZE.height
        assert found.rotated is not None
        assert np.isfinite(found.rotated.corners()).all()
