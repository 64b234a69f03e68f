from __future__ import annotations

import itertools
import json
import math
from typing import Any, cast

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray

from backend.labels.geometry import Box, Detection, ImageSize, Mask
from backend.labels.polygon import from_regions, to_regions
from backend.labels.schema import Control, parse_label_config

IMAGE = '<Image name="image" value="$image"/>'
LABELS = '<Label value="Car"/><Label value="Plane"/>'
OWN = f'<View>{IMAGE}<PolygonLabels name="label" toName="image">{LABELS}</PolygonLabels></View>'
SPLIT = f"""<View>{IMAGE}<Labels name="label" toName="image">{LABELS}</Labels>
<Polygon name="shape" toName="image"/></View>"""
CLASSES = ("Car", "Plane")
SIZE = ImageSize(640, 480)


def only(xml: str) -> Control:
    (control,) = parse_label_config(xml).controls
    return control


CONTROLS = {xml: only(xml) for xml in (OWN, SPLIT)}
CONTROL = CONTROLS[OWN]
INTERFACES = {xml: LabelInterface(xml) for xml in CONTROLS}
configs = st.sampled_from([OWN, SPLIT])


def draw(
    found: Detection, label: str = "Plane", control: Control = CONTROL, size: ImageSize = SIZE
) -> list[dict[str, Any]]:
    numbers = itertools.count()
    return to_regions(found, label, control, size, lambda: f"r{next(numbers)}")


def masked(mask: Mask | None, score: float = 0.5) -> Detection:
    return Detection(0, score, Box(0, 0, 1, 1), mask=mask)


def picture(*rows: str, scale: int = 1) -> Mask:
    bits = np.array([[letter != "." for letter in row] for row in rows])
    return Mask(0, 0, bits.repeat(scale, axis=0).repeat(scale, axis=1))


def blob(seed: int, side: int, grain: float) -> NDArray[np.bool_]:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((side, side)).astype(np.float32), (0, 0), grain)
    row, column = np.mgrid[:side, :side]
    inside = 0.75 - np.hypot(row - side / 2, column - side / 2) / (side / 2)
    found: NDArray[np.bool_] = 0.35 * (noise - noise.mean()) / noise.std() + 3 * inside > 0
    return found


