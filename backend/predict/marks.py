"""What a person has just drawn in Label Studio's interactive mode, and where it lies.

Label Studio sends every region of the mark's kind and label in `context.result`: those that came from a prediction,
those that were accepted before, and the mark. The last that a person drew is the new mark, and it alone asks.
Clicks that say "not this" (`is_positive` false) take away what is under them, whenever they were made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.labels.geometry import Box, Detection, ImageSize
from backend.labels.region import number
from backend.labels.schema import Kind
from backend.labels.shapes import KINDS, shape_of

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark of a person.

    Attributes:
        kind: of the control that drew it; a keypoint is a click.
        value: where it is, in Label Studio's units.
        to_name, page: on which image.
        labels: that it carries, in their order.
        positive: False for a click that takes away.
        layer: width and height that it says its image has.
    """

    kind: Kind
    value: Mapping[str, Any]
    to_name: str = ""
    page: int = 0
    labels: tuple[str, ...] = ()
    positive: bool = True
    layer: tuple[object, object] = (None, None)

    def place(self, size: ImageSize) -> Detection | None:
        """Where it lies in pixels, cut at the image's edge: a box without area for a click. None: nowhere."""
        if self.kind == "keypoint":
            return _point(number(self.value.get("x")), number(self.value.get("y")), size)
        if self.kind == "rectangle" and not number(self.value.get("rotation") or 0):
            return _rectangle(self.value, size)
        return shape_of(self.kind, self.value, size, self.layer)


@dataclass(frozen=True, slots=True)
class Marks:
    """What one interactive request asks.

    Attributes:
        asks: the new mark; None when nothing new was drawn, or it cannot be read.
        excluded: clicks that take away what is under them.
        others: entries of `context.result` that are regions of their own, not marks.
        ids: of the regions that are marks; a draft may hold them, too.
        why: what is wrong with the new mark; empty when nothing is.
    """

    asks: Mark | None
    excluded: tuple[Mark, ...] = ()
    others: tuple[Entry, ...] = ()
    ids: frozenset[str] = frozenset()
    why: str = ""


UNREADABLE = "The mark cannot be read: its place must be numbers from 0 to 100, in percent of the image."


def marks_of(context: Mapping[str, Any] | None) -> Marks | None:
    """The marks of a request's `context`; None when the request is not an interactive one. Never an error."""
    result = context.get("result") if isinstance(context, Mapping) else None
    if not isinstance(result, list):
        return None
    groups = _groups(result)
    new = [group for group in groups if not _is_old(group)]
    if not new:
        return Marks(None, others=_entries(groups), why=UNREADABLE if result and not groups else "")
    marks = [_mark(group) for group in new]
    excluded = tuple(mark for mark in marks if mark is not None and not mark.positive)
    # A click that takes away belongs to the mark before it.
    asking = next((place for place in range(len(new) - 1, -1, -1) if _is_positive(new[place])), None)
    clicks = [group for group, mark in zip(new, marks, strict=True) if mark is not None and mark.kind == "keypoint"]
    mine = [group for place, group in enumerate(new) if place == asking or group in clicks]
    ids = frozenset(name for group in mine if (name := id_of(group[0])))
    others = _entries([group for group in groups if group not in mine])
    if asking is None:
        return Marks(None, excluded, others, ids)
    return Marks(marks[asking], excluded, others, ids, "" if _is_somewhere(marks[asking]) else UNREADABLE)


def id_of(entry: Entry) -> str:
    """A region's id, without what the editor appends to it; empty when it has none."""
    found = entry.get("id")
    return found.partition("#")[0] if isinstance(found, str) else ""


def page_of(entry: Entry) -> int:
    """Which image of a task with several pages a region is on."""
    found = number(entry.get("item_index"))
    return int(found) if found is not None and abs(found) < 2**31 else 0


def kind_of(entry: Entry) -> Kind | None:
    """What draws such a region; None for labels, choices and all that draws nothing."""
    name = entry.get("type")
    return next((kind for kind in (*KINDS, "keypoint") if name in (kind, f"{kind}labels")), None)


