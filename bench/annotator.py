"""A simulated annotator: turns suggested boxes into the true ones and counts what that takes.

One action each: drawing a box, deleting one, moving one, giving one another label. What is right stays untouched, but
is looked at as everything else that is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.settings import ActionSeconds

SAME = 0.5
"""Intersection over union from which a suggestion is kept and corrected, not deleted and drawn anew."""

GOOD = 0.7
"""Intersection over union from which a box stays where it is."""


@dataclass(frozen=True, slots=True)
class Box:
    """A labelled box: left, top, right, bottom, in any unit, so long as all boxes of an image share it."""

    label: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Effort:
    """What was done. `accepted` suggestions stayed as they were, so they are no actions; `looked_at` are all shown."""

    drawn: int = 0
    deleted: int = 0
    moved: int = 0
    relabelled: int = 0
    accepted: int = 0
    looked_at: int = field(default=0, compare=False)

    @property
    def actions(self) -> int:
        return self.drawn + self.deleted + self.moved + self.relabelled

    def seconds(self, costs: ActionSeconds) -> float:
        """What a person takes for it."""
        return (
            self.drawn * costs.draw
            + self.looked_at * costs.look
            + self.deleted * costs.delete
            + self.moved * costs.move
            + self.relabelled * costs.relabel
        )

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            self.drawn + other.drawn,
            self.deleted + other.deleted,
            self.moved + other.moved,
            self.relabelled + other.relabelled,
            self.accepted + other.accepted,
            self.looked_at + other.looked_at,
        )


def correct(suggested: Sequence[Box], truth: Sequence[Box]) -> Effort:
    """What it takes to make the truth of the suggestions.

    Pairs are made greedily, the largest overlap first, whatever the labels; of equal overlaps the one with the same
    label. A pair may need moving and another label, which are two actions.
    """
    pairs = sorted(
        (
            (overlap, suggested[row].label == truth[column].label, -row, -column)
            for row in range(len(suggested))
            for column in range(len(truth))
            if (overlap := iou(suggested[row], truth[column])) >= SAME
        ),
        reverse=True,
    )
    rows, columns = set[int](), set[int]()
    moved = relabelled = accepted = 0
    for overlap, same, row, column in pairs:
        if row in rows or column in columns:
            continue
        rows.add(row)
        columns.add(column)
        moved += overlap < GOOD
        relabelled += not same
        accepted += same and overlap >= GOOD
    return Effort(len(truth) - len(columns), len(suggested) - len(rows), moved, relabelled, accepted, len(suggested))


def iou(left: Box, right: Box) -> float:
    """Intersection over union, in [0, 1]; 0 where one of them has no area."""
    width = min(left.x2, right.x2) - max(left.x1, right.x1)
    height = min(left.y2, right.y2) - max(left.y1, right.y1)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(left) + _area(right) - shared)


def boxes_of(result: Iterable[Mapping[str, Any]]) -> list[Box]:
    """The upright boxes among Label Studio's regions, in percent of the image's sides."""
    found = []
    for region in result:
        value = region["value"]
        if region["type"] == "rectanglelabels":
            x, y = value["x"], value["y"]
            found.append(Box(value["rectanglelabels"][0], x, y, x + value["width"], y + value["height"]))
    return found


def _area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)
