from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.store import readings as module
from backend.store.contents import name_of
from backend.store.database import Store
from backend.store.ledger import Ledger
from backend.store.near_duplicates import SIDE, Duplicates
from backend.store.readings import TRAINING, VALIDATION, Annotations, Config, Readings, Several
from backend.store.unreadable import UnreadableTasks

UID = "1.100"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def config(*labels: str, more: str = "") -> str:
    tags = "".join(f'<Label value="{label}"/>' for label in labels)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="label" toName="image">{tags}</RectangleLabels>{more}</View>'
    )


COLOUR = '<Choices name="colour" toName="image"><Choice value="red"/><Choice value="blue"/></Choices>'


def box(label: str, **fields: Any) -> dict[str, Any]:
    value = {"x": 1, "y": 2, "width": 30, "height": 40, "rectanglelabels": [label]}
    return {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value, **fields}


def answer(name: str) -> dict[str, Any]:
    return {"from_name": "colour", "to_name": "image", "type": "choices", "value": {"choices": [name]}}


def task(number: int, *result: dict[str, Any]) -> TaskRecord:
    made = AnnotationRecord(100 + number, list(result), False, False, NOON, NOON, 1, 2.0, None)
    return TaskRecord(number, NOON, NOON, {"image": f"/data/{number}.jpg"}, (made,))


@pytest.fixture
def ledger(store: Store) -> Ledger:
    store.save_project(UID, label_config=config("Disc", "Square", "Dead"))
    return Ledger(store)


@pytest.fixture
def readings(store: Store) -> Readings:
    return Readings(store)


def learn(ledger: Ledger, readings: Readings) -> None:
    """What a training does that understood all but the problems."""
    left_out = {each.task_id for each in readings.problems(UID) if not each.in_part}
    examples = {each.task_id: each.content for each in ledger.examples(UID)}
    ledger.mark_seen(UID, {task_id: each for task_id, each in examples.items() if task_id not in left_out})


def numbers(ledger: Ledger) -> tuple[int, int, int]:
    progress = ledger.progress(UID)
    return progress.labelled, progress.new, progress.left_out


def test_each_annotation_is_used_or_has_a_reason(ledger: Ledger, readings: Readings) -> None:
    tasks = [task(number, box("Disc"), box("Square")) for number in range(1, 5)]
    tasks += [task(5, box("car")), task(6, box("Disc"), box("car")), task(7, box("Disc", from_name="x", type="brush"))]
    ledger.update(UID, tasks)
    known = readings.annotations(UID)
    assert (known.total, known.used, known.left_out) == (7, 4, 3)
    assert str(known) == (
        "7 annotations: 4 used, 3 not understood: label `car` is not in the config (2), control `x` is not in the "
        "config (1); 4 new"
    )
    assert known.told_objects() == "Disc 4, Square 4, Dead: no example yet"
    assert [(each.task_id, each.annotation_id, each.in_part) for each in readings.problems(UID)] == [
        (5, 105, False),
        (6, 106, False),
        (7, 107, False),
    ]
    readings.prepared(UID, {1: TRAINING, 2: TRAINING, 3: VALIDATION}, {4: "a region of `label` covers nothing"})
    told = str(readings.annotations(UID))
    assert told.startswith("7 annotations: 3 used (2 training, 1 validation), 4 not understood: ")
    assert "covers nothing (1)" in told


def test_what_is_not_understood_is_no_news_until_it_is(ledger: Ledger, readings: Readings, store: Store) -> None:
    ledger.update(UID, [task(1, box("Disc")), task(2, box("car")), task(3, box("car"))])
    assert numbers(ledger) == (1, 1, 2)
    learn(ledger, readings)
    assert numbers(ledger) == (1, 0, 2)
    store.save_project(UID, label_config=config("Disc", "Square", "car"))
    assert readings.renew(UID) == 3
    assert numbers(ledger) == (3, 2, 0)
    assert readings.renew(UID) == 0
    learn(ledger, readings)
    assert numbers(ledger) == (3, 0, 0)


def test_a_label_that_goes_and_comes_back_is_news(ledger: Ledger, readings: Readings, store: Store) -> None:
    ledger.update(UID, [task(1, box("Disc")), task(2, box("Square"))])
    ledger.mark_seen(UID, {each.task_id: each.content for each in ledger.examples(UID)})
    store.save_project(UID, label_config=config("Disc"))
    readings.renew(UID)
    assert numbers(ledger) == (1, 0, 1)
    store.save_project(UID, label_config=config("Disc", "Square"))
    readings.renew(UID)
    assert numbers(ledger) == (2, 1, 0)


