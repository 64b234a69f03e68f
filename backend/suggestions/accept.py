"""Turns sure suggestions into annotations in bulk, and takes them back.

Only tasks that nobody has worked on are touched. A crash at any point makes no second annotation: a task that has
one is not open any more, and an annotation whose row was not written is known by the note in its regions.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from filelock import FileLock, Timeout

from backend.errors import BadRequest, Busy, LabelStudioError, NotFound
from backend.feedback.precision import Precision
from backend.feedback.record import accepted_annotation
from backend.feedback.selection import Group, accepted, groups_of, run_of
from backend.feedback.statistics import expected
from backend.fit.sync import reach, sync
from backend.labels.schema import parse_label_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.records import AnnotationRecord, OpenTask, PredictionRecord
from backend.served_models.in_service import version_in_service
from backend.served_models.version_string import made_here, number_of
from backend.services import Services
from backend.store.acceptances import Acceptances, AcceptedAnnotation
from backend.store.contents import content_hash
from backend.store.database import Project

PAGE = 50
"""Tasks read at once: few, so that what is known of them is young when they are accepted."""

TOUCHED = "somebody began or skipped it"
ANNOTATED = "somebody annotated it meanwhile"
NO_SUGGESTION = "no suggestion of this version"
NOT_SURE = "no suggestion is sure enough"
DOUBTFUL = "doubtful suggestions beside the sure ones"
GONE = "the task or its suggestion was removed meanwhile"

Told = Callable[[int, int], None]
"""Called with the numbers of tasks that were looked at and that there are in total."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a run accepted, or would have.

    Attributes:
        run: its name, which takes it back.
        version: whose suggestions; empty: there are none.
        skipped: reason → tasks that were left alone for it.
        labels: label → accepted regions.
        left_out: label → regions that were not accepted, as they are doubtful, on tasks that have sure ones.
        partial: accepted tasks that lack such regions now.
        expected: of earlier suggestions with these labels, at or above their scores, how many were right.
        expected_of: the version whose suggestions those are; empty: all versions together.
    """

    run: str
    version: str
    dry_run: bool
    tasks: int
    regions: int
    skipped: Mapping[str, int]
    labels: Mapping[str, int]
    left_out: Mapping[str, int]
    partial: int
    expected: Precision
    expected_of: str

    def __str__(self) -> str:
        did = "Would accept" if self.dry_run else "Accepted"
        lines = [
            f"{did} {self.regions} regions on {self.tasks} tasks" + (f" ({self.version})." if self.version else ".")
        ]
        lines += [f"  {label}: {count}" for label, count in self.labels.items()]
        lines += [f"Left alone: {count} tasks, {reason}." for reason, count in self.skipped.items()]
        if left_out := sum(self.left_out.values()):
            told = ", ".join(f"{label} {count}" for label, count in self.left_out.items())
            lines.append(f"Left out: {left_out} doubtful regions on tasks that have sure ones ({told}).")
        if self.partial:
            become = "would be" if self.dry_run else "are"
            lines.append(f"{self.partial} of the accepted tasks {become} labelled in part only: those regions lack.")
        elif DOUBTFUL in self.skipped:
            lines.append("With --partial such tasks are accepted, too, labelled in part.")
        if self.tasks and self.expected.shown:
            of = self.expected_of or "all versions together"
            lines.append(f"Of such suggestions so far, by {of}: {self.expected}.")
        elif self.tasks:
            lines.append("Nobody has corrected such suggestions yet, so nothing is known of how many are right.")
        if self.tasks and not self.dry_run:
            lines.append(f"Take them back with `yoloop accept --undo {self.run}`.")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"expected": self.expected.as_json()}


@dataclass(frozen=True, slots=True)
class Undone:
    """Annotations that were removed, and those that a person has changed and that therefore stay."""

    run: str
    removed: int
    kept: int

    def __str__(self) -> str:
        kept = f"; {self.kept} stay, because somebody changed them" if self.kept else ""
        return f"Removed {self.removed} annotations of run {self.run}{kept}."

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def accept(
    services: Services,
    project: Project,
    *,
    run: str,
    now: float,
    min_score: float = 0.8,
    labels: Mapping[str, float] | None = None,
    complete_only: bool = False,
    dry_run: bool = False,
    version: str | None = None,
    told: Told = lambda done, total: None,
) -> Acceptance:
    """Accept the suggestions of all open tasks that are sure enough.

    Label Studio is read first, so that what became of earlier suggestions is known.

    Args:
        run: a name that no other run has, of letters and digits.
        now: epoch seconds.
        min_score: least score of a suggestion, in [0, 1].
        labels: label → another least score.
        complete_only: leave out tasks that have a suggestion below its least score, too. Else they are accepted
            without it: Label Studio then calls them completed, and what is not labelled teaches to see nothing there.
        dry_run: write nothing to Label Studio.
        version: whose suggestions, as yoloop's predictions carry it; None: the one in service.

    Raises BadRequest for scores and labels that cannot be, Busy while another run of the project goes on, and
    LabelStudioError; then what was accepted so far stays and can be taken back.
    """
    scores = dict(labels or {})
    _check_scores(min_score, scores)
    with _alone(services, project.uid):
        client, current = reach(services, project.uid)
        _check_labels(current, scores)
        sync(services, project.uid, now)
        trained = services.trained(project.uid)
        total, untrained = _survey(client, project.id)
        if version is None:
            version = version_in_service(services.registry, services.settings, current)
        chosen = untrained if version is None else version
        skipped, counted, left_out = Counter[str](), Counter[str](), Counter[str]()
        least: dict[str, float] = {}
        tasks = done = in_part = 0
        for page in client.open_tasks(project.id, page_size=PAGE):
            for task in page:
                prediction = _prediction(task, chosen, trained)
                groups = groups_of(prediction.result, min_score, scores) if prediction else []
                why = _reason(task, prediction, groups, complete_only)
                sure = [group for group in groups if group.sure]
                doubtful = [label for group in groups if not group.sure for label in group.objects]
                if not why and not dry_run and prediction is not None:
                    try:
                        why = _write(services, client, project, task, prediction, sure, run, now)
                    except LabelStudioError as error:
                        raise _with_remedy(error, run) from None
                if why:
                    skipped[why] += 1
                else:
                    tasks += 1
                    in_part += bool(doubtful)
                    counted.update(label for group in sure for label in group.objects)
                    least |= {label: scores.get(label, min_score) for group in sure for label in group.labels}
                if why in ("", DOUBTFUL):
                    left_out.update(doubtful)
                done += 1
                told(done, max(done, total))
    known, of = expected(services.store, project.uid, least, chosen)
    return Acceptance(
        run,
        chosen,
        dry_run,
        tasks,
        counted.total(),
        dict(skipped),
        dict(sorted(counted.items())),
        dict(sorted(left_out.items())),
        in_part,
        known,
        of,
    )


def undo(services: Services, project: Project, run: str, told: Told = lambda done, total: None) -> Undone:
    """Remove the annotations of a run, but those that a person has changed since. Safe to repeat and to interrupt.

    Raises NotFound when there is no annotation of that run, and Busy while another run of the project goes on.
    """
    with _alone(services, project.uid):
        client, _ = reach(services, project.uid)
        sync(services, project.uid, time.time())  # finds annotations whose rows were lost in a crash
        acceptances = Acceptances(services.store)
        rows = acceptances.of_run(project.uid, run)
        removed = 0
        kept = set[int]()
        for number, row in enumerate(rows, start=1):
            there = client.annotation(row.annotation_id)
            if there is not None and not _delete(client, acceptances, project, row, there):
                kept.add(row.annotation_id)
            else:
                removed += there is not None
                acceptances.remove(project.uid, row.annotation_id)
            told(number, len(rows))
        if not rows:
            kept = _changed_annotations(client, project.id, run)
        if not rows and not kept:
            raise NotFound(
                f"There is no annotation of run {run!r}.",
                "It may have been taken back already; Label Studio shows a run's name in a region's info panel.",
            )
    return Undone(run, removed, len(kept))


def _delete(
    client: LabelStudioClient,
    acceptances: Acceptances,
    project: Project,
    row: AcceptedAnnotation,
    annotation: AnnotationRecord,
) -> bool:
    """Delete an annotation that nobody has worked on, and keep a copy. False: somebody has, so it stays.

    Label Studio deletes whatever is there by then, so it is read again as late as possible.
    """
    if _worked_on(annotation, row) or annotation.id in client.drafts(project.id, row.task_id):
        return False
    now = time.time()
    acceptances.keep_copy(project.uid, row.run, row.task_id, annotation, now)
    again = client.annotation(annotation.id)
    if again is not None and again != annotation:
        acceptances.drop_copy(project.uid, annotation.id, now)
        return False
    client.delete_annotation(annotation.id)
    return True


def _worked_on(annotation: AnnotationRecord, row: AcceptedAnnotation) -> bool:
    """Whether a person changed it, spent time on it, or made it ground truth or a skipped one."""
    marked = annotation.ground_truth or annotation.was_cancelled or annotation.lead_time is not None
    return marked or content_hash({}, annotation.result) != row.content


def _check_scores(min_score: float, scores: Mapping[str, float]) -> None:
    for what, score in {"The least score": min_score, **{f"The score of {k!r}": v for k, v in scores.items()}}.items():
        if not (math.isfinite(score) and 0 <= score <= 1):
            raise BadRequest(f"{what} is {score}, which no score can be.", "Scores lie between 0 and 1, such as 0.8.")


def _check_labels(project: Project, scores: Mapping[str, float]) -> None:
    schema = parse_label_config(project.label_config)
    points = [point.label for control in schema.controls for point in control.points]
    known = dict.fromkeys((*schema.classes, *points))
    for label in scores:
        if label not in known:
            raise BadRequest(
                f"The labelling config has no label {label!r} that is suggested.",
                f"It has: {', '.join(known) or 'none'}.",
            )


@contextlib.contextmanager
def _alone(services: Services, uid: str) -> Iterator[None]:
    """One run of a project at a time: two would look at a task before either of them has written."""
    lock = FileLock(services.settings.root / f"accept-{uid}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(
            "Suggestions of this project are being accepted or taken back.", "Try again when that is done."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _survey(client: LabelStudioClient, project_id: int) -> tuple[int, str]:
    """How many tasks are open, and the version of the newest prediction there by a pretrained model; empty: none."""
    total, newest = 0, None
    for page in client.open_tasks(project_id):
        total += len(page)
        for each in (one for task in page for one in task.predictions if number_of(one.version) == 0):
            if newest is None or (each.created_at, each.id) > (newest.created_at, newest.id):
                newest = each
    return total, newest.version if newest else ""


def _prediction(task: OpenTask, version: str, trained: Callable[[], Collection[int]]) -> PredictionRecord | None:
    """The newest of yoloop's predictions of a version."""
    named = (each for each in task.predictions if version and each.version == version)
    own = (each for each in named if made_here(each.version, each.result, trained))
    return max(own, key=lambda each: (each.created_at, each.id), default=None)


