"""RectangleLabels: a detection to a region of Label Studio, and regions to training boxes.

Label Studio speaks percent of each side (0..100) of the upright image, `x` and `y` being the left top corner;
`rotation` is in degrees, clockwise about that corner. Training boxes are normalised to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.labels.geometry import Detection, ImageSize
from backend.labels.schema import Control

TYPE = "rectanglelabels"


@dataclass(frozen=True, slots=True)
class YoloBox:
    """A training box: class index, centre and size, all normalised to [0, 1] and inside the image."""

    cls: int
    cx: float
    cy: float
    w: float
    h: float


def yolo_line(box: YoloBox) -> str:
    """The box as one line of a YOLO label file, without the line's end."""
    return f"{box.cls} {box.cx:.8f} {box.cy:.8f} {box.w:.8f} {box.h:.8f}"


def to_region(
    detection: Detection, label: str, control: Control, size: ImageSize, region_id: str
) -> dict[str, Any] | None:
    """The region that Label Studio shows for a detection; None when nothing of it lies on the image.

    Args:
        detection: box in pixels of the upright image, may reach over its edges; NaN or infinity give None.
        label: the label it carries, already mapped from the class.
        size: pixels of the upright image.
        region_id: unique among the prediction's regions.
    """
    box = detection.box
    score = float(detection.score)
    if size.width <= 0 or size.height <= 0 or not math.isfinite(score):
        return None
    horizontal = _span(float(box.x1), float(box.x2), size.width)
    vertical = _span(float(box.y1), float(box.y2), size.height)
    if horizontal is None or vertical is None:
        return None
    return {
        "id": region_id,
        "from_name": control.from_name,
        "to_name": control.to_name,
        "type": TYPE,
        "original_width": int(size.width),
        "original_height": int(size.height),
        "image_rotation": 0,
        "score": min(max(score, 0.0), 1.0),
        "value": {
            "x": horizontal[0],
            "y": vertical[0],
            "width": horizontal[1],
            "height": vertical[1],
            "rotation": 0,
            TYPE: [label],
        },
    }


def from_regions(result: Sequence[Mapping[str, Any]], control: Control, classes: Sequence[str]) -> list[YoloBox]:
    """The training boxes in an annotation's result, in its order.

    Regions of other controls or types, relations, labels outside `classes`, boxes without area and malformed
    regions are left out, never an error. A region with several known labels gives one box for each. A rotated
    rectangle becomes its axis-aligned bounding box; boxes over the edge are cut there.

    Args:
        classes: class names by index.
    """
    index = {name: number for number, name in reversed(list(enumerate(classes)))}
    boxes: list[YoloBox] = []
    for region in result:
        corners = _corners(region, control)
        if corners is None:
            continue
        x1, y1, x2, y2 = (min(max(side, 0.0), 1.0) for side in corners)
        if x2 > x1 and y2 > y1:
            boxes += [
                YoloBox(number, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
                for number in _classes(region["value"].get(TYPE), index)
            ]
    return boxes


def _span(low: float, high: float, side: int) -> tuple[float, float] | None:
    """Start and length in percent of one side.

    start + length <= 100 also in floats: the difference is off by at most half a step at 100, and a tie
    rounds to 100 itself.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    start = min(max(low / side, 0.0), 1.0) * 100
    length = min(max(high / side, 0.0), 1.0) * 100 - start
    return (start, length) if length > 0 else None


def _classes(labels: object, index: Mapping[str, int]) -> Iterator[int]:
    if isinstance(labels, list):
        known = (index[label] for label in labels if isinstance(label, str) and label in index)
        yield from dict.fromkeys(known)


def _corners(region: Mapping[str, Any], control: Control) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom of the region's bounding box, normalised, not clamped; None if not ours."""
    if not isinstance(region, Mapping) or region.get("type") != TYPE:
        return None
    if (region.get("from_name"), region.get("to_name")) != (control.from_name, control.to_name):
        return None
    value = region.get("value")
    if not isinstance(value, Mapping):
        return None
    numbers = [_number(value.get(name)) for name in ("x", "y", "width", "height")]
    rotation = _number(value.get("rotation") or 0)
    if rotation is None or None in numbers:
        return None
    x, y, width, height = (number / 100 for number in numbers if number is not None)
    if width <= 0 or height <= 0:
        return None
    if rotation % 360 == 0:
        return x, y, x + width, y + height

    # Percent of unequal sides would shear the rectangle: turn it in pixels.
    across, down = _number(region.get("original_width")), _number(region.get("original_height"))
    if across is None or down is None or across <= 0 or down <= 0:
        return None
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    w, h = width * across, height * down
    dx = (0.0, w * cos, -h * sin, w * cos - h * sin)
    dy = (0.0, w * sin, h * cos, w * sin + h * cos)
    return x + min(dx) / across, y + min(dy) / down, x + max(dx) / across, y + max(dy) / down


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
