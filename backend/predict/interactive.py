"""Label Studio's interactive mode: what a person points at, and which of a model's objects answer to it.

A drawn rectangle asks for the objects inside it, a click for the best one under it, a negative click takes away
what is under it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.labels.geometry import Box, Detection, ImageSize
from backend.labels.region import number


@dataclass(frozen=True, slots=True)
class Prompt:
    """One mark of a person, in percent of the image: a point when it has no extent.

    `to_name` and `page` say on which image; `positive` is False for a click that takes away.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    to_name: str
    page: int = 0
    positive: bool = True

    @property
    def is_point(self) -> bool:
        return self.x1 == self.x2 and self.y1 == self.y2


def prompts_of(context: Mapping[str, Any] | None) -> list[Prompt] | None:
    """The marks of a request's `context`; None when the request is not an interactive one.

    Marks that cannot be read are left out.
    """
    result = context.get("result") if isinstance(context, Mapping) else None
    if not isinstance(result, list):
        return None
    return [found for region in result if isinstance(region, Mapping) and (found := _prompt(region)) is not None]


def prompted(
    found: Sequence[Detection], prompts: Sequence[Prompt], size: ImageSize, threshold: float
) -> list[Detection]:
    """The objects that answer to the marks on their image, by descending score.

    Under a click, and inside a rectangle that holds no better one, also an object below the threshold counts: a
    person has said that something is there. With negative clicks alone all suggestions stay but those under them.

    Args:
        found: objects in pixels, candidates under the threshold included.
        prompts: marks on this image.
    """
    chosen: list[Detection] = []
    asks = [each for each in prompts if each.positive]
    for prompt in asks:
        x1, y1, x2, y2 = _pixels(prompt, size)
        if prompt.is_point:
            under = [each for each in found if holds(each, x1, y1)]
            chosen += sorted(under, key=lambda each: (-each.score, _area(each.box)))[:1]
        else:
            inside = [each for each in found if _is_inside(each.box, x1, y1, x2, y2)]
            sure = [each for each in inside if each.score >= threshold]
            chosen += sure or sorted(inside, key=lambda each: -each.score)[:1]
    if not asks:
        chosen = [each for each in found if each.score >= threshold]
    for prompt in prompts:
        if not prompt.positive:
            x, y, _, _ = _pixels(prompt, size)
            chosen = [each for each in chosen if not holds(each, x, y)]
    unique = {id(each): each for each in chosen}
    return sorted(unique.values(), key=lambda each: -each.score)


def silenced(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers to an interactive request: one that failed says that nothing is there."""
    return [entry if "result" in entry else {**entry, "score": 0.0, "result": []} for entry in entries]


def holds(found: Detection, x: float, y: float) -> bool:
    """Whether an object covers a point, in pixels: its mask where it has one, else its box, turned or not."""
    if found.mask is not None:
        column, row = int(x) - found.mask.x, int(y) - found.mask.y
        height, width = found.mask.bits.shape
        return 0 <= row < height and 0 <= column < width and bool(found.mask.bits[row, column])
    if found.rotated is not None:
        turned = found.rotated
        angle = np.radians(-turned.angle)
        dx, dy = x - turned.cx, y - turned.cy
        along, across = dx * np.cos(angle) - dy * np.sin(angle), dx * np.sin(angle) + dy * np.cos(angle)
        return bool(abs(along) <= turned.width / 2 and abs(across) <= turned.height / 2)
    return found.box.x1 <= x <= found.box.x2 and found.box.y1 <= y <= found.box.y2


def _prompt(region: Mapping[str, Any]) -> Prompt | None:
    value = region.get("value")
    if not isinstance(value, Mapping):
        return None
    kind = str(region.get("type") or "")
    page = region.get("item_index")
    to_name, where = str(region.get("to_name") or ""), page if isinstance(page, int) else 0
    positive = region.get("is_positive") is not False
    corners = _corners(kind, value)
    return None if corners is None else Prompt(*corners, to_name, where, positive)


def _corners(kind: str, value: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """What bounds the mark, in percent; turned rectangles count as upright ones."""
    if kind.startswith("polygon"):
        return _around(value.get("points"))
    x, y = number(value.get("x")), number(value.get("y"))
    if x is None or y is None:
        return None
    if kind.startswith("ellipse"):
        rx, ry = number(value.get("radiusX")) or 0.0, number(value.get("radiusY")) or 0.0
        return x - rx, y - ry, x + rx, y + ry
    if kind.startswith("rectangle"):
        return x, y, x + (number(value.get("width")) or 0.0), y + (number(value.get("height")) or 0.0)
    return x, y, x, y


def _around(points: object) -> tuple[float, float, float, float] | None:
    """What bounds a polygon's corners."""
    xs: list[float] = []
    ys: list[float] = []
    for point in points if isinstance(points, list) else []:
        x, y = (number(part) for part in point) if isinstance(point, list) and len(point) == 2 else (None, None)
        if x is None or y is None:
            return None
        xs.append(x)
        ys.append(y)
    return (min(xs), min(ys), max(xs), max(ys)) if xs else None


def _pixels(prompt: Prompt, size: ImageSize) -> tuple[float, float, float, float]:
    across, down = size.width / 100, size.height / 100
    return prompt.x1 * across, prompt.y1 * down, prompt.x2 * across, prompt.y2 * down


def _is_inside(box: Box, x1: float, y1: float, x2: float, y2: float) -> bool:
    """Whether at least half of a box lies inside the rectangle."""
    width = min(box.x2, max(x1, x2)) - max(box.x1, min(x1, x2))
    height = min(box.y2, max(y1, y2)) - max(box.y1, min(y1, y2))
    return width > 0 and height > 0 and width * height >= 0.5 * _area(box)


def _area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)
