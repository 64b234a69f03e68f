"""Choices: a model's scores for the whole image to the answer of Label Studio, and answers to classes.

Label Studio stores one region without geometry. Where choices may be nested it stores each as its path from the
root, a list of strings, of which the last is the choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from backend.labels.geometry import Box, Detection, ImageSize
from backend.labels.region import NewId, Region, classes_of, draw, drawn
from backend.labels.schema import Control


def to_regions(
    found: Sequence[Detection],
    control: Control,
    labels: Mapping[int, str],
    size: ImageSize,
    threshold: float,
    new_id: NewId,
) -> list[Region]:
    """The answer that Label Studio shows: one region, or none when no label is sure enough.

    Where one choice is allowed, classes exclude each other: those that mean one label are added up, and the best
    label is the answer. Where several are, every label is asked on its own: the best of its classes counts, and the
    region's score is the mean of the answered labels' scores.

    Args:
        found: a model's score for each class of the whole image; NaN and infinity are ignored.
        labels: the model's class index → the control's label.
        size: pixels of the upright image.
        threshold: least score of an answer, in [0, 1].
    """
    if size.width <= 0 or size.height <= 0:
        return []
    if not control.multiple:
        best = best_label(found, control, labels, threshold)
        return [] if best is None else draw(control, [best[0]], {}, best[1], size, new_id())
    sure = {label: max(scores) for label, scores in scores_of(found, control, labels).items()}
    sure = {label: score for label, score in sure.items() if score >= threshold}
    return draw(control, list(sure), {}, math.fsum(sure.values()) / len(sure), size, new_id()) if sure else []


def from_regions(
    result: Sequence[Mapping[str, Any]],
    control: Control,
    classes: Sequence[str],
    size: ImageSize,
    page: int | None = None,
) -> list[Detection]:
    """The classes that an annotation's result chooses, each once, in its order; their box is the whole image.

    All choices count, also when the control allows only one. Answers of other controls, labels outside `classes`
    and malformed regions are left out.

    Args:
        classes: class names by index.
        size: pixels of the upright image.
        page: index of the image in a task with several pages; None takes the answers about all.
    """
    chosen: list[str] = []
    for each in drawn(result, control, page):
        names = each.value.get("choices")
        for name in names if isinstance(names, list) else []:
            last = name[-1] if isinstance(name, list) and name else name
            if isinstance(last, str):
                chosen.append(last)
    return whole_image(chosen, classes, size)


def scores_of(found: Sequence[Detection], control: Control, labels: Mapping[int, str]) -> dict[str, list[float]]:
    """Label → the scores of its classes, in config order; labels without a score are left out."""
    scores: dict[str, list[float]] = {label: [] for label in control.labels}
    for each in found:
        label = labels.get(each.cls)
        if label in scores and math.isfinite(each.score):
            scores[label].append(min(max(float(each.score), 0.0), 1.0))
    return {label: every for label, every in scores.items() if every}


def best_label(
    found: Sequence[Detection], control: Control, labels: Mapping[int, str], threshold: float
) -> tuple[str, float] | None:
    """The label whose classes have the highest sum of scores, and that sum; the first of equals. None: not enough."""
    sums = {label: math.fsum(scores) for label, scores in scores_of(found, control, labels).items()}
    label = max(sums, key=lambda each: sums[each], default=None)
    return None if label is None or sums[label] < threshold else (label, sums[label])


def whole_image(labels: Sequence[str], classes: Sequence[str], size: ImageSize) -> list[Detection]:
    """A person's answer about the image: a detection for each label that is a class."""
    if size.width <= 0 or size.height <= 0:
        return []
    box = Box(0.0, 0.0, float(size.width), float(size.height))
    return [Detection(cls, 1.0, box) for cls in classes_of(labels, classes)]
