"""Label Studio's interactive mode: which of a model's objects answer to what a person has just drawn.

A drawn shape asks for the objects inside it, a click for the best one under it, a stroke of the brush for what it
covers or, where it is thin, for the best one under it. A click that takes away leaves out what is under it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from backend.labels.geometry import Box, Detection, ImageSize, Mask
from backend.labels.overlap import area, intersection, iou_of, shared_pixels
from backend.predict.marks import Mark

INSIDE = 0.5
"""Share of an object's area from which a mark holds it; and overlap from which a mark is drawn around this one."""

THERE = 0.7
"""Overlap above which an object is there already."""

MOST = 3000
"""Most objects that one mark is answered with. More than are suggested for an image: what a person asks for is not
left out because other parts of the image have surer ones."""


def pointed_at(
    found: Sequence[Detection],
    asks: Mark,
    excluded: Sequence[Mark],
    labels: Mapping[int, str],
    names: Sequence[str],
    size: ImageSize,
    threshold: float,
) -> list[tuple[Detection, str]]:
    """The objects that answer to a mark on their image and the label of each, by descending score.

    Under a click, and inside a shape that holds no better one, also an object below the threshold counts: a person
    has said that something is there. The label that this mark carries goes before the model's class where it means
    one object: of several under a click those of its label come first, and the answer carries it in any case.

    Args:
        found: objects in pixels, candidates under the threshold included.
        excluded: clicks that take away.
        labels: class index → label; other classes do not answer.
        names: all labels that the answer may carry.
    """
    place = asks.place(size)
    if place is None:
        return []
    taken = [there for each in excluded if (there := each.place(size)) is not None]
    left = [each for each in found if each.cls in labels and not any(_takes(there, each) for there in taken)]
    folded = {name.casefold(): name for name in reversed(names)} | {name: name for name in names}
    wanted = next((one for name in asks.labels if (one := folded.get(name) or folded.get(name.casefold()))), "")

    def order(each: Detection) -> tuple[bool, float, float]:
        return bool(wanted) and labels[each.cls] != wanted, -each.score, _area(each.box)

    if _is_click(place):
        under = [each for each in left if holds(each, place.box.x1, place.box.y1)]
        return [(each, wanted or labels[each.cls]) for each in sorted(under, key=order)[:1]]
    inside = [each for each in left if _share(each, place) >= INSIDE]
    if not inside and asks.kind in ("brush", "bitmask"):
        inside = sorted((each for each in left if _under(each, place) >= INSIDE), key=order)[:1]
    sure = [each for each in inside if each.score >= threshold]
    chosen = sorted(sure, key=lambda each: -each.score) or sorted(inside, key=order)[:1]
    return [
        (each, wanted if wanted and (len(chosen) == 1 or _is_around(place, each)) else labels[each.cls])
        for each in chosen
    ]


def silenced(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers to an interactive request: one that failed says that nothing is there."""
    return [entry if "result" in entry else {**entry, "score": 0.0, "result": []} for entry in entries]


def ids_of(*about: object) -> Callable[[], str]:
    """Gives the ids of one object's regions: the same for the same object, in every process.

    Label Studio takes a region with the id of one on the page for that one, so an answer that is given twice is there
    once.

    Args:
        about: what tells the object from all others.
    """
    numbers = count()

    def new_id() -> str:
        return hashlib.blake2s(repr((*about, next(numbers))).encode("utf-8", "replace"), digest_size=5).hexdigest()

    return new_id


def place_of(found: Detection, size: ImageSize) -> tuple[object, ...]:
    """Where an object is, rounded so that the noise of another engine does not count: a thousandth of each side."""
    box = found.box
    sides = (box.x1 / size.width, box.y1 / size.height, box.x2 / size.width, box.y2 / size.height)
    return (*(round(1000 * each) for each in sides), 0 if found.rotated is None else round(found.rotated.angle) % 180)


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


def _is_click(place: Detection) -> bool:
    return place.mask is None and place.box.x1 == place.box.x2 and place.box.y1 == place.box.y2


def _takes(place: Detection, found: Detection) -> bool:
    return holds(found, place.box.x1, place.box.y1) if _is_click(place) else _share(found, place) >= INSIDE


def _share(found: Detection, place: Detection) -> float:
    """How much of an object's area a mark covers, 0 to 1."""
    if _common(found.box, place.box) <= 0:
        return 0.0
    if place.mask is not None:
        if found.mask is not None:
            return shared_pixels(found.mask, place.mask) / max(int(found.mask.bits.sum()), 1)
        return _pixels(place.mask, found.box) / max(_area(found.box), 1.0)
    if place.rotated is not None and place.rotated.angle:
        whole = _corners(found)
        return area(intersection(whole, place.rotated.corners())) / max(area(whole), 1e-9)
    return _common(found.box, place.box) / max(_area(found.box), 1e-9)


def _under(found: Detection, place: Detection) -> float:
    """How much of a stroke lies on an object, 0 to 1."""
    if place.mask is None:
        return 0.0
    shared = shared_pixels(found.mask, place.mask) if found.mask is not None else _pixels(place.mask, found.box)
    return shared / max(int(place.mask.bits.sum()), 1)


def _is_around(place: Detection, found: Detection) -> bool:
    """Whether a shape is drawn around just this object."""
    return iou_of(place.box, found.box) >= INSIDE


def _pixels(mask: Mask, box: Box) -> int:
    """How many of a mask's pixels have their centre inside a box."""
    x1, x2 = (max(round(each) - mask.x, 0) for each in (box.x1, box.x2))
    y1, y2 = (max(round(each) - mask.y, 0) for each in (box.y1, box.y2))
    return int(mask.bits[y1:y2, x1:x2].sum())


def _corners(found: Detection) -> np.ndarray[Any, np.dtype[np.float64]]:
    if found.rotated is not None:
        return found.rotated.corners()
    box = found.box
    return np.array([[box.x1, box.y1], [box.x2, box.y1], [box.x2, box.y2], [box.x1, box.y2]], float)


def _common(one: Box, other: Box) -> float:
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    return width * height if width > 0 and height > 0 else 0.0


def _area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)