def _groups(result: Sequence[Any]) -> list[list[Entry]]:
    """Entries by region: a drawing tag and its Labels tag write one each. In the order of their last entries."""
    found: dict[object, list[Entry]] = {}
    for place, entry in enumerate(result):
        if isinstance(entry, Mapping) and entry.get("type") != "relation":
            key = id_of(entry) or place
            if kind_of(entry) is not None and any(kind_of(each) is not None for each in found.get(key, [])):
                key = place  # two shapes are two regions, whatever they are called
            found[key] = [*found.pop(key, []), entry]
    return list(found.values())


def _entries(groups: Sequence[Sequence[Entry]]) -> tuple[Entry, ...]:
    return tuple(entry for group in groups for entry in group)


def _is_old(group: Sequence[Entry]) -> bool:
    """Whether it came from a model: an accepted suggestion counts as drawn by hand, but keeps its score."""
    return any(
        entry.get("origin") in ("prediction", "prediction-changed") or number(entry.get("score")) is not None
        for entry in group
    )


def _is_positive(group: Sequence[Entry]) -> bool:
    return all(entry.get("is_positive") is not False for entry in group)


def _mark(group: Sequence[Entry]) -> Mark | None:
    values = [(entry, value) for entry in group if isinstance(value := entry.get("value"), Mapping)]
    drawn = [(entry, value) for entry, value in values if kind_of(entry) is not None] or values
    if not drawn:
        return None
    entry, value = drawn[0]
    kind = kind_of(entry) or _by_value(value)
    if kind is None:
        return None
    labels = [name for each, found in values for key in (each.get("type"), "labels") for name in _texts(found, key)]
    return Mark(
        kind,
        value,
        str(entry.get("to_name") or ""),
        page_of(entry),
        tuple(dict.fromkeys(labels)),
        _is_positive(group),
        (entry.get("original_width"), entry.get("original_height")),
    )


def _is_somewhere(mark: Mark | None) -> bool:
    """Whether a mark has a place; of outlines and paint only the image can tell."""
    if mark is None:
        return False
    return mark.kind not in ("keypoint", "rectangle", "ellipse") or mark.place(ImageSize(1000, 1000)) is not None


def _by_value(value: Mapping[str, Any]) -> Kind | None:
    """What drew it, where no entry says so."""
    told: tuple[tuple[str, Kind], ...] = (
        ("points", "polygon"),
        ("radiusX", "ellipse"),
        ("rle", "brush"),
        ("imageDataURL", "bitmask"),
        ("height", "rectangle"),
        ("x", "keypoint"),
    )
    return next((kind for key, kind in told if key in value), None)


def _texts(value: Mapping[str, Any], key: object) -> list[str]:
    found = value.get(key) if isinstance(key, str) else None
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _point(x: float | None, y: float | None, size: ImageSize) -> Detection | None:
    """A click, moved onto the image when it lies outside."""
    if x is None or y is None or size.width <= 0 or size.height <= 0:
        return None
    # Just inside: the pixel at the right edge begins one before it.
    across = min(min(max(x, 0.0), 100.0) / 100 * size.width, math.nextafter(size.width, 0))
    down = min(min(max(y, 0.0), 100.0) / 100 * size.height, math.nextafter(size.height, 0))
    return Detection(0, 1.0, Box(across, down, across, down))


def _rectangle(value: Mapping[str, Any], size: ImageSize) -> Detection | None:
    """An upright rectangle, drawn to any side; one without extent is a click."""
    x, y = number(value.get("x")), number(value.get("y"))
    width, height = (number(value.get(name) or 0) for name in ("width", "height"))
    if x is None or y is None or width is None or height is None:
        return None
    if not width or not height:
        return _point(x + width / 2, y + height / 2, size)
    left, top, right, bottom = min(x, x + width), min(y, y + height), max(x, x + width), max(y, y + height)
    x1, y1, x2, y2 = (min(max(each, 0.0), 100.0) / 100 for each in (left, top, right, bottom))
    box = Box(x1 * size.width, y1 * size.height, x2 * size.width, y2 * size.height)
    return Detection(0, 1.0, box) if box.x2 > box.x1 and box.y2 > box.y1 else None
