"""EllipseLabels: boxes, upright or turned, to the ellipses that they hold, and ellipses to their boxes.

Label Studio speaks percent of each side (0..100) of the upright image: `x` and `y` are the centre, `radiusX` and
`radiusY` (at most 50) the halves of the axes; `rotation` is in degrees, clockwise about the centre, in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backend.labels.geometry import Box, Detection, ImageSize, RotatedBox
from backend.labels.overlap import Polygon, area, frame, intersection, likeness
from backend.labels.rectangle import (
    NEAR,
    axes,
    bounds,
    descriptions,
    is_askew,
    of_detection,
    of_value,
    on_image,
    placed,
    spans,
)
from backend.labels.region import NewId, Region, classes_of, draw, drawn
from backend.labels.schema import Control

CORNERS = 72
"""Of the polygon that stands for an ellipse at the image's edge; it lacks a thousandth of the area."""


def to_regions(found: Detection, label: str, control: Control, size: ImageSize, new_id: NewId) -> list[Region]:
    """The ellipse that Label Studio shows for a box; empty when nothing of it lies on the image.

    An upright box is cut at the image's edge first. A turned ellipse stays whole if its centre is on the image and
    no axis is over 100 %. Otherwise it becomes the ellipse in what is seen of it, turned alike or upright, whichever
    shares more with what is seen.

    Args:
        found: in pixels of the upright image, may reach over its edges; `rotated` counts before `box`. NaN or
            infinity give no region.
        label: the label it carries, already mapped from the class.
        size: pixels of the upright image.
        new_id: gives ids that are unique among the prediction's regions.
    """
    if size.width <= 0 or size.height <= 0 or not math.isfinite(found.score):
        return []
    shape = of_detection(found)
    if shape is None:
        return []
    value = _turned(shape, size) if is_askew(shape) else _upright(bounds(shape.corners()), size)
    return [] if value is None else draw(control, [label], value, found.score, size, new_id())


def from_regions(
    result: Sequence[Mapping[str, Any]],
    control: Control,
    classes: Sequence[str],
    size: ImageSize,
    page: int | None = None,
) -> list[Detection]:
    """The ellipses in an annotation's result, in its order, one for each known label of a region.

    `box` holds what of the ellipse lies on the image, `rotated` is the box along its axes: cut at the image's edge
    like `box` unless it is turned. Left out are regions of other controls, labels outside `classes`, ellipses
    without area on the image, and malformed regions.

    Args:
        classes: class names by index.
        size: pixels of the upright image.
        page: index of the image in a task with several pages; None takes the regions of all.
    """
    found: list[Detection] = []
    for each in drawn(result, control, page):
        shape = _shape(each.value, size)
        if shape is not None:
            found += on_image(shape, outline(shape), _bounds(shape), classes_of(each.labels, classes), size)
    return found


def _shape(value: Mapping[str, Any], size: ImageSize) -> RotatedBox | None:
    found = of_value(value, ("x", "y", "radiusX", "radiusY"), size)
    if found is None:
        return None
    (x, y, across, down), angle = found
    return placed(x, y, 2 * across, 2 * down, angle)


def _upright(box: Box, size: ImageSize) -> dict[str, float] | None:
    found = spans(box, size)
    if found is None:
        return None
    left, top, width, height = found
    return {"x": left + width / 2, "y": top + height / 2, "radiusX": width / 2, "radiusY": height / 2, "rotation": 0}


def _turned(shape: RotatedBox, size: ImageSize) -> dict[str, float] | None:
    seen = intersection(outline(shape), frame(size))
    if area(seen) <= 0:
        return None
    for each in descriptions(shape):
        if _fits(each, size):
            return _turned_value(each, size)
    cuts = [_cut(each, seen, size) for each in descriptions(shape)]
    around = bounds(seen)
    upright = RotatedBox(
        (around.x1 + around.x2) / 2, (around.y1 + around.y2) / 2, around.x2 - around.x1, around.y2 - around.y1, 0.0
    )
    best = max([*cuts, upright], key=lambda each: likeness(outline(each), seen, size))
    return _upright(around, size) if best is upright else _turned_value(best, size)


def _fits(box: RotatedBox, size: ImageSize) -> bool:
    inside = -NEAR <= box.cx <= size.width + NEAR and -NEAR <= box.cy <= size.height + NEAR
    return inside and box.width <= size.width + NEAR and box.height <= size.height + NEAR


def _turned_value(box: RotatedBox, size: ImageSize) -> dict[str, float] | None:
    if not (box.width > 0 and box.height > 0):
        return None
    return {
        "x": min(max(box.cx / size.width, 0.0), 1.0) * 100,
        "y": min(max(box.cy / size.height, 0.0), 1.0) * 100,
        "radiusX": min(box.width / size.width, 1.0) * 50,
        "radiusY": min(box.height / size.height, 1.0) * 50,
        "rotation": box.angle,
    }


def _cut(box: RotatedBox, seen: Polygon, size: ImageSize) -> RotatedBox:
    """The box around `seen` with the same rotation, its sides 100 % at most.

    Its centre is on the image: `seen` touches all its sides, so a side of the image cannot cut off its middle.
    """
    turn = axes(box.angle)
    around = bounds(seen @ turn.T)
    cx, cy = (np.array([around.x1 + around.x2, around.y1 + around.y2]) / 2 @ turn).tolist()
    width, height = min(around.x2 - around.x1, float(size.width)), min(around.y2 - around.y1, float(size.height))
    return RotatedBox(cx, cy, width, height, box.angle)


def outline(box: RotatedBox) -> Polygon:
    """The ellipse as a polygon; the ends of its axes are corners of it."""
    angles = np.arange(CORNERS) * (2 * math.pi / CORNERS)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points: Polygon = circle * (box.width / 2, box.height / 2) @ axes(box.angle) + (box.cx, box.cy)
    return points


def _bounds(box: RotatedBox) -> Box:
    """The upright box around the ellipse: along an axis it reaches as far as both turned radii together."""
    across, down = np.hypot(*(axes(box.angle) * [[box.width / 2], [box.height / 2]])).tolist()
    return Box(box.cx - across, box.cy - down, box.cx + across, box.cy + down)
