from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.labels import outline
from backend.labels.geometry import Box, Detection, ImageSize, Mask

Bits = NDArray[np.bool_]
SIZE = ImageSize(40, 30)


def picture(*rows: str) -> Bits:
    return np.array([[letter != "." for letter in row] for row in rows])


def mask(*rows: str, x: int = 0, y: int = 0) -> Mask:
    return Mask(x, y, picture(*rows))


def blob(seed: int, side: int, grain: float, rough: float = 0.35) -> Bits:
    """A disc with a fringe; the smaller the grain, the more holes and specks."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((side, side)).astype(np.float32), (0, 0), grain)
    row, column = np.mgrid[:side, :side]
    inside = 0.75 - np.hypot(row - side / 2, column - side / 2) / (side / 2)
    found: Bits = rough * (noise - noise.mean()) / noise.std() + 3 * inside > 0
    return found


def disc(radius: float) -> Bits:
    side = math.ceil(2 * radius) + 3
    row, column = np.mgrid[:side, :side] + 0.5
    found: Bits = np.hypot(row - side / 2, column - side / 2) <= radius
    return found


def covered(points: Any, size: ImageSize, finer: int = 1) -> Bits:
    """Even-odd, one side after the other for all centres of pixels, `finer` to a pixel's side: the plain way."""
    points = np.asarray(points, float) * finer
    row, column = np.mgrid[: size.height * finer, : size.width * finer] + 0.5
    inside: Bits = np.zeros(row.shape, bool)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y1 != y2:
            inside ^= ((y1 <= row) != (y2 <= row)) & (column >= x1 + (row - y1) * (x2 - x1) / (y2 - y1))
    return inside


def filled(points: outline.Points, size: ImageSize) -> Bits:
    found = outline.fill(points, size)
    return np.zeros((size.height, size.width), bool) if found is None else found.full(size)


def iou(left: Bits, right: Bits) -> float:
    return float((left & right).sum() / (left | right).sum())


def without_holes(bits: Bits) -> Bits:
    """Everything that four-connected background does not reach from outside."""
    canvas = np.pad(bits.astype(np.uint8), 1)
    cv2.floodFill(canvas, None, (0, 0), 2, flags=4)
    found: Bits = canvas[1:-1, 1:-1] != 2
    return found


def rotations(points: outline.Points) -> list[list[tuple[float, float]]]:
    """The same closed polygon from every start, both ways round."""
    forth = [(float(x), float(y)) for x, y in points]
    return [way[start:] + way[:start] for way in (forth, forth[::-1]) for start in range(len(forth))]


sizes = st.tuples(st.integers(1, 14), st.integers(1, 14))
masks = st.builds(
    lambda shape, seed, share: np.random.default_rng(seed).random(shape) < share,
    sizes,
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.05, 0.3, 0.5, 0.7, 0.95, 1.0]),
)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (mask("#", x=7, y=4), [(7, 4), (8, 4), (8, 5), (7, 5)]),
        (mask("####", "####", x=1), [(1, 0), (5, 0), (5, 2), (1, 2)]),
        (mask("#..", "###"), [(0, 0), (1, 0), (1, 1), (3, 1), (3, 2), (0, 2)]),
        (mask("###", ".#."), [(0, 0), (3, 0), (3, 1), (2, 1), (2, 2), (1, 2), (1, 1), (0, 1)]),
    ],
)
def test_outlines_run_along_the_edges_of_pixels(drawn: Mask, expected: list[tuple[float, float]]) -> None:
    (points,) = outline.outlines(drawn)
    assert expected in rotations(points)


def test_parts_are_sorted_and_touch_at_corners() -> None:
    found = outline.outlines(mask("#...##", "...###", "......", "##....", "..#..."))
    assert [outline.area(points) for points in found] == [5, 3, 1]


def test_holes_and_what_lies_in_them_are_surrounded() -> None:
    (points,) = outline.outlines(mask("#####", "#...#", "#.#.#", "#...#", "#####"))
    assert outline.area(points) == 25


def test_nothing_has_no_outline() -> None:
    empty = mask("...", "...")
    assert outline.outlines(empty) == []
    assert outline.as_one_polygon(empty) is None


@given(masks, st.integers(0, 5), st.integers(0, 5))
def test_filled_outlines_are_the_mask_without_holes(bits: Bits, x: int, y: int) -> None:
    size = ImageSize(bits.shape[1] + 10, bits.shape[0] + 10)
    whole = Mask(x, y, bits).full(size)
    parts = outline.outlines(Mask(x, y, bits))
    found = np.zeros_like(whole)
    for points in parts:
        assert (points == points.round()).all()
        assert ((points != np.roll(points, 1, axis=0)).sum(axis=1) == 1).all()
        found |= filled(points, size)
    np.testing.assert_array_equal(found, without_holes(whole))
    assert len(parts) == cv2.connectedComponents(without_holes(whole).astype(np.uint8), connectivity=8)[0] - 1