def test_one_model_may_learn_from_what_another_cannot(ledger: Ledger, readings: Readings, store: Store) -> None:
    store.save_project(UID, label_config=config("Disc", more=COLOUR))
    ledger.update(UID, [task(1, box("car"), answer("red")), task(2, box("car")), task(3, box("Disc"), answer("no"))])
    assert [(each.task_id, each.in_part) for each in readings.problems(UID)] == [(1, True), (2, False), (3, True)]
    known = readings.annotations(UID)
    assert (known.used, known.left_out, known.in_part, known.new) == (2, 1, 2, 2)
    assert "2 used only in part" in str(known)


@pytest.mark.parametrize(
    ("index", "label", "used"), [(0, "Gone", True), (1, "Gone", False), (5, "Disc", False), ("x", "Disc", False)]
)
def test_a_page_teaches_where_what_is_unclear_is_on_another(index: object, label: str, used: bool) -> None:
    paged = Config(config("Disc").replace('value="$image"', 'valueList="$image"'))
    said = paged.read([box("Disc", item_index=1), box(label, item_index=index)], {"image": ["a", "b"]})
    assert said.problem and said.used is used


def test_an_image_teaches_where_what_is_unclear_is_on_another() -> None:
    two = Config(
        config("Disc")
        .replace("<View>", '<View><Image name="more" value="$more"/>')
        .replace('"image">', '"image,more">')
    )
    said = two.read([box("Disc"), {**box("Gone"), "to_name": "more"}])
    assert said.problem and said.used
    assert not two.read([box("Disc"), {**box("Disc"), "to_name": "gone"}]).used


