from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.images.addresses import embedded
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.store.contents import content_hash
from backend.store.database import Store
from backend.store.jobs import Jobs
from backend.store.ledger import Example, Ledger, teaching_annotation
from backend.store.progress import NOTHING_YET
from backend.store.readings import Readings, Several
from backend.store.tables import acceptances

UID, OTHER = "1.100", "1.200"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def annotation(
    number: int, *, minutes: int = 0, skipped: bool = False, truth: bool = False, result: list[Any] | None = None
) -> AnnotationRecord:
    when = NOON + timedelta(minutes=minutes)
    regions = [region(number)] if result is None else result
    return AnnotationRecord(number, regions, skipped, truth, when, when, 1, 2.0, None)


def region(x: float, **fields: Any) -> dict[str, Any]:
    return {"id": f"r{x}", "type": "rectanglelabels", "value": {"x": x, "rectanglelabels": ["Disc"]}, **fields}


def task(number: int, *annotations: AnnotationRecord, image: str | None = None) -> TaskRecord:
    return TaskRecord(number, NOON, NOON, {"image": image or f"/data/{number}.jpg"}, annotations)


@pytest.fixture
def ledger(store: Store) -> Ledger:
    for uid in (UID, OTHER):
        store.save_project(uid)
    return Ledger(store)


def taught(ledger: Ledger, uid: str = UID) -> dict[int, int]:
    """Task → the annotation that teaches for it."""
    return {each.task_id: each.annotation_id for each in ledger.examples(uid)}


def numbers(ledger: Ledger, uid: str = UID) -> tuple[int, int, int]:
    progress = ledger.progress(uid)
    return progress.labelled, progress.new, progress.seen


def learn(ledger: Ledger, uid: str = UID) -> None:
    """What a finished training does."""
    ledger.mark_seen(uid, {each.task_id: each.content for each in ledger.examples(uid)})


def test_annotations_are_counted_as_they_are_now(ledger: Ledger) -> None:
    assert ledger.counts(UID) == (0, 0)
    ledger.update(UID, [task(1, annotation(1)), task(2, annotation(2)), task(3)], 1.0)
    ledger.update(OTHER, [task(1, annotation(1))], 1.0)
    assert ledger.counts(UID) == (2, 2)
    learn(ledger)
    assert ledger.counts(UID) == (2, 0)
    ledger.update(UID, [task(1, annotation(1, result=[region(5)])), task(2), task(3, annotation(3))], 2.0)
    assert ledger.counts(UID) == (2, 2), "one changed, one came, and one that went is neither"


class TestWhichAnnotationTeaches:
    @pytest.mark.parametrize(
        ("annotations", "expected"),
        [
            ([], None),
            ([annotation(1)], 1),
            ([annotation(1, minutes=2), annotation(2, minutes=1)], 1),
            ([annotation(1, minutes=1), annotation(2, minutes=1)], 2),
            ([annotation(1, truth=True), annotation(2, minutes=9)], 1),
            ([annotation(1, truth=True), annotation(2, minutes=9, truth=True)], 2),
            ([annotation(1, skipped=True)], None),
            ([annotation(1), annotation(2, minutes=9, skipped=True)], 1),
            ([annotation(1), annotation(2, minutes=9, skipped=True, truth=True)], 1),
            ([annotation(1, result=[])], 1),
            ([annotation(1), annotation(2, minutes=1, result=[])], 2),
        ],
    )
    def test_ground_truth_then_the_newest_never_a_skipped_one(
        self, annotations: list[AnnotationRecord], expected: int | None
    ) -> None:
        for order in itertools.permutations(annotations):
            found = teaching_annotation(order)
            assert (None if found is None else found.id) == expected

    def test_one_that_is_left_out_teaches_nothing(self) -> None:
        both = [annotation(1), annotation(2, minutes=9, truth=True)]
        found = teaching_annotation(both, {2})
        assert found is not None and found.id == 1
        assert teaching_annotation(both, {1, 2}) is None


