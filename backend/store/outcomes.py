"""Which suggestion each annotation was made from (`shown`), and what became of its regions (`outcomes`), counted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from backend.store.database import MOST_NAMED, Store
from backend.store.dialect import upsert
from backend.store.leases import Lease, held
from backend.store.tables import outcomes, shown

FATES = ("accepted", "moved", "relabelled", "deleted", "missed")

_SUGGESTED = outcomes.c.outcome != "missed"
_SAME = sa.and_(
    outcomes.c.uid == shown.c.uid, outcomes.c.annotation_id == shown.c.annotation_id, shown.c.ours.is_(sa.true())
)
_count = sa.func.count


@dataclass(frozen=True, slots=True)
class ShownSuggestion:
    """The suggestion that an annotation was made from; `version` empty: none. `submitted_at` is in epoch seconds,
    `lead_time` in seconds, None where Label Studio tells none."""

    annotation_id: int
    task_id: int
    version: str
    submitted_at: float
    lead_time: float | None


@dataclass(frozen=True, slots=True)
class RegionOutcome:
    """What became of one region; `iou` is that of a moved one with what was suggested."""

    region_id: str
    control: str
    label: str
    outcome: str
    score: float | None
    iou: float | None


class ScoreCount(NamedTuple):
    """Suggestions of a version for a label with a score of `percent` (whole, rounded down)."""

    version: str
    label: str
    percent: int
    right: int
    shown: int


class VersionCount(NamedTuple):
    version: str
    right: int
    shown: int


class BinCount(NamedTuple):
    """Regions of a version and a label with a score in one of `bins` equal parts, or (`part` None) without a score."""

    version: str
    label: str
    part: int | None
    right: int
    suggested: int
    accepted: int
    moved: int
    relabelled: int
    deleted: int
    missed: int
    moved_iou: float | None


class WindowCount(NamedTuple):
    """Annotations of a version that were submitted one after the other, from `start` to `end` in epoch seconds."""

    version: str
    annotations: int
    start: float
    end: float
    right: int
    suggested: int
    true: int


class Outcomes:
    """What became of suggestions, in one store. `right_iou` is the overlap from which a moved region was right."""

    def __init__(self, store: Store, right_iou: float) -> None:
        self._store = store
        self._right = sa.or_(
            outcomes.c.outcome == "accepted", sa.and_(outcomes.c.outcome == "moved", outcomes.c.iou >= right_iou)
        ).is_(True)

    def save(
        self,
        uid: str,
        judged: Iterable[tuple[ShownSuggestion, Sequence[RegionOutcome]]],
        there: Mapping[int, Collection[int]] | None = None,
        lease: Lease | None = None,
    ) -> None:
        """Write annotations down, each in place of what was written of it before.

        A row that names a version stays where the new one of the same submission names none.

        Args:
            there: task id → the ids of all its annotations: what was written of others is forgotten.
            lease: the reader's, see `leases`.
        """
        with self._store.write() as db:
            held(db, lease)
            _forget_deleted(db, uid, there or {})
            for suggestion, regions in judged:
                _save(db, uid, suggestion, regions)

    def versions(self, uid: str) -> list[str]:
        """The versions whose suggestions were shown, the one that was corrected last first."""
        newest = sa.func.max(shown.c.submitted_at)
        query = sa.select(shown.c.version).where(*_ours(uid)).group_by(shown.c.version).order_by(newest.desc())
        with self._store.engine.connect() as db:
            return list(db.scalars(query))

    def by_percent(self, uid: str) -> list[ScoreCount]:
        """Suggestions with a score, by version, label and percent; in the order of the labels."""
        percent = sa.cast(outcomes.c.score * 100 + 1e-6, sa.Integer)
        query = (
            sa.select(shown.c.version, outcomes.c.label, percent, _count().filter(self._right), _count())
            .join_from(outcomes, shown, _SAME)
            .where(outcomes.c.uid == uid, _SUGGESTED, outcomes.c.score.is_not(None))
            .group_by(shown.c.version, outcomes.c.label, percent)
            .order_by(outcomes.c.label)
        )
        with self._store.engine.connect() as db:
            return [ScoreCount(*row) for row in db.execute(query)]

    def at_or_above(self, uid: str, least: Mapping[str, float]) -> list[VersionCount]:
        """Suggestions with these labels and at least their label's score, by version."""
        sure = [sa.and_(outcomes.c.label == label, outcomes.c.score >= score) for label, score in least.items()]
        query = (
            sa.select(shown.c.version, _count().filter(self._right), _count())
            .join_from(outcomes, shown, _SAME)
            .where(outcomes.c.uid == uid, _SUGGESTED, sa.or_(sa.false(), *sure))
            .group_by(shown.c.version)
        )
        with self._store.engine.connect() as db:
            return [VersionCount(*row) for row in db.execute(query)]

    def bins(self, uid: str, bins: int) -> list[BinCount]:
        """What became of all regions, by version, label and part of the scores."""
        scaled = sa.cast(outcomes.c.score * bins + 1e-6, sa.Integer)
        part = sa.case((scaled > bins - 1, bins - 1), else_=scaled)
        fates: list[Any] = [_count().filter(outcomes.c.outcome == fate) for fate in FATES]
        moved_iou = sa.func.avg(outcomes.c.iou).filter(outcomes.c.outcome == "moved")
        key = (shown.c.version, outcomes.c.label, part)
        query = (
            sa.select(*key, _count().filter(self._right), _count().filter(_SUGGESTED), *fates, moved_iou)
            .join_from(outcomes, shown, _SAME)
            .where(outcomes.c.uid == uid)
            .group_by(*key)
            .order_by(*key)
        )
        with self._store.engine.connect() as db:
            return [BinCount(*row) for row in db.execute(query)]

    def windows(self, uid: str, size: int) -> list[WindowCount]:
        """Annotations that were made from suggestions, `size` of a version at a time, in the order of submission."""
        order = sa.func.row_number().over(
            partition_by=shown.c.version, order_by=(shown.c.submitted_at, shown.c.annotation_id)
        )
        numbered = (
            sa.select(shown, ((order - 1) // size).label("window")).where(*_ours(uid), shown.c.version != "").subquery()
        )
        said = sa.and_(outcomes.c.uid == numbered.c.uid, outcomes.c.annotation_id == numbered.c.annotation_id)
        start = sa.func.min(numbered.c.submitted_at)
        query = (
            sa.select(
                numbered.c.version,
                _count(numbered.c.annotation_id.distinct()),
                start,
                sa.func.max(numbered.c.submitted_at),
                _count().filter(self._right),
                _count().filter(_SUGGESTED),
                _count().filter(outcomes.c.outcome != "deleted"),
            )
            .join_from(numbered, outcomes, said, isouter=True)
            .group_by(numbered.c.version, numbered.c.window)
            .order_by(start, numbered.c.version, numbered.c.window)
        )
        with self._store.engine.connect() as db:
            return [WindowCount(*row) for row in db.execute(query)]

    def lead_times(self, uid: str) -> list[tuple[str, float]]:
        """Version (empty: no suggestion was shown) and seconds of each annotation of which Label Studio tells them."""
        query = sa.select(shown.c.version, shown.c.lead_time).where(*_ours(uid), shown.c.lead_time.is_not(None))
        with self._store.engine.connect() as db:
            return [(row.version, row.lead_time) for row in db.execute(query)]


def _ours(uid: str) -> tuple[sa.ColumnElement[bool], ...]:
    return shown.c.uid == uid, shown.c.ours.is_(sa.true())


def forget_tasks(db: sa.Connection, uid: str, task_ids: Collection[int]) -> None:
    """Forget what became of suggestions for tasks that are gone."""
    _forget(db, uid, sa.select(shown.c.annotation_id).where(shown.c.uid == uid, shown.c.task_id.in_(task_ids)))


def _forget_deleted(db: sa.Connection, uid: str, there: Mapping[int, Collection[int]]) -> None:
    """Forget what was written of annotations that are not among those of their tasks any more."""
    tasks = list(there)
    for some in (tasks[start : start + MOST_NAMED] for start in range(0, len(tasks), MOST_NAMED)):
        query = sa.select(shown.c.annotation_id, shown.c.task_id).where(shown.c.uid == uid, shown.c.task_id.in_(some))
        gone = [annotation for annotation, task in db.execute(query).all() if annotation not in there[task]]
        for place in range(0, len(gone), MOST_NAMED):
            _forget(db, uid, gone[place : place + MOST_NAMED])


def _forget(db: sa.Connection, uid: str, annotations: Any) -> None:
    db.execute(outcomes.delete().where(outcomes.c.uid == uid, outcomes.c.annotation_id.in_(annotations)))
    db.execute(shown.delete().where(shown.c.uid == uid, shown.c.annotation_id.in_(annotations)))


def _save(db: sa.Connection, uid: str, suggestion: ShownSuggestion, regions: Sequence[RegionOutcome]) -> None:
    here = {"uid": uid, "annotation_id": suggestion.annotation_id}
    before = db.execute(sa.select(shown).filter_by(**here)).one_or_none()
    now = (suggestion.task_id, suggestion.submitted_at)
    same = before is not None and (before.task_id, before.submitted_at) == now
    if before is not None and same and before.version and not suggestion.version:
        return
    db.execute(outcomes.delete().filter_by(**here))
    upsert(db, shown, here | asdict(suggestion) | {"ours": True})
    rows = {each.region_id: here | asdict(each) for each in regions}
    if rows:
        db.execute(outcomes.insert(), list(rows.values()))
