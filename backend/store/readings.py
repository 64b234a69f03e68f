"""What the annotation that teaches for a task says under the project's labelling config, counted once and kept.

An annotation is read when it comes into the ledger, and again when the config is another one. So nothing that only
tells numbers has to read all annotations, and what cannot be learned from is no news until it can.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from backend.errors import LabelConfigError
from backend.images.addresses import identity
from backend.labels.references import field_of, pages_of
from backend.labels.schema import Kind, LabelSchema, parse_label_config
from backend.store.contents import name_of
from backend.store.database import MOST_NAMED, Store
from backend.store.dialect import upsert
from backend.store.tables import ledger, projects, thumbnails
from backend.store.tables import readings as table
from backend.store.unreadable import known as unreadable

if TYPE_CHECKING:
    from backend.labels.reading import NotUnderstood, Reading, Understood
    from backend.labels.several import Policy

READING = 2
"""Of how annotations are read: raised when the same ones would say something else."""

AT_ONCE = 500
"""Annotations that are read in one transaction."""

LAST = 20
LEAST_EMPTY = 5
"""Of how many of the last annotations more than half, and how many at least, are empty before people are told."""

MOST_LABELS = 20
"""Labels that a line for people names."""

MOST_TASKS = 100
"""Tasks that a list for machines names; `yoloop annotations` lists all."""

MOST_OTHERS = 10
"""Tasks that are named beside one that they contradict."""

CHOOSES: tuple[Kind, ...] = ("choices", "taxonomy")

TRAINING, VALIDATION = "training", "validation"

_COUNTS: Mapping[Policy, str] = {
    "newest": "the newest",
    "union": "all of its author's that do not overlap",
    "consensus": "what most annotators say",
}


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
        self.reader = Reader(self.schema)

    def read(self, result: Sequence[Mapping[str, Any]], data: object = None) -> Said:
        reading = self.reader.read(result, data)
        if not reading.problems:
            return Said(dict(reading.labels), regions=len(result))
        used = _teaches(self.schema, reading)
        return Said(dict(reading.labels), str(reading.problems[0]), used, len(result))


def image_of(data: Mapping[str, Any], schema: LabelSchema) -> str:
    """What names a task's image, as `thumbnails` does; of a task with several, or without any, what names them all."""
    keys = dict.fromkeys((control.data_key, control.pages) for control in schema.controls)
    found = [name_of(identity(each)) for key, pages in keys for each in pages_of(field_of(data, key), pages)]
    return found[0] if len(found) == 1 else name_of(*found)


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
        several: tasks with more than one annotation.
        selection: what is learned of those, see `labels.several`.
        agreement: of their annotators, the mean over the tasks, 0 to 1; None: it is not asked for.
        contradicting: those that say something else than the annotation of nearly the same image.
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
    selection: Policy = "newest"
    agreement: float | None = None
    contradicting: Sequence[Contradiction] = ()

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
            "selection": self.selection,
            "agreement": self.agreement,
            "contradicting": len(self.contradicting),
            "contradicting_tasks": [each.task_id for each in self.contradicting[:MOST_TASKS]],
        }

    @property
    def mostly_empty(self) -> bool:
        """Whether more than half of the last ones are empty."""
        return self.empty >= LEAST_EMPTY and 2 * self.empty > self.last

    def __str__(self) -> str:
        later = self.used - self.training - self.validation
        sides = [(self.training, TRAINING), (self.validation, VALIDATION), (later, "from the next training on")]
        told = ", ".join(f"{count} {what}" for count, what in sides if count)
        text = f"{self.total} annotation{'' if self.total == 1 else 's'}: {self.used} used"
        text += f" ({told})" if self.training + self.validation else ""
        text += f", {self.left_out} not understood: {reasons(self.not_understood)}" if self.not_understood else ""
        text += f"; {self.in_part} used only in part" if self.in_part else ""
        if self.several:
            text += f"; of {self.several} task{'' if self.several == 1 else 's'} with several, ground truth counts, "
            text += f"else {_COUNTS[self.selection]}"
        if self.agreement is not None:
            text += f" (they agree on {self.agreement:.0%})"
        if self.contradicting:
            first = self.contradicting[0]
            text += f"; {len(self.contradicting)} say something else than that of nearly the same image, "
            text += f"such as tasks {first.task_id} and {first.others[0]}"
        if self.mostly_empty:
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


