"""Between masks and polygons, without Label Studio.

Polygons are (n, 2) pixels of the upright image, closed by themselves, filled even-odd. They run along the edges
of pixels, so the outline of the single pixel (x, y) is the square from (x, y) to (x + 1, y + 1), and filling an
outline gives back the very pixels that it surrounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.labels.geometry import Detection, ImageSize, Mask

Points = NDArray[np.float64]

# Heights at which two polygons are compared. Prime, so that it does not beat with a regular pattern of pixels.
_LINES = 499
# Halvings of the tolerance when simplifying: to a quarter of a pixel for an object of a thousand.
_STEPS = 12
# In pixels. Nothing is lost while the exact outline has few enough points; 0.5 keeps all but the slightest steps.
_TOLERANCES = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
# Crossings of edges and rows that are held in memory at once.
_AT_ONCE = 4_000_000


def visible(found: Detection, size: ImageSize) -> Mask | None:
    """The part of an object's mask that lies on the image, cut out closely.

    None when it has no mask there, or when its score is not a finite number.
    """
    if found.mask is None or not math.isfinite(found.score):
        return None
    x, y = found.mask.x, found.mask.y
    left, top = max(-x, 0), max(-y, 0)
    bits = found.mask.bits[top : max(size.height - y, 0), left : max(size.width - x, 0)]
    return _cut_out(np.asarray(bits, bool), x + left, y + top)


def outlines(mask: Mask) -> list[Points]:
    """The outer contour of each connected part, the largest first; pixels that touch at a corner are connected.

    Only corners are points. Holes are left out, and so are parts inside of holes: the outline around the hole
    already surrounds them.
    """
    origin = np.array([mask.x, mask.y])
    return [ring + origin for ring in _rings(mask.bits, cv2.RETR_EXTERNAL)]


def area(points: Points) -> float:
    """Square pixels inside of a polygon that does not cross itself."""
    x, y = (points - points[0]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def simplify(points: Points, most: int, iou: float = 0.98) -> Points:
    """The same polygon with fewer of its points: as few as still overlap with it by `iou`.

    Args:
        most: most points; it wins over `iou`. At least 3.
        iou: least intersection over union with `points`, in (0, 1].
    """
    likeness = _Likeness(points)
    many = points
    best = points if len(points) <= most else None
    low, high = 0.0, float(np.ptp(points, axis=0).max())
    for _ in range(_STEPS):
        tolerance = (low + high) / 2
        fewer = _approximate(points, tolerance)
        if len(fewer) > most:
            many, low = fewer, tolerance
        elif likeness(fewer) >= iou:
            best, low = fewer, tolerance
        else:
            high = tolerance
    return best if best is not None else _drop_points(many, most)


def fill(points: Points, size: ImageSize) -> Mask | None:
    """The pixels of the image whose centres lie inside of a polygon by the even-odd rule; None when there are none.

    It may cross itself and reach over the edges. A centre on an edge belongs to one side only, so polygons that
    share the edge share no pixel.

    Args:
        points: finite; fewer than 3 cover nothing.
    """
    if len(points) < 3:
        return None
    left, top = np.clip(np.floor(points.min(axis=0)), 0, (size.width, size.height)).astype(int)
    right, bottom = np.clip(np.ceil(points.max(axis=0)), 0, (size.width, size.height)).astype(int)
    width, height = int(right - left), int(bottom - top)
    if width <= 0 or height <= 0:
        return None
    # Every crossing of a row turns inside into outside for all pixels to its right. Counts may wrap at 256,
    # which is even.
    turns = np.zeros((height, width + 1), np.uint8)
    block = max(_AT_ONCE // len(points), 1)
    for start in range(0, height, block):
        rows = np.arange(start, min(start + block, height)) + 0.5 + top
        row, x = _crossings([points], rows)
        column = np.clip(np.ceil(x - 0.5) - left, 0, width).astype(np.intp)
        np.add.at(turns, (row + start, column), 1)
    np.cumsum(turns, axis=1, dtype=np.uint8, out=turns)
    return _cut_out((turns[:, :-1] & 1).astype(bool), int(left), int(top))


def as_one_polygon(mask: Mask, most: int = 999) -> Points | None:
    """One closed polygon whose even-odd filling is the mask, with its holes and all its parts; None when empty.

    A line of YOLO's label files has room for one polygon only. The outlines are joined by bridges that are
    walked both ways and so have no area. It is exact while `most` points suffice; then steps of pixels are
    smoothed, and small parts and holes vanish first.

    Args:
        most: most points, at least 3. Ultralytics keeps every one of fewer than 1000 points, else it resamples.
    """
    exact = _rings(mask.bits, cv2.RETR_LIST)
    if not exact:
        return None
    rings = exact
    for tolerance in _TOLERANCES:
        rings = [ring for ring in (_approximate(each, tolerance) for each in exact) if len(ring) >= 3]
        if rings and _joined_length(rings) <= most:
            break
    rings = rings or exact
    if len(rings[0]) > most:
        rings[0] = simplify(rings[0], most, iou=1.0)
    lengths = np.cumsum([len(ring) + 2 for ring in rings]) - 2
    whole: Points = _join(rings[: int(np.searchsorted(lengths, most, side="right"))]) + np.array([mask.x, mask.y])
    return whole


def _cut_out(bits: NDArray[np.bool_], x: int, y: int) -> Mask | None:
    close = Mask.of(bits)
    return None if close is None else Mask(close.x + x, close.y + y, close.bits)


def _rings(bits: NDArray[np.bool_], mode: int) -> list[Points]:
    """Contours along the edges of pixels, corners only, the largest first.

    OpenCV's contours run through the centres of the object's border pixels. In the mask at double size these
    are the pixels 2x and 2x + 1 of each pixel x: those on its left lead to the edge x, those on its right to the
    edge x + 1, and both ends of the slanted step around an inner corner to that corner.
    """
    double = np.repeat(np.repeat(bits.astype(np.uint8), 2, axis=0), 2, axis=1)
    found, _ = cv2.findContours(double, mode, cv2.CHAIN_APPROX_SIMPLE)
    rings = []
    for contour in found:
        points = ((contour[:, 0] + 1) // 2).astype(np.float64)
        rings.append(points[(points != np.roll(points, 1, axis=0)).any(axis=1)])
    return sorted(rings, key=area, reverse=True)


def _turns(points: Points) -> Points:
    """(n,): twice the signed area of the triangle of each point and its two neighbours."""
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns: Points = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return turns


def _approximate(points: Points, tolerance: float) -> Points:
    """Ramer, Douglas and Peucker's approximation, whose lines stay within `tolerance` pixels of the points left out."""
    if tolerance <= 0:
        return points
    found: Points = cv2.approxPolyDP(points.astype(np.float32)[:, None], tolerance, True)[:, 0].astype(np.float64)
    return found


