"""How much of a difference between two detectors is chance: a paired bootstrap over groups of held-out images.

Groups of images that look alike are drawn with replacement, the same ones for all detectors, and each is measured on
them, many times over. Sources: Efron and Tibshirani, An Introduction to the Bootstrap, 1993; Koehn, Statistical
Significance Tests for Machine Translation Evaluation, 2004, for the pairs; Field and Welsh, Bootstrapping clustered
data, 2007, for the groups.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ROUNDS = 300
"""Enough for a standard error: it is off by one in 24, as are two draws of so many."""

FEWEST_ROUNDS = 100

WORK = 6e8
"""Rounds times numbers of one detector, at most: some seconds on one core."""

AT_ONCE = 8e6
"""Numbers that are held in memory at a time."""

Weights = NDArray[np.float32]
"""(images, rounds): how often each image was drawn in each round."""


Measures = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The score of all labels in each round: (rounds,); that of each label: (labels, rounds), NaN in a round without it."""


class Evidence(Protocol):
    """What a score rests on, image by image."""

    @property
    def images(self) -> int:
        """Number of images."""

    @property
    def size(self) -> int:
        """Numbers that one round works through."""

    @property
    def counts(self) -> dict[int, int]:
        """Label → its true objects, or questions about it; only labels that occur."""

    def measure(self, weights: Weights) -> Measures:
        """The scores of all rounds: of the labels of `counts`, in that order."""

    def among(self, labels: Collection[int]) -> Evidence:
        """The same of some labels only."""


@dataclass(frozen=True)
class Answers:
    """How many questions about each image were answered rightly, of how many: both (images, labels)."""

    right: NDArray[np.int64]
    asked: NDArray[np.int64]

    @property
    def images(self) -> int:
        return len(self.asked)

    @property
    def size(self) -> int:
        return int(self.asked.size)

    @cached_property
    def counts(self) -> dict[int, int]:
        return {label: int(asked) for label, asked in enumerate(self.asked.sum(axis=0)) if asked}

    def measure(self, weights: Weights) -> Measures:
        """Shares of right answers; of all 0 in a round without any question."""
        labels = list(self.counts)
        right, asked = (each[:, labels].T.astype(np.float32) @ weights for each in (self.right, self.asked))
        share = np.where(asked > 0, right / np.maximum(asked, 1), np.nan).astype(np.float64)
        return right.sum(axis=0).astype(np.float64) / np.maximum(asked.sum(axis=0), 1), share

    def among(self, labels: Collection[int]) -> Answers:
        kept = np.isin(np.arange(self.asked.shape[1]), list(labels))
        return Answers(self.right * kept, self.asked * kept)


@dataclass(frozen=True)
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
        return self.images + len(self._curves.image) + 4 * self._curves.hits.size

    @cached_property
    def counts(self) -> dict[int, int]:
        return {
            int(label): int(count) for label, count in zip(*np.unique(self.truths, return_counts=True), strict=True)
        }

    def measure(self, weights: Weights) -> Measures:
        """mAP50-95 of each label, and the mean of those that occur in a round; 0 in a round without any object.

        The area under each curve is exact, while ultralytics samples it at 101 points: they differ by less than
        0.01. An object in the copies of one image is one step of the curve.
        """
        curves, labels = self._curves, list(self.counts)
        there = np.stack([weights[self.truth_image[self.truths == label]].sum(axis=0) for label in labels] or [[]])
        if not labels:
            return np.zeros(weights.shape[1]), np.zeros((0, weights.shape[1]))
        average = np.zeros(there.shape)
        if len(curves.right):
            area = curves.areas(weights)
            average[curves.labels] = area / np.maximum(there[curves.labels], 1)
        occurs = there > 0
        mean = (average * occurs).sum(axis=0) / np.maximum(occurs.sum(axis=0), 1)
        return mean, np.where(occurs, average, np.nan)

    def among(self, labels: Collection[int]) -> Objects:
        found, true = np.isin(self.classes, list(labels)), np.isin(self.truths, list(labels))
        return Objects(
            self.images,
            self.image[found],
            self.hits[found],
            self.scores[found],
            self.classes[found],
            self.truth_image[true],
            self.truths[true],
        )

    @cached_property
    def _curves(self) -> _Curves:
        return _Curves.of(self)


