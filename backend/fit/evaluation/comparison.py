"""A candidate against another version on the same held-out images: from what each found to numbers for the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.fit.evaluation.bootstrap import Draws, Evidence, measure, standard_error
from model_registry import Comparison, Estimate

FEWEST_OBJECTS = 30
"""Held-out objects of a label below which its own loss is not tested."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a version made of the held-out images, as far as it concerns some labels.

    Attributes:
        evidence: what its score rests on.
        work: (images,) what correcting its suggestions would cost on each.
    """

    evidence: Evidence
    work: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Resampled:
    """The numbers of `Findings` on all images, first, and on those of each round: (1 + rounds,) each."""

    score: NDArray[np.float64]
    labels: NDArray[np.float64]
    work: NDArray[np.float64]

    @classmethod
    def of(cls, found: Findings, draws: Draws) -> Resampled:
        weights = draws.weights()
        score, labels = measure(found.evidence, weights)
        return cls(score, labels, found.work.astype(np.float64) @ weights)


def between(
    candidate: Resampled,
    other: Resampled,
    *,
    against: str,
    shared: Sequence[str],
    added: Sequence[str],
    counts: Mapping[str, int],
    images: int,
    groups: int,
) -> Comparison:
    """The comparison of two versions that were measured in the same rounds.

    Args:
        against: name of the other version.
        shared: the labels that both know, and were measured on.
        added: those that only the candidate knows.
        counts: label → its objects, of those that occur, in the order of `Resampled.labels`.
    """

    def estimate(one: NDArray[np.float64], two: NDArray[np.float64], more_is_worse: bool = False) -> Estimate:
        error = standard_error((one - two)[1:], groups)
        known = np.isfinite(error)
        return Estimate(
            float(one[0]), float(two[0]), float(error) if known else 0.0, groups - 1 if known else 0, more_is_worse
        )

    return Comparison(
        against=against,
        labels=tuple(shared),
        added=tuple(added),
        images=images,
        groups=groups,
        objects=sum(counts.values()),
        score=estimate(candidate.score, other.score),
        work=estimate(candidate.work, other.work, more_is_worse=True),
        by_label={
            label: estimate(candidate.labels[row], other.labels[row])
            for row, (label, count) in enumerate(counts.items())
            if count >= FEWEST_OBJECTS
        },
    )
