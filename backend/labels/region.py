"""What all drawn regions of Label Studio have in common, in both directions.

A control such as RectangleLabels draws one region. With a drawing tag and a Labels tag apart (Rectangle and
Labels) Label Studio stores two entries with one id: the drawing, and the drawing again with its labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.labels.geometry import ImageSize
from backend.labels.schema import Control

Region = dict[str, Any]
NewId = Callable[[], str]
"""Gives an id that no other region of the prediction has."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One region that a person or a model drew with a control: its geometry, and its labels in their order."""

    id: str
    parent_id: str
    value: Mapping[str, Any]
    labels: tuple[str, ...]
    width: int | None
    height: int | None


def draw(
    control: Control,
    labels: Sequence[str],
    value: Mapping[str, Any],
    score: float,
    size: ImageSize,
    region_id: str,
    *,
    parent_id: str = "",
    meta: Mapping[str, Any] | None = None,
) -> list[Region]:
    """The entries of a prediction's `result` for one region.

    Args:
        labels: as the control carries them.
        value: the geometry, in Label Studio's units, without labels.
        score: in [0, 1]; what lies outside is clamped.
        size: pixels of the upright image.
        parent_id: id of the region that holds this one.
        meta: shown in the editor's Info panel.
    """
    common: Region = {
        "id": region_id,
        "to_name": control.to_name,
        "original_width": size.width,
        "original_height": size.height,
        "image_rotation": 0,
        "score": min(max(float(score), 0.0), 1.0),
    }
    if parent_id:
        common["parentID"] = parent_id
    if meta:
        common["meta"] = dict(meta)
    if not control.shape_name:
        kind = control.region_type
        return [{**common, "from_name": control.from_name, "type": kind, "value": {**value, kind: list(labels)}}]
    return [
        {**common, "from_name": control.shape_name, "type": control.kind, "value": dict(value)},
        {**common, "from_name": control.from_name, "type": "labels", "value": {**value, "labels": list(labels)}},
    ]


def drawn(result: Sequence[Mapping[str, Any]], control: Control, page: int | None = None) -> Iterator[Drawn]:
    """The control's regions in an annotation's result, in its order; malformed ones are left out.

    Args:
        page: index of the image in a task with several pages; None takes all.
    """
    shapes: dict[str, Mapping[str, Any]] = {}
    for region in result:
        if _is(region, control.shape_name, control.to_name, control.kind) and isinstance(region.get("id"), str):
            shapes.setdefault(region["id"], region)
    for region in result:
        if _is(region, control.from_name, control.to_name, control.region_type):
            shape, key = region, control.region_type
        elif _is(region, control.from_name, control.to_name, "labels") and str(region.get("id")) in shapes:
            shape, key = shapes[str(region.get("id"))], "labels"
        else:
            continue
        value, labels = shape.get("value"), region.get("value")
        if not isinstance(value, Mapping) or not isinstance(labels, Mapping):
            continue
        if page is not None and page != (region.get("item_index") or 0):
            continue
        names = labels.get(key)
        yield Drawn(
            str(region.get("id", "")),
            str(region.get("parentID") or shape.get("parentID") or ""),
            value,
            tuple(dict.fromkeys(name for name in names if isinstance(name, str))) if isinstance(names, list) else (),
            _side(region.get("original_width")),
            _side(region.get("original_height")),
        )


def classes_of(labels: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Indexes of the labels that are classes; the first of equal classes counts."""
    index = {name: number for number, name in reversed(list(enumerate(classes)))}
    return list(dict.fromkeys(index[label] for label in labels if label in index))


def number(value: object) -> float | None:
    """A finite number, or None for anything else that JSON can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def span(low: float, high: float, side: int) -> tuple[float, float] | None:
    """Start and length, in percent of one side, of the part of [low, high] pixels that lies on the image.

    None when nothing does, or for NaN and infinity. start + length <= 100 also in floats: the difference is
    off by at most half a step at 100, and a tie rounds to 100 itself.
    """
    if side <= 0 or not (math.isfinite(low) and math.isfinite(high)):
        return None
    start = min(max(low / side, 0.0), 1.0) * 100
    length = min(max(high / side, 0.0), 1.0) * 100 - start
    return (start, length) if length > 0 else None


def _is(region: object, from_name: str, to_name: str, kind: str) -> bool:
    return (
        isinstance(region, Mapping)
        and bool(from_name)
        and region.get("from_name") == from_name
        and region.get("to_name") == to_name
        and region.get("type") == kind
    )


def _side(value: object) -> int | None:
    found = number(value)
    return int(found) if found is not None and found >= 1 else None
