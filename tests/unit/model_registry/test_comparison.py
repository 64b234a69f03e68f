from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from model_registry import Comparison, Estimate
from model_registry.comparison import as_normal, as_student


@pytest.mark.parametrize(
    ("t", "freedom", "chance"),
    # Student's table: one-sided quantiles.
    [(6.314, 1, 0.05), (2.920, 2, 0.05), (2.132, 4, 0.05), (2.764, 10, 0.01), (1.684, 40, 0.05), (1.282, 9999, 0.1)],
)
def test_few_groups_need_a_larger_difference(t: float, freedom: int, chance: float) -> None:
    assert Estimate(0.5 - 0.1 * t, 0.5, 0.1, freedom).chance == pytest.approx(chance, rel=0.2 if freedom == 1 else 0.06)
    assert as_student(as_normal(t, freedom), freedom) == pytest.approx(t)
    assert as_normal(-t, freedom) == -as_normal(t, freedom)


def test_the_interval_holds_95_of_100() -> None:
    low, high = Estimate(0.7, 0.6, 0.01, 10_000).interval
    assert (low, high) == (pytest.approx(0.1 - 0.0196, abs=1e-4), pytest.approx(0.1 + 0.0196, abs=1e-4))
    low, high = Estimate(0.7, 0.6, 0.01, 9).interval
    assert high - low == pytest.approx(2 * 0.02262, rel=0.01)


def test_more_corrections_are_worse_and_a_higher_score_is_better() -> None:
    score, work = Estimate(0.7, 0.6, 0.05, 99), Estimate(7, 6, 0.5, 99, more_is_worse=True)
    assert score.loss == pytest.approx(-0.1)
    assert work.loss == 1
    assert score.chance == pytest.approx(1 - work.chance)


@pytest.mark.parametrize(
    ("found", "chance"),
    [
        (Estimate(0.5, 0.9, 0.0, 0), 1.0),  # of one group nothing is known
        (Estimate(math.nan, 0.9, 0.1, 9), 1.0),
        (Estimate(0.5, 0.9, math.inf, 9), 1.0),
        (Estimate(0.5, 0.9, 0.0, 9), 0.0),  # the same loss whatever is drawn
        (Estimate(0.9, 0.9, 0.0, 9), 1.0),
    ],
)
def test_what_is_not_known_proves_nothing(found: Estimate, chance: float) -> None:
    assert found.chance == chance


def test_what_could_be_told_is_told_in_nine_of_ten_cases() -> None:
    found = Estimate(0.6, 0.6, 0.02, 10_000)
    loss = found.could_tell(0.05)
    # It is refused where the measured loss is above 1.645 errors, which it is in nine of ten cases 1.282 errors higher.
    assert loss == pytest.approx((1.645 + 1.282) * 0.02, abs=1e-4)
    assert Estimate(0.6, 0.6, 0.0, 0).could_tell(0.05) == math.inf


def test_it_survives_json() -> None:
    estimate = Estimate(0.6, 0.5, 0.02, 9)
    work = Estimate(5.0, 6.0, 1.0, 9, more_is_worse=True)
    found = Comparison("v1", ("Car",), ("Bus",), 10, 10, 40, estimate, work, {"Car": estimate})
    assert Comparison.load(json.loads(json.dumps(found.dump()))) == found
    assert replace(found, score=Estimate(0.6, 0.5, 0.0, 0)).score.as_json() == {
        "candidate": 0.6,
        "other": 0.5,
        "difference": pytest.approx(0.1),
    }
    assert estimate.as_json()["interval"] == list(estimate.interval)
