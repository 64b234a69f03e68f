"""What people would see of what a detector finds, at the threshold that is served, beside what is there."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.feedback.corrections import Corrections, corrections
from backend.labels.geometry import Detection
from backend.labels.networks import Network

DEFAULT = 0.25
"""Least score of a suggestion, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Suggested:
    """The suggestions on one image.

    Attributes:
        suggested, truth: the class of each suggestion, and of each object that is there.
        overlap: (suggested, truth) their similarity.
        scores: of each suggestion; empty where nobody asks again (see `above`).
    """

    suggested: tuple[int, ...]
    truth: tuple[int, ...]
    overlap: NDArray[np.float64]
    scores: tuple[float, ...] = ()

    def above(self, least: Sequence[float]) -> Suggested:
        """Those whose score is not below what `least` says of their class."""
        rows = [row for row, cls in enumerate(self.suggested) if self.scores[row] >= least[cls]]
        return self._rows(rows)

    def _rows(self, rows: Sequence[int]) -> Suggested:
        return Suggested(
            tuple(self.suggested[row] for row in rows),
            self.truth,
            self.overlap[rows].reshape(len(rows), len(self.truth)),
            tuple(self.scores[row] for row in rows) if self.scores else (),
        )

    def among(self, labels: Collection[int]) -> Suggested:
        """The same of some classes only."""
        rows = [row for row, cls in enumerate(self.suggested) if cls in labels]
        columns = [column for column, cls in enumerate(self.truth) if cls in labels]
        return Suggested(
            tuple(self.suggested[row] for row in rows),
            tuple(self.truth[column] for column in columns),
            self.overlap[np.ix_(rows, columns)],
        )

    def corrections(self) -> Corrections:
        """What a person would have to do here."""
        return corrections(self.overlap, self.suggested, self.truth)


@dataclass(frozen=True, slots=True)
class Shown:
    """Which of the objects on an image are suggested.

    Attributes:
        network: whose classes these are.
        thresholds: the least score of a suggestion of each class; empty: `DEFAULT`.
        most: suggestions on one image, at most; 0: any number.
    """

    network: Network
    thresholds: tuple[float, ...] = ()
    most: int = 0

    def objects(
        self, found: Sequence[Detection], truth: Sequence[Detection], overlap: NDArray[np.float64]
    ) -> Suggested:
        """Of what was found on one image.

        Args:
            overlap: (found, truth) their similarity.
        """
        rows = [row for row, each in enumerate(found) if each.score >= self._threshold(each.cls)]
        rows = sorted(rows, key=lambda row: -found[row].score)[: self.most or None]
        return Suggested(
            tuple(found[row].cls for row in rows),
            tuple(each.cls for each in truth),
            overlap[rows].reshape(len(rows), len(truth)),
            tuple(found[row].score for row in rows),
        )

    def choices(self, found: Sequence[Detection], truth: Sequence[Detection]) -> Suggested:
        """Of the scores of one image's classes: see `backend.labels.choices`. What is wrong is changed, not moved."""
        scores: dict[int, list[float]] = defaultdict(list)
        for each in found:
            if math.isfinite(each.score):
                scores[each.cls].append(each.score)
        if self.network.multiple:
            sure = [cls for cls, every in scores.items() if max(every) >= self._threshold(cls)]
        else:
            best = max(scores, key=lambda cls: math.fsum(scores[cls]), default=None)
            sure = [] if best is None or math.fsum(scores[best]) < self._threshold(best) else [best]
        chosen = tuple(dict.fromkeys(each.cls for each in truth))
        return Suggested(tuple(sure), chosen, np.ones((len(sure), len(chosen))))

    def _threshold(self, cls: int) -> float:
        return self.thresholds[cls] if self.thresholds else DEFAULT
