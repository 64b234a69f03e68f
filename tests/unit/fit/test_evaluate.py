from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.fit.evaluate import THRESHOLDS, Truth, evaluate, iou, match
from backend.labels.geometry import Box, Detection
from backend.predict.engine.base import Image

CLASSES = ("Disc", "Square", "Triangle")
A, B, C = Box(0, 0, 10, 10), Box(20, 0, 30, 10), Box(40, 0, 50, 10)
IDENTITY = {0: 0, 1: 1, 2: 2}


class Prepared:
    """Finds what it was told: an image's first pixel is the number of its detections."""

    names: Mapping[int, str] = dict(enumerate(CLASSES))

    def __init__(self, found: Sequence[Sequence[Detection]]) -> None:
        self._found = found

    def detect(self, images: Sequence[Image], conf: float) -> list[list[Detection]]:
        return [[each for each in self._found[int(image[0, 0, 0])] if each.score >= conf] for image in images]

    def warm(self) -> None:
        pass


def measure(
    found: Sequence[Sequence[Detection]], truths: Sequence[Truth], labels: Mapping[int, int] | None = None
) -> dict[str, float]:
    images = [np.full((1, 1, 3), number, np.uint8) for number in range(len(found))]
    return evaluate(Prepared(found), IDENTITY if labels is None else labels, images, truths, CLASSES)


def shifted(box: Box, pixels: float) -> Box:
    return Box(box.x1 + pixels, box.y1, box.x2 + pixels, box.y2)


class TestByHand:
    def test_all_found(self) -> None:
        metrics = measure(
            [[Detection(0, 0.9, A), Detection(1, 0.8, B)], [Detection(0, 0.7, C)]],
            [Truth([A, B], [0, 1]), Truth([C], [0])],
        )
        assert metrics == {
            "mAP50": pytest.approx(0.995),  # ultralytics' curve ends at recall 1 with precision 0
            "mAP50-95": pytest.approx(0.995),
            "precision": pytest.approx(1.0),
            "recall": pytest.approx(1.0),
            "mAP50/Disc": pytest.approx(0.995),
            "mAP50/Square": pytest.approx(0.995),
        }

    def test_half_found_after_a_false_alarm(self) -> None:
        # Best first: wrong, right; one of two is missed. Precision is 1/2 below recall 1/2 and then 0: of
        # the hundred steps between 101 points 49 are whole and one is half under it.
        metrics = measure(
            [[Detection(0, 0.9, C), Detection(0, 0.8, A)]],
            [Truth([A, B], [0, 0])],
        )
        assert metrics["mAP50"] == pytest.approx(49.5 * 0.01 * 0.5)

    def test_the_overlap_decides_how_many_thresholds_are_met(self) -> None:
        # Moved by 2 of 10 pixels: IoU 8 / 12 = 0.667, so 0.5 … 0.65 are met, four of ten.
        metrics = measure([[Detection(0, 0.9, shifted(A, 2))]], [Truth([A], [0])])
        assert metrics["mAP50"] == pytest.approx(0.995)
        assert metrics["mAP50-95"] == pytest.approx(0.4 * 0.995)

    def test_another_label_is_a_miss(self) -> None:
        metrics = measure([[Detection(1, 0.9, A)]], [Truth([A], [0])])
        assert metrics["mAP50"] == 0
        assert "mAP50/Square" not in metrics

    def test_a_box_is_found_once(self) -> None:
        hits = match([Detection(0, 0.6, A), Detection(0, 0.9, A)], Truth([A], [0]))
        assert hits[:, 0].tolist() == [False, True]

    def test_the_best_score_chooses_first(self) -> None:
        between = shifted(A, 1)
        hits = match([Detection(0, 0.9, between), Detection(0, 0.5, A)], Truth([A, shifted(A, 2)], [0, 0]))
        assert hits[0, 0]
        assert hits[:, 0].sum() == 2

    def test_classes_are_mapped_to_labels(self) -> None:
        found = [[Detection(7, 0.9, A), Detection(9, 0.99, C)]]
        metrics = measure(found, [Truth([A], [1])], labels={7: 1})
        assert metrics["mAP50/Square"] == pytest.approx(0.995)  # class 9 has no label, so it disturbs nothing

    @pytest.mark.parametrize(
        ("found", "truths"),
        [
            ([], []),
            ([[]], [Truth([], [])]),
            ([[]], [Truth([A], [0])]),
            ([[Detection(0, 0.9, A)]], [Truth([], [])]),
        ],
    )
    def test_nothing_to_find_or_nothing_found(
        self, found: Sequence[Sequence[Detection]], truths: Sequence[Truth]
    ) -> None:
        assert measure(found, truths) == {"mAP50": 0, "mAP50-95": 0, "precision": 0, "recall": 0}

    def test_a_false_alarm_on_an_empty_image_counts(self) -> None:
        alone = measure([[Detection(0, 0.8, A)]], [Truth([A], [0])])
        alarmed = measure([[Detection(0, 0.8, A)], [Detection(0, 0.9, B)]], [Truth([A], [0]), Truth([], [])])
        assert alarmed["mAP50"] < alone["mAP50"] - 0.2


