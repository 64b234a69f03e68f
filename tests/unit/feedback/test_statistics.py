from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from backend.feedback.advice import advice
from backend.feedback.precision import Precision
from backend.feedback.statistics import (
    ENOUGH,
    WINDOW,
    at_or_above,
    by_percent,
    expected,
    last_version,
    suggestion_statistics,
)
from backend.store.database import Store
from backend.store.tables import outcomes, shown

UID = "1.100"
Row = tuple[str, str, float | None, float | None]


def write(store: Store, number: int, version: str, *regions: Row, uid: str = UID, seconds: float | None = None) -> None:
    """An annotation submitted at the time `number`; each region is label, outcome, score, overlap."""
    said = {"uid": uid, "annotation_id": number, "task_id": number, "version": version}
    names = ("label", "outcome", "score", "iou")
    with store.write() as db:
        db.execute(shown.insert().values(said | {"submitted_at": float(number), "lead_time": seconds}))
        for index, each in enumerate(regions):
            row = {"uid": uid, "annotation_id": number, "region_id": str(index), "control": "label"}
            db.execute(outcomes.insert().values(row | dict(zip(names, each, strict=True))))


def test_bins(store: Store) -> None:
    write(
        store,
        1,
        "yoloop-v1",
        ("Car", "accepted", 0.92, None),
        ("Car", "moved", 0.9, 0.8),
        ("Car", "moved", 1.0, 0.6),
        ("Car", "deleted", 0.3, None),
        ("Car", "relabelled", 0.39, None),
        ("Car", "missed", None, None),
        ("Plane", "accepted", 0.0, None),
    )
    write(store, 2, "yoloop-v2", ("Car", "moved", 0.9, None))
    write(store, 3, "yoloop-v1", ("Car", "accepted", 0.9, None), uid="2.200")
    found = {(each.version, each.label, each.low): each for each in suggestion_statistics(store, UID).bins}
    assert set(found) == {
        ("yoloop-v1", "Car", None),
        ("yoloop-v1", "Car", 0.3),
        ("yoloop-v1", "Car", 0.9),
        ("yoloop-v1", "Plane", 0.0),
        ("yoloop-v2", "Car", 0.9),
    }
    high = found["yoloop-v1", "Car", 0.9]
    assert (high.high, high.accepted, high.moved, high.moved_iou) == (1.0, 1, 2, pytest.approx(0.7))
    assert high.precision == Precision(2, 3)
    low = found["yoloop-v1", "Car", 0.3]
    assert (low.deleted, low.relabelled, low.moved_iou, low.precision) == (1, 1, None, Precision(0, 2))
    assert (found["yoloop-v1", "Car", None].missed, found["yoloop-v1", "Car", None].precision) == (1, Precision(0, 0))
    assert found["yoloop-v2", "Car", 0.9].precision == Precision(0, 1)


def test_the_curve_goes_on_in_the_order_of_submission(store: Store) -> None:
    for number in reversed(range(WINDOW + 5)):
        fate = "accepted" if number >= WINDOW else "deleted"
        write(store, number, "yoloop-v1", ("Car", fate, 0.5, None), ("Car", "missed", None, None))
    write(store, 100, "yoloop-v1")
    write(store, 200, "")
    first, second = suggestion_statistics(store, UID).curve
    assert (first.annotations, first.start, first.end) == (WINDOW, 0.0, WINDOW - 1.0)
    assert (first.precision, first.recall) == (Precision(0, WINDOW), Precision(0, WINDOW))
    assert (second.annotations, second.end) == (6, 100.0)
    assert (second.precision, second.recall) == (Precision(5, 5), Precision(5, 10))


def test_an_annotation_without_any_region_misses_nothing(store: Store) -> None:
    write(store, 1, "yoloop-v1")
    (only,) = suggestion_statistics(store, UID).curve
    assert (only.annotations, only.precision, only.recall) == (1, Precision(0, 0), Precision(0, 0))


def test_lead_time(store: Store) -> None:
    for number, (version, seconds) in enumerate(
        [("yoloop-v1", 2.0), ("yoloop-v2", 4.0), ("yoloop-v1", 9.0), ("", 20.0), ("", 10.0), ("", None)]
    ):
        write(store, number, version, seconds=seconds)
    found = suggestion_statistics(store, UID).lead_time
    assert (found.with_suggestions, found.annotations_with) == (4.0, 3)
    assert (found.without, found.annotations_without) == (15.0, 2)


