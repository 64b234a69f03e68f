"""RectangleLabels: boxes, upright or turned, to regions of Label Studio and back.

Label Studio speaks percent of each side (0..100) of the upright image, `x` and `y` being the corner that was left
top before the turn; `rotation` is in degrees, clockwise about that corner, in pixels: percent of unequal sides
would shear the box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.labels.geometry import Box, Detection, ImageSize, RotatedBox
from backend.labels.overlap import Polygon, area, frame, intersection, likeness
from backend.labels.region import NewId, Region, classes_of, draw, drawn, number, span
from backend.labels.schema import Control

FAR = 1e9
"""Pixels. What lies farther away, NaN and infinity included, is no place; nearer, no product overflows."""
UPRIGHT = 1e-3
"""Degrees off a quarter turn that are none: they move no corner of 20,000 pixels by half a pixel."""
LEAST_TURN = 1.0
"""Degrees off a quarter turn from which a person meant a turned box; less slips in with a hasty hand."""
NEAR = 1e-6
"""Pixels over the edge that come from rounding."""


def to_regions(found: Detection, label: str, control: Control, size: ImageSize, new_id: NewId) -> list[Region]:
    """The region that Label Studio shows for a box; empty when nothing of it lies on the image.

    An upright box is cut at the image's edge. A turned box stays whole if one of its corners is on the image: it
    then becomes the region's x and y, with the rotation nearest to 0 that is possible. Otherwise, and where a side
    is over 100 %, it is cut along its own sides until a corner is on the image, or replaced by the upright box
    around what is seen of it, whichever shares more with what is seen.

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
    """The boxes in an annotation's result, in its order, one for each known label of a region.

    Left out are regions of other controls, labels outside `classes`, boxes without area on the image, and
    malformed regions. `box` is cut at the image's edge; so is `rotated` unless it is turned.

    Args:
        classes: class names by index.
        size: pixels of the upright image.
        page: index of the image in a task with several pages; None takes the regions of all.
    """
    found: list[Detection] = []
    for each in drawn(result, control, page):
        shape = _shape(each.value, size)
        if shape is not None:
            outline = shape.corners()
            found += on_image(shape, outline, bounds(outline), classes_of(each.labels, classes), size)
    return found


def is_turned(result: Sequence[Mapping[str, Any]], control: Control, page: int | None = None) -> bool:
    """Whether a person turned a region of the control, of rectangles or ellipses, by more than a slip of the hand."""
    angles = (number(each.value.get("rotation") or 0) for each in drawn(result, control, page))
    return any(angle is not None and off_quarter(angle) > LEAST_TURN for angle in angles)


def is_askew(box: RotatedBox) -> bool:
    """Whether its sides are not parallel to the image's."""
    return off_quarter(box.angle) > UPRIGHT


