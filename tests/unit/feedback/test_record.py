from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from backend.feedback.record import accepted_annotation, nobody_looked, record, shown_to
from backend.feedback.selection import accepted, groups_of
from backend.labelstudio.records import AnnotationRecord, PredictionRecord, TaskRecord
from backend.store.database import Store
from backend.store.ledger import Ledger
from backend.store.tables import acceptances, outcomes, shown

UID = "1.100"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def box(region_id: str, label: str = "Car", **more: Any) -> dict[str, Any]:
    value = {"x": 1.0, "y": 1.0, "width": 5.0, "height": 5.0, "rectanglelabels": [label]}
    named = {"id": region_id, "from_name": "label", "to_name": "image", "type": "rectanglelabels"}
    return {**named, "score": 0.9, "value": value, **more}


def prediction(number: int, *regions: dict[str, Any], version: str = "yoloop-v1") -> PredictionRecord:
    return PredictionRecord(number, version, 0.5, list(regions), NOON)


def annotation(number: int, *regions: dict[str, Any], parent: int | None = None, **fields: Any) -> AnnotationRecord:
    made = AnnotationRecord(number, list(regions), False, False, NOON, NOON + timedelta(minutes=1), 1, 7.0, parent)
    return replace(made, **fields)


def task(
    number: int, annotations: Sequence[AnnotationRecord], predictions: Sequence[PredictionRecord] = ()
) -> TaskRecord:
    return TaskRecord(number, NOON, NOON, {"image": f"{number}.jpg"}, tuple(annotations), tuple(predictions))


def rows(store: Store, table: sa.Table) -> list[tuple[Any, ...]]:
    with store.engine.connect() as db:
        return [tuple(row) for row in db.execute(table.select().order_by(*table.primary_key))]


def fates(store: Store) -> dict[tuple[int, str], str]:
    with store.engine.connect() as db:
        return {(row.annotation_id, row.region_id): row.outcome for row in db.execute(outcomes.select())}


@pytest.fixture
def ledger(store: Store) -> Ledger:
    store.save_project(UID)
    return Ledger(store)


class TestWhichPrediction:
    def test_the_one_that_is_named(self) -> None:
        found = [prediction(1, box("a")), prediction(2, box("b"))]
        assert shown_to(annotation(5, box("b"), parent=1), found) is found[0]

    def test_else_the_one_whose_regions_are_there(self) -> None:
        found = [prediction(1, box("a"), box("b")), prediction(2, box("c"), box("d"))]
        assert shown_to(annotation(5, box("a"), box("b"), box("c")), found) is found[0]
        assert shown_to(annotation(5, box("d"), parent=9), found) is found[1]
        assert shown_to(annotation(5, box("z")), found) is None
        assert shown_to(annotation(5), [prediction(1)]) is None


class TestRecord:
    def test_what_was_shown_and_what_became_of_it(self, store: Store) -> None:
        record(
            store, UID, [task(1, [annotation(5, box("a"), box("n"), parent=3)], [prediction(3, box("a"), box("b"))])]
        )
        assert rows(store, shown) == [(UID, 5, 1, "yoloop-v1", NOON.timestamp(), 7.0, True)]
        assert fates(store) == {(5, "a"): "accepted", (5, "b"): "deleted", (5, "n"): "missed"}

    def test_reading_again_changes_nothing(self, store: Store) -> None:
        tasks = [task(1, [annotation(5, box("a"), parent=3)], [prediction(3, box("a"), box("b"))])]
        record(store, UID, tasks)
        before = rows(store, shown), rows(store, outcomes)
        record(store, UID, tasks)
        assert (rows(store, shown), rows(store, outcomes)) == before

    def test_a_changed_annotation_replaces_its_rows(self, store: Store) -> None:
        seen = [prediction(3, box("a"), box("b"))]
        record(store, UID, [task(1, [annotation(5, box("a"), box("n"), parent=3)], seen)])
        record(store, UID, [task(1, [annotation(5, box("b", "Plane"), parent=3, lead_time=9.0)], seen)])
        assert fates(store) == {(5, "a"): "deleted", (5, "b"): "relabelled"}
        assert rows(store, shown)[0][5] == 9.0

    def test_without_a_suggestion_only_the_time_is_noted(self, store: Store) -> None:
        record(store, UID, [task(1, [annotation(5, box("a"))])])
        assert rows(store, shown) == [(UID, 5, 1, "", NOON.timestamp(), 7.0, True)] and fates(store) == {}

    def test_a_removed_prediction_takes_nothing_along(self, store: Store) -> None:
        record(store, UID, [task(1, [annotation(5, box("a"), parent=3)], [prediction(3, box("a"))])])
        record(store, UID, [task(1, [annotation(5, box("a"))], [prediction(4, box("q"), version="yoloop-v2")])])
        assert rows(store, shown)[0][3] == "yoloop-v1" and fates(store) == {(5, "a"): "accepted"}

    def test_an_id_given_out_again_is_another_annotation(self, store: Store) -> None:
        record(store, UID, [task(1, [annotation(5, box("a"), parent=3)], [prediction(3, box("a"))])])
        record(store, UID, [task(2, [annotation(5, box("z"))])])
        assert rows(store, shown)[0][2:4] == (2, "") and fates(store) == {}

    @pytest.mark.parametrize("fields", [{"was_cancelled": True}])
    def test_skipped_ones_judge_nothing(self, store: Store, fields: dict[str, Any]) -> None:
        record(store, UID, [task(1, [annotation(5, box("a"), parent=3, **fields)], [prediction(3, box("a"))])])
        assert rows(store, shown) == []

    def test_only_the_named_controls_count(self, store: Store) -> None:
        drawn = annotation(5, box("a"), box("n", from_name="other"), parent=3)
        record(store, UID, [task(1, [drawn], [prediction(3, box("a"))])], {"label"})
        assert fates(store) == {(5, "a"): "accepted"}

    def test_two_regions_with_one_id_are_no_error(self, store: Store) -> None:
        choice = {"id": "a", "to_name": "image", "type": "choices", "value": {"choices": ["Day"]}}
        twice = [choice | {"from_name": "one"}, choice | {"from_name": "two"}]
        record(store, UID, [task(1, [annotation(5, *twice, parent=3)], [prediction(3, *twice)])])
        assert fates(store) == {(5, "a/Day"): "accepted"}


