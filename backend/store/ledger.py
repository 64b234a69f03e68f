"""Which annotation teaches for every task of a project, kept in step with Label Studio.

Only submitted annotations teach. Skipped ones do not; an empty submitted one is a background image. Of
several on one task ground truth wins, then the newest, or what `labels.several` makes of them. What `yoloop accept`
made does not teach until a person changes it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from backend.errors import LabelConfigError
from backend.images.addresses import embedded_in, without_embedded
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.store import acceptances, embeddings, outcomes, readings, unreadable
from backend.store.acceptances import unchanged
from backend.store.contents import content_hash
from backend.store.database import MOST_NAMED, Store
from backend.store.dialect import fetch_plain, upsert
from backend.store.leases import Lease, held
from backend.store.progress import KEPT, NOTHING_YET, Progress, by_itself
from backend.store.tables import jobs as jobs_table
from backend.store.tables import ledger as table
from backend.store.tables import projects

if TYPE_CHECKING:
    from backend.labels.several import Policy, Submitted

AT_ONCE = 100
"""Tasks whose annotations are chosen again in one transaction."""

RECENT_JOBS = 500
"""Trainings of a project that are looked at, newest first."""


@dataclass(frozen=True, slots=True)
class Example:
    """One task and the annotation that teaches for it. `content` is a hash of what it says.

    In `data`, a reference stands for each embedded image (see `addresses.without_embedded`). Where several annotations
    teach together, `result` is what they say, and `annotation_id` that of the newest.
    """

    task_id: int
    data: Mapping[str, Any]
    annotation_id: int
    result: Sequence[Mapping[str, Any]]
    content: str


Teaching = tuple[int, str]
"""The id of the annotation that teaches for a task, and a hash of what it says."""


def teaching_annotation(
    annotations: Iterable[AnnotationRecord], left_out: Collection[int] = ()
) -> AnnotationRecord | None:
    """The annotation of a task that teaches: ground truth first, then the newest; never a skipped one.

    Args:
        left_out: ids of annotations that do not teach, see `acceptances.unchanged`.
    """
    there = submitted(annotations, left_out)
    return max(there, key=lambda each: (each.ground_truth, each.updated_at, each.id), default=None)


def submitted(annotations: Iterable[AnnotationRecord], left_out: Collection[int] = ()) -> list[AnnotationRecord]:
    """The annotations of a task that could teach."""
    return [each for each in annotations if not each.was_cancelled and each.id not in left_out]


class Ledger:
    """The ledger of all projects in one store.

    Args:
        policy: what several annotations of one task teach.
        keep: takes the `data:` address of each embedded image that is learned from, as the ledger has no room for it.
    """

    def __init__(
        self, store: Store, policy: Policy = "newest", keep: Callable[[str], None] = lambda address: None
    ) -> None:
        self._store = store
        self._policy: Policy = policy
        self._keep = keep

    def update(
        self, uid: str, tasks: Sequence[TaskRecord], cursor: float | None = None, lease: Lease | None = None
    ) -> None:
        """Take in tasks as they were read and, in the same transaction, how far Label Studio was read.

        Args:
            cursor: None: that stays as it is.
            lease: the reader's, see `leases`: with it, an older reading never replaces a newer one.
        """
        for task in tasks:
            for address in embedded_in(task.data) if submitted(task.annotations) else ():
                self._keep(address)
        select = self._prepared(uid, tasks)
        with self._store.write() as db:
            held(db, lease)
            left_out = unchanged(db, uid, tasks)
            # Of a task that came twice the later reading counts.
            rows = {task.id: {"uid": uid, "task_id": task.id, **_row(task, left_out, select)} for task in tasks}
            _forget_other_images(db, uid, tasks)
            upsert(db, table, list(rows.values()))
            readings.take(db, uid, {task_id: (row["result"], row["data"]) for task_id, row in rows.items()})
            readings.count(db, uid, {task.id: len(submitted(task.annotations, left_out)) for task in tasks})
            if cursor is not None:
                db.execute(projects.update().where(projects.c.uid == uid).values(cursor=cursor))

    def select(self, uid: str) -> int:
        """Choose again what several annotations of a task teach, where that was done with another setting or another
        labelling config; returns of how many tasks."""
        count = 0
        while some := self._select_some(uid):
            count += some
        return count

    def _select_some(self, uid: str) -> int:
        with self._store.engine.connect() as db:
            select = self._selector(db, uid)
            outdated = (
                sa.select(table.c.task_id, table.c.data, table.c.annotations)
                .where(table.c.uid == uid, table.c.selection.is_not(None), table.c.selection != select.name)
                .limit(AT_ONCE)
            )
            rows = db.execute(outdated).all()
        for row in rows:
            select(_kept(row.annotations))
        if not rows:
            return 0
        with self._store.write() as db:
            rows = db.execute(outdated).all()
            taught: dict[int, tuple[Any, Any]] = {}
            for row in rows:
                chosen = select(_kept(row.annotations))
                taught[row.task_id] = (list(chosen["result"]), row.data)
                content = content_hash(row.data, chosen["result"])
                of = (table.c.uid == uid, table.c.task_id == row.task_id)
                db.execute(table.update().where(*of).values(**chosen, content=content))
            readings.take(db, uid, taught)
        return len(rows)

    def _prepared(self, uid: str, tasks: Sequence[TaskRecord]) -> _Selector:
        """What has chosen already for these tasks: comparing masks takes time, in which nobody else should have to wait
        for the database."""
        several = [task for task in tasks if len(submitted(task.annotations)) > 1]
        if not several:
            return _newest
        with self._store.engine.connect() as db:
            select, left_out = self._selector(db, uid), unchanged(db, uid, several)
        for task in several:
            if len(there := submitted(task.annotations, left_out)) > 1:
                select(_kept(map(_plain, there)))
        return select

    def _selector(self, db: sa.Connection, uid: str) -> _Selector:
        if self._policy == "newest":
            return _newest
        try:
            config = readings.Config(db.scalar(sa.select(projects.c.label_config).where(projects.c.uid == uid)) or "")
        except LabelConfigError:  # chosen again as soon as there is one that can be read
            return _newest
        return _Selector(self._policy, config)

    def times(self, uid: str, after: int = 0, up_to: int | None = None) -> dict[int, float | None]:
        """Task id → its `updated_at` as it was read, of the ids above `after` and up to `up_to` (None: all above)."""
        query = sa.select(table.c.task_id, table.c.updated_at).where(*_between(uid, after, up_to))
        with self._store.engine.connect() as db:
            return dict(fetch_plain(db, query))

    def keep_only(
        self,
        uid: str,
        task_ids: Collection[int],
        after: int = 0,
        up_to: int | None = None,
        lease: Lease | None = None,
    ) -> int:
        """Forget the tasks that Label Studio no longer has, and what became of their suggestions.

        Args:
            task_ids: all that it has with an id above `after` and up to `up_to` (None: all above).

        Returns how many are gone.
        """
        with self._store.write() as db:
            held(db, lease)
            there = db.scalars(sa.select(table.c.task_id).where(*_between(uid, after, up_to)))
            gone = sorted(set(there) - set(task_ids))
            for some in (gone[start : start + MOST_NAMED] for start in range(0, len(gone), MOST_NAMED)):
                db.execute(table.delete().where(table.c.uid == uid, table.c.task_id.in_(some)))
                for other in (outcomes, acceptances, embeddings, unreadable, readings):
                    other.forget_tasks(db, uid, some)
        return len(gone)

    def task_count(self, uid: str) -> int:
        with self._store.engine.connect() as db:
            return db.scalar(sa.select(sa.func.count()).where(table.c.uid == uid)) or 0

    def teaching(self, uid: str) -> dict[int, Teaching]:
        """Task id → what teaches for it, of all that a training may learn from now."""
        query = sa.select(table.c.task_id, table.c.annotation_id, table.c.content).where(
            table.c.uid == uid, table.c.annotation_id.is_not(None)
        )
        with self._store.engine.connect() as db:
            rows = fetch_plain(db, query)
            return {task_id: (annotation_id, content) for task_id, annotation_id, content in rows}

    def examples(self, uid: str, task_ids: Collection[int] | None = None) -> list[Example]:
        """What a training may learn from now, in the order of task ids; of these tasks, or of all."""
        wanted = table.select().where(table.c.uid == uid, table.c.annotation_id.is_not(None))
        if task_ids is not None and len(task_ids) <= MOST_NAMED:
            wanted = wanted.where(table.c.task_id.in_(task_ids))
        with self._store.engine.connect() as db:
            return [
                Example(row.task_id, row.data, row.annotation_id, row.result, row.content)
                for row in db.execute(wanted.order_by(table.c.task_id))
                if task_ids is None or row.task_id in task_ids
            ]

    def counts(self, uid: str) -> tuple[int, int]:
        """Annotated tasks that teach, and those of them that the last training did not see as they are."""
        count, read = sa.func.count, ~unreadable.known(uid) & ~readings.unused(uid)
        with self._store.engine.connect() as db:
            known, new = db.execute(
                sa.select(
                    count().filter(table.c.content.is_not(None), read),
                    count().filter(table.c.content.is_not(None), table.c.content.is_distinct_from(table.c.seen), read),
                ).where(table.c.uid == uid)
            ).one()
        return known, new

    def progress(self, uid: str) -> Progress:
        """The numbers that the trigger decides on."""
        with self._store.engine.connect() as db:
            count, read = sa.func.count, ~unreadable.known(uid) & ~readings.unused(uid)
            labelled, seen, new, left_out = db.execute(
                sa.select(
                    count().filter(table.c.content.is_not(None), read),
                    count().filter(table.c.seen.is_not(None)),
                    count().filter(table.c.content.is_distinct_from(table.c.seen), read),
                    count().filter(readings.unused(uid)),
                ).where(table.c.uid == uid)
            ).one()
            jobs = db.execute(
                sa.select(jobs_table)
                .where(jobs_table.c.uid == uid)
                .order_by(jobs_table.c.created_at.desc())
                .limit(RECENT_JOBS)
            ).all()
        objects = {} if any(job.version for job in jobs) else readings.Readings(self._store).objects(uid)
        ended = sorted((job for job in jobs if job.finished_at is not None), key=_end, reverse=True)
        tried = (job for job in ended if not job.message.startswith(NOTHING_YET))
        failed = list(itertools.takewhile(lambda job: job.status == "failed", tried))
        done = (job for job in ended if job.status == "done")
        alone = [job for job in jobs if by_itself(job.reason)]
        return Progress(
            labelled,
            new,
            seen,
            failures=len(failed),
            failed_at=failed[0].finished_at if failed else 0.0,
            rejected=sum(1 for _ in itertools.takewhile(lambda job: KEPT in job.message, done)),
            objects=objects,
            left_out=left_out,
            began=tuple(job.created_at for job in alone),
            ended_at=max((job.finished_at for job in alone if job.finished_at is not None), default=-math.inf),
        )

    def submitted_at(self, uid: str) -> dict[int, float]:
        """Task id → when its annotation was first submitted, in epoch seconds; only where that is known."""
        with self._store.engine.connect() as db:
            rows = db.execute(sa.select(table.c.task_id, table.c.submitted_at).where(table.c.uid == uid))
            return {row.task_id: row.submitted_at for row in rows if row.submitted_at is not None}

    def mark_seen(self, uid: str, contents: Mapping[int, str]) -> None:
        """Remember what a finished training was taught: task id → content."""
        with self._store.write() as db:
            db.execute(table.update().where(table.c.uid == uid).values(seen=None))
            one = table.update().where(table.c.uid == uid, table.c.task_id == sa.bindparam("one"))
            rows = [{"one": task_id, "now": content} for task_id, content in contents.items()]
            if rows:
                db.execute(one.values(seen=sa.bindparam("now")), rows)


def _end(job: Any) -> float:
    return float(job.finished_at)


def _forget_other_images(db: sa.Connection, uid: str, tasks: Sequence[TaskRecord]) -> None:
    """An image that could not be read is no reason not to try another one."""
    query = sa.select(table.c.task_id, table.c.data).where(table.c.uid == uid, unreadable.known(uid))
    before = {row.task_id: row.data for row in db.execute(query)}
    other = {each.id for each in tasks if each.id in before and before[each.id] != without_embedded(each.data)}
    for task_id in other:
        unreadable.forget_tasks(db, uid, [task_id])


def _between(uid: str, after: int, up_to: int | None) -> tuple[sa.ColumnElement[bool], ...]:
    above = (table.c.uid == uid, table.c.task_id > after)
    return above if up_to is None else (*above, table.c.task_id <= up_to)


class _Selector:
    """Chooses what several annotations of one task teach. `name` tells with what: the setting and the config."""

    def __init__(self, policy: Policy, config: readings.Config | None) -> None:
        self.name = policy if config is None else f"{policy} {config.hash}"
        self._policy, self._config = policy, config
        self._known: dict[tuple[tuple[int, float], ...], dict[str, Any]] = {}

    def __call__(self, annotations: Sequence[Submitted]) -> dict[str, Any]:
        """The columns that say it."""
        if self._config is None:
            newest = max(annotations, key=lambda each: each.rank)
            return {"result": list(newest.result), "selection": self.name, "agreement": None}
        from backend.labels.several import together  # which takes long to import, and numbers need none

        key = tuple((each.id, each.updated_at) for each in annotations)
        if key not in self._known:
            chosen = together(self._policy, annotations, self._config.reader)
            self._known[key] = {
                "result": list(chosen.result),
                "selection": self.name,
                "agreement": chosen.agreement,
            }
        return self._known[key]


_newest = _Selector("newest", None)


def _kept(annotations: Iterable[Mapping[str, Any]]) -> list[Submitted]:
    """Annotations as a row of the ledger keeps them."""
    from backend.labels.several import Submitted

    return [Submitted(**each) for each in annotations]


def _row(task: TaskRecord, left_out: Collection[int], select: _Selector) -> dict[str, Any]:
    teaches = teaching_annotation(task.annotations, left_out)
    there = submitted(task.annotations, left_out)
    data = without_embedded(task.data)
    chosen: dict[str, Any] = {"result": None, "selection": None, "agreement": None}
    kept = None
    if teaches is not None:
        chosen["result"] = list(teaches.result)
    if len(there) > 1:
        kept = [_plain(each) for each in there]
        chosen = select(_kept(kept))
    return {
        "task_created_at": task.created_at.timestamp(),
        "updated_at": task.updated_at.timestamp(),
        "data": data,
        "annotation_id": None if teaches is None else teaches.id,
        "submitted_at": None if teaches is None else teaches.created_at.timestamp(),
        **chosen,
        "annotations": kept,
        "content": None if teaches is None else content_hash(data, chosen["result"]),
    }


def _plain(annotation: AnnotationRecord) -> dict[str, Any]:
    return {
        "id": annotation.id,
        "author": annotation.completed_by,
        "ground_truth": annotation.ground_truth,
        "updated_at": annotation.updated_at.timestamp(),
        "result": list(annotation.result),
    }