def iou(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> float:
    return float((left & right).sum() / (left | right).sum())


def region(*points: Any, **changes: Any) -> dict[str, Any]:
    """What Label Studio stores for a drawn polygon."""
    return {
        "id": "r",
        "from_name": "label",
        "to_name": "image",
        "type": "polygonlabels",
        "original_width": 640,
        "original_height": 480,
        "image_rotation": 0,
        "origin": "manual",
        "value": {"points": list(points), "closed": True, "polygonlabels": ["Plane"]},
        **changes,
    }


def drawn(*points: Any, size: ImageSize = SIZE) -> Detection:
    (found,) = from_regions([region(*points)], CONTROL, CLASSES, size)
    return found


def edges(found: Detection) -> tuple[float, float, float, float]:
    return found.box.x1, found.box.y1, found.box.x2, found.box.y2


def bits(found: Detection, size: ImageSize = SIZE) -> NDArray[np.bool_]:
    assert found.mask is not None
    return found.mask.full(size)


def same(left: Detection, right: Detection) -> bool:
    return left == right and bool((bits(left) == bits(right)).all())


def test_region_of_a_detection() -> None:
    found = masked(Mask(64, 48, np.ones((192, 256), bool)), 0.75)
    (made,) = draw(found, "Car")
    points = made["value"].pop("points")
    assert sorted(map(tuple, points)) == [(10, 10), (10, 50), (50, 10), (50, 50)]
    assert made == {
        "id": "r0",
        "from_name": "label",
        "to_name": "image",
        "type": "polygonlabels",
        "original_width": 640,
        "original_height": 480,
        "image_rotation": 0,
        "score": 0.75,
        "value": {"closed": True, "polygonlabels": ["Car"]},
    }


def test_a_drawing_tag_apart_gives_two_entries_for_each_part() -> None:
    made = draw(masked(picture("##..##", "##..##")), control=CONTROLS[SPLIT])
    assert [(each["id"], each["from_name"], each["type"]) for each in made] == [
        ("r0", "shape", "polygon"),
        ("r0", "label", "labels"),
        ("r1", "shape", "polygon"),
        ("r1", "label", "labels"),
    ]
    assert made[0]["value"]["points"] == made[1]["value"]["points"]
    assert "labels" not in made[0]["value"]
    assert made[1]["value"]["labels"] == ["Plane"]


def test_every_part_is_a_region_but_specks() -> None:
    parts = np.zeros((60, 60), bool)
    parts[0:20, 0:20] = True
    parts[30:50, 30:40] = True
    parts[58, 0:4] = True
    parts[58, 10:13] = True
    made = draw(masked(Mask(5, 5, parts), 0.25))
    assert [each["score"] for each in made] == [0.25, 0.25, 0.25]
    found = from_regions(made, CONTROL, CLASSES, SIZE)
    assert [int(bits(each).sum()) for each in found] == [400, 200, 4]


def test_specks_alone_are_drawn_but_not_without_end() -> None:
    dust = np.zeros((60, 60), bool)
    dust[::3, ::3] = True
    assert len(draw(masked(Mask(0, 0, dust)))) == 20
    assert len(draw(masked(Mask(0, 0, dust[:1, :7])))) == 3


def test_holes_are_filled() -> None:
    made = draw(masked(picture("#####", "#...#", "#.#.#", "#...#", "#####")))
    assert len(made) == 1
    assert int(bits(from_regions(made, CONTROL, CLASSES, SIZE)[0]).sum()) == 25


def test_the_config_limits_the_points() -> None:
    rough = masked(Mask(0, 0, blob(1, 200, 2)))
    for most in (3, 10, 60):
        control = only(OWN.replace('toName="image">', f'toName="image" model_polygon_points="{most}">'))
        assert control.polygon_points == most
        assert all(3 <= len(each["value"]["points"]) <= most for each in draw(rough, control=control))
        assert len(draw(rough, control=control)[0]["value"]["points"]) > most * 0.7


@pytest.mark.parametrize(
    ("found", "size"),
    [
        (masked(None), SIZE),
        (masked(picture("....")), SIZE),
        (masked(Mask(0, 0, np.zeros((0, 0), bool))), SIZE),
        (masked(picture("##"), math.nan), SIZE),
        (masked(Mask(640, 0, np.ones((3, 3), bool))), SIZE),
        (masked(Mask(-3, 0, np.ones((3, 3), bool))), SIZE),
        (masked(picture("##")), ImageSize(0, 5)),
        (masked(picture("##")), ImageSize(5, 0)),
    ],
)
def test_what_covers_nothing_is_no_region(found: Detection, size: ImageSize) -> None:
    assert draw(found, size=size) == []


def test_a_mask_over_the_edge_is_cut_there() -> None:
    (made,) = draw(masked(Mask(-3, 477, np.ones((9, 9), bool))))
    points = np.array(made["value"]["points"])
    assert points.min(axis=0) == pytest.approx((0, 477 / 4.8))
    assert points.max(axis=0) == pytest.approx((600 / 640, 100))


def test_a_region_of_numpy_numbers_is_json() -> None:
    found = masked(picture("##", "##"), cast(float, np.float32(0.3)))
    assert found.mask is not None
    moved = Mask(cast(int, np.int64(3)), cast(int, np.int64(4)), found.mask.bits)
    (made,) = json.loads(json.dumps(draw(masked(moved, found.score))))
    assert made["score"] == pytest.approx(0.3)
    assert min(made["value"]["points"]) == pytest.approx((3 / 6.4, 4 / 4.8))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 999),
    st.integers(8, 120),
    st.sampled_from([1.5, 4, 10]),
    st.integers(0, 20_000),
    st.integers(0, 20_000),
    st.floats(0, 1),
    configs,
)
def test_round_trip(seed: int, side: int, grain: float, x: int, y: int, score: float, config: str) -> None:
    size = ImageSize(x + side + seed % 3, y + side + seed % 5)
    mask = Mask(x, y, blob(seed, side, grain))
    made = json.loads(json.dumps(draw(masked(mask, score), "Plane", CONTROLS[config], size)))
    prediction = {"model_version": "v1", "score": score, "result": made}
    assert INTERFACES[config].validate_prediction(prediction, return_errors=True) == []
    for each in made:
        assert all(0 <= number <= 100 for point in each["value"]["points"] for number in point)
        assert 3 <= len(each["value"]["points"]) <= 60

    outer, _ = cv2.findContours(mask.bits.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    parts = []
    for number in range(len(outer)):
        part = np.zeros(mask.bits.shape, np.uint8)
        parts.append(cv2.drawContours(part, outer, number, 1, -1).astype(bool))
    kept = [part for part in parts if part.sum() >= 0.02 * max(each.sum() for each in parts)]
    back = from_regions(made, CONTROLS[config], CLASSES, size)
    assert len(kept) <= len(back) <= len(parts)
    for part in sorted(kept, key=np.sum, reverse=True)[:1]:
        found = back[0]
        assert (found.cls, found.score) == (1, 1.0)
        assert found.mask is not None
        close = np.zeros_like(part)
        height, width = found.mask.bits.shape
        left, top = found.mask.x - x, found.mask.y - y
        assert min(left, top) >= 0
        close[top : top + height, left : left + width] = found.mask.bits
        # 60 points cannot follow the roughest fringe, and an object of few pixels loses whole ones.
        assert iou(close, part) >= (0.97 if grain == 10 else 0.95 if grain == 4 and side > 40 else 0.8)


@pytest.mark.parametrize("side", [40, 150, 400])
def test_smooth_objects_come_back_almost_exactly(side: int) -> None:
    for seed in range(5):
        whole = Mask(13, 7, blob(seed, side, side / 10)).full(SIZE)
        wide = Mask.of(whole)
        back = np.zeros_like(whole)
        for found in from_regions(draw(masked(wide)), CONTROL, CLASSES, SIZE):
            back |= bits(found)
        filled = np.zeros(whole.shape, np.uint8)
        outer, _ = cv2.findContours(whole.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(filled, outer, -1, 1, -1)
        assert iou(back, filled.astype(bool)) >= 0.975


rectangles = st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(1, 100), st.integers(1, 100)).filter(
    lambda sides: sides[0] < sides[2] and sides[1] < sides[3]
)


@given(rectangles, st.integers(100, 20_000), st.integers(100, 20_000))
def test_rectangles_come_back_exactly(sides: tuple[int, int, int, int], width: int, height: int) -> None:
    x1, y1, x2, y2 = sides
    size = ImageSize(width, height)
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    found = drawn(*[[x / width * 100, y / height * 100] for x, y in corners], size=size)
    assert edges(found) == pytest.approx(sides)
    (made,) = draw(found, size=size)
    back = np.array(made["value"]["points"]) / 100 * (width, height)
    assert sorted(map(tuple, back.round(6).tolist())) == sorted(corners)


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.lists(st.integers(5, 40), min_size=6, max_size=6))
def test_stairs_of_whole_pixels_come_back_within_half_a_pixel(widths: list[int], heights: list[int]) -> None:
    # A skyline over a common ground: each house is `widths` wide and `heights` high.
    corners: list[tuple[float, float]] = [(20, 90)]
    for width, height in zip(widths, heights, strict=False):
        corners += [(corners[-1][0], 90 - height), (corners[-1][0] + width, 90 - height)]
    corners.append((corners[-1][0], 90))
    found = drawn(*[[x / 6.4, y / 4.8] for x, y in corners])
    back = np.concatenate([np.array(each["value"]["points"]) for each in draw(found)]) / 100 * (640, 480)
    nearest = np.hypot(*(back[:, None] - np.array(corners)).transpose(2, 0, 1)).min(axis=1)
    assert nearest.max() <= 0.5
    again = np.zeros((480, 640), bool)
    for each in from_regions(draw(found), CONTROL, CLASSES, SIZE):
        again |= bits(each)
    # Of a sliver of 80 pixels or fewer, two are already more than a fortieth.
    assert iou(again, bits(found)) >= 0.975 or (again ^ bits(found)).sum() <= 2


