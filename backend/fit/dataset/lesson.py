"""What one annotated image says to one network; a tool that was not used says nothing, unless nothing is there.

The network's controls may not be the only ones with its labels. What was drawn with another tool is no background: it
is converted where its shape allows that, an outline to a box, and else the image is left out for this network.

The same holds for a region that is not understood. Where its labels are known, it concerns the controls that have one
of them. Where they are not, it may be an object of any label that its own control has, so it concerns all controls
that share one, used or not; and it may be a slip for an object of another control, so it concerns those, too, that
were not used on the image. A control that was used there, and shares no label with it, has said all that it has to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from backend.labels.convert import from_regions
from backend.labels.entries import CHOOSES, NO_PAGE
from backend.labels.geometry import Detection, ImageSize, Mask, RotatedBox
from backend.labels.networks import Network, Task
from backend.labels.overlap import iou_of
from backend.labels.reading import Reader, Reading, Understood, as_drawn
from backend.labels.schema import Control, LabelSchema

SAME = 0.5
"""Intersection over union of two boxes beyond which they show one object."""

SPECK = 0.01
"""Share of a mask's largest part below which a part is a slip of the brush."""


LEAST = 0.5
"""Pixels of the image below which a side of a box shows nothing."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What an image teaches a network: objects, and the names of the controls they were drawn with. With `left_out`,
    the reason, it neither trains nor validates it."""

    objects: Sequence[Detection] = ()
    drawn: Collection[str] = ()
    left_out: str = ""


@lru_cache(maxsize=4)
def reader_of(schema: LabelSchema) -> Reader:
    return Reader(schema)


def lesson_of(
    reading: Reading,
    schema: LabelSchema,
    network: Network,
    controls: Iterable[Control],
    data_key: str,
    size: ImageSize,
    page: int,
) -> Lesson | None:
    """What an annotation shows on one of its images to one network; None where that one is not asked about it.

    Args:
        controls: those that teach the network.
        data_key, page: the image's field in the task's data, and which of the field's images it is.
        size: pixels of the upright image.
    """
    mine = [control for control in controls if control.data_key == data_key]
    if not mine:
        return None
    names = {control.name for control in mine}
    pages = any(control.pages for control in mine)
    images = {"", *(control.to_name for control in mine)}
    for problem in reading.problems:
        if (
            names & problem.controls
            and problem.to_name in images
            and (not pages or problem.page in (page, NO_PAGE) or network.task == "classify")
        ):
            return Lesson(left_out=str(problem))
    objects: list[Detection] = []
    drawn: set[str] = set()
    for control in mine:
        found = _objects(reading, control, network, size, page)
        if isinstance(found, Lesson):
            return found
        if found:
            drawn.add(control.name)
            objects = [*objects, *(each for each in found if not _is_there(each, objects, network.task))]
        elif control.name in reading.unasked:
            return Lesson(left_out=f"`{control.name}` was not asked")
    if network.task == "classify":
        return Lesson(objects, drawn) if objects or network.multiple else None
    return _with_siblings(reading, schema, network, mine, size, page, Lesson(objects, drawn))


def page_for(control: Control, page: int) -> int | None:
    """The `item_index` to look for; None where a control says something about all images of its field at once."""
    whole = control.kind in CHOOSES and not control.per_item
    return page if control.pages and not whole else None


def _objects(
    reading: Reading, control: Control, network: Network, size: ImageSize, page: int
) -> list[Detection] | Lesson:
    """A control's objects as the network learns them; a lesson where one has no shape, or not the network's."""
    wanted = page_for(control, page)
    regions = _once(each for each in reading.regions if _of(each, control) and wanted in (None, each.page))
    if control.kind == "keypoint":
        return _skeletons(reading, regions, control, network, size, wanted)
    found: list[Detection] = []
    for region in regions:
        seen = [_clean(each) for each in from_regions([region.entry], region.drawn, network.classes, size, wanted)]
        converted = [
            made for each in seen if (made := _as(each, network.task)) is not None and _is_seen(made, network.task)
        ]
        if len(converted) < sum(label in network.classes for label in region.labels):
            return Lesson(left_out=f"a region of `{control.name}` covers nothing of the image")
        found += converted
    return list({each.cls: each for each in found}.values()) if network.task == "classify" else found


def _once(regions: Iterable[Understood]) -> list[Understood]:
    """Without what an import wrote twice: the same region again, id and all."""
    found: list[Understood] = []
    seen: dict[str, list[Mapping[str, Any]]] = {}
    for each in regions:
        same = seen.setdefault(str(each.entry["id"]), []) if "id" in each.entry else []
        if each.entry not in same:
            same.append(each.entry)
            found.append(each)
    return found


