from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.fit.triggers import Progress, annotations_needed, retry_at, should_train

COUNT = st.integers(0, 100_000)


@pytest.mark.parametrize(
    ("seen", "minimum", "needed"),
    [(0, 10, 10), (10, 10, 10), (50, 10, 10), (51, 10, 11), (100, 10, 20), (1000, 10, 200), (3, 1, 1), (6, 1, 2)],
)
def test_a_fifth_more_and_at_least_the_minimum(seen: int, minimum: int, needed: int) -> None:
    assert annotations_needed(seen, minimum) == needed


@pytest.mark.parametrize(
    ("progress", "train", "reason"),
    [
        (Progress(0, 0, 0), False, "no submitted annotation yet"),
        (Progress(9, 9, 0), False, "9 of 10 new annotations"),
        (Progress(10, 10, 0), True, "10 new annotations"),
        (Progress(100, 19, 100), False, "19 of 20 new annotations"),
        (Progress(100, 20, 100), True, "20 new annotations"),
        (Progress(0, 10, 10), False, "no submitted annotation yet"),  # all withdrawn: nothing to learn from
        (Progress(20, 20, 0, 1, 990.0), False, "the last training failed; next try in 50 s"),
        (Progress(20, 20, 0, 1, 940.0), True, "20 new annotations"),
    ],
)
def test_when_to_train(progress: Progress, train: bool, reason: str) -> None:
    trigger = should_train(progress, 10, now=1000.0)
    assert (trigger.train, trigger.reason) == (train, reason)


def test_failures_wait_longer_each_time_up_to_an_hour() -> None:
    waits = [retry_at(Progress(1, 1, 0, failures, 0.0)) for failures in range(12)]
    assert waits[:8] == [0, 60, 120, 240, 480, 960, 1920, 3600]
    assert set(waits[7:]) == {3600}
    assert retry_at(Progress(1, 1, 0, 10**6, 0.0)) == 3600


@given(labelled=COUNT, new=COUNT, seen=COUNT, minimum=st.integers(1, 1000))
def test_more_news_never_stops_a_training(labelled: int, new: int, seen: int, minimum: int) -> None:
    before = should_train(Progress(labelled, new, seen), minimum, 0.0)
    after = should_train(Progress(labelled, new + 1, seen), minimum, 0.0)
    assert after.train or not before.train
    assert before.train == (labelled > 0 and new >= annotations_needed(seen, minimum))
