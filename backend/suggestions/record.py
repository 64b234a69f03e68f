"""Takes note of what became of suggestions, as tasks are read from Label Studio and before anything learns from them.

So every annotation first judges the suggestion that it was made from, and only then teaches. What `yoloop accept`
made judges nothing while nobody has changed it, and neither does what Label Studio's own action made of
predictions that nobody looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from backend.fit.ledger import accepted_unchanged, content_hash, teaching_annotation
from backend.labelstudio.records import AnnotationRecord, PredictionRecord, TaskRecord
from backend.store import Store
from backend.suggestions.outcomes import outcomes
from backend.suggestions.selection import run_of
from backend.tables import acceptances
from backend.tables import outcomes as outcomes_table
from backend.tables import shown as shown_table

AT_ONCE = timedelta(seconds=1)
"""An annotation that was changed no later than this after it was made was never changed: Label Studio writes both
times one after the other."""


def record(store: Store, uid: str, tasks: Sequence[TaskRecord], controls: Collection[str] | None = None) -> None:
    """Write down which suggestion each teaching annotation was made from and what became of it; safe to repeat.

    A changed annotation's rows are replaced. Rows that name a version stay when Label Studio has forgotten, with a
    removed prediction, which one it was.

    Args:
        controls: names of the tags that count; None: all.
    """
    with store.write() as db:
        _adopt(db, uid, tasks)
        left_out = accepted_unchanged(db, uid, tasks)
        for task in tasks:
            annotation = teaching_annotation(task.annotations, left_out)
            if annotation is None:
                continue
            prediction = shown_to(annotation, task.predictions)
            if prediction is None:
                _write(db, uid, task.id, annotation, "", [])
            elif not nobody_looked(annotation, prediction):
                found = outcomes(prediction.result, annotation.result, controls)
                rows = {each.region_id: {name: getattr(each, name) for name in _COLUMNS} for each in found}
                _write(db, uid, task.id, annotation, prediction.version, list(rows.values()))


def shown_to(annotation: AnnotationRecord, predictions: Sequence[PredictionRecord]) -> PredictionRecord | None:
    """The prediction that an annotation was made from: the one it names, else the newest of those whose regions it
    holds most of."""
    named = next((each for each in predictions if each.id == annotation.parent_prediction), None)
    if named is not None:
        return named
    ids = _ids(annotation.result)
    ranked = sorted(predictions, key=lambda each: (len(ids & _ids(each.result)), each.created_at, each.id))
    return ranked[-1] if ranked and ids & _ids(ranked[-1].result) else None


def nobody_looked(annotation: AnnotationRecord, prediction: PredictionRecord) -> bool:
    """Whether Label Studio's "Create Annotations From Predictions" made it: no time spent, no region with an origin,
    and the very regions of the prediction."""
    if annotation.lead_time is not None or any("origin" in region for region in annotation.result):
        return False
    return content_hash({}, annotation.result) == content_hash({}, prediction.result)


_COLUMNS = ("region_id", "control", "label", "outcome", "score", "iou")


def _adopt(db: sa.Connection, uid: str, tasks: Sequence[TaskRecord]) -> None:
    """Take up again the annotations of an acceptance that ended before it could write them down."""
    for task in tasks:
        for each in task.annotations:
            run = run_of(each.result)
            if run and each.updated_at - each.created_at <= AT_ONCE:
                row = accepted_row(uid, run, task.id, each, each.created_at.timestamp())
                known = insert(acceptances).values(row)
                stale = acceptances.c.task_id != task.id  # Label Studio gives ids of deleted annotations out again
                db.execute(known.on_conflict_do_update(index_elements=["uid", "annotation_id"], set_=row, where=stale))


def accepted_row(uid: str, run: str, task_id: int, annotation: AnnotationRecord, now: float) -> dict[str, Any]:
    """The row of `acceptances` for an annotation as Label Studio has it."""
    return {
        "uid": uid,
        "annotation_id": annotation.id,
        "run": run,
        "task_id": task_id,
        "content": content_hash({}, annotation.result),
        "regions": len(_ids(annotation.result)),
        "accepted_at": now,
    }


def _write(
    db: sa.Connection,
    uid: str,
    task_id: int,
    annotation: AnnotationRecord,
    version: str,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    here = {"uid": uid, "annotation_id": annotation.id}
    said = {
        "task_id": task_id,
        "version": version,
        "submitted_at": annotation.created_at.timestamp(),
        "lead_time": annotation.lead_time,
    }
    before = db.execute(sa.select(shown_table).filter_by(**here)).one_or_none()
    same = before is not None and (before.task_id, before.submitted_at) == (task_id, said["submitted_at"])
    if before is not None and same and before.version and not version:
        return
    db.execute(outcomes_table.delete().filter_by(**here))
    db.execute(
        insert(shown_table)
        .values(here | said)
        .on_conflict_do_update(index_elements=["uid", "annotation_id"], set_=said)
    )
    if rows:
        db.execute(outcomes_table.insert(), [{**here, **row} for row in rows])


def _ids(result: Sequence[Mapping[str, Any]]) -> set[str]:
    return {region["id"] for region in result if isinstance(region.get("id"), str)}
