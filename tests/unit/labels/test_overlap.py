from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.labels.geometry import Box, Detection, ImageSize, Mask, RotatedBox
from backend.labels.overlap import area, frame, intersection, iou, iou_of, likeness, mask_iou, probiou, rotated_iou

A = Box(0, 0, 10, 10)

side = st.integers(1, 12)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), st.integers(0, 12), st.integers(0, 12), side, side)


def at(box: Box, **fields: object) -> Detection:
    return Detection(0, 1.0, box, **fields)  # type: ignore[arg-type]


def cells(box: Box) -> set[tuple[int, int]]:
    return {(x, y) for x in range(int(box.x1), int(box.x2)) for y in range(int(box.y1), int(box.y2))}


@given(boxes, boxes)
def test_boxes_overlap_as_their_pixels_do(one: Box, other: Box) -> None:
    expected = len(cells(one) & cells(other)) / len(cells(one) | cells(other))
    assert iou([at(one)], [at(other)])[0, 0] == pytest.approx(expected)
    assert iou_of(one, other) == pytest.approx(expected)
    assert iou([at(one)], [at(one)])[0, 0] == pytest.approx(1)


@given(boxes, boxes)
def test_polygons_of_boxes_overlap_as_the_boxes_do(one: Box, other: Box) -> None:
    left, right = (np.array([[b.x1, b.y1], [b.x2, b.y1], [b.x2, b.y2], [b.x1, b.y2]], float) for b in (one, other))
    assert area(intersection(left, right)) == pytest.approx(len(cells(one) & cells(other)))
    size = ImageSize(40, 40)
    assert area(frame(size)) == 1600
    assert likeness(left, right, size) == pytest.approx(iou_of(one, other), abs=1e-6)


class TestRotated:
    def turned(self, cx: float, cy: float, width: float, height: float, angle: float) -> Detection:
        box = RotatedBox(cx, cy, width, height, angle)
        corners = box.corners()
        return at(Box(*corners.min(axis=0), *corners.max(axis=0)), rotated=box)

    def test_a_square_and_itself_turned_by_an_eighth(self) -> None:
        # Their intersection is a regular octagon around a circle of radius 5: 2 (sqrt(2) - 1) of the square.
        shared = 2 * (2**0.5 - 1)
        found = rotated_iou([self.turned(20, 20, 10, 10, 0)], [self.turned(20, 20, 10, 10, 45)])
        assert found[0, 0] == pytest.approx(shared / (2 - shared), abs=1e-5)

    @given(st.floats(0, 360), st.integers(1, 3))
    def test_a_box_is_itself_by_any_of_its_names(self, angle: float, turns: int) -> None:
        one = self.turned(50, 40, 30, 10, angle)
        sides = (30, 10) if turns == 2 else (10, 30)
        assert rotated_iou([one], [self.turned(50, 40, *sides, angle + 90 * turns)])[0, 0] == pytest.approx(1, abs=1e-4)

    def test_far_ones_share_nothing(self) -> None:
        assert rotated_iou([self.turned(20, 20, 10, 10, 30)], [self.turned(60, 20, 10, 10, 30)])[0, 0] == 0


masks = st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=4, max_size=4).map(np.array)


@given(masks, masks)
def test_masks_overlap_as_their_pixels_do(one: np.ndarray, other: np.ndarray) -> None:
    cut = [Mask.of(each) for each in (one, other)]
    expected = (one & other).sum() / max((one | other).sum(), 1)
    assert mask_iou([at(A, mask=cut[0])], [at(A, mask=cut[1])])[0, 0] == pytest.approx(expected)
    if cut[0] is not None:
        assert (cut[0].full(ImageSize(5, 4)) == one).all()


def test_the_overlap_of_turned_boxes_is_the_one_of_ultralytics() -> None:
    import torch
    from ultralytics.utils.metrics import batch_probiou

    rng = np.random.default_rng(0)
    columns = [rng.uniform(0, 160, (2, 60)), rng.uniform(10, 80, (2, 60)), rng.uniform(-math.pi / 4, 2.3, (1, 60))]
    boxes = np.concatenate(columns).T
    expected = batch_probiou(torch.from_numpy(boxes).double(), torch.from_numpy(boxes).double()).numpy()
    left, right = np.indices((60, 60)).reshape(2, -1)
    assert probiou(boxes[left], boxes[right]) == pytest.approx(expected[left, right], abs=1e-6)
