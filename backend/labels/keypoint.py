"""KeyPointLabels: a skeleton to points of Label Studio, with the rectangle around it, and back.

Label Studio draws single points; what makes them one skeleton is the rectangle that is their parent, or that
holds them. Where there is none, points are told apart by their note, and by labels that come a second time.
Points are in percent (0..100) of each side of the upright image, their `width` in percent of the image's width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.labels.geometry import Box, Detection, ImageSize, Point
from backend.labels.region import Drawn, NewId, Region, classes_of, draw, drawn, number, span
from backend.labels.schema import Control, Keypoint

EDGE = 1.0
"""Pixels that a point may lie outside of the image and still be drawn, on its edge."""
MARGIN, LEAST_MARGIN = 0.1, 4.0
"""A skeleton's box without a rectangle: its points' bounds and this share of the longer side, at least pixels."""
MISSING = Point(0.0, 0.0, 0.0)


def to_regions(found: Detection, label: str, control: Control, size: ImageSize, new_id: NewId) -> list[Region]:
    """The regions that Label Studio shows for a skeleton: its rectangle if that is wanted, then its points.

    Empty when the rectangle is wanted and nothing of it lies on the image, or when there is nothing to draw.

    Args:
        found: `points[i]` is the model's keypoint i, in pixels of the upright image.
        label: the skeleton's label, already mapped from the class.
        size: pixels of the upright image.
        new_id: gives ids that are unique among the prediction's regions.
    """
    if size.width <= 0 or size.height <= 0 or not math.isfinite(found.score):
        return []
    regions: list[Region] = []
    parent = ""
    if control.add_bboxes and control.box is not None:
        box = found.box
        across = span(float(box.x1), float(box.x2), size.width)
        down = span(float(box.y1), float(box.y2), size.height)
        if across is None or down is None:
            return []
        value = {"x": across[0], "y": down[0], "width": across[1], "height": down[1], "rotation": 0}
        parent = new_id()
        regions += draw(control.box, [label], value, found.score, size, parent)
    group = parent
    for wanted in control.points:
        point = found.points[wanted.index] if wanted.index < len(found.points) else MISSING
        place = _on_image(float(point.x), float(point.y), size)
        seen = 0 < point.score < math.inf and point.score >= control.point_threshold
        if place is None or not seen or not _has(control, label, wanted):
            continue
        region_id = new_id()
        group = group or region_id
        value = {
            "x": place[0] / size.width * 100,
            "y": place[1] / size.height * 100,
            "width": min(100 * control.point_size / size.width, 100.0),
        }
        meta = {"text": [f"{label} {group}"]}
        regions += draw(control, [wanted.label], value, point.score, size, region_id, parent_id=parent, meta=meta)
    return regions


def from_regions(
    result: Sequence[Mapping[str, Any]],
    control: Control,
    classes: Sequence[str],
    size: ImageSize,
    page: int | None = None,
) -> list[Detection]:
    """The skeletons in an annotation's result: those with a rectangle in its order, then those without.

    A point belongs to the rectangle that is its parent, else to the smallest one that holds it. Points without
    one belong together by a common parent or note, and a label that comes again begins the next skeleton. Of
    several points with one label in a rectangle the first counts. Regions of other controls, malformed ones, and
    skeletons whose class is unknown or cannot be told are left out.

    Args:
        classes: class names by index.
        size: pixels of the upright image.
        page: index of the image in a task with several pages; None takes the regions of all.

    Returns:
        detections with a point for each keypoint up to the highest index; missing ones have a score of 0.
    """
    if size.width <= 0 or size.height <= 0:
        return []
    frames = [_Frame(each, box) for each in _rectangles(result, control, page) if (box := _bounds(each, size))]
    loose: dict[str, list[_Placed]] = {}
    notes = _notes(result)
    for placed in _points(result, control, size, page):
        frame = _frame_of(placed, frames)
        if frame is not None:
            frame.points.append(placed)
        else:
            key = placed.parent_id and f"parent {placed.parent_id}"
            key = key or (f"note {notes[placed.id]}" if placed.id in notes else "")
            loose.setdefault(key, []).append(placed)
    found: list[Detection] = []
    for frame in frames:
        for cls in classes_of(frame.drawn.labels, classes):
            points = [each for each in frame.points if _has(control, classes[cls], each.keypoint)]
            if points or control.add_bboxes:
                found.append(Detection(cls, 1.0, frame.box, points=_ordered(points, control)))
    for group in loose.values():
        for cls, points in _split(group, control, classes):
            found.append(Detection(cls, 1.0, _around(points, size), points=_ordered(points, control)))
    return found


@dataclass(frozen=True, slots=True)
class _Placed:
    """A point that a person placed, in pixels."""

    keypoint: Keypoint
    x: float
    y: float
    id: str
    parent_id: str


@dataclass(frozen=True, slots=True)
class _Frame:
    """A rectangle around a skeleton, and the points that belong to it."""

    drawn: Drawn
    box: Box
    points: list[_Placed] = field(default_factory=list)


def _has(control: Control, label: str, point: Keypoint) -> bool:
    """Whether skeletons of this label have the point; all have it where there is only one label."""
    if not point.classes or len(control.labels) == 1:
        return True
    names = {name.casefold() for name in (label, *control.predicted_values.get(label, ()))}
    return any(name.casefold() in names for name in point.classes)


def _on_image(x: float, y: float, size: ImageSize) -> tuple[float, float] | None:
    """The point, moved onto the image's edge when it lies just outside; None when it lies farther, or nowhere."""
    inside = min(max(x, 0.0), float(size.width)), min(max(y, 0.0), float(size.height))
    near = abs(x - inside[0]) <= EDGE and abs(y - inside[1]) <= EDGE
    return inside if near else None


