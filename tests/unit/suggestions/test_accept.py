from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backend.errors import BadRequest, NotFound
from backend.labels.networks import Network
from backend.labels.schema import parse_label_config
from backend.labelstudio.records import AnnotationRecord, OpenTask, PredictionRecord, ProjectInfo, TaskRecord
from backend.served_models.parts import TAG, Part, dump
from backend.served_models.served import own_suggestions
from backend.served_models.thresholds import ThresholdPolicy
from backend.served_models.version_string import fingerprint
from backend.services import Services
from backend.settings import Settings
from backend.store.tables import acceptances, removed_annotations
from backend.suggestions import accept as module
from backend.suggestions.accept import ANNOTATED, DOUBTFUL, NO_SUGGESTION, NOT_SURE, TOUCHED, Acceptance, accept, undo

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Car"/><Label value="Plane"/></RectangleLabels></View>'
)
INFO = ProjectInfo(1, "t", NOON, CONFIG, "")


def box(region_id: str, score: float, label: str = "Car", **more: Any) -> dict[str, Any]:
    value = {"x": 1.0, "y": 1.0, "width": 5.0, "height": 5.0, "rectanglelabels": [label]}
    named = {"id": region_id, "from_name": "label", "to_name": "image", "type": "rectanglelabels"}
    return {**named, "score": score, "value": value, **more}


class Studio:
    """One project of Label Studio, kept in a dict."""

    def __init__(self) -> None:
        self.tasks: dict[int, TaskRecord] = {}
        self.touched: set[int] = set()
        self.hidden: set[int] = set()
        self.minutes = 0
        self.drafted: set[int] = set()
        self.clock: datetime | None = None

    def suggest(self, *regions: dict[str, Any], version: str = "yoloop-v0") -> int:
        """A new task with one prediction, which has the task's number."""
        number = len(self.tasks) + 1
        made = PredictionRecord(number, version, 0.5, list(regions), NOON)
        self.tasks[number] = TaskRecord(number, NOON, NOON, {"image": f"{number}.jpg"}, (), (made,))
        return number

    def annotation_of(self, task: int) -> AnnotationRecord:
        (found,) = self.tasks[task].annotations
        return found

    def save(self, task: int, *annotations: AnnotationRecord) -> None:
        self.minutes += 1
        now = NOON + timedelta(minutes=self.minutes)
        self.tasks[task] = replace(self.tasks[task], annotations=annotations, updated_at=now)

    def project(self, number: int) -> ProjectInfo:
        return INFO

    def count_tasks(self, number: int) -> int:
        return len(self.tasks)

    def changed_tasks(self, number: int, since: datetime | None) -> Iterator[list[TaskRecord]]:
        yield [each for each in self.tasks.values() if since is None or each.updated_at > since]

    def task_times(self, number: int, after: int) -> tuple[dict[int, datetime], bool]:
        return {each.id: each.updated_at for each in self.tasks.values() if each.id > after}, False

    def open_tasks(self, number: int, page_size: int = 200) -> Iterator[list[OpenTask]]:
        for each in list(self.tasks.values()):
            if not each.annotations or each.id in self.hidden:
                yield [OpenTask(each.id, each.data, each.predictions, each.id in self.touched)]

    def annotation_count(self, number: int, task: int) -> int:
        return len(self.tasks[task].annotations)

    def create_annotation(
        self, number: int, task: int, result: Any, *, parent_prediction: int, last_action: str
    ) -> AnnotationRecord:
        assert last_action == "prediction"
        at = NOON + timedelta(minutes=self.minutes + 1)
        made = AnnotationRecord(100 + task, list(result), False, False, at, at, 1, None, parent_prediction)
        self.save(task, *self.tasks[task].annotations, made)
        return made

    def drafts(self, number: int, task: int) -> frozenset[int]:
        return frozenset(self.drafted)

    def annotation(self, number: int) -> AnnotationRecord | None:
        return next((one for task in self.tasks.values() for one in task.annotations if one.id == number), None)

    def delete_annotation(self, number: int) -> None:
        for task in list(self.tasks.values()):
            if any(one.id == number for one in task.annotations):
                self.save(task.id, *[one for one in task.annotations if one.id != number])