def test_slanted_sides_do_not_shift() -> None:
    # Outlines through the centres of pixels would be half a pixel too small on every side.
    corners = np.array([(100.0, 40), (400, 160), (260, 420), (40, 300)])
    found = drawn(*(corners / (6.4, 4.8)).tolist())
    (made,) = draw(found)
    back = np.array(made["value"]["points"]) / 100 * (640, 480)
    sides = np.roll(corners, -1, axis=0) - corners
    outwards = np.stack([sides[:, 1], -sides[:, 0]], axis=1) / np.hypot(*sides.T)[:, None]
    beyond = ((back[:, None] - corners) * outwards).sum(axis=2).max(axis=0)
    assert np.abs(beyond).max() <= 0.75
    (again,) = from_regions([made], CONTROL, CLASSES, SIZE)
    assert iou(bits(again), bits(found)) >= 0.98


def test_polygon_of_a_region() -> None:
    found = drawn([10, 10], [50, 10], [50, 50])
    assert (found.cls, found.score) == (1, 1.0)
    assert edges(found) == pytest.approx((64, 48, 320, 240))
    rows, columns = np.nonzero(bits(found))
    assert len(rows) == pytest.approx(256 * 192 / 2, rel=0.01)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (65, 319, 48, 239)


def test_polygons_over_the_edge_are_cut() -> None:
    found = drawn([-10, 90], [20, 90], [20, 120], [-10, 120])
    assert edges(found) == (0, 432, 128, 480)
    assert int(bits(found).sum()) == 128 * 48


