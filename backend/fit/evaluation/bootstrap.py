"""How much of a difference between two detectors is chance: a paired bootstrap over held-out images.

Images are drawn with replacement, the same ones for both detectors, and both are measured on them, many times
over. Sources: Efron and Tibshirani, An Introduction to the Bootstrap, 1993; Koehn, Statistical Significance Tests
for Machine Translation Evaluation, 2004, for the pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ROUNDS = 1000
FEWEST_ROUNDS = 200

WORK = 3e8
"""Rounds times objects of one comparison, at most: some seconds on one core."""

AT_ONCE = 1.6e7
"""Numbers that are held in memory at a time."""

Weights = NDArray[np.float32]
"""(images, rounds): how often each image was drawn in each round."""


class Evidence(Protocol):
    """What a metric rests on, image by image."""

    @property
    def images(self) -> int:
        """Number of images."""

    @property
    def size(self) -> int:
        """Numbers that one round works through."""

    def metric(self, weights: Weights) -> NDArray[np.float64]:
        """The metric of each round: (rounds,)."""


@dataclass(frozen=True, slots=True)
class Answers:
    """How many questions about each image were answered rightly, of how many: both (images,)."""

    right: NDArray[np.int64]
    asked: NDArray[np.int64]

    @property
    def images(self) -> int:
        return len(self.asked)

    @property
    def size(self) -> int:
        return self.images

    def metric(self, weights: Weights) -> NDArray[np.float64]:
        """Share of right answers of each round: (rounds,), 0 for a round without any question."""
        right, asked = (each.astype(np.float32) @ weights for each in (self.right, self.asked))
        share: NDArray[np.float64] = right.astype(np.float64) / np.maximum(asked, 1)
        return share


@dataclass(frozen=True, slots=True)
class Objects:
    """What a detector found on all images, and what is there.

    Attributes:
        images: number of images.
        image: (found,) which image each found object is on, from 0.
        hits: (found, thresholds) whether it is right at each threshold of similarity.
        scores: (found,) how sure the detector is of it, in [0, 1].
        classes: (found,) what it is taken for.
        truth_image: (true,) which image each true object is on.
        truths: (true,) what it is.
    """

    images: int
    image: NDArray[np.int64]
    hits: NDArray[np.bool_]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    truth_image: NDArray[np.int64]
    truths: NDArray[np.int64]

    @property
    def size(self) -> int:
        return self.images + len(self.scores)

    def metric(self, weights: Weights) -> NDArray[np.float64]:
        """mAP50-95 of each round: (rounds,), 0 for a round without any object.

        The area under each curve is exact, while ultralytics samples it at 101 points: they differ by less than
        0.01. An object in the copies of one image is one step of the curve.
        """
        total, present = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
        for cls in np.unique(self.truths):
            mine = np.flatnonzero(self.classes == cls)
            mine = mine[np.argsort(-self.scores[mine], kind="stable")]
            there = weights[self.truth_image[self.truths == cls]].sum(axis=0)
            total += _average_precision(weights, self.image[mine], self.hits[mine], there)
            present += there > 0
        mean: NDArray[np.float64] = total / np.maximum(present, 1)
        return mean


@dataclass(frozen=True, slots=True)
class Interval:
    """Candidate's metric less champion's: the mean of all rounds, and what 95 % of them lie between."""

    mean: float
    low: float
    high: float
    rounds: int


def difference(candidate: Evidence, champion: Evidence, *, seed: int, rounds: int = ROUNDS) -> Interval:
    """The interval of the difference of a metric between two detectors.

    Args:
        candidate: what it made of each image, at least one.
        champion: the same of the other, for the same images in the same order.
        seed: the same one gives the same interval.
        rounds: how often images are drawn; fewer, at least 200, where that would take long.
    """
    count = candidate.images
    if not count or count != champion.images:
        raise ValueError(f"Both are measured on the same images, not on {count} and {champion.images}.")
    size = candidate.size + champion.size
    rounds = min(rounds, max(FEWEST_ROUNDS, int(WORK / size)))
    random = np.random.default_rng(seed)
    each = np.empty(rounds)
    together = max(1, int(AT_ONCE / size))
    for first in range(0, rounds, together):
        last = min(rounds, first + together)
        drawn = random.multinomial(count, np.full(count, 1 / count), last - first).astype(np.float32)
        weights = np.ascontiguousarray(drawn.T)
        each[first:last] = candidate.metric(weights) - champion.metric(weights)
    low, high = np.percentile(each, (2.5, 97.5))
    return Interval(float(each.mean()), float(low), float(high), rounds)


def _average_precision(
    weights: Weights, image: NDArray[np.int64], hits: NDArray[np.bool_], there: Weights
) -> NDArray[np.float64]:
    """AP of one class, mean of all thresholds, by round.

    Args:
        image: number of the image of each found object, best score first.
        hits: (found, thresholds).
        there: (rounds,) true objects of the class.
    """
    area = np.zeros(weights.shape[1])
    right = np.flatnonzero(hits.any(axis=1))
    if not len(right):
        return area
    upto = int(right[-1]) + 1  # what comes after the last hit changes nothing
    found = np.cumsum(weights[image[:upto]], axis=0)[right]
    for column in hits[right].T:
        at = np.flatnonzero(column)
        if len(at):
            new = weights[image[right[at]]]
            precision = np.cumsum(new, axis=0) / np.maximum(found[at], 1)
            envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
            area += np.einsum("ij,ij->j", new, envelope)
    average: NDArray[np.float64] = area / np.maximum(there, 1) / hits.shape[1]
    return average