@pytest.fixture
def services(tmp_path: Path, empty_registry: Path) -> Iterator[Services]:
    made = Services(Settings(home=tmp_path / "home"))
    shutil.copyfile(empty_registry, made.settings.root / "mlflow.db")
    made.store.save_project(INFO.uid)
    yield made
    made.close()


@pytest.fixture
def studio(services: Services, monkeypatch: pytest.MonkeyPatch) -> Studio:
    made = Studio()
    monkeypatch.setattr(services, "client", lambda project: made)
    return made


def run_of(services: Services, run: str = "one", **options: Any) -> Acceptance:
    return accept(services, services.store.find(1), run=run, now=1.0, **options)


def written(services: Services) -> set[tuple[str, int, int]]:
    with services.store.engine.connect() as db:
        return {(row.run, row.task_id, row.regions) for row in db.execute(acceptances.select())}


def test_sure_regions_become_an_annotation(services: Services, studio: Studio) -> None:
    noted = box("b", 0.95, meta={"text": ["Look here"]})
    task = studio.suggest(box("a", 0.8), noted, box("c", 0.79), box("d", 0.85, "Plane"))
    done = run_of(services, labels={"Plane": 0.9})
    assert (done.version, done.tasks, done.regions, done.labels, done.skipped) == ("yoloop-v0", 1, 2, {"Car": 2}, {})
    assert (done.left_out, done.partial) == ({"Car": 1, "Plane": 1}, 1)
    made = studio.annotation_of(task)
    note = "Accepted by yoloop at 0.8 or above, run one"
    assert made.parent_prediction == task and made.result == [
        {**box("a", 0.8), "origin": "prediction", "meta": {"text": [note]}},
        {**noted, "origin": "prediction", "meta": {"text": ["Look here", note]}},
    ]
    assert written(services) == {("one", task, 2)}


def test_why_tasks_are_left_alone(services: Services, studio: Studio) -> None:
    studio.suggest(box("a", 0.9))
    mixed = studio.suggest(box("b", 0.9), box("c", 0.3))
    studio.suggest(box("d", 0.3))
    studio.suggest(box("e", 0.9), version="somebody else's")
    studio.touched.add(studio.suggest(box("f", 0.9)))
    late = studio.suggest(box("g", 0.9))
    studio.save(late, AnnotationRecord(7, [], False, False, NOON, NOON, 1, 2.0, None))
    studio.hidden.add(late)  # listed as open, annotated by the time of writing
    alone = {NOT_SURE: 1, NO_SUGGESTION: 1, TOUCHED: 1}
    planned = run_of(services, dry_run=True, complete_only=True)
    assert planned.skipped == alone | {DOUBTFUL: 1} and planned.tasks == 2
    assert written(services) == set() and not studio.tasks[mixed].annotations
    done = run_of(services)
    assert (done.tasks, done.regions, done.skipped) == (2, 2, alone | {ANNOTATED: 1})
    assert studio.annotation_of(late).id == 7


def test_no_task_is_left_half_labelled_unless_that_is_wanted(services: Services, studio: Studio) -> None:
    whole = studio.suggest(box("a", 0.9), box("b", 0.8))
    half = studio.suggest(box("c", 0.9), box("d", 0.3), box("e", 0.2, "Plane"))
    done = run_of(services, "one", complete_only=True)
    assert (done.tasks, done.regions, done.partial, done.skipped) == (1, 2, 0, {DOUBTFUL: 1})
    assert len(studio.annotation_of(whole).result) == 2 and not studio.tasks[half].annotations
    assert "Left alone: 1 tasks, doubtful suggestions beside the sure ones." in str(done)
    assert "Left out: 2 doubtful regions on tasks that have sure ones (Car 1, Plane 1)." in str(done)
    assert "With --partial" in str(done)
    done = run_of(services, "two")
    assert (done.tasks, done.regions, done.partial, done.skipped) == (1, 1, 1, {})
    assert [each["id"] for each in studio.annotation_of(half).result] == ["c"]
    assert "1 of the accepted tasks are labelled in part only" in str(done) and "With --partial" not in str(done)


