"""From what a model found to regions of Label Studio and back, for every kind of control.

Both directions of one kind live side by side in the module named after it; this is the table of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.labels import bitmask, brush, choices, ellipse, keypoint, polygon, rectangle, taxonomy
from backend.labels.geometry import Detection, ImageSize
from backend.labels.region import NewId, Region
from backend.labels.schema import Control

_DRAWS = {
    "rectangle": rectangle,
    "ellipse": ellipse,
    "polygon": polygon,
    "brush": brush,
    "bitmask": bitmask,
    "keypoint": keypoint,
}
_CHOOSES = {"choices": choices, "taxonomy": taxonomy}
_BACK = {kind: module.from_regions for kind, module in (_DRAWS | _CHOOSES).items()}


def to_regions(
    found: Sequence[Detection],
    control: Control,
    labels: Mapping[int, str],
    size: ImageSize,
    threshold: float,
    new_id: NewId,
) -> tuple[list[Region], int]:
    """What Label Studio shows for the objects of one image, and how many objects could not be drawn.

    Args:
        found: a model's objects, or its score for each class of the whole image.
        labels: the model's class index → the control's label; other classes are not suggested.
        size: pixels of the upright image.
        threshold: least score of a suggestion, in [0, 1].
    """
    if control.kind in _CHOOSES:
        return _CHOOSES[control.kind].to_regions(found, control, labels, size, threshold, new_id), 0
    regions: list[Region] = []
    skipped = 0
    for each in found:
        if each.cls in labels and each.score >= threshold:
            made = _DRAWS[control.kind].to_regions(each, labels[each.cls], control, size, new_id)
            skipped += not made
            regions += made
    return regions, skipped


def from_regions(
    result: Sequence[Mapping[str, Any]],
    control: Control,
    classes: Sequence[str],
    size: ImageSize,
    page: int | None = None,
) -> list[Detection]:
    """The objects that an annotation's result shows with this control, in its order; see `region.drawn`.

    Regions of other controls, relations, labels outside `classes`, objects without area and malformed regions
    are left out, never an error. An object with several known labels is there once for each.

    Args:
        classes: class names by index.
        size: pixels of the upright image.
        page: index of the image in a task with several pages; None takes the regions of all.
    """
    found: list[Detection] = _BACK[control.kind](result, control, classes, size, page)
    return found
