"""What became of suggestions: a prediction and the annotation that a person made of it, compared region by region.

Regions are told by their ids, which Label Studio keeps when a task is opened from a prediction. Answers about the
whole image have no place, so theirs are told by their control and page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal

from backend.labels.convert import from_regions
from backend.labels.geometry import Detection, ImageSize
from backend.labels.overlap import mask_iou, rotated_iou
from backend.labels.paths import PATH_SEPARATOR
from backend.labels.region import number
from backend.labels.schema import Control, Kind

Fate = Literal["accepted", "moved", "relabelled", "deleted", "missed"]

RIGHT_IOU = 0.7
"""Least intersection over union with which a moved region was still a right suggestion."""

UNMOVED = 0.01
"""Percent of the image, or degrees: what differs by less is where it was."""

_PLACE: dict[Kind, tuple[str, ...]] = {
    "rectangle": ("x", "y", "width", "height", "rotation"),
    "ellipse": ("x", "y", "radiusX", "radiusY", "rotation"),
    "polygon": ("points",),
    "brush": ("rle",),
    "bitmask": ("imageDataURL",),
    "keypoint": ("x", "y"),
}
_ANSWERS = ("choices", "taxonomy")
_SOME_SIZE = ImageSize(1000, 1000)

MOST_PIXELS = 1 << 27
"""Of an image on which regions are compared pixel by pixel."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one suggested region, or one region that was missed.

    Attributes:
        region_id: the region's; of an answer about the whole image the id and the label, as several go together.
        control: `from_name` of the tag with the labels.
        label: the suggested one, of a missed region the drawn one.
        score: of the suggestion; None for missed ones, or when it came without.
        iou: of a moved region, with what was suggested; None for points. Of ellipses it is that of the boxes along
            their axes.
    """

    region_id: str
    control: str
    label: str
    outcome: Fate
    score: float | None = None
    iou: float | None = None

    @property
    def right(self) -> bool:
        """Whether the suggestion counts as right: kept, or moved by little. A moved point counts as wrong."""
        return self.outcome == "accepted" or (self.outcome == "moved" and (self.iou or 0.0) >= RIGHT_IOU)


@dataclass(frozen=True, slots=True)
class _Object:
    """A region, of one entry or two; `kind` is None for an answer about the whole image."""

    id: str
    control: str
    kind: Kind | None
    labels: tuple[str, ...]
    page: int
    value: Mapping[str, Any]
    score: float | None
    size: ImageSize


def outcomes(
    suggested: Sequence[Mapping[str, Any]],
    annotated: Sequence[Mapping[str, Any]],
    controls: Collection[str] | None = None,
) -> list[Outcome]:
    """What became of each suggested region, in their order, then the annotation's regions that nobody suggested.

    Relations, texts and answers about single regions are no suggestions of ours; malformed regions are left out,
    never an error.

    Args:
        suggested, annotated: `result` of the prediction and of the annotation.
        controls: names of the tags that count; None: all that draw regions or answer about the image.
    """
    before, after = _objects(suggested, controls), _objects(annotated, controls)
    found: list[Outcome] = []
    for key, one in before.items():
        found += [_became(one, after.get(key))] if one.kind else _answered(one, after.get(key))
    for key, one in after.items():
        if key not in before and one.labels:
            found += [_missed(one)] if one.kind else _answered(None, one)
    return found


def labels_of(region: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels of one entry, without repeats: of a region, choices, or the paths of a taxonomy as text."""
    kind, value = region.get("type"), region.get("value")
    names = value.get(kind) if isinstance(value, Mapping) and isinstance(kind, str) else None
    found: list[str] = []
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str):
            found.append(name)
        elif isinstance(name, list) and name and all(isinstance(part, str) for part in name):
            found.append(PATH_SEPARATOR.join(name) if kind == "taxonomy" else name[-1])
    return tuple(dict.fromkeys(found))


def _became(one: _Object, other: _Object | None) -> Outcome:
    fate: Fate = "accepted"
    overlap = None
    if other is None:
        fate = "deleted"
    elif set(one.labels) != set(other.labels):
        fate = "relabelled"
    elif not _unmoved(one, other):
        overlap = _overlap(one, other)
        # An editor may write the same mask in other words.
        if not (one.kind in ("brush", "bitmask") and overlap == 1.0):
            fate = "moved"
    return Outcome(
        one.id, one.control, next(iter(one.labels), ""), fate, one.score, overlap if fate == "moved" else None
    )