def test_nothing_is_known_at_first(store: Store) -> None:
    found = suggestion_statistics(store, UID)
    assert (found.bins, found.curve, found.lead_time.with_suggestions) == ((), (), None)
    assert (advice(store, UID), last_version(store, UID)) == ([], "")


def test_sure_ones_of_one_version_or_all(store: Store) -> None:
    write(
        store,
        1,
        "yoloop-v1",
        ("Car", "accepted", 0.9, None),
        ("Car", "deleted", 0.8, None),
        ("Car", "accepted", 0.7, None),
    )
    write(store, 2, "yoloop-v2-1a2b3c", ("Car", "accepted", 0.8, None), ("Plane", "moved", 0.5, 0.7))
    write(store, 3, "somebody else's", ("Car", "deleted", 0.9, None))
    assert at_or_above(store, UID, {"Car": 0.8}) == Precision(2, 3)
    assert at_or_above(store, UID, {"Car": 0.8}, "yoloop-v1") == Precision(1, 2)
    assert at_or_above(store, UID, {"Car": 0.8, "Plane": 0.5}) == Precision(3, 4)
    assert at_or_above(store, UID, {}) == at_or_above(store, UID, {"Car": 0.8}, "yoloop-v9") == Precision(0, 0)
    assert last_version(store, UID) == "yoloop-v2-1a2b3c"
    assert by_percent(store, UID, "yoloop-v1") == {
        "Car": {90: Precision(1, 1), 80: Precision(0, 1), 70: Precision(1, 1)}
    }
    assert by_percent(store, UID)["Car"][80] == Precision(1, 2)


def test_a_version_speaks_for_itself_once_it_has_enough(store: Store) -> None:
    write(store, 0, "yoloop-v1", *[("Car", "accepted", 0.9, None)] * 5)
    for number in range(1, ENOUGH):
        write(store, number, "yoloop-v2", ("Car", "deleted", 0.9, None), ("Car", "accepted", 0.7, None))
    assert expected(store, UID, {"Car": 0.8}, "yoloop-v2") == (Precision(5, ENOUGH + 4), "")
    write(store, ENOUGH, "yoloop-v2", ("Car", "deleted", 0.8, None))
    assert expected(store, UID, {"Car": 0.8}, "yoloop-v2") == (Precision(0, ENOUGH), "yoloop-v2")
    assert expected(store, UID, {"Car": 0.8}, "") == (Precision(5, ENOUGH + 5), "")
    assert expected(store, UID, {}, "yoloop-v2") == (Precision(0, 0), "")


@pytest.mark.parametrize("percent", range(101))
def test_a_score_falls_on_its_own_percent(store: Store, percent: int) -> None:
    write(store, 1, "yoloop-v1", ("Car", "accepted", percent / 100, None))
    assert by_percent(store, UID) == {"Car": {percent: Precision(1, 1)}}
    assert suggestion_statistics(store, UID).bins[0].low == min(percent // 10, 9) / 10


def test_advice_takes_the_version_that_was_shown_last(store: Store) -> None:
    for number in range(80):
        write(store, number, "yoloop-v1", ("Car", "accepted", 0.9, None))
    (found,) = advice(store, UID)
    assert (found.version, found.threshold) == ("yoloop-v1", 0.9)
    (found,) = advice(store, UID, "yoloop-v2")
    assert (found.version, found.threshold) == ("", 0.9)


def test_every_one_of_many_regions_is_counted(store: Store) -> None:
    many: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    fates: Sequence[str] = ("accepted", "moved", "relabelled", "deleted", "missed")
    for number in range(1_000):
        said = {"uid": UID, "annotation_id": number, "task_id": number}
        annotations.append(said | {"version": f"v{number % 7}", "submitted_at": float(number), "lead_time": 1.0})
        for index in range(10):
            row = {"uid": UID, "annotation_id": number, "region_id": str(index), "control": "label"}
            fate = fates[(number + index) % 5]
            score = None if fate == "missed" else (number * 10 + index) % 1000 / 1000
            many.append(row | {"label": f"label {index}", "outcome": fate, "score": score, "iou": 0.5})
    with store.write() as db:
        db.execute(shown.insert(), annotations)
        db.execute(outcomes.insert(), many)
    found = suggestion_statistics(store, UID)
    assert (
        sum(each.accepted + each.moved + each.relabelled + each.deleted + each.missed for each in found.bins) == 10_000
    )
    assert sum(each.annotations for each in found.curve) == 1_000
    assert len(advice(store, UID)) == 10
    json.dumps(found.as_json())
