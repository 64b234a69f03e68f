from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.fit.bootstrap import Answers
from backend.fit.evaluate import Measured
from backend.fit.parity import Parity, compare
from backend.labels.geometry import Box, Detection
from backend.labels.networks import Task
from backend.predict.engine.base import Image

IMAGES = [np.zeros((320, 640, 3), np.uint8)]


@dataclass
class Finds:
    """Finds the same on every image."""

    found: list[Detection]
    names: Mapping[int, str] = field(default_factory=lambda: {0: "a", 1: "b"})
    task: Task = "detect"
    batch: int = 1

    def detect(self, images: Sequence[Image], conf: float) -> list[list[Detection]]:
        return [[each for each in self.found if each.score >= conf] for _ in images]

    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        raise NotImplementedError

    def warm(self) -> None:
        raise NotImplementedError


def thing(x: float, score: float = 0.9, cls: int = 0) -> Detection:
    return Detection(cls, score, Box(x, 10, x + 40, 50))


def measured(value: float) -> Measured:
    nothing = Answers(np.zeros(1, np.int64), np.zeros(1, np.int64))
    return Measured({"mAP50": 0.9, "mAP50-95": value}, nothing, {})


def parity(one: list[Detection], other: list[Detection], size: int = 640) -> Parity:
    return compare(Finds(one), Finds(other), IMAGES, size)


def test_the_furthest_side_counts() -> None:
    found = parity([thing(0), thing(100)], [thing(0.2), thing(100.7)])
    assert (found.boxes, found.pixels, found.metric) == (2, pytest.approx(0.7), 0)
    assert found.same
    assert not parity([thing(0)], [thing(1.1)]).same


def test_pixels_are_those_of_the_input() -> None:
    assert parity([thing(0)], [thing(3.0)], size=160).pixels == pytest.approx(0.75)


@pytest.mark.parametrize("other", [[], [thing(0, cls=1)], [thing(0, score=0.19)]])
def test_a_box_that_is_missing(other: list[Detection]) -> None:
    found = parity([thing(0)], other)
    assert not found.same
    assert "one is missing" in str(found)


def test_a_score_at_the_threshold_may_fall_a_little() -> None:
    assert parity([thing(0, score=0.26)], [thing(0, score=0.24)]).same


def test_what_nobody_sees_may_differ() -> None:
    found = parity([thing(0, score=0.2)], [])
    assert (found.boxes, found.same) == (0, True)


@pytest.mark.parametrize(("value", "same"), [(0.801, True), (0.797, False)])
def test_the_metrics_count_too(value: float, same: bool) -> None:
    found = compare(Finds([thing(0)]), Finds([thing(0)]), IMAGES, 640, (measured(0.8), measured(value)))
    assert found.metric == pytest.approx(abs(0.8 - value))
    assert found.same is same