CARS = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="Car"/><Label value="Van"/></RectangleLabels></View>"""


def car(x: float, label: str = "Car") -> dict[str, Any]:
    value = {"x": x, "y": 10, "width": 20, "height": 20, "rectanglelabels": [label]}
    return {"id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}


class TestSeveralTogether:
    """One author's first two cars, and a second annotation with a third one; another task that two have annotated."""

    @pytest.fixture
    def tasks(self) -> list[TaskRecord]:
        first, second = annotation(1, result=[car(5), car(40)]), annotation(2, minutes=1, result=[car(70)])
        ann, bob = annotation(3, result=[car(5)]), annotation(4, minutes=1, result=[car(6, "Van")])
        return [task(1, first, second), task(2, ann, replace(bob, completed_by=2)), task(3, annotation(5))]

    @pytest.fixture
    def known(self, store: Store) -> Store:
        store.save_project(UID, label_config=CARS)
        return store

    def regions(self, ledger: Ledger) -> dict[int, int]:
        return {each.task_id: len(each.result) for each in ledger.examples(UID)}

    def test_the_setting_says_what_is_learned(self, known: Store, tasks: list[TaskRecord]) -> None:
        Ledger(known).update(UID, tasks)
        assert self.regions(Ledger(known)) == {1: 1, 2: 1, 3: 1}
        Ledger(known, "union").update(UID, tasks)
        assert self.regions(Ledger(known)) == {1: 3, 2: 1, 3: 1}
        Ledger(known, "consensus").update(UID, tasks)
        assert [(each.task_id, each.reason) for each in Readings(known).problems(UID) if each.task_id == 2] == [
            (2, "the annotators disagree on `label`")
        ]
        found = Readings(known, "consensus")
        assert found.several(UID) == [Several(1, 2, None), Several(2, 2, 0.0)]
        assert "what most annotators say (they agree on 0%)" in str(found.annotations(UID))

    def test_another_setting_is_news_and_loses_nothing(self, known: Store, tasks: list[TaskRecord]) -> None:
        before = Ledger(known)
        before.update(UID, tasks)
        learn(before)
        newest = before.examples(UID)
        assert before.select(UID) == 0
        union = Ledger(known, "union")
        assert (union.select(UID), union.select(UID)) == (2, 0)
        assert union.counts(UID)[1] == 1, "only the task of which more is learned now"
        assert self.regions(union) == {1: 3, 2: 1, 3: 1}
        assert Readings(known).objects(UID) == {"Car": 3, "Van": 1}
        assert before.select(UID) == 2
        assert before.examples(UID) == newest and before.counts(UID)[1] == 0

    def test_another_config_is_read_anew(self, known: Store, tasks: list[TaskRecord]) -> None:
        ledger = Ledger(known, "consensus")
        known.save_project(UID, label_config="")
        ledger.update(UID, tasks)
        assert self.regions(ledger) == {1: 1, 2: 1, 3: 1}, "without a config, the newest"
        known.save_project(UID, label_config=CARS)
        assert ledger.select(UID) == 2
        known.save_project(UID, label_config=CARS.replace("Van", "Bus"))
        assert ledger.select(UID) == 2
        Readings(known).renew(UID)
        (problem,) = [each for each in Readings(known).problems(UID) if each.task_id == 2]
        assert problem.reason in ("label `Van` is not in the config", "the annotators disagree on `label`")

    def test_a_task_that_has_one_again_has_nothing_to_choose(self, known: Store, tasks: list[TaskRecord]) -> None:
        ledger = Ledger(known, "union")
        ledger.update(UID, tasks)
        ledger.update(UID, [replace(tasks[0], annotations=tasks[0].annotations[:1])])
        assert self.regions(ledger)[1] == 2
        assert Ledger(known).select(UID) == 1


class TestEmbeddedImages:
    def test_they_are_not_kept(self, store: Store, tmp_path: Path) -> None:
        kept: list[str] = []
        ledger = Ledger(store, keep=kept.append)
        store.save_project(UID, label_config=CARS)
        images = [f"data:image/png;base64,{str(number) * 300_000}" for number in range(1, 10)]
        tasks = [task(number, annotation(number, result=[car(5)]), image=each) for number, each in enumerate(images, 1)]
        ledger.update(UID, [*tasks, task(10, image="data:image/png;base64,unlabelled")])
        assert kept == images, "those that are learned from"
        assert sum(path.stat().st_size for path in tmp_path.glob("yoloop.db*")) < 1_000_000
        assert {each.data["image"] for each in ledger.examples(UID)} == {embedded(each) for each in images}
        learn(ledger)
        ledger.update(UID, tasks)
        assert ledger.counts(UID) == (9, 0)
        ledger.update(UID, [task(1, annotation(1, result=[car(5)]), image="data:image/png;base64,another")])
        assert ledger.counts(UID) == (9, 1)


