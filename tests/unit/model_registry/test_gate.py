from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry import decide

SCORE = st.floats(0, 1)


def scored(value: float) -> dict[str, float]:
    return {"mAP50-95": value, "mAP50": min(1.0, 1.5 * value)}


@pytest.mark.parametrize(
    ("new", "old", "promote"),
    [
        (0.5, 0.4, True),
        (0.5, 0.5, True),
        (0.495, 0.5, True),  # not told from noise, and more data is behind it
        (0.48, 0.5, False),
        (0.0, 0.5, False),
        (0.0, 0.0, True),
    ],
)
def test_the_one_that_does_not_lose_is_promoted(new: float, old: float, promote: bool) -> None:
    decision = decide(scored(new), scored(old), holdout=10)
    assert decision.promote is promote
    assert f"{new:.3f}" in decision.reason
    assert f"{old:.3f}" in decision.reason
    assert "10 held-out images" in decision.reason


def test_the_first_version_must_find_something() -> None:
    assert decide(scored(0.01), None, holdout=1).promote
    refused = decide(scored(0.0), None, holdout=1)
    assert not refused.promote
    assert "1 held-out image;" in refused.reason


def test_without_a_hold_out_there_is_nothing_to_compare() -> None:
    assert decide(scored(0.0), scored(1.0), holdout=0).promote


def test_new_labels_are_worth_a_lower_score() -> None:
    assert decide(scored(0.1), scored(0.9), holdout=5, same_classes=False).promote


@given(new=SCORE, old=SCORE, tolerance=SCORE, images=st.integers(1, 10_000))
def test_never_promoted_when_worse_than_the_tolerance(new: float, old: float, tolerance: float, images: int) -> None:
    decision = decide(scored(new), scored(old), holdout=images, tolerance=tolerance)
    assert decision.promote == (new >= old - tolerance)
    assert decision.reason.endswith(".")