@dataclass(frozen=True, slots=True)
class Several:
    """A task with several submitted annotations. `agreement`: of their annotators, 0 to 1; None: not asked for."""

    task_id: int
    annotations: int
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A task whose annotation says something else than those of tasks with nearly the same image, and what it says."""

    task_id: int
    others: tuple[int, ...]
    labels: Mapping[str, int]

    def __str__(self) -> str:
        said = ", ".join(f"{label} {count}" for label, count in self.labels.items()) or "nothing is there"
        return f"{said}; otherwise task{'s' if len(self.others) > 1 else ''} {', '.join(map(str, self.others))}"


class Readings:
    """What is known of all projects' annotations. `policy`: what is learned of several of one task."""

    def __init__(self, store: Store, policy: Policy = "newest") -> None:
        self._store = store
        self._policy: Policy = policy

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
        while self._name_images(uid, config):
            pass
        while some := self._renew_some(uid, config):
            count += some
        return count

    def _name_images(self, uid: str, config: Config) -> int:
        """Name the images of annotations that an earlier release read."""
        mine = (table.c.uid == ledger.c.uid) & (table.c.task_id == ledger.c.task_id)
        unnamed = (
            sa.select(ledger.c.task_id, ledger.c.data)
            .select_from(ledger.join(table, mine))
            .where(ledger.c.uid == uid, table.c.image == "")
            .limit(AT_ONCE)
        )
        with self._store.engine.connect() as db:
            rows = db.execute(unnamed).all()
        if rows:
            with self._store.write() as db:
                of = (table.c.uid == uid, table.c.task_id == sa.bindparam("one"))
                named = [{"one": row.task_id, "name": image_of(row.data, config.schema)} for row in rows]
                db.execute(table.update().where(*of).values(image=sa.bindparam("name")), named)
        return len(rows)

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
            _write(db, uid, config, said, {row.task_id: row.data for row in rows})
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
            sa.func.avg(ledger.c.agreement),
        )
        about = (ledger.c.uid == uid, ledger.c.annotation_id.is_not(None))
        with self._store.engine.connect() as db:
            total, taught, training, validation, new, in_part, unread, several, agree = db.execute(
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
            self._policy,
            agree,
            self.contradictions(uid),
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

    def several(self, uid: str) -> list[Several]:
        """The tasks with more than one submitted annotation that could teach, by their ids."""
        mine = (table.c.uid == ledger.c.uid) & (table.c.task_id == ledger.c.task_id)
        query = (
            sa.select(table.c.task_id, table.c.annotations, ledger.c.agreement)
            .select_from(table.join(ledger, mine))
            .where(table.c.uid == uid, table.c.annotations > 1)
            .order_by(table.c.task_id)
        )
        with self._store.engine.connect() as db:
            return [Several(*row) for row in db.execute(query)]

    def contradictions(self, uid: str) -> list[Contradiction]:
        """The tasks whose annotations say something else than those of tasks with nearly the same image.

        Images are told apart by their addresses, and once a training has read them by what they show.
        """
        same = (thumbnails.c.uid == table.c.uid) & (thumbnails.c.key == table.c.image)
        group = sa.func.coalesce(thumbnails.c.group, table.c.image)
        there = table.outerjoin(thumbnails, same)
        mine = (table.c.uid == uid, table.c.used, table.c.image != "")
        disputed = sa.select(group).select_from(there).where(*mine).group_by(group).having(_differ(table.c.labels))
        query = (
            sa.select(group, table.c.task_id, table.c.labels, table.c.image, thumbnails.c.pixels)
            .select_from(there)
            .where(*mine, group.in_(disputed))
            .order_by(group, table.c.task_id)
        )
        with self._store.engine.connect() as db:
            rows = db.execute(query).all()
        if not rows:
            return []
        found: list[Contradiction] = []
        for _, members in itertools.groupby(rows, key=lambda row: row[0]):
            found += _contradicting([(row.task_id, row.labels, row.image, row.pixels) for row in members])
        return sorted(found, key=lambda each: each.task_id)

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
    said = {task_id: config.read(*each) for task_id, each in there.items()}
    _write(db, uid, config, said, {task_id: data for task_id, (_, data) in there.items()})


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


def _contradicting(group: Sequence[tuple[int, str, str, bytes | None]]) -> Iterator[Contradiction]:
    """Of tasks of one group of images, by their ids: task, labels, key of the image and its thumbnail."""
    from backend.store.near_duplicates import equal  # which takes long to import

    said: dict[str, dict[str, list[int]]] = {}
    for task_id, labels, image, _ in group:
        said.setdefault(image, {}).setdefault(labels, []).append(task_id)
    shown = {image: pixels for _, _, image, pixels in group if pixels is not None}
    same = {image: [image] for image in said}
    if len(shown) > 1:
        names = list(shown)
        for name, row in zip(names, equal(list(shown.values())), strict=True):
            same[name] = [other for other, alike in zip(names, row, strict=True) if alike]
    for task_id, labels, image, _ in group:
        differing = (tasks for other in same[image] for others, tasks in said[other].items() if others != labels)
        others = tuple(sorted(itertools.islice(itertools.chain.from_iterable(differing), MOST_OTHERS)))
        if others:
            yield Contradiction(task_id, others, json.loads(labels))


def _differ(labels: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return sa.func.min(labels) != sa.func.max(labels)


def _write(
    db: sa.Connection, uid: str, config: Config, said: Mapping[int, Said], data: Mapping[int, Mapping[str, Any]]
) -> None:
    rows = [
        {
            "uid": uid,
            "task_id": task_id,
            "config": config.hash,
            "labels": json.dumps(dict(each.labels), sort_keys=True),
            "problem": each.problem,
            "used": each.used,
            "regions": each.regions,
            "image": image_of(data[task_id], config.schema),
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