class TestBulk:
    """What nobody looked at neither judges nor teaches."""

    def made(self, number: int = 5, run: str = "r1", **fields: Any) -> AnnotationRecord:
        (group,) = groups_of([box("a")], 0.8, {})
        at = {"created_at": NOON, "updated_at": NOON + timedelta(milliseconds=4), "lead_time": None}
        return annotation(number, *accepted(group, run), parent=3, **(at | fields))

    def write(self, store: Store, task_id: int, made: AnnotationRecord) -> None:
        with store.write() as db:
            db.execute(acceptances.insert().values(uid=UID, **asdict(accepted_annotation("r1", task_id, made, 9.0))))

    def test_an_acceptance_neither_judges_nor_teaches(self, store: Store, ledger: Ledger) -> None:
        self.write(store, 1, self.made())
        tasks = [task(1, [self.made()], [prediction(3, box("a"))])]
        record(store, UID, tasks)
        ledger.update(UID, tasks, 5.0)
        assert rows(store, shown) == [] and ledger.examples(UID) == [] and ledger.progress(UID).labelled == 0

    def test_once_a_person_changed_it_it_does_both(self, store: Store, ledger: Ledger) -> None:
        self.write(store, 1, self.made())
        changed = replace(self.made(), result=[box("a", "Plane")], updated_at=NOON + timedelta(hours=1))
        tasks = [task(1, [changed], [prediction(3, box("a"))])]
        record(store, UID, tasks)
        ledger.update(UID, tasks, 5.0)
        assert fates(store) == {(5, "a"): "relabelled"}
        assert [each.annotation_id for each in ledger.examples(UID)] == [5]

    def test_a_persons_own_annotation_beside_it_teaches(self, store: Store, ledger: Ledger) -> None:
        self.write(store, 1, self.made())
        tasks = [task(1, [annotation(4, box("z")), self.made(updated_at=NOON + timedelta(hours=1))])]
        record(store, UID, tasks)
        ledger.update(UID, tasks, 5.0)
        assert [each.annotation_id for each in ledger.examples(UID)] == [4]

    def test_an_id_given_out_again_teaches(self, store: Store, ledger: Ledger) -> None:
        self.write(store, 1, self.made())
        same = replace(self.made(), updated_at=NOON + timedelta(hours=1))
        ledger.update(UID, [task(2, [same])], 5.0)
        assert [each.annotation_id for each in ledger.examples(UID)] == [5]

    def test_one_whose_row_was_lost_is_taken_up_again(self, store: Store, ledger: Ledger) -> None:
        tasks = [task(1, [self.made(run="r9")], [prediction(3, box("a"))])]
        record(store, UID, tasks)
        ledger.update(UID, tasks, 5.0)
        assert rows(store, acceptances) == [
            (UID, *astuple(accepted_annotation("r9", 1, self.made(run="r9"), NOON.timestamp())))
        ]
        assert rows(store, shown) == [] and ledger.examples(UID) == []

    def test_but_not_one_that_was_changed(self, store: Store, ledger: Ledger) -> None:
        tasks = [task(1, [self.made(updated_at=NOON + timedelta(minutes=5))], [prediction(3, box("a"))])]
        record(store, UID, tasks)
        ledger.update(UID, tasks, 5.0)
        assert rows(store, acceptances) == [] and len(ledger.examples(UID)) == 1

    def test_nor_one_that_was_changed_at_once(self, store: Store, ledger: Ledger) -> None:
        (region,) = self.made().result
        moved = replace(self.made(), result=[region | {"value": region["value"] | {"x": 9.0}}])
        for predictions in ([prediction(3, box("a"))], []):
            tasks = [task(1, [moved], predictions)]
            record(store, UID, tasks)
            ledger.update(UID, tasks, 5.0)
            assert rows(store, acceptances) == [] and len(ledger.examples(UID)) == 1

    def test_label_studios_own_copies_judge_nothing(self, store: Store) -> None:
        seen = prediction(3, box("a"))
        copied = annotation(5, box("a"), parent=3, lead_time=None)
        assert nobody_looked(copied, seen)
        record(store, UID, [task(1, [copied], [seen])])
        assert rows(store, shown) == []
        for looked in (
            replace(copied, lead_time=3.0),
            replace(copied, result=[box("a", origin="prediction")]),
            replace(copied, result=[box("a", "Plane")]),
        ):
            assert not nobody_looked(looked, seen)
