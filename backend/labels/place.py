"""Where a region says that it is, in numbers that can be.

Label Studio writes percent of the image's sides. Importers write numbers as text, sides below 0, and pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from backend.labels.region import number
from backend.labels.schema import Kind

Why = Literal["no shape", "numbers that cannot be"]

LONGEST = 101.0
"""Percent of the image that a side has at most; what is longer was never percent. The rest is rounding."""
FARTHEST = 50.0
"""Percent of the image that a corner lies outside of it at most."""
SHARES = 1.0
"""Percent of the image within which all of a region lies only if its numbers are shares of the sides instead."""
LONGEST_TURNED = 1000.0
"""The same of a turned box, whose width may run along a side that is much longer than the other."""


def place_of(kind: Kind, entry: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Why | None]:
    """A region's place, in numbers and with sides above 0; None with the reason where there is none."""
    value = entry.get("value")
    if kind in ("choices", "taxonomy"):
        return {}, None
    if not isinstance(value, Mapping):
        return None, "no shape"
    if kind in ("rectangle", "ellipse"):
        return _box(kind, value, entry)
    if kind == "polygon":
        return _polygon(value)
    if kind == "keypoint":
        return _point(value)
    if kind == "brush":
        there = isinstance(value.get("rle"), list) and bool(value["rle"])
        return ({"format": "rle", "rle": value["rle"]}, None) if there else (None, "no shape")
    there = isinstance(value.get("imageDataURL"), str) and bool(value["imageDataURL"])
    return ({"imageDataURL": value["imageDataURL"]}, None) if there else (None, "no shape")


def as_number(value: object) -> float | None:
    """A finite number, also one that is written as text; None for anything else."""
    if isinstance(value, str):
        if "_" in value:  # to Python a separator of thousands
            return None
        try:
            value = float(value)
        except ValueError:
            return None
    return number(value)


def _box(kind: Kind, value: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Why | None]:
    names = ("x", "y", "width", "height") if kind == "rectangle" else ("x", "y", "radiusX", "radiusY")
    if any(value.get(name) is None for name in names):
        return None, "no shape"
    numbers = [as_number(value[name]) for name in names]
    angle = as_number(value.get("rotation") or 0)
    x, y, across, down = (math.nan if each is None else each for each in numbers)
    if angle is None or any(map(math.isnan, (x, y, across, down))):
        return None, "numbers that cannot be"
    turned = angle % 360 != 0
    if kind == "ellipse":
        across, down = abs(across), abs(down)
    elif across < 0 or down < 0:
        moved = _from_left_top(x, y, across, down, angle, entry)
        if moved is None:
            return None, "numbers that cannot be"
        x, y, across, down = moved
    if across == 0 or down == 0:
        return None, "no shape"
    if turned or kind == "ellipse":
        most = LONGEST_TURNED if turned else LONGEST
        possible = max(abs(x), abs(y), across, down) <= LONGEST_TURNED and max(across, down) <= most
        if kind == "ellipse":
            possible = possible and all(-FARTHEST <= each <= 100 + FARTHEST for each in (x, y))
    else:
        possible = max(across, down) <= LONGEST and x < 100 and y < 100 and x + across > 0 and y + down > 0
    if not possible or max(x + across, y + down) <= SHARES:
        return None, "numbers that cannot be"
    return {**dict(zip(names, (x, y, across, down), strict=True)), "rotation": angle}, None


def _from_left_top(
    x: float, y: float, width: float, height: float, angle: float, entry: Mapping[str, Any]
) -> tuple[float, float, float, float] | None:
    """A rectangle with sides below 0, begun from its other corner; None where its turn needs the image's sides."""
    sides = as_number(entry.get("original_width")), as_number(entry.get("original_height"))
    if angle % 360 and not (sides[0] and sides[1]):
        return None
    across, down = sides[0] or 1.0, sides[1] or 1.0
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    left, up = min(width, 0.0) / 100 * across, min(height, 0.0) / 100 * down
    if angle % 360 == 0:
        return x + min(width, 0.0), y + min(height, 0.0), abs(width), abs(height)
    return (
        x + (left * cos - up * sin) / across * 100,
        y + (left * sin + up * cos) / down * 100,
        abs(width),
        abs(height),
    )


def _polygon(value: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Why | None]:
    given = value.get("points")
    if not isinstance(given, list) or len(given) < 3:
        return None, "no shape"
    points: list[list[float]] = []
    for pair in given:
        numbers = [as_number(each) for each in pair] if isinstance(pair, list | tuple) and len(pair) == 2 else [None]
        if any(each is None or not -FARTHEST <= each <= 100 + FARTHEST for each in numbers):
            return None, "numbers that cannot be"
        points.append([each for each in numbers if each is not None])
    if max(map(max, points)) <= SHARES:
        return None, "numbers that cannot be"
    return {"points": points, "closed": True}, None


def _point(value: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Why | None]:
    if value.get("x") is None or value.get("y") is None:
        return None, "no shape"
    x, y = as_number(value["x"]), as_number(value["y"])
    if x is None or y is None or not all(-FARTHEST <= each <= 100 + FARTHEST for each in (x, y)):
        return None, "numbers that cannot be"
    return {"x": x, "y": y, "width": as_number(value.get("width")) or 0.0}, None