def trained(services: Services, folder: Path) -> None:
    """One more version of the project, as a training registers it, and in service."""
    (folder / "weights.pt").write_bytes(b"any")
    network = Network("detect", "detect", ("Car", "Plane"), controls=("label",))
    part = Part(network, "weights.pt", 64)
    suggested = own_suggestions(parse_label_config(CONFIG), [part])
    made = services.registry.register(
        INFO.uid, f"job {time.monotonic_ns()}", {"weights.pt": folder / "weights.pt"}, metrics={}, params={},
        tags={TAG: dump([part]), "fingerprint": fingerprint(suggested, ThresholdPolicy(0.25))},
    )  # fmt: skip
    services.registry.promote(INFO.uid, made.number, "better")


def test_the_version_in_service_or_the_one_that_is_named(services: Services, studio: Studio, tmp_path: Path) -> None:
    for _ in range(2):
        trained(services, tmp_path)
    old = studio.suggest(box("a", 0.9), version="yoloop-v1")
    new = studio.suggest(box("b", 0.9), version="yoloop-v2")
    assert run_of(services, dry_run=True).version == "yoloop-v2"
    services.registry.rollback(INFO.uid)
    assert run_of(services, "one").version == "yoloop-v1"
    assert studio.annotation_of(old).id and not studio.tasks[new].annotations
    assert run_of(services, "two", version="yoloop-v2").tasks == 1
    assert written(services) == {("one", old, 1), ("two", new, 1)}


def test_predictions_of_others_are_not_accepted(services: Services, studio: Studio, tmp_path: Path) -> None:
    trained(services, tmp_path)
    ours = studio.suggest(box("0123456789", 0.9), version="v1")
    theirs = studio.suggest(box("0123456789", 0.9), box("theirs", 0.9), version="v1")
    later = studio.suggest(box("0123456789", 0.9), version="v2")
    for version in ("v1", "v2"):
        run_of(services, version, version=version)
    assert [len(studio.tasks[each].annotations) for each in (ours, theirs, later)] == [1, 0, 0]


def test_who_saves_between_the_look_and_the_write_is_left_alone(
    services: Services, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = studio.suggest(box("a", 0.9))
    theirs = AnnotationRecord(7, [], False, False, NOON, NOON, 1, 2.0, None)
    create = studio.create_annotation

    def slowly(*given: Any, **named: Any) -> AnnotationRecord:
        studio.save(task, theirs)
        return create(*given, **named)

    monkeypatch.setattr(studio, "create_annotation", slowly)
    assert run_of(services).skipped == {ANNOTATED: 1}
    assert studio.tasks[task].annotations == (theirs,) and written(services) == set()


@pytest.mark.parametrize("how", ["saved meanwhile", "draft", "ground truth", "confirmed"])
def test_undo_never_takes_what_a_person_did(
    services: Services, studio: Studio, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    task, other = studio.suggest(box("a", 0.9)), studio.suggest(box("b", 0.9))
    run_of(services)
    made = studio.annotation_of(task)
    look = studio.annotation

    def meanwhile(number: int) -> AnnotationRecord | None:
        found = look(number)
        if number == made.id and found == made:  # right after it was looked at
            studio.save(task, replace(made, result=[box("mine", 0.9)], updated_at=NOON + timedelta(hours=1)))
        return found

    if how == "saved meanwhile":
        monkeypatch.setattr(studio, "annotation", meanwhile)
    elif how == "draft":
        studio.drafted = {made.id}
    else:
        studio.save(task, replace(made, ground_truth=how == "ground truth", lead_time=2.0))
    undone = undo(services, services.store.find(1), "one")
    assert (undone.removed, undone.kept) == (1, 1)
    assert [len(studio.tasks[each].annotations) for each in (task, other)] == [1, 0]
    with services.store.engine.connect() as db:
        (copy,) = db.execute(removed_annotations.select()).all()
    assert (copy.task_id, copy.annotation["result"][0]["id"], copy.run) == (other, "b", "one")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"min_score": 1.01}, "least score is 1.01"),
        ({"min_score": float("nan")}, "Scores lie between 0 and 1"),
        ({"labels": {"Car": -0.1}}, "score of 'Car'"),
        ({"labels": {"Cat": 0.9}}, "no label 'Cat'.*It has: Car, Plane"),
    ],
)
def test_what_cannot_be_is_refused(services: Services, studio: Studio, options: dict[str, Any], says: str) -> None:
    task = studio.suggest(box("a", 0.9))
    with pytest.raises(BadRequest, match=says):
        run_of(services, **options)
    assert not studio.tasks[task].annotations