@given(
    st.lists(st.tuples(st.floats(-20, 40, width=32), st.floats(-20, 40, width=32)), max_size=9)
    | st.lists(st.tuples(*[st.integers(-4, 16).map(lambda half: half / 2)] * 2), max_size=9),
    sizes,
)
def test_fill_takes_centres_even_odd(points: list[tuple[float, float]], shape: tuple[int, int]) -> None:
    size = ImageSize(*shape)
    expected = covered(points, size) if len(points) >= 3 else np.zeros((size.height, size.width), bool)
    found = outline.fill(np.array(points, float).reshape(-1, 2), size)
    assert (found is None) == (not expected.any())
    if found is not None:
        np.testing.assert_array_equal(found.full(size), expected)
        assert found.bits[0].any()
        assert found.bits[-1].any()
        assert found.bits[:, 0].any()
        assert found.bits[:, -1].any()


def test_polygons_with_a_common_side_share_no_pixel() -> None:
    corners = np.array([(1.0, 1), (21, 1), (21, 21), (1, 21)])
    upper, lower = filled(corners[[0, 1, 2]], SIZE), filled(corners[[0, 2, 3]], SIZE)
    assert not (upper & lower).any()
    np.testing.assert_array_equal(upper | lower, filled(corners, SIZE))


def test_large_polygons_are_filled_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    star = np.array([(20 + 18 * math.sin(2.4 * step), 15 - 16 * math.cos(2.4 * step)) for step in range(5)])
    once = filled(star, SIZE)
    monkeypatch.setattr(outline, "_AT_ONCE", 20)
    np.testing.assert_array_equal(filled(star, SIZE), once)


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((0, 2)),
        np.array([(1.0, 1), (9, 9)]),
        np.array([(1.0, 1), (9, 9), (5, 5)]),
        np.array([(5.0, 5), (5, 5), (5, 5)]),
        np.array([(-9.0, 1), (-1, 1), (-1, 9)]),
        np.array([(50.0, 1), (60, 1), (60, 9)]),
        np.array([(1.0, 40), (9, 40), (9, 50)]),
        np.array([(3.6, 1), (3.9, 1), (3.9, 20)]),
    ],
)
def test_what_covers_no_centre_fills_nothing(points: outline.Points) -> None:
    assert outline.fill(points, SIZE) is None


def test_area() -> None:
    assert outline.area(np.array([(1.0, 1), (4, 1), (4, 3), (1, 3)])) == 6
    assert outline.area(np.array([(0.0, 0), (0, 3), (4, 0)])) == 6


@pytest.mark.parametrize(
    ("bits", "points"),
    [
        (np.ones((200, 300), bool), 4),
        (np.ones((1, 1), bool), 4),
        (disc(150), 20),
        (disc(250), 20),
        (blob(1, 300, 30), 25),
        (blob(1, 300, 12), 50),
    ],
)
def test_few_points_are_enough(bits: Bits, points: int) -> None:
    size = ImageSize(bits.shape[1], bits.shape[0])
    part = outline.outlines(Mask(0, 0, bits))[0]
    found = outline.simplify(part, 60)
    assert len(found) <= points
    assert iou(covered(found, size), covered(part, size)) >= 0.975


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), st.sampled_from([12, 40, 120]), st.sampled_from([1.5, 3, 8]), st.integers(3, 80))
def test_simplified_outlines_overlap_as_far_as_points_suffice(seed: int, side: int, grain: float, most: int) -> None:
    part = outline.outlines(Mask(0, 0, blob(seed, side, grain)))[0]
    found = outline.simplify(part, most)
    assert 3 <= len(found) <= most
    assert {tuple(point) for point in found} <= {tuple(point) for point in part}
    size = ImageSize(side, side)
    overlap = iou(covered(found, size, 4), covered(part, size, 4))
    if len(part) <= most:
        assert overlap >= 0.975
    best = outline.simplify(part, len(part))
    if len(best) <= most:
        assert overlap >= 0.975
    assert overlap > 0.1


def test_the_limit_wins_but_leaves_a_polygon() -> None:
    square = outline.outlines(mask("####", "####", "####", "####"))[0]
    assert len(outline.simplify(square, 3)) == 3
    rough = outline.outlines(Mask(0, 0, blob(5, 200, 2)))[0]
    overlaps = []
    for most in (5, 20, 80):
        found = outline.simplify(rough, most)
        assert len(found) <= most
        overlaps.append(iou(covered(found, ImageSize(200, 200)), covered(rough, ImageSize(200, 200))))
    assert overlaps == sorted(overlaps)
    assert overlaps[0] < 0.85 < 0.93 < overlaps[2]


def test_of_too_many_points_those_go_that_matter_least() -> None:
    (round_,) = outline.outlines(Mask(0, 0, disc(150)))
    found = outline.simplify(round_, 5)
    # A regular pentagon has 0.76.
    assert iou(covered(found, ImageSize(303, 303)), covered(round_, ImageSize(303, 303))) > 0.7


