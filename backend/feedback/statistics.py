"""What suggestions were worth so far: counted by version, label and score, over time, and in a person's seconds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from backend.feedback.outcomes import RIGHT_IOU
from backend.feedback.precision import Precision
from backend.served_models.version_string import is_ours
from backend.store.database import Store
from backend.store.tables import outcomes, shown

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
class Worth:
    bins: tuple[Bin, ...]
    curve: tuple[Window, ...]
    lead_time: LeadTime

    def as_json(self) -> dict[str, Any]:
        return {
            "bins": [each.as_json() for each in self.bins],
            "curve": [each.as_json() for each in self.curve],
            "lead_time": self.lead_time.as_json(),
        }


_RIGHT = sa.or_(
    outcomes.c.outcome == "accepted", sa.and_(outcomes.c.outcome == "moved", outcomes.c.iou >= RIGHT_IOU)
).is_(True)
_SUGGESTED = outcomes.c.outcome != "missed"
_SAME = sa.and_(outcomes.c.uid == shown.c.uid, outcomes.c.annotation_id == shown.c.annotation_id)
_count = sa.func.count


def worth(store: Store, uid: str) -> Worth:
    """All that a project's annotations say about the suggestions they were made from."""
    with store.engine.connect() as db:
        return Worth(_bins(db, uid), _curve(db, uid), _lead_time(db, uid))


def last_version(store: Store, uid: str) -> str:
    """The version of yoloop's whose suggestion was corrected last; empty when none was."""
    newest = sa.func.max(shown.c.submitted_at)
    query = sa.select(shown.c.version).where(shown.c.uid == uid).group_by(shown.c.version).order_by(newest.desc())
    with store.engine.connect() as db:
        return next((version for version in db.scalars(query) if is_ours(version)), "")


def by_percent(store: Store, uid: str, version: str | None = None) -> dict[str, Percents]:
    """Label → its suggestions by score, of one version, or of all of yoloop's together."""
    percent = sa.cast(outcomes.c.score * 100 + 1e-6, sa.Integer)
    query = (
        sa.select(shown.c.version, outcomes.c.label, percent, _count().filter(_RIGHT), _count())
        .join_from(outcomes, shown, _SAME)
        .where(outcomes.c.uid == uid, _SUGGESTED, outcomes.c.score.is_not(None))
        .group_by(shown.c.version, outcomes.c.label, percent)
        .order_by(outcomes.c.label)
    )
    found: dict[str, Percents] = {}
    with store.engine.connect() as db:
        for name, label, score, right, suggested in db.execute(query):
            if is_ours(name) and version in (None, name):
                there = found.setdefault(label, {})
                before = there.get(score, Precision(0, 0))
                there[score] = Precision(before.right + right, before.shown + suggested)
    return found


def at_or_above(store: Store, uid: str, least: Mapping[str, float], version: str | None = None) -> Precision:
    """How many suggestions were right, of those with these labels and at least their label's score.

    Args:
        version: the one that counts; None: all of yoloop's together.
    """
    sure = [sa.and_(outcomes.c.label == label, outcomes.c.score >= score) for label, score in least.items()]
    query = (
        sa.select(shown.c.version, _count().filter(_RIGHT), _count())
        .join_from(outcomes, shown, _SAME)
        .where(outcomes.c.uid == uid, _SUGGESTED, sa.or_(sa.false(), *sure))
        .group_by(shown.c.version)
    )
    with store.engine.connect() as db:
        rows = [row for row in db.execute(query) if is_ours(row[0]) and version in (None, row[0])]
    return Precision(sum(row[1] for row in rows), sum(row[2] for row in rows))


def expected(store: Store, uid: str, least: Mapping[str, float], version: str) -> tuple[Precision, str]:
    """How many suggestions were right, of those with these labels and at least their label's score, and of which
    version: `version`, or empty for all of yoloop's together where it has fewer than `ENOUGH`."""
    own = at_or_above(store, uid, least, version)
    return (own, version) if own.shown >= ENOUGH else (at_or_above(store, uid, least), "")


def _bins(db: sa.Connection, uid: str) -> tuple[Bin, ...]:
    part = sa.func.min(sa.cast(outcomes.c.score * BINS + 1e-6, sa.Integer), BINS - 1)
    fates: dict[str, Any] = {
        fate: _count().filter(outcomes.c.outcome == fate)
        for fate in ("accepted", "moved", "relabelled", "deleted", "missed")
    }
    fates["moved_iou"] = sa.func.avg(outcomes.c.iou).filter(outcomes.c.outcome == "moved")
    key = (shown.c.version, outcomes.c.label, part)
    query = (
        sa.select(*key, _count().filter(_RIGHT), _count().filter(_SUGGESTED), *fates.values())
        .join_from(outcomes, shown, _SAME)
        .where(outcomes.c.uid == uid)
        .group_by(*key)
        .order_by(*key)
    )
    found = []
    for version, label, score, right, suggested, *numbers in db.execute(query):
        low, high = (None, None) if score is None else (score / BINS, (score + 1) / BINS)
        precision = Precision(right, suggested)
        found.append(Bin(version, label, low, high, precision=precision, **dict(zip(fates, numbers, strict=True))))
    return tuple(found)


def _curve(db: sa.Connection, uid: str) -> tuple[Window, ...]:
    order = sa.func.row_number().over(
        partition_by=shown.c.version, order_by=(shown.c.submitted_at, shown.c.annotation_id)
    )
    numbered = (
        sa.select(shown, ((order - 1) // WINDOW).label("window"))
        .where(shown.c.uid == uid, shown.c.version != "")
        .subquery()
    )
    said = sa.and_(outcomes.c.uid == numbered.c.uid, outcomes.c.annotation_id == numbered.c.annotation_id)
    right = _count().filter(_RIGHT)
    start = sa.func.min(numbered.c.submitted_at)
    query = (
        sa.select(
            numbered.c.version,
            _count(numbered.c.annotation_id.distinct()),
            start,
            sa.func.max(numbered.c.submitted_at),
            right,
            _count().filter(_SUGGESTED),
            _count().filter(outcomes.c.outcome != "deleted"),
        )
        .join_from(numbered, outcomes, said, isouter=True)
        .group_by(numbered.c.version, numbered.c.window)
        .order_by(start, numbered.c.version, numbered.c.window)
    )
    return tuple(
        Window(version, count, first, last, Precision(right, suggested), Precision(right, true))
        for version, count, first, last, right, suggested, true in db.execute(query)
    )


def _lead_time(db: sa.Connection, uid: str) -> LeadTime:
    query = sa.select(shown.c.version, shown.c.lead_time).where(shown.c.uid == uid, shown.c.lead_time.is_not(None))
    rows = db.execute(query).all()
    helped = [seconds for version, seconds in rows if version]
    alone = [seconds for version, seconds in rows if not version]
    return LeadTime(
        statistics.median(helped) if helped else None,
        len(helped),
        statistics.median(alone) if alone else None,
        len(alone),
    )