class TestAcceptedUnseen:
    """What `yoloop accept` made teaches from the moment that a person has changed it."""

    @pytest.fixture
    def accepted(self, store: Store) -> AnnotationRecord:
        made = annotation(10)
        row = {"uid": UID, "annotation_id": 10, "task_id": 1, "content": content_hash({}, made.result)}
        with store.write() as db:
            db.execute(acceptances.insert().values(row | {"run": "r", "regions": 1, "accepted_at": 1.0}))
        return made

    def test_unchanged_it_does_not_teach(self, ledger: Ledger, accepted: AnnotationRecord) -> None:
        ledger.update(UID, [task(1, accepted), task(2, annotation(20))], 5.0)
        assert taught(ledger) == {2: 20} and numbers(ledger) == (1, 1, 0)

    def test_neither_when_other_fields_of_its_task_change(self, ledger: Ledger, accepted: AnnotationRecord) -> None:
        ledger.update(UID, [task(1, accepted, image="/data/other.jpg")], 5.0)
        assert taught(ledger) == {}

    def test_changed_it_teaches(self, ledger: Ledger, accepted: AnnotationRecord) -> None:
        ledger.update(UID, [task(1, accepted)], 5.0)
        ledger.update(UID, [task(1, annotation(10, result=[region(3)]))], 6.0)
        assert taught(ledger) == {1: 10}

    def test_a_persons_older_one_teaches_beside_it(self, ledger: Ledger, accepted: AnnotationRecord) -> None:
        ledger.update(UID, [task(1, annotation(9, minutes=-5), accepted)], 5.0)
        assert taught(ledger) == {1: 9}

    def test_the_same_number_elsewhere_is_another_annotation(self, ledger: Ledger, accepted: AnnotationRecord) -> None:
        ledger.update(UID, [task(2, accepted)], 5.0)
        ledger.update(OTHER, [task(1, accepted)], 5.0)
        assert taught(ledger) == {2: 10} and taught(ledger, OTHER) == {1: 10}


class TestContent:
    def test_ids_of_regions_say_nothing(self) -> None:
        data = {"image": "a.jpg"}
        assert content_hash(data, [region(1)]) == content_hash(data, [{**region(1), "id": "other"}])

    @pytest.mark.parametrize(
        ("data", "result"),
        [
            ({"image": "b.jpg"}, [region(1)]),
            ({"image": "a.jpg"}, [region(2)]),
            ({"image": "a.jpg"}, []),
            ({"image": "a.jpg"}, [region(1), region(1)]),
            ({"image": "a.jpg"}, [region(1, value={"x": 1, "rectanglelabels": ["Square"]})]),
        ],
    )
    def test_all_else_counts(self, data: dict[str, Any], result: list[Any]) -> None:
        assert content_hash(data, result) != content_hash({"image": "a.jpg"}, [region(1)])

    @given(st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.floats(), st.text())))
    def test_the_order_of_fields_says_nothing(self, data: dict[str, Any]) -> None:
        assert content_hash(data, []) == content_hash(dict(reversed(list(data.items()))), [])