@dataclass(frozen=True)
class _Curves:
    """The found objects of all labels in one row, label by label, the best score of each first.

    What comes after a label's last hit changes nothing and is left out, and so is a label without a hit.

    Attributes:
        image: (found,) the image of each.
        right: (right,) which of them hit at some threshold.
        hits: (right, thresholds).
        labels: (present,) which labels of `Objects.counts` there are.
        before: (present,) where each label begins among `right`.
        start: (right,) where the label of each begins among all found.
        rank: (right,) the place of the label of each among `labels`.
    """

    image: NDArray[np.int64]
    right: NDArray[np.int64]
    hits: NDArray[np.bool_]
    labels: NDArray[np.int64]
    before: NDArray[np.int64]
    start: NDArray[np.int64]
    rank: NDArray[np.int64]

    @classmethod
    def of(cls, given: Objects) -> _Curves:
        rows: list[NDArray[np.int64]] = []
        right: list[NDArray[np.int64]] = []
        labels: list[int] = []
        starts: list[int] = []
        length = 0
        order = np.lexsort((-given.scores, given.classes))
        bounds = np.searchsorted(given.classes[order], list(given.counts), side="left")
        ends = np.searchsorted(given.classes[order], list(given.counts), side="right")
        hit: NDArray[np.bool_] = np.any(given.hits, axis=1)
        for number, (first, last) in enumerate(zip(bounds, ends, strict=True)):
            mine = order[first:last]
            hitting = np.flatnonzero(hit[mine])
            if len(hitting):
                labels.append(number)
                starts.append(length)
                right.append(hitting + length)
                rows.append(mine[: hitting[-1] + 1])
                length += len(rows[-1])
        sizes = np.array([len(each) for each in right], np.int64)
        row = np.concatenate([np.zeros(0, np.int64), *rows])
        all_right = np.concatenate([np.zeros(0, np.int64), *right])
        return cls(
            image=given.image[row],
            right=all_right,
            hits=given.hits[row[all_right]],
            labels=np.array(labels, np.int64),
            before=np.cumsum(sizes) - sizes,
            start=np.repeat(np.array(starts, np.int64), sizes),
            rank=np.repeat(np.arange(len(sizes)), sizes),
        )

    def areas(self, weights: Weights) -> NDArray[np.float64]:
        """Area under each label's curve times its true objects, mean of all thresholds: (present, rounds)."""
        drawn = weights[self.image]
        total = np.cumsum(drawn, axis=0)
        # Of the objects found of this label so far; how many were before it is taken away.
        found = total[self.right] - (total[self.start] - drawn[self.start])
        new = drawn[self.right]
        here = np.zeros(new.shape, np.float32)
        floor = (self.rank.max() - self.rank)[:, None].astype(np.float32)
        sizes = np.diff([*self.before, len(self.right)])
        for column in self.hits.T:
            step = new * column[:, None]
            sums = np.cumsum(step, axis=0)
            sums -= np.repeat(sums[self.before] - step[self.before], sizes, axis=0)
            # The best precision from here on: a label that comes later is lifted by less, so it never counts.
            precision = sums / np.maximum(found, 1) + floor
            envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1] - floor
            here += step * envelope
        return np.add.reduceat(here, self.before, axis=0).astype(np.float64) / self.hits.shape[1]


@dataclass(frozen=True, slots=True)
class Draws:
    """How often each image is drawn in each round: whole groups are, as many as there are.

    Attributes:
        groups: (images,) the number of each image's group, from 0.
        seed: the same one draws the same.
        rounds: how often they are drawn.
    """

    groups: NDArray[np.int64]
    seed: int = 0
    rounds: int = ROUNDS

    @classmethod
    def of(cls, names: Sequence[Hashable], seed: int = 0, rounds: int = ROUNDS) -> Draws:
        """From the name of each image's group."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return cls(np.array([numbers[name] for name in names], np.int64), seed, rounds)

    @property
    def count(self) -> int:
        """Number of groups."""
        return int(self.groups.max(initial=-1)) + 1

    def within(self, *evidence: Evidence) -> Draws:
        """The same, of fewer rounds where all would take long."""
        size = max((each.size for each in evidence), default=1)
        return replace(self, rounds=min(self.rounds, max(FEWEST_ROUNDS, int(WORK / max(size, 1)))))

    def weights(self) -> Weights:
        """(images, 1 + rounds): first all images as they are."""
        random = np.random.default_rng(self.seed)
        drawn = random.multinomial(self.count, np.full(self.count, 1 / self.count), self.rounds)
        rows = np.concatenate([np.ones((1, self.count), np.int64), drawn]).astype(np.float32)
        return np.ascontiguousarray(rows.T[self.groups])


def measure(evidence: Evidence, weights: Weights) -> Measures:
    """`Evidence.measure`, so many rounds at a time as memory allows."""
    together = max(1, int(AT_ONCE / max(evidence.size, 1)))
    parts = [
        evidence.measure(np.ascontiguousarray(weights[:, first : first + together]))
        for first in range(0, weights.shape[1], together)
    ]
    return np.concatenate([each for each, _ in parts]), np.concatenate([each for _, each in parts], axis=1)


def standard_error(rounds: NDArray[np.float64], groups: int) -> float:
    """Of a number, from its values in all rounds: (rounds,); NaN ones do not count.

    Drawing n groups of n shows (n - 1) / n of the variance. Infinite where one group or no round is left.
    """
    known = rounds[np.isfinite(rounds)]
    if groups < 2 or len(known) < 2:
        return math.inf
    return float(known.std(ddof=1)) * math.sqrt(groups / (groups - 1))