def test_a_corner_outside_does_not_widen_the_box() -> None:
    # The tip at -50 % is above all that is visible.
    found = drawn([50, -50], [60, 50], [40, 50])
    assert edges(found)[0] == pytest.approx(256, abs=1)
    assert edges(found)[1] == 0
    found = drawn([-100, 50], [10, -30], [10, 50])
    assert edges(found)[2] == 64
    assert edges(found)[0] == 0


def test_what_crosses_itself_covers_its_even_odd_area() -> None:
    bow = drawn([10, 10], [50, 50], [50, 10], [10, 50])
    assert int(bits(bow).sum()) == pytest.approx(256 * 192 / 2, rel=0.01)
    twice = [[10, 10], [50, 10], [50, 50], [10, 50]]
    assert from_regions([region(*twice, *twice)], CONTROL, CLASSES, SIZE) == []


def test_several_labels_are_several_detections() -> None:
    value = {"points": [[10, 10], [50, 10], [50, 50]], "polygonlabels": ["Plane", "Ship", "Car", "Plane"]}
    assert [found.cls for found in from_regions([region(value=value)], CONTROL, CLASSES, SIZE)] == [1, 0]


def test_pages() -> None:
    second = region([10, 10], [50, 10], [50, 50], item_index=1)
    assert from_regions([second], CONTROL, CLASSES, SIZE, page=0) == []
    assert len(from_regions([second], CONTROL, CLASSES, SIZE, page=1)) == 1


GOOD = ([10, 10], [50, 10], [50, 50])


@pytest.mark.parametrize(
    "bad",
    [
        {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"},
        region(*GOOD, from_name="other"),
        region(*GOOD, to_name="other"),
        region(*GOOD, type="rectanglelabels"),
        region(*GOOD, value=None),
        region(*GOOD, value={"polygonlabels": ["Plane"]}),
        region(*GOOD, value={"points": [], "polygonlabels": ["Plane"]}),
        region(*GOOD, value={"points": {"0": [1, 1]}, "polygonlabels": ["Plane"]}),
        region(*GOOD, value={"points": list(GOOD), "polygonlabels": ["Ship"]}),
        region(*GOOD, value={"points": list(GOOD), "polygonlabels": "Plane"}),
        region(*GOOD[:2]),
        region([10, 10], [20, 20], [30, 30]),
        region([10, 10], [10, 10], [10, 10]),
        region(*GOOD, [10]),
        region(*GOOD, [10, 10, 10]),
        region(*GOOD, "10"),
        region(*GOOD, None),
        region(*GOOD, [10, "10"]),
        region(*GOOD, [10, None]),
        region(*GOOD, [True, 10]),
        region(*GOOD, [math.nan, 10]),
        region(*GOOD, [10, math.inf]),
        region(*GOOD, [10**400, 10]),
        region(*GOOD, [1e308, 10]),
        region([-30, 10], [-1, 10], [-1, 30]),
        region([101, 10], [130, 10], [130, 30]),
        {},
        None,
        "text",
    ],
)
def test_what_teaches_nothing_is_left_out(bad: Any) -> None:
    (found,) = from_regions([bad, region(*GOOD)], CONTROL, CLASSES, SIZE)
    assert same(found, drawn(*GOOD))


words = st.text("ab1", max_size=3) | st.sampled_from(["Plane", "10"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
pairs = st.lists(st.floats(-150, 150) | st.integers(), min_size=2, max_size=2)


@given(
    st.dictionaries(st.sampled_from(sorted(region())), json_values),
    st.fixed_dictionaries(
        {"points": json_values | st.lists(pairs | json_values, max_size=6) | st.lists(pairs, min_size=3, max_size=6)},
        optional={"polygonlabels": json_values, "closed": json_values},
    ),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
def test_no_region_raises(top: dict[str, Any], value: dict[str, Any], shape: tuple[int, int]) -> None:
    size = ImageSize(*shape)
    whole = region()
    for found in from_regions([{**whole, "value": {**whole["value"], **value}, **top}], CONTROL, CLASSES, size):
        assert bits(found, size).any()
        left, top_, right, bottom = edges(found)
        assert 0 <= left < right <= size.width
        assert 0 <= top_ < bottom <= size.height
