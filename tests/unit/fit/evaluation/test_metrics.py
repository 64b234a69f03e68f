from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.engine.detector import Image
from backend.fit.evaluation.metrics import THRESHOLDS, evaluate, keypoint_similarity, match, measured
from backend.labels.geometry import Box, Detection, Point, RotatedBox
from backend.labels.networks import Network, Task
from backend.labels.overlap import iou

CLASSES = ("Disc", "Square", "Triangle")
A, B, C = Box(0, 0, 10, 10), Box(20, 0, 30, 10), Box(40, 0, 50, 10)
IDENTITY = {0: 0, 1: 1, 2: 2}
DETECT = Network("detect", "detect", CLASSES)


def true(boxes: Sequence[Box], classes: Sequence[int]) -> list[Detection]:
    return [Detection(cls, 1.0, box) for box, cls in zip(boxes, classes, strict=True)]


class Prepared:
    """Finds what it was told: an image's first pixel is the number of its detections."""

    names: Mapping[int, str] = dict(enumerate(CLASSES))
    task: Task = "detect"

    def __init__(self, found: Sequence[Sequence[Detection]]) -> None:
        self._found = found

    def detect(self, images: Sequence[Image], conf: float, most: int | None = None) -> list[list[Detection]]:
        return [[each for each in self._found[int(image[0, 0, 0])] if each.score >= conf] for image in images]

    def warm(self) -> None:
        pass


def measure(
    found: Sequence[Sequence[Detection]],
    truths: Sequence[Sequence[Detection]],
    labels: Mapping[int, int] | None = None,
    network: Network = DETECT,
    points: Mapping[int, int] | None = None,
) -> dict[str, float]:
    images = [np.full((1, 1, 3), number, np.uint8) for number in range(len(found))]
    return evaluate(Prepared(found), IDENTITY if labels is None else labels, images, truths, network, points)


def shifted(box: Box, pixels: float) -> Box:
    return Box(box.x1 + pixels, box.y1, box.x2 + pixels, box.y2)


def test_upright_boxes_are_measured_among_turned_ones() -> None:
    """As a version of them is by the first one that knows turned boxes: right where these are upright."""
    upright = Detection(0, 1.0, A, rotated=RotatedBox(5, 5, 10, 10, 0))
    turned = Detection(0, 1.0, B, rotated=RotatedBox(25, 5, 14, 3, 45))
    found = [[Detection(0, 0.9, A), Detection(0, 0.8, B)]]
    obb = Network("obb", "obb", CLASSES)
    assert measure(found, [[upright]], network=obb)["mAP50-95"] > 0.9
    assert measure(found, [[upright, turned]], network=obb)["recall"] == pytest.approx(0.5)


class TestByHand:
    def test_all_found(self) -> None:
        metrics = measure(
            [[Detection(0, 0.9, A), Detection(1, 0.8, B)], [Detection(0, 0.7, C)]],
            [true([A, B], [0, 1]), true([C], [0])],
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
            [true([A, B], [0, 0])],
        )
        assert metrics["mAP50"] == pytest.approx(49.5 * 0.01 * 0.5)

    def test_the_overlap_decides_how_many_thresholds_are_met(self) -> None:
        # Moved by 2 of 10 pixels: IoU 8 / 12 = 0.667, so 0.5 … 0.65 are met, four of ten.
        metrics = measure([[Detection(0, 0.9, shifted(A, 2))]], [true([A], [0])])
        assert metrics["mAP50"] == pytest.approx(0.995)
        assert metrics["mAP50-95"] == pytest.approx(0.4 * 0.995)

    def test_another_label_is_a_miss(self) -> None:
        metrics = measure([[Detection(1, 0.9, A)]], [true([A], [0])])
        assert metrics["mAP50"] == 0
        assert "mAP50/Square" not in metrics

    def test_a_box_is_found_once(self) -> None:
        hits = match([Detection(0, 0.6, A), Detection(0, 0.9, A)], true([A], [0]), iou)
        assert hits[:, 0].tolist() == [False, True]

    def test_the_best_score_chooses_first(self) -> None:
        between = shifted(A, 1)
        hits = match([Detection(0, 0.9, between), Detection(0, 0.5, A)], true([A, shifted(A, 2)], [0, 0]), iou)
        assert hits[0, 0]
        assert hits[:, 0].sum() == 2

    def test_classes_are_mapped_to_labels(self) -> None:
        found = [[Detection(7, 0.9, A), Detection(9, 0.99, C)]]
        metrics = measure(found, [true([A], [1])], labels={7: 1})
        assert metrics["mAP50/Square"] == pytest.approx(0.995)  # class 9 has no label, so it disturbs nothing

    @pytest.mark.parametrize(
        ("found", "truths"),
        [
            ([], []),
            ([[]], [true([], [])]),
            ([[]], [true([A], [0])]),
            ([[Detection(0, 0.9, A)]], [true([], [])]),
        ],
    )
    def test_nothing_to_find_or_nothing_found(
        self, found: Sequence[Sequence[Detection]], truths: Sequence[Sequence[Detection]]
    ) -> None:
        assert measure(found, truths) == {"mAP50": 0, "mAP50-95": 0, "precision": 0, "recall": 0}

    def test_a_false_alarm_on_an_empty_image_counts(self) -> None:
        alone = measure([[Detection(0, 0.8, A)]], [true([A], [0])])
        alarmed = measure([[Detection(0, 0.8, A)], [Detection(0, 0.9, B)]], [true([A], [0]), true([], [])])
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