def _answered(one: _Object | None, other: _Object | None) -> list[Outcome]:
    """Answers about the whole image, label by label: one that went and one that came make a changed answer."""
    before, after = (one.labels if one else ()), (other.labels if other else ())
    came = [label for label in after if label not in before]
    found = []
    for label in before if one else ():
        assert one is not None
        fate: Fate = "accepted"
        if label not in after:
            fate = "relabelled" if came else "deleted"
            came = came[1:]
        found.append(Outcome(f"{one.id}/{label}", one.control, label, fate, one.score))
    return found + [Outcome(f"{other.id}/{label}", other.control, label, "missed") for label in came if other]


def _missed(one: _Object) -> Outcome:
    return Outcome(one.id, one.control, one.labels[0], "missed")


def _objects(result: Sequence[Mapping[str, Any]], controls: Collection[str] | None) -> dict[Any, _Object]:
    """Regions by what tells them: the id of a drawn one, control and page of an answer about the whole image."""
    entries = [each for each in result if isinstance(each, Mapping) and isinstance(each.get("value"), Mapping)]
    entries = [each for each in entries if isinstance(each.get("id"), str) and isinstance(each.get("from_name"), str)]
    drawn: dict[Any, list[Mapping[str, Any]]] = {}
    for each in entries:
        if _kind(each) or each.get("type") == "labels":
            drawn.setdefault(each["id"], []).append(each)
    drawn = {key: group for key, group in drawn.items() if any(map(_kind, group))}
    found: dict[Any, _Object] = {}
    for each in entries:
        if each["id"] in drawn:
            if each["id"] not in found:
                found[each["id"]] = _object(drawn[each["id"]])
        elif each.get("type") in _ANSWERS:
            found[each["from_name"], each.get("to_name"), _page(each)] = _object([each])
    return {key: one for key, one in found.items() if controls is None or one.control in controls}


def _object(entries: Sequence[Mapping[str, Any]]) -> _Object:
    shape = next((each for each in entries if _kind(each)), entries[0])
    named = next((each for each in entries if labels_of(each)), shape)
    width, height = number(shape.get("original_width")), number(shape.get("original_height"))
    # What somebody wrote there by hand may be any number.
    known = width is not None and height is not None and min(width, height) >= 1 and width * height <= MOST_PIXELS
    return _Object(
        shape["id"],
        named["from_name"],
        _kind(shape),
        labels_of(named),
        _page(shape),
        shape["value"],
        number(shape.get("score")),
        ImageSize(int(width or 0), int(height or 0)) if known else _SOME_SIZE,
    )


def _kind(region: Mapping[str, Any]) -> Kind | None:
    name = str(region.get("type") or "")
    return next((kind for kind in _PLACE if name in (kind, f"{kind}labels")), None)


def _page(region: Mapping[str, Any]) -> int:
    return int(number(region.get("item_index")) or 0)


def _unmoved(one: _Object, other: _Object) -> bool:
    if one.kind is None or (one.kind, one.page) != (other.kind, other.page):
        return False
    return all(_close(one.value.get(name, 0), other.value.get(name, 0)) for name in _PLACE[one.kind])


def _close(left: object, right: object, depth: int = 2) -> bool:
    """Whether two values of one place are the same but for rounding. A list of points is the deepest that there is."""
    if isinstance(left, list) and isinstance(right, list) and depth:
        return len(left) == len(right) and all(map(_close, left, right, repeat(depth - 1)))
    a, b = number(left), number(right)
    return left == right if a is None or b is None else abs(a - b) <= UNMOVED


def _overlap(one: _Object, other: _Object) -> float | None:
    if one.kind == "keypoint" or one.kind is None:
        return None
    if (one.kind, one.page) != (other.kind, other.page):
        return 0.0
    left, right = list(_detections(one, one.size)), list(_detections(other, one.size))
    if not left or not right:
        return 0.0
    overlap = rotated_iou if one.kind in ("rectangle", "ellipse") else mask_iou
    return min(float(overlap(left[:1], right[:1])[0, 0]), 1.0)


def _detections(one: _Object, size: ImageSize) -> Iterator[Detection]:
    """The region as an object of a single class, whatever its labels."""
    assert one.kind is not None
    control = Control("drawn", "image", one.kind, "image", ("object",))
    region = {
        "id": one.id,
        "from_name": control.from_name,
        "to_name": control.to_name,
        "type": control.region_type,
        "original_width": one.size.width,
        "original_height": one.size.height,
        "value": {**one.value, control.region_type: ["object"]},
    }
    yield from from_regions([region], control, control.labels, size)
