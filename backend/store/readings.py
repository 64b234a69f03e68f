"""What the annotation that teaches for a task says under the project's labelling config, counted once and kept.

An annotation is read when it comes into the ledger, and again when the config is another one. So nothing that only
tells numbers has to read all annotations, and what cannot be learned from is no news until it can.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from backend.errors import LabelConfigError
from backend.labels.schema import Kind, LabelSchema, parse_label_config
from backend.store.database import MOST_NAMED, Store
from backend.store.dialect import upsert
from backend.store.tables import ledger, projects
from backend.store.tables import readings as table
from backend.store.unreadable import known as unreadable

if TYPE_CHECKING:
    from backend.labels.reading import NotUnderstood, Reading, Understood

READING = 2
"""Of how annotations are read: raised when the same ones would say something else."""

AT_ONCE = 500
"""Annotations that are read in one transaction."""

LAST = 20
LEAST_EMPTY = 5
"""Of how many of the last annotations more than half, and how many at least, are empty before people are told."""

MOST_LABELS = 20
"""Labels that a line for people names."""

CHOOSES: tuple[Kind, ...] = ("choices", "taxonomy")

TRAINING, VALIDATION = "training", "validation"


@dataclass(frozen=True, slots=True)
class Said:
    """What one annotation says.

    Attributes:
        labels: label → objects, of what is understood.
        problem: why a region is not understood; empty: all are.
        used: something can be learned from it.
        regions: all of them, whatever they say.
    """

    labels: Mapping[str, int]
    problem: str = ""
    used: bool = True
    regions: int = 0


class Config:
    """A labelling config, as what reads annotations. Raises LabelConfigError."""

    def __init__(self, label_config: str) -> None:
        from backend.labels.reading import Reader  # which takes long to import, and numbers need none

        self.schema = parse_label_config(label_config)
        self.hash = hashlib.sha256(f"{READING} {label_config}".encode()).hexdigest()
        self._reader = Reader(self.schema)

    def read(self, result: Sequence[Mapping[str, Any]], data: object = None) -> Said:
        reading = self._reader.read(result, data)
        if not reading.problems:
            return Said(dict(reading.labels), regions=len(result))
        used = _teaches(self.schema, reading)
        return Said(dict(reading.labels), str(reading.problems[0]), used, len(result))


def _teaches(schema: LabelSchema, reading: Reading) -> bool:
    """Whether some model learns from an annotation although not all of its regions are understood."""
    from backend.labels.networks import plan

    for network, controls in plan(schema, lambda control: control.name in reading.turned):
        mine = {control.name for control in controls}
        pages = any(control.pages for control in controls) and network.task != "classify"
        regions = [each for each in reading.regions if each.control.name in mine and not each.skipped]
        problems = [each for each in reading.problems if mine & each.controls]
        if problems and not any(_is_clear(each, problems, pages) for each in regions):
            continue
        if regions or (not problems and controls[0].kind not in CHOOSES and not _answers_only(reading)):
            return True
    return False


def _is_clear(region: Understood, problems: Iterable[NotUnderstood], pages: bool) -> bool:
    """Whether a region is on an image, or a page of it, that no problem concerns."""
    from backend.labels.entries import NO_PAGE

    return not any(
        each.to_name in ("", region.control.to_name) and (not pages or each.page in (region.page, NO_PAGE))
        for each in problems
    )


def _answers_only(reading: Reading) -> bool:
    """Whether nothing at all was understood of an annotation, or only answers to questions."""
    return all(each.drawn.kind in CHOOSES for each in reading.regions)


@dataclass(frozen=True, slots=True)
class Annotations:
    """A project's annotated tasks in numbers.

    Attributes:
        total: tasks with an annotation that could teach.
        training, validation: those of the used ones that the last dataset had, by what they are for.
        new: used ones that the last training did not see as they are.
        in_part: used ones of which some region is not understood.
        not_understood: reason → annotations from which nothing is learned.
        image_unreadable: those of which an image cannot be read.
        objects: label of the config → objects; 0: no example yet.
        several: tasks with more than one annotation, of which one teaches.
        empty, last: how many of the `last` submitted ones say that nothing is there.
    """

    total: int
    used: int
    training: int = 0
    validation: int = 0
    new: int = 0
    in_part: int = 0
    not_understood: Mapping[str, int] = field(default_factory=dict)
    image_unreadable: int = 0
    objects: Mapping[str, int] = field(default_factory=dict)
    several: int = 0
    empty: int = 0
    last: int = 0

    @property
    def left_out(self) -> int:
        return sum(self.not_understood.values())

    def as_json(self) -> dict[str, Any]:
        names = ("total", "used", "training", "validation", "new", "in_part", "image_unreadable", "several")
        return {
            **{name: getattr(self, name) for name in names},
            "not_understood": self.left_out,
            "reasons": dict(self.not_understood),
            "objects": dict(self.objects),
            "empty_of_last": [self.empty, self.last],
        }

    def __str__(self) -> str:
        later = self.used - self.training - self.validation
        sides = [(self.training, TRAINING), (self.validation, VALIDATION), (later, "from the next training on")]
        told = ", ".join(f"{count} {what}" for count, what in sides if count)
        text = f"{self.total} annotation{'' if self.total == 1 else 's'}: {self.used} used"
        text += f" ({told})" if self.training + self.validation else ""
        text += f", {self.left_out} not understood: {reasons(self.not_understood)}" if self.not_understood else ""
        text += f"; {self.in_part} used only in part" if self.in_part else ""
        if self.several:
            text += f"; of {self.several} tasks with several, ground truth counts, else the newest"
        if self.empty >= LEAST_EMPTY and 2 * self.empty > self.last:
            text += f"; {self.empty} of the last {self.last} were submitted empty, which says that nothing is there"
        return text + (f"; {self.new} new" if self.new else "")

    def told_objects(self) -> str:
        """The labels with their objects, the most frequent first; those without an example last."""
        ordered = sorted(self.objects.items(), key=lambda each: -each[1])
        shown = [each for each in ordered if each[1]][:MOST_LABELS]
        shown += [each for each in ordered if not each[1]][:MOST_LABELS]
        told = [f"{label} {count}" if count else f"{label}: no example yet" for label, count in shown]
        more = len(ordered) - len(shown)
        return ", ".join([*told, f"and {more} more labels"] if more else told)


def reasons(counts: Mapping[str, int]) -> str:
    """Reasons with their numbers, the most frequent first: "label `car` is not in the config (2), …"."""
    most = Counter(counts).most_common(5)
    more = sum(counts.values()) - sum(count for _, count in most)
    return ", ".join([*(f"{why} ({count})" for why, count in most), *([f"other reasons ({more})"] if more else [])])


@dataclass(frozen=True, slots=True)
class Problem:
    """A task whose annotation is not understood, or only in part."""

    task_id: int
    annotation_id: int
    reason: str
    in_part: bool


class Readings:
    def __init__(self, store: Store) -> None:
        self._store = store

    def renew(self, uid: str) -> int:
        """Read the annotations again that were not read with the config as it is now; returns how many.

        What is understood now and was not before is news to the trigger, whatever a training has seen.
        """
        count = 0
        with self._store.engine.connect() as db:
            label_config = db.scalar(sa.select(projects.c.label_config).where(projects.c.uid == uid)) or ""
        try:
            config = Config(label_config)
        except LabelConfigError:
            return 0
        while some := self._renew_some(uid, config):
            count += some
        return count

    def _renew_some(self, uid: str, config: Config) -> int:
        mine = (table.c.uid == ledger.c.uid) & (table.c.task_id == ledger.c.task_id)
        outdated = (
            sa.select(ledger.c.task_id, ledger.c.result, ledger.c.data, table.c.problem)
            .select_from(ledger.outerjoin(table, mine))
            .where(ledger.c.uid == uid, ledger.c.annotation_id.is_not(None))
            .where(table.c.config.is_distinct_from(config.hash))
            .limit(AT_ONCE)
        )
        with self._store.engine.connect() as db:
            if db.execute(outdated.with_only_columns(ledger.c.task_id).limit(1)).first() is None:
                return 0
        with self._store.write() as db:
            rows = db.execute(outdated).all()
            said = {row.task_id: config.read(row.result, row.data) for row in rows}
            _write(db, uid, config, said)
            better = [row.task_id for row in rows if row.problem and not said[row.task_id].problem]
            better = [task_id for task_id in better if said[task_id].used]
            for start in range(0, len(better), MOST_NAMED):
                some = better[start : start + MOST_NAMED]
                db.execute(ledger.update().where(ledger.c.uid == uid, ledger.c.task_id.in_(some)).values(seen=None))
        return len(rows)

    def prepared(self, uid: str, sides: Mapping[int, str], left_out: Mapping[int, str]) -> None:
        """Remember what the making of a dataset found.

        Args:
            sides: task id → TRAINING or VALIDATION.
            left_out: task id → why nothing is learned from its annotation.
        """
        of = (table.c.uid == uid, table.c.task_id == sa.bindparam("one"))
        with self._store.write() as db:
            db.execute(table.update().where(table.c.uid == uid).values(side=""))
            if rows := [{"one": task_id, "what": side} for task_id, side in sides.items()]:
                db.execute(table.update().where(*of).values(side=sa.bindparam("what")), rows)
            if rows := [{"one": task_id, "why": why} for task_id, why in left_out.items()]:
                db.execute(table.update().where(*of).values(problem=sa.bindparam("why"), used=False), rows)

    def objects(self, uid: str) -> dict[str, int]:
        """Label → objects in all annotations that something is learned from, of labels in use."""
        alike = sa.select(table.c.labels, sa.func.count()).where(
            table.c.uid == uid, table.c.used, table.c.labels != "{}"
        )
        counted: Counter[str] = Counter()
        with self._store.engine.connect() as db:
            for labels, count in db.execute(alike.group_by(table.c.labels)):
                counted.update({label: each * count for label, each in json.loads(labels).items()})
        return dict(counted)

    def annotations(self, uid: str) -> Annotations:
        """All of a project in numbers."""
        mine = (table.c.uid == ledger.c.uid) & (table.c.task_id == ledger.c.task_id)
        read, count = ~unreadable(uid), sa.func.count
        used = read & sa.func.coalesce(table.c.used, sa.true())
        numbers = sa.select(
            count(),
            count().filter(used),
            count().filter(used, table.c.side == TRAINING),
            count().filter(used, table.c.side == VALIDATION),
            count().filter(used, ledger.c.content.is_distinct_from(ledger.c.seen)),
            count().filter(used, table.c.problem != ""),
            count().filter(~read & sa.func.coalesce(table.c.used, sa.true())),
            count().filter(table.c.annotations > 1),
        )
        about = (ledger.c.uid == uid, ledger.c.annotation_id.is_not(None))
        with self._store.engine.connect() as db:
            total, taught, training, validation, new, in_part, unread, several = db.execute(
                numbers.select_from(ledger.outerjoin(table, mine)).where(*about)
            ).one()
            why = db.execute(
                sa.select(table.c.problem, count()).where(table.c.uid == uid, ~table.c.used).group_by(table.c.problem)
            ).all()
            label_config = db.scalar(sa.select(projects.c.label_config).where(projects.c.uid == uid)) or ""
            last = db.scalars(
                sa.select(table.c.regions)
                .select_from(ledger.join(table, mine))
                .where(*about)
                .order_by(ledger.c.submitted_at.desc(), ledger.c.annotation_id.desc())
                .limit(LAST)
            ).all()
        objects = self.objects(uid)
        return Annotations(
            total,
            taught,
            training,
            validation,
            new,
            in_part,
            dict(sorted(((reason, times) for reason, times in why), key=lambda each: -each[1])),
            unread,
            {label: objects.get(label, 0) for label in dict.fromkeys((*_labels(label_config), *objects))},
            several,
            last.count(0),
            len(last),
        )

    def problems(self, uid: str) -> list[Problem]:
        """The tasks whose annotations are not understood, or only in part, by their ids."""
        mine = (table.c.uid == ledger.c.uid) & (table.c.task_id == ledger.c.task_id)
        query = (
            sa.select(table.c.task_id, ledger.c.annotation_id, table.c.problem, table.c.used)
            .select_from(table.join(ledger, mine))
            .where(table.c.uid == uid, table.c.problem != "")
            .order_by(table.c.task_id)
        )
        with self._store.engine.connect() as db:
            return [Problem(*row) for row in db.execute(query)]

    def several(self, uid: str) -> dict[int, int]:
        """Task id → its submitted annotations, of tasks with more than one."""
        query = sa.select(table.c.task_id, table.c.annotations).where(table.c.uid == uid, table.c.annotations > 1)
        with self._store.engine.connect() as db:
            return {row.task_id: row.annotations for row in db.execute(query.order_by(table.c.task_id))}

    def empty(self, uid: str) -> list[int]:
        """Ids of the tasks whose annotation has no region."""
        query = sa.select(table.c.task_id).where(table.c.uid == uid, table.c.regions == 0)
        with self._store.engine.connect() as db:
            return list(db.scalars(query.order_by(table.c.task_id)))


def take(
    db: sa.Connection, uid: str, tasks: Mapping[int, tuple[Sequence[Mapping[str, Any]] | None, Mapping[str, Any]]]
) -> None:
    """Read annotations as they come into the ledger: task id → what teaches for it, None: nothing does; its data."""
    gone = [task_id for task_id, (result, _) in tasks.items() if result is None]
    for start in range(0, len(gone), MOST_NAMED):
        forget_tasks(db, uid, gone[start : start + MOST_NAMED])
    there = {task_id: (result, data) for task_id, (result, data) in tasks.items() if result is not None}
    if not there:
        return
    try:
        config = Config(db.scalar(sa.select(projects.c.label_config).where(projects.c.uid == uid)) or "")
    except LabelConfigError:  # read as soon as there is one: what was read of another annotation must not stay
        for start in range(0, len(there), MOST_NAMED):
            forget_tasks(db, uid, list(there)[start : start + MOST_NAMED])
        return
    _write(db, uid, config, {task_id: config.read(*each) for task_id, each in there.items()})


def count(db: sa.Connection, uid: str, annotations: Mapping[int, int]) -> None:
    """Remember how many annotations tasks have: task id → those that could teach."""
    of = (table.c.uid == uid, table.c.task_id == sa.bindparam("one"))
    if rows := [{"one": task_id, "number": number} for task_id, number in annotations.items()]:
        db.execute(table.update().where(*of).values(annotations=sa.bindparam("number")), rows)


def unused(uid: str) -> sa.ColumnElement[bool]:
    """Whether nothing can be learned from the annotation of a row of the ledger."""
    return ledger.c.task_id.in_(sa.select(table.c.task_id).where(table.c.uid == uid, ~table.c.used))


def forget_tasks(db: sa.Connection, uid: str, task_ids: Collection[int]) -> None:
    db.execute(table.delete().where(table.c.uid == uid, table.c.task_id.in_(task_ids)))


def _write(db: sa.Connection, uid: str, config: Config, said: Mapping[int, Said]) -> None:
    rows = [
        {
            "uid": uid,
            "task_id": task_id,
            "config": config.hash,
            "labels": json.dumps(dict(each.labels), sort_keys=True),
            "problem": each.problem,
            "used": each.used,
            "regions": each.regions,
        }
        for task_id, each in said.items()
    ]
    upsert(db, table, rows)


def _labels(label_config: str) -> tuple[str, ...]:
    """What regions may carry under a config, in its order."""
    try:
        controls = parse_label_config(label_config).controls
    except LabelConfigError:
        return ()
    return tuple(
        label
        for each in controls
        for label in ([point.label for point in each.points] if each.kind == "keypoint" else each.labels)
    )