def _points(
    result: Sequence[Mapping[str, Any]], control: Control, size: ImageSize, page: int | None
) -> Iterator[_Placed]:
    known = {point.label: point for point in control.points}
    for each in drawn(result, control, page):
        x, y = number(each.value.get("x")), number(each.value.get("y"))
        place = None if x is None or y is None else _on_image(x / 100 * size.width, y / 100 * size.height, size)
        if place is not None:
            for label in each.labels:
                if label in known:
                    yield _Placed(known[label], *place, each.id, each.parent_id)


def _rectangles(result: Sequence[Mapping[str, Any]], control: Control, page: int | None) -> Iterator[Drawn]:
    return drawn(result, control.box, page) if control.box is not None else iter(())


def _bounds(frame: Drawn, size: ImageSize) -> Box | None:
    """What of the rectangle's upright bounds lies on the image, in pixels; None without area.

    Label Studio turns a rectangle about its left top corner, in pixels of the image that the person saw.
    """
    numbers = [number(frame.value.get(name)) for name in ("x", "y", "width", "height")]
    angle = number(frame.value.get("rotation") or 0)
    x, y, width, height = (math.nan if each is None else each / 100 for each in numbers)
    if angle is None or not (width > 0 and height > 0):
        return None
    across, down = frame.width or size.width, frame.height or size.height
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    w, h = width * across, height * down
    xs = [x + each / across for each in (0.0, w * cos, -h * sin, w * cos - h * sin)]
    ys = [y + each / down for each in (0.0, w * sin, h * cos, w * sin + h * cos)]
    x1, x2 = (min(max(each, 0.0), 1.0) * size.width for each in (min(xs), max(xs)))
    y1, y2 = (min(max(each, 0.0), 1.0) * size.height for each in (min(ys), max(ys)))
    return Box(x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def _frame_of(point: _Placed, frames: Sequence[_Frame]) -> _Frame | None:
    if point.parent_id:
        for frame in frames:
            if frame.drawn.id == point.parent_id:
                return frame
    holding = [
        frame for frame in frames if frame.box.x1 <= point.x <= frame.box.x2 and frame.box.y1 <= point.y <= frame.box.y2
    ]
    return min(holding, key=lambda frame: _area(frame.box), default=None)


def _area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _notes(result: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Region id -> the note that a person or a suggestion put on it."""
    notes: dict[str, str] = {}
    for region in result:
        meta = region.get("meta") if isinstance(region, Mapping) else None
        text = meta.get("text") if isinstance(meta, Mapping) else None
        first = text[0] if isinstance(text, list) and text else text
        if isinstance(first, str) and first:
            notes.setdefault(str(region.get("id")), first)
    return notes


def _split(points: Sequence[_Placed], control: Control, classes: Sequence[str]) -> Iterator[tuple[int, list[_Placed]]]:
    """Class and points of each skeleton; it ends where a label comes again or no class has all of the points."""
    every = set(classes_of(classes, classes))
    current: list[_Placed] = []
    possible = every
    for point in points:
        fitting = {cls for cls in every if _has(control, classes[cls], point.keypoint)}
        if any(each.keypoint == point.keypoint for each in current) or not possible & fitting:
            if len(possible) == 1 and current:
                yield min(possible), current
            current, possible = [], every
        current, possible = [*current, point], possible & fitting
    if len(possible) == 1 and current:
        yield min(possible), current


def _around(points: Sequence[_Placed], size: ImageSize) -> Box:
    xs, ys = [point.x for point in points], [point.y for point in points]
    margin = max(MARGIN * max(max(xs) - min(xs), max(ys) - min(ys)), LEAST_MARGIN)
    return Box(
        max(min(xs) - margin, 0.0),
        max(min(ys) - margin, 0.0),
        min(max(xs) + margin, float(size.width)),
        min(max(ys) + margin, float(size.height)),
    )


def _ordered(points: Sequence[_Placed], control: Control) -> tuple[Point, ...]:
    ordered = [MISSING] * (max((point.index for point in control.points), default=-1) + 1)
    for point in reversed(points):
        ordered[point.keypoint.index] = Point(point.x, point.y)
    return tuple(ordered)
