"""What suggestions were worth so far: counted by version, label and score, over time, and in a person's seconds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backend.feedback.outcomes import RIGHT_IOU
from backend.feedback.precision import Precision
from backend.served_models.version_string import may_be_ours
from backend.store.database import Store
from backend.store.outcomes import BinCount, Outcomes

WINDOW = 20
"""Annotations that one point of a curve stands for."""

BINS = 10

ENOUGH = 20
"""Suggestions of a version that say by themselves what to expect of more."""

Percents = dict[int, Precision]
"""Suggestions by their score: whole percent, rounded down, → how many were right."""


@dataclass(frozen=True, slots=True)
class Bin:
    """What became of the suggestions of one version for one label with a score in [low, high), 1 included at the end.

    Without scores `low` and `high` are None: there stand the missed regions, and suggestions that came without one.
    `moved_iou` is the mean of those that were moved, None where there is none.
    """

    version: str
    label: str
    low: float | None
    high: float | None
    accepted: int
    moved: int
    moved_iou: float | None
    relabelled: int
    deleted: int
    missed: int
    precision: Precision

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"precision": self.precision.as_json()}


@dataclass(frozen=True, slots=True)
class Window:
    """Annotations of one version's suggestions that were submitted one after the other, at most `WINDOW`.

    Attributes:
        start, end: epoch seconds of the first and the last one's submission.
        precision: suggestions that were right, of all that were shown.
        recall: suggestions that were right, of all regions that there truly were.
    """

    version: str
    annotations: int
    start: float
    end: float
    precision: Precision
    recall: Precision

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"precision": self.precision.as_json(), "recall": self.recall.as_json()}


@dataclass(frozen=True, slots=True)
class LeadTime:
    """Median seconds that an annotation took, with a suggestion to start from and without; None: there was none."""

    with_suggestions: float | None
    annotations_with: int
    without: float | None
    annotations_without: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SuggestionStatistics:
    bins: tuple[Bin, ...]
    curve: tuple[Window, ...]
    lead_time: LeadTime

    def as_json(self) -> dict[str, Any]:
        return {
            "bins": [each.as_json() for each in self.bins],
            "curve": [each.as_json() for each in self.curve],
            "lead_time": self.lead_time.as_json(),
        }


def suggestion_statistics(store: Store, uid: str) -> SuggestionStatistics:
    """All that a project's annotations say about the suggestions they were made from."""
    kept = Outcomes(store, RIGHT_IOU)
    bins = [_bin(count) for count in kept.bins(uid, BINS)]
    curve = [
        Window(
            count.version,
            count.annotations,
            count.start,
            count.end,
            Precision(count.right, count.suggested),
            Precision(count.right, count.true),
        )
        for count in kept.windows(uid, WINDOW)
    ]
    return SuggestionStatistics(tuple(bins), tuple(curve), _lead_time(kept.lead_times(uid)))


def last_version(store: Store, uid: str) -> str:
    """The version of yoloop's whose suggestion was corrected last; empty when none was."""
    return next((version for version in Outcomes(store, RIGHT_IOU).versions(uid) if may_be_ours(version)), "")


def by_percent(store: Store, uid: str, version: str | None = None) -> dict[str, Percents]:
    """Label → its suggestions by score, of one version, or of all of yoloop's together."""
    found: dict[str, Percents] = {}
    for count in Outcomes(store, RIGHT_IOU).by_percent(uid):
        if may_be_ours(count.version) and version in (None, count.version):
            there = found.setdefault(count.label, {})
            before = there.get(count.percent, Precision(0, 0))
            there[count.percent] = Precision(before.right + count.right, before.shown + count.shown)
    return found


def at_or_above(store: Store, uid: str, least: Mapping[str, float], version: str | None = None) -> Precision:
    """How many suggestions were right, of those with these labels and at least their label's score.

    Args:
        version: the one that counts; None: all of yoloop's together.
    """
    counts = Outcomes(store, RIGHT_IOU).at_or_above(uid, least)
    ours = [each for each in counts if may_be_ours(each.version) and version in (None, each.version)]
    return Precision(sum(each.right for each in ours), sum(each.shown for each in ours))


def expected(store: Store, uid: str, least: Mapping[str, float], version: str) -> tuple[Precision, str]:
    """How many suggestions were right, of those with these labels and at least their label's score, and of which
    version: `version`, or empty for all of yoloop's together where it has fewer than `ENOUGH`."""
    own = at_or_above(store, uid, least, version)
    return (own, version) if own.shown >= ENOUGH else (at_or_above(store, uid, least), "")


def _bin(count: BinCount) -> Bin:
    return Bin(
        count.version,
        count.label,
        low=None if count.part is None else count.part / BINS,
        high=None if count.part is None else (count.part + 1) / BINS,
        accepted=count.accepted,
        moved=count.moved,
        moved_iou=count.moved_iou,
        relabelled=count.relabelled,
        deleted=count.deleted,
        missed=count.missed,
        precision=Precision(count.right, count.suggested),
    )


def _lead_time(times: Sequence[tuple[str, float]]) -> LeadTime:
    helped = [seconds for version, seconds in times if version]
    alone = [seconds for version, seconds in times if not version]
    return LeadTime(
        statistics.median(helped) if helped else None,
        len(helped),
        statistics.median(alone) if alone else None,
        len(alone),
    )
