from __future__ import annotations

import numpy as np
import pytest

from backend.engine.parity import Parity, compare
from backend.labels.geometry import Box, Detection, Mask, Point, RotatedBox
from backend.labels.networks import Task


def thing(x: float, score: float = 0.9, cls: int = 0) -> Detection:
    return Detection(cls, score, Box(x, 10, x + 40, 50))


def parity(one: list[Detection], other: list[Detection], gain: float = 1.0, task: Task = "detect") -> Parity:
    return compare(task, [one], [other], [gain])


def test_the_furthest_side_counts() -> None:
    found = parity([thing(0), thing(100)], [thing(0.2), thing(100.7)])
    assert (found.objects, found.pixels) == (2, pytest.approx(0.7))
    assert found.same
    assert not parity([thing(0)], [thing(1.1)]).same


def test_pixels_are_those_of_the_input() -> None:
    assert parity([thing(0)], [thing(3.0)], gain=0.25).pixels == pytest.approx(0.75)


@pytest.mark.parametrize("other", [[], [thing(0, cls=1)], [thing(0, score=0.19)]])
def test_an_object_that_is_missing(other: list[Detection]) -> None:
    found = parity([thing(0)], other)
    assert not found.same
    assert "one is missing" in str(found)


def test_objects_of_another_image_do_not_count() -> None:
    assert not compare("detect", [[thing(0)], []], [[], [thing(0)]], [1.0, 1.0]).same


def test_a_score_at_the_threshold_may_fall_a_little() -> None:
    assert parity([thing(0, score=0.26)], [thing(0, score=0.24)]).same


def test_what_nobody_sees_may_differ() -> None:
    found = parity([thing(0, score=0.2)], [])
    assert (found.objects, found.same) == (0, True)


def test_best_guesses_are_compared_where_they_are_asked_for() -> None:
    assert not compare("detect", [[thing(0, score=0.02)]], [[]], [1.0], least=0.01).same
    assert compare("detect", [[thing(0, score=0.02)]], [[thing(0, score=0.01)]], [1.0], least=0.01).same


class TestTurned:
    def parity(self, one: RotatedBox, other: RotatedBox) -> Parity:
        around = Box(0, 0, 100, 100)  # the same: only the corners can tell
        made = [[Detection(0, 0.9, around, rotated=each)] for each in (one, other)]
        return parity(made[0], made[1], task="obb")

    def test_the_furthest_corner_counts(self) -> None:
        found = self.parity(RotatedBox(50, 50, 40, 20, 0), RotatedBox(50.5, 50, 40, 21, 0))
        assert found.pixels == pytest.approx(0.5)
        assert not self.parity(RotatedBox(50, 50, 90, 20, 0), RotatedBox(50, 50, 90, 20, 3)).same

    @pytest.mark.parametrize("turns", [1, 2, 3])
    def test_the_same_box_said_otherwise(self, turns: int) -> None:
        sides = (20, 40) if turns % 2 else (40, 20)
        found = self.parity(RotatedBox(50, 50, 40, 20, 10), RotatedBox(50, 50, *sides, 10 + 90 * turns))
        assert found.pixels == pytest.approx(0, abs=1e-9)


class TestMasks:
    def parity(self, one: Mask | None, other: Mask | None, gain: float = 1.0) -> Parity:
        made = [[Detection(0, 0.9, Box(0, 0, 100, 100), mask=each)] for each in (one, other)]
        return parity(made[0], made[1], gain, "segment")

    def square(self, side: int, *, hole: int = 0) -> Mask:
        bits = np.ones((side, side), bool)
        bits[side // 2 : side // 2 + hole, side // 2 : side // 2 + hole] = False
        return Mask(0, 0, bits)

    def test_they_overlap(self) -> None:
        assert self.parity(self.square(100), self.square(100)).overlap == 1
        found = self.parity(self.square(100), self.square(100, hole=40))
        assert found.overlap == pytest.approx(0.84)
        assert not found.same and "0.840" in str(found)
        assert self.parity(self.square(100), self.square(100, hole=21)).same

    def test_a_seam_of_a_small_mask_may_differ(self) -> None:
        assert self.parity(self.square(8), self.square(8, hole=3)).same  # an IoU of 0.86, nine pixels of 32 around it
        assert not self.parity(self.square(8), self.square(8, hole=4), gain=2.0).same

    def test_one_that_is_missing(self) -> None:
        assert not self.parity(self.square(50), None).same
        assert self.parity(None, None).same

    def test_of_boxes_that_are_the_same_the_likest_mask_counts(self) -> None:
        whole, holed = (Detection(0, 0.9, Box(0, 0, 100, 100), mask=self.square(100, hole=hole)) for hole in (0, 50))
        assert parity([whole, holed], [holed, whole], task="segment").overlap == 1


class TestKeypoints:
    def parity(self, one: Point, other: Point) -> Parity:
        made = [[Detection(0, 0.9, Box(0, 0, 100, 100), points=(Point(5, 5), each))] for each in (one, other)]
        return parity(made[0], made[1], task="pose")

    def test_the_furthest_point_counts(self) -> None:
        assert self.parity(Point(10, 10), Point(10, 10.8)).pixels == pytest.approx(0.8)
        assert not self.parity(Point(10, 10), Point(11.5, 10)).same

    def test_one_that_is_not_shown_may_be_anywhere(self) -> None:
        assert self.parity(Point(10, 10, 0.2), Point(90, 10, 0.2)).same


class TestChoices:
    def parity(self, one: list[float], other: list[float]) -> Parity:
        made = [[Detection(cls, score, Box(0, 0, 9, 9)) for cls, score in enumerate(each)] for each in (one, other)]
        return parity(made[0], made[1], task="classify")

    def test_the_furthest_score_counts(self) -> None:
        found = self.parity([0.7, 0.2, 0.1], [0.7, 0.195, 0.105])
        assert (found.objects, found.score, found.same) == (3, pytest.approx(0.005), True)
        assert not self.parity([0.7, 0.2, 0.1], [0.68, 0.22, 0.1]).same

    def test_a_class_that_is_missing(self) -> None:
        assert not self.parity([0.7, 0.3], [0.7]).same


@pytest.mark.parametrize(("metric", "same"), [(0.001, True), (0.003, False)])
def test_the_metrics_count_too(metric: float, same: bool) -> None:
    found = Parity(3, metric=metric)
    assert found.same is same
    assert f"metrics {metric:.4f} apart" in str(found)


def test_of_two_images_the_worse_counts() -> None:
    one = Parity(2, pixels=0.5, overlap=0.99, score=0.001, metric=0.001)
    other = Parity(3, pixels=0.1, overlap=0.96, score=0.02)
    assert one + other == Parity(5, pixels=0.5, overlap=0.96, score=0.02, metric=0.001)
    assert not (one + Parity(1, pixels=float("inf"))).same
    assert sum([other], Parity(0)) == other
