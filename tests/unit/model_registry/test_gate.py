from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry import Decision, decide

SCORE = st.floats(0, 1)


def scored(value: float) -> dict[str, float]:
    return {"mAP50-95": value, "mAP50": min(1.0, 1.5 * value)}


@pytest.mark.parametrize(
    ("new", "old", "images", "interval", "rule"),
    [
        (0.812, 0.795, 34, (-0.004, 0.041), "not worse"),
        (0.5, 0.5, 34, (0.0, 0.0), "not worse"),
        (0.0, 0.0, 34, (0.0, 0.0), "not worse"),
        (0.78, 0.80, 34, (-0.05, 0.01), "not worse"),
        (0.78, 0.80, 34, (-0.04, -0.001), "worse beyond chance"),
        (0.78, 0.80, 5, (-0.04, -0.001), "worse beyond chance"),
        (0.78, 0.80, 4, (-0.04, -0.001), "not worse"),  # of so few images any interval is too narrow
        (0.74, 0.80, 34, (-0.2, 0.05), "much worse"),
        (0.74, 0.80, 10, (-0.2, 0.05), "much worse"),
        (0.74, 0.80, 9, (-0.2, 0.05), "not worse"),
        (0.59, 0.80, 9, (-0.5, 0.05), "much worse"),
        (0.59, 0.80, 1, (-0.21, -0.21), "much worse"),
        (0.74, 0.80, 34, None, "much worse"),  # of a training that an earlier release began
        (0.78, 0.80, 34, None, "not worse"),
    ],
)
def test_what_decides(new: float, old: float, images: int, interval: tuple[float, float] | None, rule: str) -> None:
    decision = decide(scored(new), scored(old), holdout=images, interval=interval)
    assert decision.rule == rule
    assert decision.promote is (rule == "not worse")
    assert f"mAP50-95 {new:.3f} against {old:.3f} on {images} held-out image" in decision.reason
    assert ("hardly better than chance" in decision.reason) == (images < 10 and decision.promote)


def test_the_reason_is_for_a_person() -> None:
    decision = decide(scored(0.812), scored(0.795), holdout=34, interval=(-0.004, 0.041))
    assert decision.reason == (
        "mAP50-95 0.812 against 0.795 on 34 held-out images; difference +0.017, between -0.004 and +0.041."
    )
    assert decision.numbers == {
        "metric": "mAP50-95",
        "candidate": 0.812,
        "champion": 0.795,
        "difference": pytest.approx(0.017),
        "holdout": 34,
        "interval": [-0.004, 0.041],
    }
    worse = decide(scored(0.7), scored(0.8), holdout=34, interval=(-0.14, -0.06))
    assert worse.reason.endswith("difference -0.100, between -0.140 and -0.060: worse beyond chance.")


class TestLabels:
    def decide(
        self, new: dict[str, float], old: dict[str, float], objects: dict[str, int], images: int = 20
    ) -> Decision:
        return decide(
            {**scored(0.8), **new},
            {**scored(0.8), **old},
            holdout=images,
            interval=(-0.01, 0.01),
            objects=objects,
            max_class_drop=0.1,
        )

    def test_none_may_be_given_up_for_the_others(self) -> None:
        decision = self.decide(
            {"mAP50/Car": 0.5, "mAP50/Bus": 0.7}, {"mAP50/Car": 0.7, "mAP50/Bus": 0.85}, {"Car": 5, "Bus": 9}
        )
        assert (decision.promote, decision.rule) == (False, "a label lost")
        assert "Label 'Car' fell from 0.700 to 0.500 (mAP50)." in decision.reason
        assert decision.numbers["label"] == "Car"

    @pytest.mark.parametrize(
        ("now", "before", "count", "images"),
        [
            (0.65, 0.7, 50, 20),  # little
            (0.5, 0.7, 4, 20),  # four objects say nothing
            (0.5, 0.7, 50, 9),  # nor do nine images
            (0.9, 0.2, 50, 20),
        ],
    )
    def test_little_or_uncertain_losses_are_no_matter(self, now: float, before: float, count: int, images: int) -> None:
        assert self.decide({"mAP50/Car": now}, {"mAP50/Car": before}, {"Car": count}, images).promote

    def test_one_that_is_found_no_more_has_lost_all(self) -> None:
        assert "from 0.700 to 0.000" in self.decide({}, {"mAP50/Car": 0.7}, {"Car": 5}).reason

    def test_of_choices_the_share_of_right_answers_counts(self) -> None:
        decision = decide(
            {"accuracy": 0.8, "accuracy/Day": 0.5},
            {"accuracy": 0.8, "accuracy/Day": 0.9},
            holdout=20,
            metric="accuracy",
            objects={"Day": 8},
            max_class_drop=0.1,
        )
        assert decision.rule == "a label lost"
        assert "'Day' fell from 0.900 to 0.500 (accuracy)" in decision.reason


def test_the_first_version_must_find_something() -> None:
    assert decide(scored(0.01), None, holdout=1).promote
    refused = decide(scored(0.0), None, holdout=1)
    assert not refused.promote
    assert "1 held-out image;" in refused.reason


def test_without_a_hold_out_there_is_nothing_to_compare() -> None:
    assert decide(scored(0.0), scored(1.0), holdout=0).promote


def test_new_labels_are_worth_a_lower_score() -> None:
    assert decide(scored(0.1), scored(0.9), holdout=5, same_classes=False).promote


INTERVAL = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(lambda ends: (min(ends), max(ends)))


@given(score=SCORE, images=st.integers(0, 10_000), labels=st.dictionaries(st.text(), SCORE), count=st.integers(0, 99))
def test_an_equal_candidate_is_never_rejected(score: float, images: int, labels: dict[str, float], count: int) -> None:
    metrics = {**scored(score), **{f"mAP50/{label}": value for label, value in labels.items()}}
    decision = decide(
        metrics,
        metrics,
        holdout=images,
        interval=(0.0, 0.0),
        objects=dict.fromkeys(labels, count),
        max_class_drop=0.0,
    )
    assert decision.promote


@given(new=SCORE, old=SCORE, interval=st.none() | INTERVAL, images=st.integers(1, 10_000))
def test_a_clearly_worse_candidate_is_always_rejected(
    new: float, old: float, interval: tuple[float, float] | None, images: int
) -> None:
    decision = decide(scored(new), scored(old), holdout=images, interval=interval)
    beyond_chance = interval is not None and interval[1] < 0 and images >= 5
    assert decision.promote == (not beyond_chance and new - old >= -(0.05 if images >= 10 else 0.2))
    assert decision.reason.endswith(".")
    assert json.loads(json.dumps(decision.numbers)) == decision.numbers


@given(new=SCORE, old=SCORE, better=st.floats(0, 0.5), interval=INTERVAL, images=st.integers(1, 100))
def test_a_better_candidate_is_not_rejected_where_a_worse_one_is_promoted(
    new: float, old: float, better: float, interval: tuple[float, float], images: int
) -> None:
    more = (interval[0] + better, interval[1] + better)
    if decide(scored(new), scored(old), holdout=images, interval=interval).promote:
        assert decide(scored(new + better), scored(old), holdout=images, interval=more).promote
