"""How good a detector is on held-out images, measured on the path that serves.

Objects are mapped to labels as in a prediction, so versions with other class lists, and the base model, can be
compared with one another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.engine.detector import Detector, Image
from backend.feedback.corrections import Work, actions
from backend.fit.dataset.yolo_format import OKS_SIGMA
from backend.fit.evaluation.bootstrap import Answers, Evidence, Objects
from backend.fit.evaluation.comparison import Findings
from backend.fit.evaluation.shown import Shown, Suggested
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
    tally = Tally(network, labels, points, blind=detector is None)
    for image, truth in zip(images, truths, strict=True):
        tally.add([] if detector is None else detector.detect([image], LOWEST)[0], truth)
    return tally.measured()


class Tally:
    """What one detector finds on held-out images, told one after another; kept is what a metric rests on, no mask.

    Args:
        network: what the truth is read for.
        labels: the detector's class index → index in the network's classes; other classes are not suggested.
        points: the network's keypoint index → the detector's; None: the same.
        blind: it is no detector for this and finds nothing; where several choices go together, silence would
            otherwise be right about most.
        shown: which of what it finds people would see; None: by the setting's default.
    """

    def __init__(
        self,
        network: Network,
        labels: Mapping[int, int],
        points: Mapping[int, int] | None = None,
        *,
        blind: bool = False,
        shown: Shown | None = None,
    ) -> None:
        self._network, self._labels, self._points, self._blind = network, labels, points, blind
        self._shown = shown or Shown(network)
        self._objects: Counter[int] = Counter()
        self._hits: list[NDArray[np.bool_]] = []
        self._scores: list[NDArray[np.float64]] = []
        self._classes: list[NDArray[np.int32]] = []
        self._truths: list[NDArray[np.int32]] = []
        self._answers: list[NDArray[np.int32]] = []
        """Of each image (2, labels): how many answers were right, of how many."""
        self._suggested: list[Suggested] = []
        self._answered: defaultdict[int, NDArray[np.int64]] = defaultdict(lambda: np.zeros(2, np.int64))
        """Class → how many answers were right, of how many."""

    def add(self, found: Sequence[Detection], truth: Sequence[Detection]) -> None:
        """One more image.

        Args:
            found: what the detector finds there, in its own classes, of scores from `LOWEST` on.
            truth: the objects on it.
        """
        self._objects.update(each.cls for each in truth)
        ours = [_translated(each, self._labels, self._points) for each in found if each.cls in self._labels]
        if self._network.task == "classify":
            right = _right(ours, truth, self._network)
            here = np.zeros((2, len(self._network.classes)), np.int32)
            for cls, answers in right.items():
                here[:, cls] = sum(answers), len(answers)
                self._answered[cls] += here[:, cls]
            self._answers.append(here)
            self._suggested.append(self._shown.choices(ours, truth))
            return
        if self._network.task == "obb":  # what knows no turned boxes is measured by its upright ones
            ours = [each if each.rotated is not None else _upright(each) for each in ours]
        overlap = SIMILARITY[self._network.task](ours, truth) if ours and truth else np.zeros((len(ours), len(truth)))
        self._hits.append(match(ours, truth, lambda *_: overlap.copy()))
        self._suggested.append(self._shown.objects(ours, truth, overlap))
        self._scores.append(np.array([each.score for each in ours], np.float64))
        self._classes.append(np.array([each.cls for each in ours], np.int32))
        self._truths.append(np.array([each.cls for each in truth], np.int32))

    @property
    def images(self) -> int:
        """How many it was told of."""
        return len(self._answers) if self._network.task == "classify" else len(self._hits)

    def measured(self) -> Measured:
        """The metrics of all images so far."""
        network = self._network
        objects = {network.classes[cls]: count for cls, count in self._objects.items()}
        evidence = self.evidence()
        if isinstance(evidence, Objects):
            return Measured(_average_precision(evidence, network.classes), evidence, objects)
        metrics = nothing(network.task) if self._blind else _accuracy(self._answered, network.classes)
        return Measured(metrics, evidence, objects)

    def evidence(self) -> Objects | Answers:
        """What a bootstrap draws from."""
        if self._network.task != "classify":
            return self._seen()
        answers = np.array(self._answers, np.int64).reshape(-1, 2, len(self._network.classes))
        right, asked = answers[:, 0], answers[:, 1]
        return Answers(np.zeros_like(asked) if self._blind else right, asked)

    def show_from(self, least: NDArray[np.float64]) -> None:
        """Take for suggestions only what has these scores at least.

        Args:
            least: (images, classes).
        """
        self._suggested = [each.above(row) for each, row in zip(self._suggested, least.tolist(), strict=True)]

    @property
    def known(self) -> frozenset[int]:
        """The network's classes that the detector can find."""
        return frozenset() if self._blind else frozenset(self._labels.values())

    @property
    def suggests(self) -> frozenset[int]:
        """The network's classes that it suggested on some image."""
        return frozenset(cls for each in self._suggested for cls in each.suggested)

    def findings(self, labels: Collection[int], work: Work = actions) -> Findings:
        """What a comparison rests on, of some of the network's classes only.

        Args:
            work: what corrections cost.
        """
        cost = [work(each.among(labels).corrections()) for each in self._suggested]
        return Findings(self.evidence().among(labels), np.array(cost, np.float64))

    def _seen(self) -> Objects:
        return Objects(
            images=len(self._hits),
            image=np.repeat(np.arange(len(self._hits)), [len(each) for each in self._hits]),
            hits=np.concatenate([np.zeros((0, len(THRESHOLDS)), bool), *self._hits]),
            scores=np.concatenate([np.zeros(0), *self._scores]),
            classes=np.concatenate([np.zeros(0, np.int64), *self._classes]),
            truth_image=np.repeat(np.arange(len(self._truths)), [len(each) for each in self._truths]),
            truths=np.concatenate([np.zeros(0, np.int64), *self._truths]),
        )


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


def _accuracy(answered: Mapping[int, NDArray[np.int64]], classes: Sequence[str]) -> dict[str, float]:
    """Share of right answers, over all and for each class.

    Args:
        answered: class → (2,): how many answers were right, of how many.
    """
    right, asked = sum(answered.values(), np.zeros(2, np.int64))
    if not asked:
        return nothing("classify")
    return {
        "accuracy": float(right / asked),
        **{f"accuracy/{classes[cls]}": float(each[0] / each[1]) for cls, each in sorted(answered.items())},
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