def expected(
    found: Sequence[Sequence[Detection]], truths: Sequence[Sequence[Detection]], threshold: float
) -> dict[int, float]:
    """AP of each class that occurs, at one IoU threshold, image by image and box by box."""
    ranked: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    totals: dict[int, int] = defaultdict(int)
    for detections, truth in zip(found, truths, strict=True):
        free = set(range(len(truth)))
        for each in truth:
            totals[each.cls] += 1
        for detection in sorted(detections, key=lambda each: -each.score):
            candidates = [
                (overlap(detection.box, truth[index].box), -index)
                for index in free
                if truth[index].cls == detection.cls
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
def images(draw: st.DrawFn) -> tuple[list[list[Detection]], list[list[Detection]]]:
    count = draw(st.integers(1, 4))
    shapes = [(draw(st.integers(0, 5)), draw(st.integers(0, 5))) for _ in range(count)]
    # Equal scores would leave the order open.
    scores = iter(draw(st.permutations(range(1, 1 + sum(most for most, _ in shapes)))))
    found, truths = [], []
    for detections, objects in shapes:
        found.append([Detection(draw(classes), next(scores) / 100, draw(boxes)) for _ in range(detections)])
        truths.append(true([draw(boxes) for _ in range(objects)], [draw(classes) for _ in range(objects)]))
    return found, truths


@settings(deadline=None, max_examples=150)
@given(images())
def test_as_a_second_implementation_says(given: tuple[list[list[Detection]], list[list[Detection]]]) -> None:
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


def at(box: Box, **fields: object) -> Detection:
    return Detection(0, 1.0, box, **fields)  # type: ignore[arg-type]


class TestKeypoints:
    truth = Detection(0, 1.0, Box(0, 0, 100, 100), points=(Point(10, 10), Point(90, 90), Point(0, 0, 0)))

    def similarity(self, *points: Point) -> float:
        found = Detection(0, 0.9, Box(0, 0, 100, 100), points=points)
        return float(keypoint_similarity([found], [self.truth])[0, 0])

    def test_a_missing_point_of_the_truth_does_not_count(self) -> None:
        assert self.similarity(Point(10, 10), Point(90, 90), Point(55, 3)) == pytest.approx(1)

    def test_the_farther_the_less(self) -> None:
        near, far = (self.similarity(Point(10 + d, 10), Point(90, 90), Point(0, 0)) for d in (10, 60))
        assert 1 > near > far >= 0.5

    def test_what_was_not_found_is_infinitely_far(self) -> None:
        assert self.similarity(Point(10, 10)) == pytest.approx(0.5)

    def test_points_are_compared_by_their_labels_index(self) -> None:
        network = Network("pose:kp", "pose", CLASSES)
        shuffled = Detection(0, 0.9, self.truth.box, points=(Point(90, 90), Point(0, 0), Point(10, 10)))
        straight = measure([[shuffled]], [[self.truth]], network=network)
        mended = measure([[shuffled]], [[self.truth]], network=network, points={0: 2, 1: 0, 2: 1})
        assert mended["mAP50"] == pytest.approx(0.995)
        assert straight["mAP50"] == 0


class TestChoices:
    def scored(self, *scores: float) -> list[Detection]:
        return [Detection(cls, score, A) for cls, score in enumerate(scores)]

    def test_of_one_choice_the_sum_of_its_classes_counts(self) -> None:
        network = Network("classify:c", "classify", ("Day", "Night"))
        truths = [true([A], [1]), true([A], [0])]
        found = [self.scored(0.4, 0.3, 0.3), self.scored(0.4, 0.3, 0.3)]
        metrics = measure(found, truths, labels={0: 0, 1: 1, 2: 1}, network=network)
        assert metrics == {"accuracy": 0.5, "accuracy/Day": 0.0, "accuracy/Night": 1.0}

    def test_of_several_choices_each_is_a_question(self) -> None:
        network = Network("classify:c", "classify", ("Red", "Round", "Big"), multiple=True)
        metrics = measure([self.scored(0.9, 0.6, 0.2)], [true([A, A], [0, 2])], network=network)
        assert metrics["accuracy"] == pytest.approx(1 / 3)


class TestEvidence:
    """What a bootstrap draws from says the same as the metrics, and counts what they rest on."""

    ONCE = np.ones((2, 1), np.float32)

    def two(self) -> list[Image]:
        return [np.full((1, 1, 3), number, np.uint8) for number in range(2)]

    @settings(deadline=None, max_examples=50)
    @given(images())
    def test_of_objects(self, given: tuple[list[list[Detection]], list[list[Detection]]]) -> None:
        found, truths = given
        pictures = [np.full((1, 1, 3), number, np.uint8) for number in range(len(found))]
        said = measured(Prepared(found), IDENTITY, pictures, truths, DETECT)
        assert said.metrics == measure(found, truths)
        once = np.ones((len(found), 1), np.float32)
        assert said.evidence.measure(once)[0][0] == pytest.approx(said.metrics["mAP50-95"], abs=0.01)
        alone = [
            evaluate(Prepared(found), IDENTITY, [each], [truth], DETECT)
            for each, truth in zip(pictures, truths, strict=True)
        ]
        weights = np.eye(len(found), dtype=np.float32)
        assert said.evidence.measure(weights)[0] == pytest.approx([each["mAP50-95"] for each in alone], abs=0.01)
        assert sum(said.objects.values()) == sum(map(len, truths))
        assert all(count > 0 for count in said.objects.values())

    def test_of_choices(self) -> None:
        network = Network("classify:c", "classify", ("Red", "Round", "Big"), multiple=True)
        found = [[Detection(0, 0.9, A)], [Detection(0, 0.9, A), Detection(1, 0.8, A)]]
        said = measured(Prepared(found), IDENTITY, self.two(), [true([A, A], [0, 2]), true([A, A], [0, 1])], network)
        assert said.evidence.measure(self.ONCE)[0][0] == pytest.approx(said.metrics["accuracy"]) == pytest.approx(5 / 6)
        assert said.evidence.measure(np.eye(2, dtype=np.float32))[0] == pytest.approx([2 / 3, 1])
        assert said.objects == {"Red": 2, "Round": 1, "Big": 1}

    @pytest.mark.parametrize(
        ("network", "metric"),
        [
            (DETECT, "mAP50-95"),
            (Network("classify:c", "classify", CLASSES), "accuracy"),
            (Network("classify:c", "classify", CLASSES, multiple=True), "accuracy"),
        ],
    )
    def test_without_a_detector_all_is_missed(self, network: Network, metric: str) -> None:
        truths = [true([A], [0]), true([B], [1])]
        said = measured(None, {}, self.two(), truths, network)
        assert said.metrics[metric] == 0
        assert said.evidence.measure(self.ONCE)[0][0] == 0
        assert said.objects == {"Disc": 1, "Square": 1}
        best = measured(
            Prepared([[Detection(0, 0.9, A)], [Detection(1, 0.9, B)]]), IDENTITY, self.two(), truths, network
        )
        assert best.evidence.measure(self.ONCE)[0][0] == 1