def _drop_points(points: Points, most: int) -> Points:
    """Leaves out, one after the other, the point that changes the area least."""
    while len(points) > most:
        points = np.delete(points, np.abs(_turns(points)).argmin(), axis=0)
    return points


def _crossings(rings: Sequence[Points], rows: Points) -> tuple[NDArray[np.intp], Points]:
    """Where the rings' sides cross horizontal lines: index of the line, and x.

    Args:
        rows: heights of the lines, increasing. A side includes its upper end and not its lower one.
    """
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    first = np.searchsorted(rows, np.minimum(start[:, 1], end[:, 1]))
    count = np.searchsorted(rows, np.maximum(start[:, 1], end[:, 1])) - first
    side = np.repeat(np.arange(len(start)), count)
    row = np.arange(len(side)) - np.repeat(np.cumsum(count) - count - first, count)
    (x, y), (dx, dy) = start[side].T, (end - start)[side].T
    return row, x + (rows[row] - y) * dx / dy


class _Likeness:
    """Intersection over union of a polygon with others, along equally spaced lines and exact on each.

    Both polygons filled together, even-odd, are what only one of them covers. Unlike counting pixels this also
    measures objects that are a pixel wide, and its cost does not depend on their size.
    """

    def __init__(self, points: Points) -> None:
        top, bottom = points[:, 1].min(), points[:, 1].max()
        self._points = points
        self._rows: Points = top + (np.arange(_LINES) + 0.5) * (bottom - top) / _LINES
        self._length = self._inside([points])

    def __call__(self, other: Points) -> float:
        both = self._length + self._inside([other])
        apart = self._inside([self._points, other])
        return (both - apart) / (both + apart) if both + apart > 0 else 0.0

    def _inside(self, rings: Sequence[Points]) -> float:
        row, x = _crossings(rings, self._rows)
        x = x[np.lexsort((x, row))]
        return float((x[1::2] - x[::2]).sum())


def _joined_length(rings: Sequence[Points]) -> int:
    return sum(len(ring) + 2 for ring in rings) - 2


def _join(rings: Sequence[Points]) -> Points:
    """One ring: each of the others is visited from the nearest point of those joined before (Prim's tree)."""
    points = np.concatenate(rings)
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    nearest = np.full(len(points), np.inf)
    link = np.zeros(len(points), np.intp)
    path = np.flatnonzero(owner == 0).tolist()
    joined = 0
    for _ in range(len(rings) - 1):
        new = np.flatnonzero(owner == joined)
        distance = ((points[:, None] - points[new]) ** 2).sum(axis=2)
        closer = distance.min(axis=1) < nearest
        link[closer] = new[distance[closer].argmin(axis=1)]
        nearest = np.minimum(nearest, distance.min(axis=1))
        owner[new] = -1

        at = int(np.where(owner < 0, np.inf, nearest).argmin())
        joined = int(owner[at])
        ring = np.flatnonzero(owner == joined)
        visit = np.roll(ring, -int(np.searchsorted(ring, at))).tolist()
        place = path.index(int(link[at])) + 1
        path[place:place] = [*visit, at, int(link[at])]
    ring_of_all: Points = points[path]
    return ring_of_all
