"""Takes note of what became of suggestions, as tasks are read from Label Studio and before anything learns from them.

So every annotation first judges the suggestion that it was made from, and only then teaches. What `yoloop accept`
made judges nothing while nobody has changed it, and neither does what Label Studio's own action made of
predictions that nobody looked at, nor what was made from another model's predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from backend.feedback.outcomes import RIGHT_IOU, Outcome, outcomes
from backend.feedback.selection import run_of
from backend.labelstudio.records import AnnotationRecord, PredictionRecord, TaskRecord
from backend.served_models.version_string import made_here
from backend.store.acceptances import Acceptances, AcceptedAnnotation
from backend.store.contents import content_hash
from backend.store.database import Store, whole
from backend.store.leases import Lease
from backend.store.ledger import teaching_annotation
from backend.store.outcomes import Outcomes, RegionOutcome, ShownSuggestion

AT_ONCE = timedelta(seconds=1)
"""Between the times of making and of changing an annotation, as Label Studio writes them, when nobody changed it."""


def record(
    store: Store,
    uid: str,
    tasks: Sequence[TaskRecord],
    controls: Collection[str] | None = None,
    lease: Lease | None = None,
    trained: Callable[[], Collection[int]] = tuple,
) -> None:
    """Write down which suggestion each teaching annotation was made from and what became of it; safe to repeat.

    A changed annotation's rows are replaced, a deleted one's go. Rows that name a version stay when Label Studio has
    forgotten, with a removed prediction, which one it was.

    Args:
        controls: names of the tags that count; None: all.
        lease: the reader's, see `backend.store.leases`.
        trained: gives the numbers of the project's versions, by which a suggestion of 0.7 is told from others'.
    """
    left_out = Acceptances(store).adopt(uid, _made_by_accepting(tasks), tasks, lease)
    # Comparing masks takes time, in which nobody else should have to wait for the database.
    judged = [(task, each) for task in tasks if (each := _judged(task, left_out, controls, trained)) is not None]
    there = {task.id: {each.id for each in task.annotations} for task in tasks}
    Outcomes(store, RIGHT_IOU).save(uid, [_rows(task.id, each) for task, each in judged], there, lease)


@dataclass(frozen=True, slots=True)
class _Judged:
    """A teaching annotation, the version whose suggestion it was made from (empty: none), and what became of that."""

    annotation: AnnotationRecord
    version: str
    outcomes: Sequence[Outcome] = ()


def _judged(
    task: TaskRecord,
    left_out: Collection[int],
    controls: Collection[str] | None,
    trained: Callable[[], Collection[int]],
) -> _Judged | None:
    annotation = teaching_annotation(task.annotations, left_out)
    if annotation is None:
        return None
    prediction = shown_to(annotation, task.predictions)
    if prediction is None:
        return _Judged(annotation, "")
    if nobody_looked(annotation, prediction) or not made_here(prediction.version, prediction.result, trained):
        return None
    return _Judged(annotation, prediction.version, outcomes(prediction.result, annotation.result, controls))


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


def _made_by_accepting(tasks: Iterable[TaskRecord]) -> list[AcceptedAnnotation]:
    """The annotations of acceptances, also of one that ended before it could write them down."""
    return [
        accepted_annotation(run, task.id, each, each.created_at.timestamp())
        for task in tasks
        for each in task.annotations
        if (run := run_of(each.result))
        and each.updated_at - each.created_at <= AT_ONCE
        and _as_suggested(each, task.predictions)
    ]


def _as_suggested(annotation: AnnotationRecord, predictions: Sequence[PredictionRecord]) -> bool:
    """Whether every region is one of the prediction's, but for what accepting it adds."""
    prediction = shown_to(annotation, predictions)
    suggested = [_plain(region) for region in prediction.result] if prediction else []
    return all(_plain(region) in suggested for region in annotation.result)


def _plain(region: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in region.items() if name not in ("origin", "meta")}


def accepted_annotation(run: str, task_id: int, annotation: AnnotationRecord, now: float) -> AcceptedAnnotation:
    """An annotation as Label Studio has it, and the run that made it."""
    content, regions = content_hash({}, annotation.result), len(_ids(annotation.result))
    return AcceptedAnnotation(annotation.id, run, task_id, content, regions, now)


def _rows(task_id: int, judged: _Judged) -> tuple[ShownSuggestion, list[RegionOutcome]]:
    annotation = judged.annotation
    at = annotation.created_at.timestamp()
    return ShownSuggestion(annotation.id, task_id, whole(judged.version), at, annotation.lead_time), [
        RegionOutcome(whole(each.region_id), whole(each.control), whole(each.label), each.outcome, each.score, each.iou)
        for each in judged.outcomes
    ]


def _ids(result: Iterable[Mapping[str, Any]]) -> set[str]:
    return {region["id"] for region in result if isinstance(region.get("id"), str)}