def reference(ranked: list[tuple[float, bool]], true: int) -> float:
    """Average precision from (score, hit), written down independently and without numpy."""
    points = [(0.0, 1.0)]
    hits = 0
    for rank, (_, hit) in enumerate(sorted(ranked, key=lambda each: -each[0]), start=1):
        hits += hit
        points.append((hits / true, hits / rank))
    last = points[-1][0]
    points += [(last, 0.0), (1.0, 0.0)]
    best = 0.0
    envelope = []
    for recall, precision in reversed(points):
        best = max(best, precision)
        envelope.append((recall, best))
    envelope.reverse()

    def at(recall: float) -> float:
        # Of points at one recall the last one counts: the curve falls there.
        left = max((index for index, point in enumerate(envelope) if point[0] <= recall + 1e-12), default=0)
        if left == len(envelope) - 1:
            return envelope[-1][1]
        (x1, y1), (x2, y2) = envelope[left], envelope[left + 1]
        return y1 if x2 == x1 else y1 + (y2 - y1) * (recall - x1) / (x2 - x1)

    return sum((at(step / 100) + at((step + 1) / 100)) / 2 for step in range(100)) / 100


def overlap(one: Box, other: Box) -> float:
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = sum((box.x2 - box.x1) * (box.y2 - box.y1) for box in (one, other))
    return shared / (areas - shared)


def expected(found: Sequence[Sequence[Detection]], truths: Sequence[Truth], threshold: float) -> dict[int, float]:
    """AP of each class that occurs, at one IoU threshold, image by image and box by box."""
    ranked: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    totals: dict[int, int] = defaultdict(int)
    for detections, truth in zip(found, truths, strict=True):
        free = set(range(len(truth.boxes)))
        for cls in truth.classes:
            totals[cls] += 1
        for detection in sorted(detections, key=lambda each: -each.score):
            candidates = [
                (overlap(detection.box, truth.boxes[index]), -index)
                for index in free
                if truth.classes[index] == detection.cls
            ]
            best = max(candidates, default=(0.0, 0))
            hit = best[0] >= threshold
            if hit:
                free.remove(-best[1])
            ranked[detection.cls].append((detection.score, hit))
    return {cls: reference(ranked[cls], total) for cls, total in totals.items()}


side = st.integers(1, 12)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), st.integers(0, 12), st.integers(0, 12), side, side)
classes = st.integers(0, 2)


@st.composite
def images(draw: st.DrawFn) -> tuple[list[list[Detection]], list[Truth]]:
    count = draw(st.integers(1, 4))
    shapes = [(draw(st.integers(0, 5)), draw(st.integers(0, 5))) for _ in range(count)]
    # Equal scores would leave the order open.
    scores = iter(draw(st.permutations(range(1, 1 + sum(most for most, _ in shapes)))))
    found, truths = [], []
    for detections, true in shapes:
        found.append([Detection(draw(classes), next(scores) / 100, draw(boxes)) for _ in range(detections)])
        truths.append(Truth([draw(boxes) for _ in range(true)], [draw(classes) for _ in range(true)]))
    return found, truths


@settings(deadline=None, max_examples=150)
@given(images())
def test_as_a_second_implementation_says(given: tuple[list[list[Detection]], list[Truth]]) -> None:
    found, truths = given
    metrics = measure(found, truths)
    by_threshold = [expected(found, truths, threshold) for threshold in THRESHOLDS]
    if not by_threshold[0] or not any(found):
        assert metrics["mAP50-95"] == 0
        return
    means = [sum(each.values()) / len(each) for each in by_threshold]
    assert metrics["mAP50"] == pytest.approx(means[0], abs=0.006)
    assert metrics["mAP50-95"] == pytest.approx(sum(means) / len(means), abs=0.006)
    for cls, value in by_threshold[0].items():
        assert metrics[f"mAP50/{CLASSES[cls]}"] == pytest.approx(value, abs=0.006)


@given(boxes, boxes)
def test_overlap(one: Box, other: Box) -> None:
    assert iou([one], [other])[0, 0] == pytest.approx(overlap(one, other))
    assert iou([one], [one])[0, 0] == pytest.approx(1)
