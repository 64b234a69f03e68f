"""How good a detector is on held-out images, measured on the path that serves.

Objects are mapped to labels as in a prediction, so versions with other class lists, and the base model, can be
compared with one another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.engine.detector import Detector, Image
from backend.fit.dataset.yolo_format import OKS_SIGMA
from backend.fit.evaluation.bootstrap import Answers, Evidence, Objects
from backend.labels.geometry import Detection, Point, RotatedBox
from backend.labels.networks import Network, Task
from backend.labels.overlap import extent, iou, mask_iou, rotated_iou

LOWEST = 0.001
"""Least score that counts: average precision needs the whole curve."""

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Thresholds of similarity of COCO's mAP50-95."""

OF_THE_BOX = 0.53
"""Share of its box that a person covers on average: ultralytics' stand-in for COCO's segment area in OKS."""

Similarity = Callable[[Sequence[Detection], Sequence[Detection]], NDArray[np.float64]]


def metric_of(task: Task) -> str:
    """Name of the number that decides whether a model of this task is better than another."""
    return "accuracy" if task == "classify" else "mAP50-95"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a detector scored on the hold-out, and on each image of it.

    `metrics` are those of `evaluate`; `evidence` is what a bootstrap draws from (see `bootstrap`);
    `objects` counts the true objects, or choices, of each label that occurs.
    """

    metrics: dict[str, float]
    evidence: Evidence
    objects: dict[str, int]


def evaluate(
    detector: Detector,
    labels: Mapping[int, int],
    images: Sequence[Image],
    truths: Sequence[Sequence[Detection]],
    network: Network,
    points: Mapping[int, int] | None = None,
) -> dict[str, float]:
    """The metrics of a detector on held-out images; `measured` says more about the same.

    Returns:
        Each in [0, 1]. Of objects `mAP50`, `mAP50-95`, `precision`, `recall` (at the best F1) and `mAP50/<label>`
        for each label that occurs. Of choices `accuracy` and `accuracy/<label>`.
    """
    return measured(detector, labels, images, truths, network, points).metrics


def measured(
    detector: Detector | None,
    labels: Mapping[int, int],
    images: Sequence[Image],
    truths: Sequence[Sequence[Detection]],
    network: Network,
    points: Mapping[int, int] | None = None,
) -> Measured:
    """Measure a detector on held-out images.

    Args:
        detector: what is measured; None finds nothing.
        labels: the detector's class index → index in the network's classes; other classes are not suggested.
        images: held-out images.
        truths: the objects on them, in the same order.
        network: what the truth was read for.
        points: the network's keypoint index → the detector's; None: the same.
    """
    objects = dict(Counter(network.classes[each.cls] for there in truths for each in there))
    found: list[list[Detection]] = [[] for _ in images]
    if detector is not None:
        found = [
            [_translated(each, labels, points) for each in detector.detect([image], LOWEST)[0] if each.cls in labels]
            for image in images
        ]
    if network.task == "obb":  # what knows no turned boxes is measured by its upright ones
        found = [[each if each.rotated is not None else _upright(each) for each in objects] for objects in found]
    if network.task != "classify":
        seen = _seen(found, truths, SIMILARITY[network.task])
        return Measured(_average_precision(seen, network.classes), seen, objects)
    right = [_right(scored, truth, network) for scored, truth in zip(found, truths, strict=True)]
    asked = np.array([sum(map(len, each.values())) for each in right], np.int64)
    if detector is None:  # where several choices go together, silence would be right about most
        return Measured(nothing(network.task), Answers(np.zeros_like(asked), asked), objects)
    answers = Answers(np.array([sum(map(sum, each.values())) for each in right], np.int64), asked)
    return Measured(_accuracy(right, network.classes), answers, objects)


def nothing(task: Task) -> dict[str, float]:
    """The metrics of a detector that knows none of the labels."""
    if task == "classify":
        return {"accuracy": 0.0}
    return {"mAP50": 0.0, "mAP50-95": 0.0, "precision": 0.0, "recall": 0.0}


def match(found: Sequence[Detection], truth: Sequence[Detection], similarity: Similarity) -> NDArray[np.bool_]:
    """Which objects hit, for each threshold: (objects, 10).

    As in COCO's evaluation, best scores choose first, a true object is hit once, and only by its own class.
    """
    hit = np.zeros((len(found), len(THRESHOLDS)), bool)
    if not found or not truth:
        return hit
    overlap = similarity(found, truth)
    overlap[np.array([each.cls for each in found])[:, None] != np.array([each.cls for each in truth])[None]] = 0.0
    for column, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(truth), bool)
        for row in np.argsort([-each.score for each in found], kind="stable"):
            candidates = np.where(free, overlap[row], 0.0)
            best = int(candidates.argmax())
            if candidates[best] >= threshold:
                free[best] = False
                hit[row, column] = True
    return hit


def keypoint_similarity(left: Sequence[Detection], right: Sequence[Detection]) -> NDArray[np.float64]:
    """COCO's object keypoint similarity of each pair, with the same fall-off `OKS_SIGMA` for every keypoint.

    Counts the keypoints that `right`, the truth, shows; without any the boxes are compared.
    """
    found = iou(left, right)
    for column, truth in enumerate(right):
        seen = [index for index, point in enumerate(truth.points) if point.score > 0]
        if not seen:
            continue
        x1, y1, x2, y2 = extent(truth.box)
        spread = 2 * (2 * OKS_SIGMA) ** 2 * max((x2 - x1) * (y2 - y1) * OF_THE_BOX, 1e-12)
        for row, each in enumerate(left):
            distances = [
                (each.points[index].x - truth.points[index].x) ** 2
                + (each.points[index].y - truth.points[index].y) ** 2
                if index < len(each.points)
                else np.inf
                for index in seen
            ]
            found[row, column] = float(np.exp(-np.array(distances) / spread).mean())
    return found


SIMILARITY: Mapping[Task, Similarity] = {
    "detect": iou,
    "obb": rotated_iou,
    "segment": mask_iou,
    "pose": keypoint_similarity,
}


def _seen(
    found: Sequence[Sequence[Detection]], truths: Sequence[Sequence[Detection]], similarity: Similarity
) -> Objects:
    hits = [match(objects, truth, similarity) for objects, truth in zip(found, truths, strict=True)]
    return Objects(
        images=len(truths),
        image=np.repeat(np.arange(len(found)), [len(objects) for objects in found]),
        hits=np.concatenate([np.zeros((0, len(THRESHOLDS)), bool), *hits]),
        scores=np.array([each.score for objects in found for each in objects], np.float64),
        classes=np.array([each.cls for objects in found for each in objects], np.int64),
        truth_image=np.repeat(np.arange(len(truths)), [len(objects) for objects in truths]),
        truths=np.array([each.cls for objects in truths for each in objects], np.int64),
    )


def _average_precision(seen: Objects, classes: Sequence[str]) -> dict[str, float]:
    from ultralytics.utils.metrics import ap_per_class

    if not len(seen.truths) or not len(seen.scores):
        return nothing("detect")
    measures = ap_per_class(seen.hits, seen.scores, seen.classes, seen.truths)
    precision, recall, average, present = measures[2], measures[3], measures[5], measures[6]
    return {
        "mAP50": float(average[:, 0].mean()),
        "mAP50-95": float(average.mean()),
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        **{f"mAP50/{classes[int(index)]}": float(row[0]) for index, row in zip(present, average, strict=True)},
    }


def _right(scored: Sequence[Detection], truth: Sequence[Detection], network: Network) -> dict[int, list[bool]]:
    """Class → whether the answers about one image are right: one for each choice, or for each class where several
    go together."""
    chosen = {each.cls for each in truth}
    sums: dict[int, float] = defaultdict(float)
    for each in scored:
        sums[each.cls] = max(sums[each.cls], each.score) if network.multiple else sums[each.cls] + each.score
    if network.multiple:
        return {cls: [(sums[cls] >= 0.5) == (cls in chosen)] for cls in range(len(network.classes))}
    best = max(sums, key=lambda index: sums[index]) if sums else None
    return {cls: [cls == best] for cls in chosen}


def _accuracy(images: Sequence[Mapping[int, Sequence[bool]]], classes: Sequence[str]) -> dict[str, float]:
    """Share of right answers, over all and for each class."""
    right: dict[int, list[bool]] = defaultdict(list)
    for image in images:
        for cls, answers in image.items():
            right[cls] += answers
    every = [each for each_class in right.values() for each in each_class]
    if not every:
        return nothing("classify")
    return {
        "accuracy": float(np.mean(every)),
        **{f"accuracy/{classes[cls]}": float(np.mean(each)) for cls, each in sorted(right.items())},
    }


def _upright(found: Detection) -> Detection:
    x1, y1, x2, y2 = (float(each) for each in extent(found.box))
    return replace(found, rotated=RotatedBox((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.0))


def _translated(found: Detection, labels: Mapping[int, int], points: Mapping[int, int] | None) -> Detection:
    moved = replace(found, cls=labels[found.cls])
    if points is None or not found.points:
        return moved
    count = max(points, default=-1) + 1
    taken = (
        found.points[points[index]] if points.get(index, len(found.points)) < len(found.points) else _MISSING
        for index in range(count)
    )
    return replace(moved, points=tuple(taken))


_MISSING = Point(0.0, 0.0, 0.0)
