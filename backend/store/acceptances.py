"""The annotations that `yoloop accept` made, until they are taken back."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.store.contents import content_hash
from backend.store.database import MOST_NAMED, Store
from backend.store.dialect import upsert
from backend.store.leases import Lease, held
from backend.store.tables import acceptances as table
from backend.store.tables import removed_annotations


@dataclass(frozen=True, slots=True)
class AcceptedAnnotation:
    """One annotation as a run made it: `regions` is how many it has, `content` what they say, `accepted_at` epoch
    seconds."""

    annotation_id: int
    run: str
    task_id: int
    content: str
    regions: int
    accepted_at: float


class Acceptances:
    def __init__(self, store: Store) -> None:
        self._store = store

    def of_run(self, uid: str, run: str) -> list[AcceptedAnnotation]:
        """What a run made, by the annotations' ids."""
        mine = table.select().where(table.c.uid == uid, table.c.run == run).order_by(table.c.annotation_id)
        with self._store.engine.connect() as db:
            return [
                AcceptedAnnotation(row.annotation_id, row.run, row.task_id, row.content, row.regions, row.accepted_at)
                for row in db.execute(mine)
            ]

    def save(self, uid: str, made: AcceptedAnnotation) -> None:
        with self._store.write() as db:
            upsert(db, table, {"uid": uid, **asdict(made)})

    def adopt(
        self,
        uid: str,
        made: Sequence[AcceptedAnnotation],
        tasks: Iterable[TaskRecord],
        lease: Lease | None = None,
    ) -> frozenset[int]:
        """Write down what is not known yet; of an id that Label Studio gave out again, for another task, anew.

        Returns what `unchanged` says of the tasks thereafter.
        """
        with self._store.write() as db:
            held(db, lease)
            for each in made:
                upsert(db, table, {"uid": uid, **asdict(each)}, where=table.c.task_id != each.task_id)
            return unchanged(db, uid, tasks)

    def keep_copy(self, uid: str, run: str, task_id: int, annotation: AnnotationRecord, now: float) -> None:
        """Keep what is about to be deleted in Label Studio."""
        said = json.loads(json.dumps(asdict(annotation), default=str))
        row = {"uid": uid, "annotation_id": annotation.id, "removed_at": now, "task_id": task_id, "run": run}
        with self._store.write() as db:
            db.execute(removed_annotations.insert().values(**row, annotation=said))

    def drop_copy(self, uid: str, annotation_id: int, now: float) -> None:
        """Forget the copy of that time: the annotation stays."""
        copy = {"uid": uid, "annotation_id": annotation_id, "removed_at": now}
        with self._store.write() as db:
            db.execute(removed_annotations.delete().filter_by(**copy))

    def remove(self, uid: str, annotation_id: int) -> None:
        with self._store.write() as db:
            db.execute(table.delete().where(table.c.uid == uid, table.c.annotation_id == annotation_id))


def forget_tasks(db: sa.Connection, uid: str, task_ids: Collection[int]) -> None:
    """Forget the annotations of tasks that are gone."""
    db.execute(table.delete().where(table.c.uid == uid, table.c.task_id.in_(task_ids)))


def unchanged(db: sa.Connection, uid: str, tasks: Iterable[TaskRecord]) -> frozenset[int]:
    """Ids of the tasks' annotations that `yoloop accept` made and that nobody has changed since.

    They say what a version thought of itself, so it must not learn from them.
    """
    there = {each.id: (task.id, each) for task in tasks for each in task.annotations}
    made = table.select().where(table.c.uid == uid)
    if len(there) <= MOST_NAMED:  # a database takes only so many variables
        made = made.where(table.c.annotation_id.in_(there))
    found = set[int]()
    for row in db.execute(made) if there else ():
        if row.annotation_id not in there:
            continue
        task_id, annotation = there[row.annotation_id]
        if row.task_id == task_id and row.content == content_hash({}, annotation.result):
            found.add(row.annotation_id)
    return frozenset(found)
