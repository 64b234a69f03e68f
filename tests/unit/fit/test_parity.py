from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.fit.bootstrap import Answers
from backend.fit.evaluate import Measured
from backend.fit.parity import COMPARED, Keeping, _differ
from backend.labels.geometry import Box, Detection
from backend.labels.networks import Task
from backend.predict.engine.base import Image

IMAGE = np.zeros((320, 640, 3), np.uint8)


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


def thing(score: float) -> Detection:
    return Detection(0, score, Box(0, 10, 40, 50))


def measured(**metrics: float) -> Measured:
    nothing = Answers(np.zeros(1, np.int64), np.zeros(1, np.int64))
    return Measured(metrics, nothing, {})


class TestKeeping:
    def test_it_finds_the_same_and_keeps_what_would_be_seen(self) -> None:
        detector = Keeping(Finds([thing(0.9), thing(0.22), thing(0.1)]))
        assert [len(each) for each in detector.detect([IMAGE, IMAGE], 0.001)] == [3, 3]
        assert [[one.score for one in each] for each in detector.found] == [[0.9, 0.22]] * 2

    def test_of_many_images_only_the_first_are_kept(self) -> None:
        detector = Keeping(Finds([thing(0.9)]))
        for _ in range(COMPARED):
            detector.detect([IMAGE, IMAGE], 0.001)
        assert len(detector.found) == COMPARED

    def test_of_choices_every_score_counts(self) -> None:
        detector = Keeping(Finds([thing(0.01)], task="classify"))
        detector.detect([IMAGE], 0.0)
        assert len(detector.found[0]) == 1


@pytest.mark.parametrize(
    ("one", "other", "furthest"),
    [
        ({"mAP50": 0.9, "mAP50-95": 0.8}, {"mAP50": 0.9, "mAP50-95": 0.797}, 0.003),
        ({"accuracy": 0.5, "precision": 0.1}, {"accuracy": 0.5, "precision": 0.9}, 0),
        ({"mAP50": 0.9}, {}, 0.9),
        ({}, {}, 0),
    ],
)
def test_the_deciding_metrics_are_compared(one: dict[str, float], other: dict[str, float], furthest: float) -> None:
    assert _differ(measured(**one), measured(**other)) == pytest.approx(furthest)