class TestKeepingStep:
    def test_examples_are_what_label_studio_says(self, ledger: Ledger) -> None:
        ledger.update(UID, [task(2, annotation(20)), task(1, annotation(10), annotation(11, minutes=1)), task(3)], 5.0)
        first, second = ledger.examples(UID)
        assert first == Example(
            1, {"image": "/data/1.jpg"}, 11, [region(11)], content_hash({"image": "/data/1.jpg"}, [region(11)])
        )
        assert second.task_id == 2
        assert ledger.task_count(UID) == 3

    def test_an_empty_annotation_is_a_background_image(self, ledger: Ledger) -> None:
        ledger.update(UID, [task(1, annotation(10, result=[]))], 5.0)
        (example,) = ledger.examples(UID)
        assert example.result == []
        assert numbers(ledger) == (1, 1, 0)

    def test_the_cursor_moves_with_the_tasks(self, ledger: Ledger, store: Store) -> None:
        ledger.update(UID, [task(1)], 5.0)
        project = store.project(UID)
        assert project is not None
        assert project.cursor == 5.0

    def test_a_batch_is_taken_in_whole_or_not_at_all(self, ledger: Ledger, store: Store) -> None:
        ledger.update(UID, [task(1, annotation(10))], 5.0)
        broken = TaskRecord(3, NOON, NOON, {"image": object()}, ())
        with pytest.raises(Exception, match="not JSON serializable"):
            ledger.update(UID, [task(2, annotation(20)), broken], 6.0)
        assert taught(ledger) == {1: 10}
        project = store.project(UID)
        assert project is not None
        assert project.cursor == 5.0

    def test_a_deleted_or_skipped_annotation_teaches_no_more(self, ledger: Ledger) -> None:
        ledger.update(UID, [task(1, annotation(10)), task(2, annotation(20))], 5.0)
        ledger.update(UID, [task(1), task(2, annotation(20, skipped=True))], 6.0)
        assert taught(ledger) == {}
        assert ledger.task_count(UID) == 2

    def test_a_deleted_task_leaves(self, ledger: Ledger) -> None:
        ledger.update(UID, [task(number, annotation(10 * number)) for number in range(1, 6)], 5.0)
        assert ledger.keep_only(UID, [2, 4, 99]) == 3
        assert taught(ledger) == {2: 20, 4: 40}
        assert ledger.keep_only(UID, [2, 4]) == 0

    def test_one_id_in_two_projects(self, ledger: Ledger) -> None:
        ledger.update(UID, [task(1, annotation(10))], 5.0)
        ledger.update(OTHER, [task(1, annotation(99))], 5.0)
        learn(ledger, OTHER)
        ledger.keep_only(OTHER, [])
        assert taught(ledger) == {1: 10}
        assert numbers(ledger) == (1, 1, 0)
        assert numbers(ledger, OTHER) == (0, 0, 0)

    def test_an_id_given_out_again_is_new(self, ledger: Ledger) -> None:
        """SQLite gives a deleted task's id to the next one: the ledger may never hear of the deletion."""
        ledger.update(UID, [task(1, annotation(10))], 5.0)
        learn(ledger)
        ledger.update(UID, [task(1, annotation(10), image="/data/other.jpg")], 6.0)
        assert numbers(ledger) == (1, 1, 1)


