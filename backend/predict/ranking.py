"""The order of regions in a prediction, and the score of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def ranked(regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Regions by descending score: Label Studio's outliner keeps the order of `result`."""
    return sorted(regions, key=lambda region: -float(region["score"]))


def task_score(regions: Sequence[dict[str, Any]]) -> float:
    """How sure the model is of the whole image: the mean score of its regions, in [0, 1]; 0 without any.

    Label Studio's uncertainty sampling opens the lowest first.
    """
    if not regions:
        return 0.0
    return sum(float(region["score"]) for region in regions) / len(regions)