def test_undo_removes_its_run_and_keeps_what_a_person_changed(services: Services, studio: Studio) -> None:
    changed, same, gone, other = (studio.suggest(box(each, 0.9)) for each in "abcd")
    studio.touched = {other}
    run_of(services, "one")
    studio.touched = set()
    run_of(services, "two")
    made = studio.annotation_of(changed)
    studio.save(changed, replace(made, result=[{**made.result[0], "value": box("a", 0.9, "Plane")["value"]}]))
    studio.save(gone)
    undone = undo(services, services.store.find(1), "one")
    assert (undone.removed, undone.kept) == (1, 1)
    assert [len(studio.tasks[each].annotations) for each in (changed, same, gone, other)] == [1, 0, 0, 1]
    assert written(services) == {("one", changed, 1), ("two", other, 1)}
    with pytest.raises(NotFound, match="three"):
        undo(services, services.store.find(1), "three")


def test_a_crash_between_the_annotation_and_its_row(
    services: Services, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = studio.suggest(box("a", 0.9)), studio.suggest(box("b", 0.9))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, "accepted_annotation", killed)
        run_of(services, "one")
    assert studio.annotation_of(first) and written(services) == set()
    assert run_of(services, "two").tasks == 1
    assert [len(studio.tasks[each].annotations) for each in (first, second)] == [1, 1]
    assert undo(services, services.store.find(1), "one").removed == 1
    assert [len(studio.tasks[each].annotations) for each in (first, second)] == [0, 1]


def test_an_undo_finds_the_annotation_whose_row_is_missing(
    services: Services, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = studio.suggest(box("a", 0.9))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, "accepted_annotation", killed)
        run_of(services, "one")
    assert undo(services, services.store.find(1), "one").removed == 1
    assert not studio.tasks[task].annotations and written(services) == set()


def test_what_to_expect_comes_from_what_people_made_of_such_suggestions(services: Services, studio: Studio) -> None:
    for number in range(25):
        seen = box(f"r{number}", 0.9)
        task = studio.suggest(seen, box(f"low{number}", 0.5))
        kept = [] if number < 5 else [{**seen, "origin": "prediction"}]
        studio.save(task, AnnotationRecord(task, kept, False, False, NOON, NOON, 1, 3.0, task))
    studio.suggest(box("new", 0.9))
    done = run_of(services)
    assert (done.expected.right, done.expected.shown, done.expected_of) == (20, 25, "yoloop-v0")
    assert "Of such suggestions so far, by yoloop-v0: 20 of 25 right (61–91 %)." in str(done)
    assert len(services.ledger.examples(INFO.uid)) == 25