def of_detection(found: Detection) -> RotatedBox | None:
    """Where an object is, in plain floats; None where `placed` says so."""
    box, each = found.box, found.rotated
    if each is not None:
        return placed(each.cx, each.cy, each.width, each.height, each.angle)
    x1, y1, x2, y2 = (float(side) for side in (box.x1, box.y1, box.x2, box.y2))
    return placed((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.0)


def of_value(value: Mapping[str, Any], names: Sequence[str], size: ImageSize) -> tuple[list[float], float] | None:
    """Four numbers of a region in pixels (percent of width, height, width, height) and its rotation in degrees."""
    numbers = [number(value.get(name)) for name in names]
    angle = number(value.get("rotation") or 0)
    sides = (size.width, size.height) * 2
    pixels = [each / 100 * side for each, side in zip(numbers, sides, strict=True) if each is not None]
    return (pixels, angle % 360) if angle is not None and len(pixels) == len(sides) else None


def placed(cx: float, cy: float, width: float, height: float, angle: float) -> RotatedBox | None:
    """The box, if it is one: with an area, and near enough to be reckoned with; not NaN, not infinite."""
    box = RotatedBox(float(cx), float(cy), float(width), float(height), float(angle))
    near = all(abs(each) < FAR for each in (box.cx, box.cy, box.width, box.height, box.angle))
    return box if near and box.width > 0 and box.height > 0 else None


def on_image(
    shape: RotatedBox, outline: Polygon, holding: Box, numbers: Sequence[int], size: ImageSize
) -> list[Detection]:
    """An object that a person drew, once for each class; none when nothing of it lies on the image.

    Args:
        outline: its corners, or many points of its round edge.
        holding: the upright box around it, not clamped.
    """
    if area(intersection(outline, frame(size))) <= 0:
        return []
    x1, x2 = (min(max(x, 0.0), float(size.width)) for x in (holding.x1, holding.x2))
    y1, y2 = (min(max(y, 0.0), float(size.height)) for y in (holding.y1, holding.y2))
    if not is_askew(shape):
        shape = RotatedBox((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.0)
    return [Detection(cls, 1.0, Box(x1, y1, x2, y2), rotated=shape) for cls in numbers]


def descriptions(box: RotatedBox) -> list[RotatedBox]:
    """The same box from each of its corners, the rotation nearest to 0 first; all in [0, 360)."""
    turns = [
        RotatedBox(box.cx, box.cy, *((box.height, box.width) if quarter % 2 else (box.width, box.height)), angle)
        for quarter in range(4)
        for angle in [(box.angle + 90 * quarter) % 360]
    ]
    return sorted(turns, key=lambda each: (min(each.angle, 360 - each.angle), each.angle))


def bounds(polygon: Polygon) -> Box:
    """The upright box around it, not clamped."""
    (x1, y1), (x2, y2) = polygon.min(0).tolist(), polygon.max(0).tolist()
    return Box(x1, y1, x2, y2)


def axes(angle: float) -> NDArray[np.float64]:
    """(2, 2): the directions of a box's width and height, as rows, in pixels of the image."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([[cos, sin], [-sin, cos]])


def spans(box: Box, size: ImageSize) -> tuple[float, float, float, float] | None:
    """Left, top, width, height of the part on the image, in percent; None without area."""
    across, down = span(box.x1, box.x2, size.width), span(box.y1, box.y2, size.height)
    return None if across is None or down is None else (across[0], down[0], across[1], down[1])


def _upright(box: Box, size: ImageSize) -> dict[str, float] | None:
    found = spans(box, size)
    return None if found is None else dict(zip(("x", "y", "width", "height", "rotation"), (*found, 0), strict=True))


def _turned(shape: RotatedBox, size: ImageSize) -> dict[str, float] | None:
    seen = intersection(shape.corners(), frame(size))
    if area(seen) <= 0:
        return None
    whole = [each for each in descriptions(shape) if _fits(each, size)]
    if whole:
        return _turned_value(whole[0], size)
    cuts = [_cut(each, seen, size) for each in descriptions(shape)]
    best = max(cuts, key=lambda each: likeness(each.corners(), seen, size))
    around = bounds(seen)
    if likeness(best.corners(), seen, size) >= area(seen) / ((around.x2 - around.x1) * (around.y2 - around.y1)):
        return _turned_value(best, size)
    return _upright(around, size)


def _fits(box: RotatedBox, size: ImageSize) -> bool:
    x, y = box.corners()[0].tolist()
    inside = -NEAR <= x <= size.width + NEAR and -NEAR <= y <= size.height + NEAR
    return inside and box.width <= size.width + NEAR and box.height <= size.height + NEAR


def _turned_value(box: RotatedBox, size: ImageSize) -> dict[str, float] | None:
    x, y = box.corners()[0].tolist()
    if not (box.width > 0 and box.height > 0):
        return None
    return {
        "x": min(max(x / size.width, 0.0), 1.0) * 100,
        "y": min(max(y / size.height, 0.0), 1.0) * 100,
        "width": min(box.width / size.width, 1.0) * 100,
        "height": min(box.height / size.height, 1.0) * 100,
        "rotation": box.angle,
    }


def _cut(box: RotatedBox, seen: Polygon, size: ImageSize) -> RotatedBox:
    """The largest part of the box around `seen` that begins at a corner of `seen`, with sides of 100 % at most."""
    turn = axes(box.angle)
    own = (seen @ turn.T).tolist()
    right, bottom = max(x for x, _ in own), max(y for _, y in own)
    left, top = max(own, key=lambda corner: (right - corner[0]) * (bottom - corner[1]))
    width, height = min(right - left, float(size.width)), min(bottom - top, float(size.height))
    cx, cy = (np.array([left + width / 2, top + height / 2]) @ turn).tolist()
    return RotatedBox(cx, cy, width, height, box.angle)


def _shape(value: Mapping[str, Any], size: ImageSize) -> RotatedBox | None:
    found = of_value(value, ("x", "y", "width", "height"), size)
    if found is None:
        return None
    (x, y, width, height), angle = found
    if placed(x, y, width, height, angle) is None:
        return None
    to_x, to_y = (np.array([width / 2, height / 2]) @ axes(angle)).tolist()
    return placed(x + to_x, y + to_y, width, height, angle)


def off_quarter(angle: float) -> float:
    """Degrees to the nearest quarter turn, 0 to 45."""
    return abs((angle + 45) % 90 - 45)