def _skeletons(
    reading: Reading,
    regions: Sequence[Understood],
    control: Control,
    network: Network,
    size: ImageSize,
    page: int | None,
) -> list[Detection] | Lesson:
    entries = [each.entry for each in reading.regions]
    found = from_regions(entries, as_drawn(control, "keypoint"), network.classes, size, page)
    index = {point.label: point.index for point in control.points}
    seen = {
        (number, round(point.x, 3), round(point.y, 3)) for each in found for number, point in enumerate(each.points)
    }
    for region in regions:
        if region.box:
            continue
        value = region.entry["value"]
        x = min(max(value["x"] / 100 * size.width, 0.0), float(size.width))
        y = min(max(value["y"] / 100 * size.height, 0.0), float(size.height))
        if any((index[label], round(x, 3), round(y, 3)) not in seen for label in region.labels):
            return Lesson(left_out=f"a point of `{control.name}` belongs to no skeleton")
    return found


def _with_siblings(
    reading: Reading,
    schema: LabelSchema,
    network: Network,
    mine: Sequence[Control],
    size: ImageSize,
    page: int,
    own: Lesson,
) -> Lesson:
    """With what was drawn with other tools under the network's labels on the same image."""
    labels = {label for control in mine for label in control.labels}
    images = {control.to_name for control in mine}
    names = {(control.name, control.from_name) for control in mine}
    paged = mine[0].pages
    objects, drawn = list(own.objects), set(own.drawn)
    for each in reading.foreign:
        here = each.to_name in images or each.to_name not in schema.images
        if here and labels.intersection(each.labels) and (not paged or each.page in (page, NO_PAGE)):
            return Lesson(left_out="its label was drawn with a tool that is not learned")
    skipped = {(each.control.name, each.control.from_name): each.control for each in reading.regions if each.skipped}
    for control in (*schema.controls, *skipped.values()):
        if control.kind in CHOOSES or control.to_name not in images or (control.name, control.from_name) in names:
            continue
        if labels.isdisjoint(control.labels):
            continue
        known = Network(network.key, network.task, tuple(each for each in network.classes if each in control.labels))
        as_drawn_there = replace(known, task="pose" if control.kind == "keypoint" else "detect")
        theirs = _objects(reading, control, as_drawn_there, size, page) if _used(reading, control, labels) else []
        if isinstance(theirs, Lesson):
            return theirs
        before = tuple(objects)
        for found in theirs:
            label = known.classes[found.cls]
            if label not in labels or any(iou_of(found.box, other.box) > SAME for other in own.objects):
                continue
            left_alone = (control.name, control.from_name) in skipped or control.kind == "keypoint"
            made = None if left_alone else _as(replace(found, cls=network.classes.index(label)), network.task)
            if made is None:
                return Lesson(left_out=f"`{label}` was drawn with `{control.name}` alone")
            if not _is_there(made, before, network.task):
                objects.append(made)
                drawn.update(each.name for each in mine if label in each.labels)
    return Lesson(objects, drawn)


def _of(region: Understood, control: Control) -> bool:
    other = region.control
    return (other.name, other.from_name, other.to_name) == (control.name, control.from_name, control.to_name)


def _used(reading: Reading, control: Control, labels: Collection[str]) -> bool:
    """Whether a sibling was drawn with under one of these labels; points carry other labels than their skeletons."""
    return any(
        _of(each, control) and (control.kind == "keypoint" or bool(set(labels).intersection(each.labels)))
        for each in reading.regions
    )


def _as(found: Detection, task: Task) -> Detection | None:
    """An object as a network of a task learns it; None where its shape does not give that."""
    if task == "segment":
        return found if found.mask is not None else None
    if task == "obb" and found.rotated is None:
        return None if found.mask is None else replace(found, rotated=_around(found.mask))
    return found if task in ("detect", "obb", "classify", "pose") else None


def _is_seen(found: Detection, task: Task) -> bool:
    """Whether a box is not the trace of a click that slipped."""
    box = found.box
    return task not in ("detect", "obb") or min(box.x2 - box.x1, box.y2 - box.y1) >= LEAST


def _around(mask: Mask) -> RotatedBox:
    """The smallest turned box around a mask, in pixels."""
    rows, columns = np.nonzero(mask.bits)
    corners = np.concatenate([np.stack([columns + dx, rows + dy], axis=1) for dx in (0, 1) for dy in (0, 1)])
    (cx, cy), (width, height), angle = cv2.minAreaRect(corners.astype(np.float32))
    return RotatedBox(cx + mask.x, cy + mask.y, width, height, angle)


def _is_there(found: Detection, objects: Iterable[Detection], task: Task) -> bool:
    """Whether another control of the network has drawn the same object under the same label."""
    return task != "classify" and any(each.cls == found.cls and iou_of(each.box, found.box) > SAME for each in objects)


def _clean(found: Detection) -> Detection:
    """A painted object without the specks beside it, which would make it wider than it is."""
    if found.mask is None:
        return found
    count, parts, stats, _ = cv2.connectedComponentsWithStats(found.mask.bits.astype(np.uint8), connectivity=8)
    if count <= 2:
        return found
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    kept = np.flatnonzero(areas >= SPECK * areas.max())
    if len(kept) == count - 1:
        return found
    close = Mask.of(np.isin(parts, kept) & found.mask.bits)
    if close is None:
        return found
    mask = Mask(found.mask.x + close.x, found.mask.y + close.y, close.bits)
    return replace(found, mask=mask, box=mask.box)