class TestProgress:
    def test_what_is_new_since_the_last_training(self, ledger: Ledger) -> None:
        assert numbers(ledger) == (0, 0, 0)
        ledger.update(UID, [task(1, annotation(10)), task(2, annotation(20)), task(3)], 5.0)
        assert numbers(ledger) == (2, 2, 0)
        learn(ledger)
        assert numbers(ledger) == (2, 0, 2)
        ledger.update(UID, [task(3, annotation(30))], 6.0)
        assert numbers(ledger) == (3, 1, 2)

    def test_reading_the_same_again_is_not_new(self, ledger: Ledger) -> None:
        ledger.update(UID, [task(1, annotation(10))], 5.0)
        learn(ledger)
        ledger.update(UID, [task(1, annotation(10, minutes=5))], 6.0)
        assert numbers(ledger) == (1, 0, 1)

    def test_changed_and_withdrawn_annotations_are_new(self, ledger: Ledger) -> None:
        ledger.update(UID, [task(1, annotation(10)), task(2, annotation(20))], 5.0)
        learn(ledger)
        ledger.update(UID, [task(1, annotation(10, result=[region(55)]))], 6.0)
        assert numbers(ledger) == (2, 1, 2)
        ledger.update(UID, [task(2)], 7.0)
        assert numbers(ledger) == (1, 2, 2)
        learn(ledger)
        assert numbers(ledger) == (1, 0, 1)

    def test_what_came_during_a_training_stays_new(self, ledger: Ledger) -> None:
        ledger.update(UID, [task(1, annotation(10)), task(2, annotation(20))], 5.0)
        taught_now = {each.task_id: each.content for each in ledger.examples(UID)}
        ledger.update(UID, [task(2, annotation(20, result=[])), task(3, annotation(30))], 6.0)
        ledger.mark_seen(UID, taught_now)
        assert numbers(ledger) == (3, 2, 2)

    def test_an_unreadable_image_is_not_marked_as_seen(self, ledger: Ledger) -> None:
        ledger.update(UID, [task(1, annotation(10)), task(2, annotation(20))], 5.0)
        ledger.mark_seen(UID, {1: ledger.examples(UID)[0].content})
        assert numbers(ledger) == (2, 1, 1)

    def test_failures_in_a_row(self, ledger: Ledger, store: Store) -> None:
        jobs = Jobs(store)
        for status, now in (("failed", 1.0), ("done", 2.0), ("failed", 3.0), ("failed", 4.0)):
            job, _ = jobs.request(UID, "why", now)
            jobs.finish(job.id, status, "", now)
        jobs.request(UID, "unfinished", 5.0)
        progress = ledger.progress(UID)
        assert (progress.failures, progress.failed_at) == (2, 4.0)
        assert ledger.progress(OTHER).failures == 0

    def test_one_that_was_asked_for_too_early_is_none_to_wait_after(self, ledger: Ledger, store: Store) -> None:
        jobs = Jobs(store)
        for message, now in (("out of memory", 1.0), (f"{NOTHING_YET} Submit some, then train.", 2.0)):
            job, _ = jobs.request(UID, "asked for at the command line", now)
            jobs.finish(job.id, "failed", message, now)
        progress = ledger.progress(UID)
        assert (progress.failures, progress.failed_at) == (1, 1.0)

    def test_versions_in_a_row_that_were_not_better(self, ledger: Ledger, store: Store) -> None:
        jobs = Jobs(store)
        ended = [
            ("done", "v1 kept, not promoted: bad"),
            ("done", "v2 promoted: good"),
            ("done", "v3 kept, not promoted: bad"),
            ("failed", "The trainer ended."),
            ("cancelled", "The training was cancelled."),
            ("done", "v4 kept, not promoted: bad"),
        ]
        for now, (status, message) in enumerate(ended):
            job, _ = jobs.request(UID, "why", float(now))
            jobs.finish(job.id, status, message, now + 0.5, message.partition(" ")[0])
        assert ledger.progress(UID).rejected == 2
        assert ledger.progress(OTHER).rejected == 0

    def test_trainings_that_began_by_themselves(self, ledger: Ledger, store: Store) -> None:
        assert ledger.progress(UID).ended_at == float("-inf")
        jobs = Jobs(store)
        reasons = ["10 new annotations", "asked for in Label Studio", "20 new annotations", "asked for at the command"]
        for number, reason in enumerate(reasons):
            job, _ = jobs.request(UID, reason, 100.0 * number)
            jobs.finish(job.id, "done", "", 100.0 * number + 50)
        jobs.request(UID, "30 new annotations", 400.0)
        progress = ledger.progress(UID)
        assert progress.began == (400.0, 200.0, 0.0)
        assert progress.ended_at == 250.0

    def test_labels_are_counted_until_there_is_a_version(self, ledger: Ledger, store: Store) -> None:
        store.save_project(UID, label_config=CONFIG)
        disc, square = drawn("Disc"), drawn("Square")
        ledger.update(UID, [task(1, annotation(10, result=[disc, disc, square])), task(2)], 5.0)
        assert ledger.progress(UID).objects == {"Disc": 2, "Square": 1}
        ledger.update(UID, [task(2, annotation(20, result=[disc])), task(3, annotation(30, skipped=True))], 6.0)
        assert ledger.progress(UID).objects == {"Disc": 3, "Square": 1}
        ledger.update(UID, [task(1)], 7.0)
        assert ledger.progress(UID).objects == {"Disc": 1}
        jobs = Jobs(store)
        job, _ = jobs.request(UID, "why", 1.0)
        jobs.finish(job.id, "failed", "", 2.0)
        assert ledger.progress(UID).objects == {"Disc": 1}
        job, _ = jobs.request(UID, "why", 3.0)
        jobs.finish(job.id, "done", "", 4.0, "v1")
        assert ledger.progress(UID).objects == {}


CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="Disc"/><Label value="Square"/></RectangleLabels>
<Choices name="colour" toName="image" perRegion="true"><Choice value="rare"/></Choices></View>"""


def drawn(label: str, **fields: Any) -> dict[str, Any]:
    value = {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": [label]}
    return {
        **{"id": "r", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value},
        **fields,
    }


def test_only_labels_that_can_be_learned_are_counted(ledger: Ledger, store: Store) -> None:
    colour = drawn("", from_name="colour", type="choices", value={"x": 1, "choices": ["rare"]})
    results = [[drawn("Disc"), colour], [drawn("square ")], [drawn("Disc"), drawn("car")], [{}]]
    for config, objects in ((CONFIG, {"Disc": 1, "Square": 1}), ("no XML", {})):
        store.save_project(UID, label_config=config)
        ledger.update(UID, [task(number, annotation(number, result=each)) for number, each in enumerate(results, 1)])
        assert ledger.progress(UID).objects == objects


def test_the_ledger_needs_no_sdk() -> None:
    code = "import sys, backend.store.ledger; assert not {'label_studio_sdk', 'flask', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
