"""A candidate held against others on the same images, each time on the labels that both know."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from backend.fit.evaluation.bootstrap import Draws
from backend.fit.evaluation.comparison import Resampled, between
from backend.fit.evaluation.metrics import Tally, metric_of
from backend.labels.networks import Network
from model_registry import Scored


class Arena:
    """The candidate, and the groups of images that are drawn.

    Args:
        candidate: what it made of the held-out images.
        network: what is compared.
        draws: the group of each of those images.
    """

    def __init__(self, candidate: Tally, network: Network, draws: Draws) -> None:
        self._candidate, self._network, self._draws = candidate, network, draws

    def scored(self) -> Scored:
        """What the candidate does on all its labels."""
        found = self._candidate.findings(range(len(self._network.classes)))
        score = 0.0
        if self._draws.count:
            once = np.ones((found.evidence.images, 1), np.float32)
            score = float(found.evidence.measure(once)[0][0])
        return Scored(
            metric=metric_of(self._network.task),
            score=score,
            work=float(found.work.sum()),
            images=found.evidence.images,
            objects=sum(found.evidence.counts.values()),
        )

    def against(self, name: str, other: Tally) -> dict[str, Any] | None:
        """A `Comparison` as JSON; None without any image.

        Args:
            name: of the other version.
        """
        if not self._draws.count:
            return None
        classes = self._network.classes
        shared = [index for index in range(len(classes)) if index in other.known & self._candidate.known]
        ours, theirs = self._candidate.findings(shared), other.findings(shared)
        draws = self._draws.within(ours.evidence, theirs.evidence)
        return between(
            Resampled.of(ours, draws),
            Resampled.of(theirs, draws),
            against=name,
            shared=[classes[index] for index in shared],
            added=[classes[index] for index in self._news(shared)],
            counts={classes[index]: count for index, count in ours.evidence.counts.items()},
            images=ours.evidence.images,
            groups=draws.count,
        ).dump()

    def _news(self, shared: Collection[int]) -> list[int]:
        """What only the candidate knows: labels that it suggests here, or that are to be found here."""
        there = self._candidate.suggests | set(self._candidate.evidence().counts)
        return sorted((there & self._candidate.known) - set(shared))
