"""How good a detector is on held-out images, measured on the path that serves.

Detections are mapped to labels as in a prediction, so versions with other class lists, and the base model,
can be compared with one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.labels.geometry import Box, Detection
from backend.predict.engine.base import Detector, Image

LOWEST = 0.001
"""Least score that counts: average precision needs the whole curve."""

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU thresholds of COCO's mAP50-95."""


@dataclass(frozen=True, slots=True)
class Truth:
    """An annotated image: its true boxes in pixels and their labels as class indexes."""

    boxes: Sequence[Box]
    classes: Sequence[int]


def evaluate(
    detector: Detector,
    labels: Mapping[int, int],
    images: Sequence[Image],
    truths: Sequence[Truth],
    classes: Sequence[str],
) -> dict[str, float]:
    """Average precision of a detector.

    Args:
        detector: what is measured.
        labels: the detector's class index → index in `classes`; other classes are not suggested.
        images: held-out images.
        truths: what is on them, in the same order.
        classes: the labels' names.

    Returns:
        `mAP50`, `mAP50-95`, `precision`, `recall` (at the best F1), each in [0, 1], and `mAP50/<label>` for
        each label that occurs.
    """
    from ultralytics.utils.metrics import ap_per_class

    hits: list[NDArray[np.bool_]] = []
    scores: list[float] = []
    predicted: list[int] = []
    true: list[int] = []
    for image, truth in zip(images, truths, strict=True):
        found = [
            Detection(labels[each.cls], each.score, each.box)
            for each in detector.detect([image], LOWEST)[0]
            if each.cls in labels
        ]
        hits.append(match(found, truth))
        scores.extend(each.score for each in found)
        predicted.extend(each.cls for each in found)
        true.extend(truth.classes)
    empty = {"mAP50": 0.0, "mAP50-95": 0.0, "precision": 0.0, "recall": 0.0}
    if not true or not scores:
        return empty
    measured = ap_per_class(np.concatenate(hits), np.array(scores), np.array(predicted), np.array(true))
    precision, recall, average, present = measured[2], measured[3], measured[5], measured[6]
    return {
        "mAP50": float(average[:, 0].mean()),
        "mAP50-95": float(average.mean()),
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        **{f"mAP50/{classes[int(index)]}": float(row[0]) for index, row in zip(present, average, strict=True)},
    }


def match(found: Sequence[Detection], truth: Truth) -> NDArray[np.bool_]:
    """Which detections hit, for each IoU threshold: (detections, 10).

    As in COCO's evaluation, best scores choose first, a true box is hit once, and only by its own class.
    """
    hit = np.zeros((len(found), len(THRESHOLDS)), bool)
    if not found or not truth.boxes:
        return hit
    overlap = iou([each.box for each in found], truth.boxes)
    overlap[np.array([each.cls for each in found])[:, None] != np.array(truth.classes)[None, :]] = 0.0
    for column, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(truth.boxes), bool)
        for row in np.argsort([-each.score for each in found], kind="stable"):
            candidates = np.where(free, overlap[row], 0.0)
            best = int(candidates.argmax())
            if candidates[best] >= threshold:
                free[best] = False
                hit[row, column] = True
    return hit


def iou(left: Sequence[Box], right: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of each pair: (left, right)."""
    a = np.array([[box.x1, box.y1, box.x2, box.y2] for box in left])[:, None]
    b = np.array([[box.x1, box.y1, box.x2, box.y2] for box in right])[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0.0, None)
    shared: NDArray[np.float64] = sides.prod(axis=-1)
    areas = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1)
    found: NDArray[np.float64] = shared / np.maximum(areas - shared, 1e-12)
    return found
