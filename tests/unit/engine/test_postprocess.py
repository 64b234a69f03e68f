from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.engine.postprocess import cutout, read
from backend.labels.geometry import Box, ImageSize, Mask, Point


def smooth(seed: int, count: int, rows: int, columns: int) -> torch.Tensor:
    """Values such as a network's masks have: blobs, positive inside."""
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, count, 5, 7)).astype(np.float32))
    return torch.nn.functional.interpolate(noise, (rows, columns), mode="bicubic")[0]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(60, 900), st.integers(60, 900), st.data())
def test_masks_are_those_of_ultralytics_at_the_images_own_size(
    seed: int, width: int, height: int, data: st.DataObject
) -> None:
    from ultralytics.utils.ops import process_mask_native

    # ultralytics pads a letterbox up to the next multiple of 32; masks have a quarter of its size.
    gain = min(320 / height, 320 / width)
    network = [32 * math.ceil(max(1, round(side * gain)) / 32) for side in (height, width)]
    values = smooth(seed, 1, network[0] // 4, network[1] // 4)
    whole = np.array([0, 0, width, height], np.float32)
    mine = pixels(cutout(values[0].numpy(), whole, (height, width), (network[0], network[1])), width, height)
    theirs = process_mask_native(values, torch.ones(1, 1), torch.from_numpy(whole)[None], (height, width))[0]
    # Theirs is enlarged in two steps and stops short of the padding, so edges differ by a pixel here and there.
    assert (mine ^ theirs.bool().numpy()).sum() <= 0.03 * width * height
    x1, x2 = sorted(data.draw(st.tuples(st.integers(0, width - 1), st.integers(1, width))))
    y1, y2 = sorted(data.draw(st.tuples(st.integers(0, height - 1), st.integers(1, height))))
    part = cutout(values[0].numpy(), np.array([x1, y1, x2, y2], np.float32), (height, width), (network[0], network[1]))
    expected = np.zeros_like(mine)
    expected[y1:y2, x1:x2] = mine[y1:y2, x1:x2]
    assert (pixels(part, width, height) ^ expected).sum() <= 5 + 0.02 * expected.sum()  # rounding in cv2's sampling


def pixels(mask: Mask | None, width: int, height: int) -> np.ndarray:
    return np.zeros((height, width), bool) if mask is None else mask.full(ImageSize(width, height))


@pytest.mark.parametrize(
    "box", [(10, 10, 10, 20), (30, 10, 20, 20), (-40, 0, -10, 20), (500, 0, 600, 20), (math.nan, 0, 20, 20)]
)
def test_a_box_without_area_on_the_image_has_no_mask(box: tuple[float, ...]) -> None:
    assert cutout(np.ones((40, 40), np.float32), np.array(box, np.float32), (200, 200), (160, 160)) is None


def test_a_mask_without_pixels_is_none() -> None:
    assert cutout(-np.ones((40, 40), np.float32), np.array([0, 0, 50, 50], np.float32), (200, 200), (160, 160)) is None
    assert cutout(np.full((40, 40), np.nan, np.float32), np.array([0, 0, 5, 5], np.float32), (9, 9), (160, 160)) is None


def result(**fields: Any) -> Any:
    tensors = {name: SimpleNamespace(data=torch.tensor(rows)) for name, rows in fields.items()}
    return SimpleNamespace(orig_shape=(50, 100), **tensors)


def test_boxes_that_are_no_numbers_are_left_out() -> None:
    rows = [[0, 0, 10, 10, 0.3, 1], [math.nan, 0, 10, 10, 0.9, 0], [5, 5, 9, 9, 0.8, 2], [0, 0, 1, 1, math.nan, 0]]
    assert [(each.cls, round(each.score, 2)) for each in read("detect", result(boxes=rows))] == [(2, 0.8), (1, 0.3)]


def test_turned_boxes_are_in_degrees_and_have_bounds() -> None:
    (found,) = read("obb", result(obb=[[50.0, 40, 20, 10, math.pi / 2, 0.5, 3], [math.inf, 0, 1, 1, 0, 0.9, 0]]))
    assert found.rotated is not None
    assert found.rotated.angle == pytest.approx(90, abs=1e-4)
    assert [found.box.x1, found.box.y1, found.box.x2, found.box.y2] == pytest.approx([45, 30, 55, 50], abs=1e-4)


def test_masks_stay_with_their_boxes() -> None:
    mask = Mask(1, 2, np.ones((3, 3), bool))
    given = result(boxes=[[0.0, 0, 9, 9, 0.2, 0], [math.nan, 0, 9, 9, 0.9, 1], [1, 2, 4, 5, 0.7, 2]])
    given.cutouts = [None, None, mask]
    found = read("segment", given)
    assert [(each.cls, each.mask) for each in found] == [(2, mask), (0, None)]


def test_a_keypoint_that_is_no_number_is_missing() -> None:
    given = result(boxes=[[0.0, 0, 9, 9, 0.9, 0]], keypoints=[[[1.0, 2, 0.5], [math.nan, 3, 0.9]]])
    (found,) = read("pose", given)
    assert found.points == (Point(1, 2, 0.5), Point(0, 0, 0))
    (bare,) = read("pose", result(boxes=[[0.0, 0, 9, 9, 0.9, 0]], keypoints=[[[1.0, 2]]]))
    assert bare.points == (Point(1, 2, 1),)


def test_a_class_of_the_image_has_the_image_for_a_box() -> None:
    found = read("classify", result(probs=[0.2, math.nan, 0.7]))
    assert [(each.cls, round(each.score, 2), each.box) for each in found] == [
        (2, 0.7, Box(0, 0, 100, 50)),
        (0, 0.2, Box(0, 0, 100, 50)),
    ]