def test_a_database_of_an_earlier_release_is_read_at_the_first_sync(
    ledger: Ledger, readings: Readings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    ledger.update(UID, [task(number, box("Disc" if number % 2 else "car")) for number in range(1, 6)])
    with store.write() as db:
        module.forget_tasks(db, UID, range(1, 6))
    assert numbers(ledger) == (5, 5, 0)  # unread, they count as before
    assert readings.renew(UID) == 5
    assert numbers(ledger) == (3, 3, 2)


def test_another_annotation_is_read_anew(ledger: Ledger, readings: Readings) -> None:
    ledger.update(UID, [task(1, box("car")), task(2, box("car"))])
    ledger.update(UID, [task(1, box("Disc")), TaskRecord(2, NOON, NOON, {"image": "/data/2.jpg"}, ())])
    assert readings.problems(UID) == []
    assert numbers(ledger) == (1, 1, 0)
    assert ledger.keep_only(UID, []) == 2
    assert readings.annotations(UID).objects == {"Disc": 0, "Square": 0, "Dead": 0}


def test_an_image_that_cannot_be_read_counts_once(ledger: Ledger, readings: Readings, store: Store) -> None:
    ledger.update(UID, [task(1, box("Disc")), task(2, box("Disc")), task(3, box("car"))])
    UnreadableTasks(store).failed(UID, {2: "gone", 3: "gone"}, 1.0)
    known = readings.annotations(UID)
    assert (known.total, known.used, known.image_unreadable, known.left_out) == (3, 1, 1, 1)


def test_many_labels_make_no_endless_line() -> None:
    told = Annotations(0, 0, objects={f"label {number}": number % 2 for number in range(1000)}).told_objects()
    assert len(told) < 1500 and told.endswith("and 960 more labels")


def test_numbers_read_no_annotation(ledger: Ledger, readings: Readings, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.update(UID, [task(1, box("Disc"))])

    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(Config, "read", never)
    assert readings.annotations(UID).objects["Disc"] == 1
    assert ledger.progress(UID).objects == {"Disc": 1}
    assert readings.renew(UID) == 0


def test_several_annotations_of_a_task_are_counted_and_listed(ledger: Ledger, readings: Readings) -> None:
    one = task(1, box("Disc")).annotations[0]
    others = [replace(one, id=number) for number in (201, 202)]
    skipped = replace(one, id=203, was_cancelled=True)
    ledger.update(UID, [replace(task(1), annotations=(one, *others, skipped)), task(2, box("Disc"))])
    assert readings.several(UID) == [Several(1, 3, None)]
    assert "of 1 task with several, ground truth counts, else the newest" in str(readings.annotations(UID))
    ledger.update(UID, [replace(task(1), annotations=(one, skipped))])
    assert readings.several(UID) == []
    assert "several" not in str(readings.annotations(UID))


@pytest.mark.parametrize(
    ("empty", "full", "told"),
    [(9, 3, "9 of the last 12"), (4, 1, ""), (5, 5, ""), (11, 9, "11 of the last 20"), (10, 20, "")],
)
def test_many_empty_ones_are_told(ledger: Ledger, readings: Readings, empty: int, full: int, told: str) -> None:
    tasks = [task(number, box("Disc")) for number in range(1, full + 1)]
    tasks += [task(number) for number in range(full + 1, full + empty + 1)]
    ledger.update(UID, tasks)  # all at one time: the ids tell which came last
    known = str(readings.annotations(UID))
    assert (f"{told} were submitted empty" in known) if told else ("empty" not in known)
    assert readings.empty(UID) == list(range(full + 1, full + empty + 1))


def test_what_is_read_again_keeps_its_numbers(ledger: Ledger, readings: Readings, store: Store) -> None:
    one = task(1, box("Disc")).annotations[0]
    ledger.update(UID, [replace(task(1), annotations=(one, replace(one, id=7)))])
    readings.prepared(UID, {1: VALIDATION}, {})
    store.save_project(UID, label_config=config("Disc"))
    assert readings.renew(UID) == 1
    assert readings.several(UID) == [Several(1, 2, None)]
    assert readings.annotations(UID).validation == 1


def grey(top: int) -> bytes:
    """A thumbnail that is grey, but for its upper row."""
    return bytes([top] * SIDE + [100] * (SIDE * SIDE - SIDE))


class TestContradictions:
    def test_one_image_and_two_truths(self, ledger: Ledger, readings: Readings) -> None:
        pair = [replace(task(number), data={"image": "/data/same.jpg"}) for number in (2, 3)]
        ledger.update(
            UID, [task(1, box("Disc")), replace(pair[0], annotations=task(2, box("Disc")).annotations), pair[1]]
        )
        first, second = readings.contradictions(UID)
        assert (str(first), str(second)) == ("Disc 1; otherwise task 3", "nothing is there; otherwise task 2")
        known = readings.annotations(UID)
        assert "; 2 say something else than that of nearly the same image, such as tasks 2 and 3" in str(known)
        assert (known.as_json()["contradicting"], known.as_json()["contradicting_tasks"]) == (2, [2, 3])
        ledger.update(UID, [replace(pair[1], annotations=task(3, box("Disc")).annotations)])
        assert readings.contradictions(UID) == [] and "nearly" not in str(readings.annotations(UID))

    def test_images_that_a_training_found_to_be_the_same(
        self, ledger: Ledger, readings: Readings, store: Store
    ) -> None:
        ledger.update(UID, [task(1, box("Disc")), task(2), task(3), task(4, box("Disc"))])
        assert readings.contradictions(UID) == []
        shown = {1: grey(100), 2: grey(104), 3: grey(112), 4: grey(100)}
        images = {name_of(f"/data/{number}.jpg"): pixels for number, pixels in shown.items()}
        found = Duplicates(store).find(UID, images)
        assert len({each.group for each in found.values()}) == 1
        told = {each.task_id: each.others for each in readings.contradictions(UID)}
        assert told == {1: (2,), 2: (1, 4), 4: (2,)}, "what changed a little may show another thing"

    def test_what_is_not_understood_contradicts_nothing(self, ledger: Ledger, readings: Readings) -> None:
        same = {"image": "/data/same.jpg"}
        ledger.update(UID, [replace(task(1, box("car")), data=same), replace(task(2), data=same)])
        assert readings.contradictions(UID) == []

    def test_tasks_with_several_images_are_compared_as_a_whole(
        self, ledger: Ledger, readings: Readings, store: Store
    ) -> None:
        pages = config("Disc").replace('value="$image"', 'valueList="$pages"')
        store.save_project(UID, label_config=pages)
        there = [["a.jpg", "b.jpg"], ["a.jpg", "b.jpg"], ["a.jpg", "c.jpg"], []]
        tasks = [replace(task(number), data={"pages": each}) for number, each in enumerate(there, 1)]
        tasks[0] = replace(tasks[0], annotations=task(1, box("Disc")).annotations)
        ledger.update(UID, [*tasks, replace(task(5, box("Disc")), data={"pages": ["d.jpg"]})])
        assert [each.task_id for each in readings.contradictions(UID)] == [1, 2]
