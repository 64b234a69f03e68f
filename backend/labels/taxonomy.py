"""Taxonomy: a model's scores for the whole image to a node of the tree in Label Studio, and nodes to classes.

Label Studio stores one region without geometry, whose value lists the chosen nodes as paths from the root. A label
of the control is such a path as one text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.labels.choices import best_label, whole_image
from backend.labels.geometry import Detection, ImageSize
from backend.labels.paths import PATH_SEPARATOR
from backend.labels.region import NewId, Region, draw, drawn
from backend.labels.schema import Control


def to_regions(
    found: Sequence[Detection],
    control: Control,
    labels: Mapping[int, str],
    size: ImageSize,
    threshold: float,
    new_id: NewId,
) -> list[Region]:
    """The node that Label Studio shows: one region, or none when no node is sure enough.

    Classes exclude each other: those that mean one node are added up, and the best node is the answer.

    Args:
        found: a model's score for each class of the whole image; NaN and infinity are ignored.
        labels: the model's class index → the control's label.
        size: pixels of the upright image.
        threshold: least score of an answer, in [0, 1].
    """
    best = best_label(found, control, labels, threshold)
    if best is None or size.width <= 0 or size.height <= 0:
        return []
    label, score = best
    (region,) = draw(control, [label], {}, score, size, new_id())
    return [{**region, "value": {"taxonomy": [list(control.paths[label])]}}]


def from_regions(
    result: Sequence[Mapping[str, Any]],
    control: Control,
    classes: Sequence[str],
    size: ImageSize,
    page: int | None = None,
) -> list[Detection]:
    """The classes of the nodes that an annotation's result chooses, each once; their box is the whole image.

    Answers of other controls, paths outside `classes` and malformed regions are left out.

    Args:
        classes: class names by index.
        size: pixels of the upright image.
        page: index of the image in a task with several pages; None takes the answers about all.
    """
    chosen: list[str] = []
    for each in drawn(result, control, page):
        paths = each.value.get("taxonomy")
        for path in paths if isinstance(paths, list) else []:
            if isinstance(path, list) and path and all(isinstance(part, str) for part in path):
                chosen.append(PATH_SEPARATOR.join(path))
    return whole_image(chosen, classes, size)
