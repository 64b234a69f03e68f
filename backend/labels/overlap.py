"""How much shapes overlap: boxes, turned boxes, convex polygons and masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.labels.geometry import Box, Detection, ImageSize, Mask

Polygon = NDArray[np.float64]
"""(n, 2): corners of a convex polygon in pixels, in the order of `RotatedBox.corners`: clockwise as seen."""


def frame(size: ImageSize) -> Polygon:
    """The image itself."""
    return np.array([[0, 0], [size.width, 0], [size.width, size.height], [0, size.height]], float)


def intersection(polygon: Polygon, other: Polygon) -> Polygon:
    """What two convex polygons share, by cutting one along each side of the other; (0, 2) for nothing."""
    points = [(float(x), float(y)) for x, y in polygon]
    for (ax, ay), (bx, by) in _sides([(float(x), float(y)) for x, y in other]):
        kept: list[tuple[float, float]] = []
        for start, end in _sides(points):
            here, there = ((bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in (start, end))
            if here >= 0:
                kept.append(start)
            if min(here, there) < 0 < max(here, there):
                share = here / (here - there)
                kept.append((start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])))
        points = kept
    return np.array(points, float).reshape(-1, 2)


def area(polygon: Polygon) -> float:
    """Square pixels of a convex polygon; not below 0."""
    if len(polygon) < 3:
        return 0.0
    x, y = (polygon - polygon[0]).T
    return max(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2, 0.0)


def likeness(polygon: Polygon, seen: Polygon, size: ImageSize) -> float:
    """What a shape shares with the seen part of another: intersection over union, on the image; 0 to 1.

    Rounded, so that of equal shapes the first can be preferred.
    """
    shown = intersection(polygon, frame(size))
    common = area(intersection(shown, seen))
    union = area(shown) + area(seen) - common
    return round(common / union, 6) if union > 0 else 0.0


def _sides(points: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(points, [*points[1:], *points[:1]], strict=True)


def iou(left: Sequence[Detection], right: Sequence[Detection]) -> NDArray[np.float64]:
    """Intersection over union of each pair of boxes: (left, right)."""
    a = np.array([extent(each.box) for each in left])[:, None]
    b = np.array([extent(each.box) for each in right])[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0.0, None)
    shared: NDArray[np.float64] = sides.prod(axis=-1)
    areas = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1)
    found: NDArray[np.float64] = shared / np.maximum(areas - shared, 1e-12)
    return found


def rotated_iou(left: Sequence[Detection], right: Sequence[Detection]) -> NDArray[np.float64]:
    """Intersection over union of each pair of turned boxes, exact: (left, right)."""
    near = iou(left, right) > 0  # of the boxes around them: cheap, and nothing overlaps where these do not
    found = np.zeros(near.shape)
    for row, column in zip(*np.nonzero(near), strict=True):
        a, b = left[row].rotated, right[column].rotated
        if a is not None and b is not None:
            shared, _ = cv2.intersectConvexConvex(a.corners().astype(np.float32), b.corners().astype(np.float32))
            found[row, column] = shared / max(a.width * a.height + b.width * b.height - shared, 1e-12)
    return found


def mask_iou(left: Sequence[Detection], right: Sequence[Detection]) -> NDArray[np.float64]:
    """Intersection over union of each pair of masks, pixel by pixel: (left, right)."""
    found = np.zeros((len(left), len(right)))
    for row, a in enumerate(left):
        for column, b in enumerate(right):
            if a.mask is not None and b.mask is not None:
                shared = shared_pixels(a.mask, b.mask)
                found[row, column] = shared / max(int(a.mask.bits.sum()) + int(b.mask.bits.sum()) - shared, 1)
    return found


def extent(box: Box) -> tuple[float, float, float, float]:
    """Left, top, right and bottom."""
    return box.x1, box.y1, box.x2, box.y2


def probiou(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
    """How much turned boxes overlap, pair by pair, as Gaussians: 1 minus their Hellinger distance.

    Formula of https://arxiv.org/abs/2106.06072, as ultralytics' `batch_probiou` has it.

    Args:
        left, right: (n, 5): centre, width, height and angle in radians.
    """
    (x1, y1, a1, b1, c1), (x2, y2, a2, b2, c2) = _gaussian(left), _gaussian(right)
    a, b, c, across, down = a1 + a2, b1 + b2, c1 + c2, x1 - x2, y1 - y2
    spread = a * b - c**2
    apart = (a * down**2 + b * across**2 - 2 * c * across * down) / (spread + 1e-7) / 4
    own = np.sqrt(np.clip(a1 * b1 - c1**2, 0, None) * np.clip(a2 * b2 - c2**2, 0, None))
    unlike = np.log(spread / (4 * own + 1e-7) + 1e-7) / 2
    found: NDArray[np.float64] = 1 - np.sqrt(1 - np.exp(-np.clip(apart + unlike, 1e-7, 100)) + 1e-7)
    return found


def _gaussian(boxes: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
    """Means and covariances of boxes: x, y, and a, b, c of [[a, c], [c, b]]."""
    x, y, width, height, angle = boxes.T.astype(np.float64)
    cos, sin, along, beside = np.cos(angle), np.sin(angle), width**2 / 12, height**2 / 12
    return x, y, along * cos**2 + beside * sin**2, along * sin**2 + beside * cos**2, (along - beside) * cos * sin


def iou_of(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = (one.x2 - one.x1) * (one.y2 - one.y1) + (other.x2 - other.x1) * (other.y2 - other.y1)
    return shared / (areas - shared)


def shared_pixels(left: Mask, right: Mask) -> int:
    """How many pixels two masks both have."""
    x1, y1 = max(left.x, right.x), max(left.y, right.y)
    x2 = min(left.x + left.bits.shape[1], right.x + right.bits.shape[1])
    y2 = min(left.y + left.bits.shape[0], right.y + right.bits.shape[0])
    if x2 <= x1 or y2 <= y1:
        return 0
    mine = left.bits[y1 - left.y : y2 - left.y, x1 - left.x : x2 - left.x]
    theirs = right.bits[y1 - right.y : y2 - right.y, x1 - right.x : x2 - right.x]
    return int((mine & theirs).sum())
