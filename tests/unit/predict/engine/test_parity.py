from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.labels.geometry import Box, Detection, Mask, Point, RotatedBox
from backend.labels.networks import Task
from backend.predict.engine.parity import MOST_METRIC, Parity, compare


def thing(x: float = 0, score: float = 0.9, cls: int = 0, **more: Any) -> Detection:
    return Detection(cls, score, Box(x, 10, x + 40, 50), **more)


def parity(one: list[Detection], other: list[Detection], gain: float = 1.0, task: Task = "detect") -> Parity:
    return compare(task, [one], [other], [gain])


class TestBoxes:
    def test_the_furthest_side_counts(self) -> None:
        found = parity([thing(0), thing(100)], [thing(0.2), thing(100.7)])
        assert (found.objects, found.pixels, found.metric) == (2, pytest.approx(0.7), 0)
        assert found.same
        assert not parity([thing(0)], [thing(1.1)]).same

    def test_pixels_are_those_of_the_input(self) -> None:
        assert parity([thing(0)], [thing(3.0)], gain=0.25).pixels == pytest.approx(0.75)

    @pytest.mark.parametrize("other", [[], [thing(0, cls=1)], [thing(0, score=0.19)]])
    def test_one_that_is_missing(self, other: list[Detection]) -> None:
        found = parity([thing(0)], other)
        assert not found.same
        assert "one is missing" in str(found)

    def test_a_score_at_the_threshold_may_fall_a_little(self) -> None:
        assert parity([thing(0, score=0.26)], [thing(0, score=0.24)]).same

    def test_what_nobody_sees_may_differ(self) -> None:
        found = parity([thing(0, score=0.2)], [])
        assert (found.objects, found.same) == (0, True)

    def test_guesses_can_be_compared_too(self) -> None:
        found = compare("detect", [[thing(0, score=0.02)]], [[thing(5, score=0.02)]], [1.0], least=0.01)
        assert (found.objects, found.pixels) == (1, 5)

    def test_images_are_not_mixed_up(self) -> None:
        found = compare("detect", [[thing(0)], [thing(50)]], [[thing(50)], [thing(0)]], [1.0, 0.5])
        assert (found.objects, found.pixels) == (2, 50)


class TestTurnedBoxes:
    def test_the_furthest_corner_counts(self) -> None:
        one, other = RotatedBox(50, 50, 40, 20, 0.0), RotatedBox(50, 50, 40, 20, 1.0)
        found = parity([thing(rotated=one)], [thing(rotated=other)], task="obb")
        assert 0.3 < found.pixels < 0.6

    def test_one_that_is_told_with_its_sides_exchanged_is_the_same(self) -> None:
        one, other = RotatedBox(50, 50, 40, 20, 0.1), RotatedBox(50, 50, 20, 40, 90.1)
        assert parity([thing(rotated=one)], [thing(rotated=other)], task="obb").pixels == pytest.approx(0, abs=1e-6)


class TestKeypoints:
    def test_the_furthest_that_is_shown_counts(self) -> None:
        one = thing(points=(Point(10, 10, 0.9), Point(30, 30, 0.1)))
        other = thing(points=(Point(10, 10.8, 0.9), Point(90, 90, 0.1)))
        assert parity([one], [other], task="pose").pixels == pytest.approx(0.8)


class TestMasks:
    @staticmethod
    def of(width: int, x: int = 0) -> Mask:
        return Mask(x, 10, np.ones((40, width), bool))

    def test_the_overlap_counts(self) -> None:
        found = parity([thing(mask=self.of(40))], [thing(mask=self.of(34))], task="segment")
        assert found.overlap == pytest.approx(34 / 40)
        assert not found.same

    def test_a_seam_does_not(self) -> None:
        assert parity([thing(mask=self.of(40))], [thing(mask=self.of(39))], task="segment").same

    def test_the_one_that_overlaps_best_is_compared(self) -> None:
        others = [thing(mask=self.of(10)), thing(mask=self.of(40))]
        assert parity([thing(mask=self.of(40))], others, task="segment").overlap == 1


class TestChoices:
    def test_the_scores_of_each_class_count(self) -> None:
        one, other = [thing(score=0.7), thing(score=0.3, cls=1)], [thing(score=0.3, cls=1), thing(score=0.68)]
        found = parity(one, other, task="classify")
        assert (found.objects, found.score) == (2, pytest.approx(0.02))
        assert not found.same

    def test_a_class_without_a_score_is_missing(self) -> None:
        assert parity([thing(score=0.7)], [], task="classify").score == pytest.approx(0.7)


@pytest.mark.parametrize(("metric", "same"), [(MOST_METRIC, True), (0.003, False)])
def test_the_metrics_count_too(metric: float, same: bool) -> None:
    assert Parity(3, metric=metric).same is same


def test_it_is_told_in_words() -> None:
    assert str(Parity(3, 0.5, 0.99, 0.0, 0.001)) == (
        "3 objects, at most 0.50 pixels apart, masks overlap by 0.990, metrics 0.0010 apart"
    )