def test_a_line_one_pixel_wide_keeps_its_course() -> None:
    bits = np.zeros((60, 60), np.uint8)
    cv2.polylines(bits, [np.array([(2, 2), (30, 50), (57, 10)])], False, 1)
    (part,) = outline.outlines(Mask(0, 0, bits.astype(bool)))
    found = outline.simplify(part, 1000)
    assert iou(covered(found, ImageSize(60, 60), 8), covered(part, ImageSize(60, 60), 8)) >= 0.97


@given(masks, st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None)
def test_one_polygon_is_the_whole_mask(bits: Bits, x: int, y: int) -> None:
    size = ImageSize(bits.shape[1] + 5, bits.shape[0] + 5)
    found = outline.as_one_polygon(Mask(x, y, bits))
    if found is None:
        assert not bits.any()
        return
    assert len(found) <= 999
    np.testing.assert_array_equal(filled(found, size), Mask(x, y, bits).full(size))


def test_holes_and_parts_are_joined_by_the_shortest_bridges() -> None:
    ring = disc(40) & ~np.pad(disc(20), 20)[: disc(40).shape[0], : disc(40).shape[1]]
    bits = np.pad(ring, ((0, 0), (0, 90)))
    bits[10:20, 90:100] = True
    bits[10:20, 110:120] = True
    found = outline.as_one_polygon(Mask(0, 0, bits))
    assert found is not None
    np.testing.assert_array_equal(filled(found, ImageSize(bits.shape[1], bits.shape[0])), bits)
    sides = np.hypot(*(np.roll(found, -1, axis=0) - found).T)
    # From part to part 10 pixels and twice each; from the far one straight to the ring would be twenty more.
    assert sides.max() < 25
    assert (sides == 10).sum() >= 2


@pytest.mark.parametrize(("grain", "least"), [(3, 0.98), (6, 0.99), (12, 0.99), (30, 0.99)])
@pytest.mark.parametrize("side", [100, 300, 1500])
def test_one_polygon_of_few_points_overlaps_with_the_mask(side: int, grain: float, least: float) -> None:
    bits = blob(7, side, grain * side / 300)
    found = outline.as_one_polygon(Mask(0, 0, bits))
    assert found is not None
    assert len(found) <= 999
    assert iou(filled(found, ImageSize(side, side)), bits) >= least


def test_noise_keeps_to_the_limit() -> None:
    bits = np.random.default_rng(0).random((120, 120)) < 0.3
    for most in (3, 10, 200):
        found = outline.as_one_polygon(Mask(0, 0, bits), most)
        assert found is not None
        assert 3 <= len(found) <= most
    specks = np.zeros((200, 200), bool)
    specks[::3, ::3] = True
    found = outline.as_one_polygon(Mask(0, 0, specks), 100)
    assert found is not None
    assert filled(found, ImageSize(200, 200)).sum() == 17


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999))
def test_one_polygon_survives_the_text_of_a_label_file(seed: int) -> None:
    bits = blob(seed, 60, 2)
    found = outline.as_one_polygon(Mask(0, 0, bits))
    assert found is not None
    text = " ".join(f"{number:.6f}" for number in (found / 60).ravel())
    back = np.array([float(word) for word in text.split()]).reshape(-1, 2) * 60
    assert iou(filled(back, ImageSize(60, 60)), bits) >= 0.999


@pytest.mark.parametrize(
    ("placed", "expected"),
    [
        (mask("##", "##", x=3, y=4), (3, 4, 2, 2)),
        (mask("...", ".##", "...", x=3, y=4), (4, 5, 2, 1)),
        (mask("###", "###", x=-1, y=-1), (0, 0, 2, 1)),
        (mask("###", "###", x=38, y=29), (38, 29, 2, 1)),
        (mask("##", x=-2, y=0), None),
        (mask("##", x=40, y=0), None),
        (mask("##", x=0, y=30), None),
        (mask("##", x=0, y=-1), None),
        (mask("..", x=0, y=0), None),
        (Mask(0, 0, np.zeros((0, 0), bool)), None),
        (None, None),
    ],
)
def test_the_visible_part(placed: Mask | None, expected: tuple[int, int, int, int] | None) -> None:
    found = outline.visible(Detection(0, 0.5, Box(0, 0, 1, 1), mask=placed), SIZE)
    assert (None if found is None else (found.x, found.y, found.bits.shape[1], found.bits.shape[0])) == expected
    assert found is None or found.bits.any()


@pytest.mark.parametrize(("score", "size"), [(math.nan, SIZE), (0.5, ImageSize(0, 5)), (0.5, ImageSize(5, 0))])
def test_nothing_is_visible_without_a_score_or_pixels(score: float, size: ImageSize) -> None:
    assert outline.visible(Detection(0, score, Box(0, 0, 1, 1), mask=mask("##")), size) is None
