from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from backend.labelstudio.records import OpenTask, PredictionRecord
from backend.served_models.version_string import is_ours
from backend.suggestions.refresh_plan import lacking, outdated

START = datetime(2026, 1, 1, tzinfo=UTC)


def prediction(number: int, version: str, score: float | None = 0.5, minute: int | None = None) -> PredictionRecord:
    made = START + timedelta(minutes=number if minute is None else minute)
    return PredictionRecord(number, version, score, [], made)


def task(number: int, *predictions: PredictionRecord, touched: bool = False) -> OpenTask:
    return OpenTask(number, {}, predictions, touched)


def test_the_least_sure_come_first_and_the_unseen_last() -> None:
    tasks = [
        task(1),
        task(2, prediction(1, "yoloop-v1", 0.9)),
        task(3, prediction(2, "yoloop-v1", 0.2)),
        task(4, prediction(3, "yoloop-v2", 0.1)),
        task(5, prediction(4, "yoloop-v1", 0.1), prediction(5, "yoloop-v1", 0.95)),
        task(6, prediction(6, "others", 0.0)),
        task(7, prediction(7, "yoloop-v1", None)),
    ]
    assert [each.id for each in lacking(tasks, "yoloop-v2")] == [3, 2, 5, 1, 6, 7]


def test_what_the_new_version_replaces() -> None:
    old = task(1, prediction(1, "yoloop-v1"), prediction(2, "yoloop-v2"), prediction(3, "yoloop-v3"))
    assert outdated(old, "yoloop-v3", keep=2) == [(1, START + timedelta(minutes=3))]
    assert [number for number, _ in outdated(old, "yoloop-v3", keep=1)] == [2, 1]
    assert outdated(old, "yoloop-v3", keep=3) == []


def test_nothing_goes_before_the_new_one_is_there() -> None:
    assert outdated(task(1, prediction(1, "yoloop-v1"), prediction(2, "yoloop-v2")), "yoloop-v3", keep=1) == []


def test_what_somebody_began_is_left_alone() -> None:
    assert (
        outdated(task(1, prediction(1, "yoloop-v1"), prediction(2, "yoloop-v2"), touched=True), "yoloop-v2", keep=1)
        == []
    )


def test_twins_go_and_the_newest_stays() -> None:
    twins = task(1, prediction(1, "yoloop-v2"), prediction(2, "yoloop-v2"), prediction(3, "yoloop-v2"))
    assert [number for number, _ in outdated(twins, "yoloop-v2", keep=2)] == [1, 2]
    assert {at for _, at in outdated(twins, "yoloop-v2", keep=2)} == {START + timedelta(minutes=3)}


def test_after_a_rollback_the_version_in_service_stays() -> None:
    rolled = task(1, prediction(1, "yoloop-v1"), prediction(2, "yoloop-v2"))
    assert [number for number, _ in outdated(rolled, "yoloop-v1", keep=1)] == [2]


VERSIONS = st.sampled_from(["yoloop-v1", "yoloop-v2", "yoloop-v3-aaaaaa", "mine", "yolo"])


@given(st.lists(st.tuples(VERSIONS, st.integers(0, 9)), max_size=8), VERSIONS, st.integers(1, 3))
def test_never_the_newest_of_the_version_in_service_and_never_others(
    rows: list[tuple[str, int]], version: str, keep: int
) -> None:
    predictions = [prediction(number, name, minute=minute) for number, (name, minute) in enumerate(rows)]
    gone = {number for number, _ in outdated(task(1, *predictions), version, keep)}
    left = [each for each in predictions if each.id not in gone]
    assert all(is_ours(each.version) for each in predictions if each.id in gone)
    assert {each.version for each in predictions if not is_ours(each.version)} <= {each.version for each in left}
    served = [each for each in predictions if each.version == version]
    if served:
        assert max(served, key=lambda each: (each.created_at, each.id)).id not in gone
        ours = [each.version for each in left if is_ours(each.version)]
        if is_ours(version):
            assert len(ours) == len(set(ours)) <= keep
    else:
        assert not gone
