"""PolygonLabels: objects with masks to polygons of Label Studio and back.

Label Studio gives each point in percent (0..100) of the image's width and height. A polygon has neither holes nor
several parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backend.labels import outline, region
from backend.labels.geometry import Box, Detection, ImageSize, Mask
from backend.labels.region import NewId, Region
from backend.labels.schema import Control

# Parts below this share of the largest are specks of the model, not something to correct by hand.
_SPECK = 0.01
# A mask of nothing but specks would give thousands of regions.
_MOST_PARTS = 20
# In percent: a hundred images away. Only broken annotations go there, and larger numbers overflow.
_FARTHEST = 10_000.0


def to_regions(found: Detection, label: str, control: Control, size: ImageSize, new_id: NewId) -> list[Region]:
    """One polygon for each part of an object's mask, the largest first, without specks; holes are filled.

    Each has at most `control.polygon_points` points and, as far as these allow, an IoU of at least 0.98 with
    its part. An object without a mask on the image gives none.
    """
    mask = outline.visible(found, size)
    parts = outline.outlines(mask)[:_MOST_PARTS] if mask is not None else []
    regions: list[Region] = []
    for part in parts:
        if outline.area(part) >= _SPECK * outline.area(parts[0]):
            points = outline.simplify(part, control.polygon_points) / (size.width, size.height) * 100
            value = {"points": points.tolist(), "closed": True}
            regions += region.draw(control, [label], value, found.score, size, new_id())
    return regions


def from_regions(
    result: Sequence[Mapping[str, Any]],
    control: Control,
    classes: Sequence[str],
    size: ImageSize,
    page: int | None = None,
) -> list[Detection]:
    """The polygons that a person drew, in pixels, as masks and the boxes around them; see `region.drawn`.

    What lies over the image's edges is cut off; a polygon that crosses itself covers what an even-odd filling
    does. Polygons that cover no pixel's centre are left out.
    """
    found: list[Detection] = []
    for drawn in region.drawn(result, control, page):
        numbers = region.classes_of(drawn.labels, classes)
        points = _points(drawn.value.get("points"), size) if numbers else None
        mask = outline.fill(points, size) if points is not None else None
        if points is not None and mask is not None:
            box = _box(points, mask, size)
            found += [Detection(number, 1.0, box, mask=mask) for number in numbers]
    return found


def _points(value: object, size: ImageSize) -> outline.Points | None:
    """The points in pixels; None unless all of them are pairs of numbers."""
    if not isinstance(value, list):
        return None
    pairs: list[tuple[float, float]] = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            return None
        x, y = region.number(pair[0]), region.number(pair[1])
        if x is None or y is None or max(abs(x), abs(y)) > _FARTHEST:
            return None
        pairs.append((x, y))
    return np.array(pairs, np.float64).reshape(-1, 2) / 100 * (size.width, size.height)


def _box(points: outline.Points, mask: Mask, size: ImageSize) -> Box:
    """Around a polygon on the image; around the pixels of one that reaches over its edges."""
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return Box(x1, y1, x2, y2) if min(x1, y1) >= 0 and x2 <= size.width and y2 <= size.height else mask.box