def _reason(task: OpenTask, prediction: PredictionRecord | None, groups: list[Group], complete_only: bool) -> str:
    """Why a task is left alone; empty: it is not."""
    if task.touched:
        return TOUCHED
    if prediction is None:
        return NO_SUGGESTION
    if not any(group.sure for group in groups):
        return NOT_SURE
    return DOUBTFUL if complete_only and not all(group.sure for group in groups) else ""


def _write(
    services: Services,
    client: LabelStudioClient,
    project: Project,
    task: OpenTask,
    prediction: PredictionRecord,
    sure: list[Group],
    run: str,
    now: float,
) -> str:
    """Make the annotation and its row. Returns why it was not made; empty: it was."""
    result = [region for group in sure for region in accepted(group, run)]
    try:
        if client.annotation_count(project.id, task.id):
            return ANNOTATED
        made = client.create_annotation(
            project.id, task.id, result, parent_prediction=prediction.id, last_action="prediction"
        )
        # Written down at once, so that it can be taken back whatever happens next.
        Acceptances(services.store).save(project.uid, accepted_annotation(run, task.id, made, now))
        if client.annotation_count(project.id, task.id) > 1:  # somebody saved between the look and the write
            client.delete_annotation(made.id)
            Acceptances(services.store).remove(project.uid, made.id)
            return ANNOTATED
    except LabelStudioError as error:
        # A prediction that is gone is a 400, a task that is gone a 404.
        if error.code == 404 or (error.code == 400 and "parent_prediction" in error.reason):
            return GONE
        raise
    return ""


def _with_remedy(error: LabelStudioError, run: str) -> LabelStudioError:
    """The same error, which also names the run: nobody else has told it yet."""
    remedy = f"Run {run} ended early; `yoloop accept --undo {run}` takes back what it accepted."
    return LabelStudioError(error.message, f"{error.hint} {remedy}".strip(), reason=error.reason, code=error.code)


def _changed_annotations(client: LabelStudioClient, project_id: int, run: str) -> set[int]:
    """Annotations of a run that nothing is written down about; a change was made to them, or they would be known."""
    return {
        annotation.id
        for page in client.changed_tasks(project_id, None)
        for task in page
        for annotation in task.annotations
        if any(run_of([region]) == run for region in annotation.result)
    }
