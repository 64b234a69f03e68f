from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.feedback.precision import Precision, interval, lacking

COUNTS = st.tuples(st.integers(0, 2000), st.integers(0, 2000)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@pytest.mark.parametrize(
    ("right", "shown", "low", "high"),
    # The last two by statsmodels' proportion_confint(method="wilson").
    [
        (0, 0, 0.0, 1.0),
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (50, 100, 0.4038, 0.5962),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_known_intervals(right: int, shown: int, low: float, high: float) -> None:
    assert interval(right, shown) == pytest.approx((low, high), abs=1e-3)


@given(COUNTS)
def test_its_ends_solve_wilsons_equation(counts: tuple[int, int]) -> None:
    right, shown = counts
    low, high = interval(right, shown)
    assert 0 <= low <= high <= 1
    if shown:
        assert low - 1e-9 <= right / shown <= high + 1e-9
        for end in (low, high):
            if 1e-9 < end < 1 - 1e-9:
                assert abs(right / shown - end) == pytest.approx(1.96 * math.sqrt(end * (1 - end) / shown), abs=1e-6)


def test_seventy_three_right_ones_are_needed_from_nothing() -> None:
    assert lacking(0, 0, 0.95) == 73
    assert Precision(73, 73).low >= 0.95 > Precision(72, 72).low


@given(COUNTS)
def test_what_is_lacking_is_the_least(counts: tuple[int, int]) -> None:
    right, shown = counts
    more = lacking(right, shown, 0.95)
    assert interval(right + more, shown + more)[0] >= 0.95
    assert more == 0 or interval(right + more - 1, shown + more - 1)[0] < 0.95


def test_for_people_and_json() -> None:
    assert str(Precision(95, 98)) == "95 of 98 right (91–99 %)"
    assert Precision(0, 0).as_json() == {"right": 0, "shown": 0, "precision": None, "low": 0.0, "high": 1.0}
