"""What it takes a person to turn suggestions into the truth, action by action.

Actions are those that `backend.feedback.outcomes` finds in Label Studio: a missed object is drawn, a wrong suggestion
is deleted, one that overlaps its object too little is moved, one with another label is relabelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.feedback.outcomes import RIGHT_IOU

KEPT_IOU = 0.5
"""Intersection over union from which a suggestion is kept and corrected, rather than deleted and its object drawn."""


@dataclass(frozen=True, slots=True)
class Corrections:
    """How often each action is taken."""

    drawn: int = 0
    deleted: int = 0
    moved: int = 0
    relabelled: int = 0

    def __add__(self, other: Corrections) -> Corrections:
        return Corrections(
            self.drawn + other.drawn,
            self.deleted + other.deleted,
            self.moved + other.moved,
            self.relabelled + other.relabelled,
        )


Work = Callable[[Corrections], float]
"""What corrections cost."""


def actions(made: Corrections) -> float:
    """Each action counts one."""
    return made.drawn + made.deleted + made.moved + made.relabelled


def corrections(overlap: NDArray[np.float64], suggested: Sequence[int], truth: Sequence[int]) -> Corrections:
    """What it takes to turn the suggestions on one image into its true objects.

    Pairs are made greedily, the largest overlap first, whatever the labels; of equal overlaps the one with the same
    label. A pair may need moving and another label, which are two actions.

    Args:
        overlap: (suggested, true) similarity of each pair, in [0, 1]. All 1: answers about the whole image, of which a
            wrong one is changed into a missing one.
        suggested, truth: the labels of either.
    """
    pairs = sorted(
        (-overlap[row, column], suggested[row] != truth[column], row, column)
        for row, column in np.argwhere(overlap >= KEPT_IOU).tolist()
    )
    rows, columns = set[int](), set[int]()
    moved = relabelled = 0
    for less, other, row, column in pairs:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            moved += bool(-less < RIGHT_IOU)
            relabelled += bool(other)
    return Corrections(len(truth) - len(columns), len(suggested) - len(rows), moved, relabelled)
