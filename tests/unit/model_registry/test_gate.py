from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry import Comparison, Decision, Estimate, Scored, decide
from model_registry.gate import BEST_LEVEL, BEST_MARGIN, LABEL_LEVEL, LEVEL, MARGIN, WORK_MARGIN

SCORE = st.floats(0.001, 1)


def compared(
    new: float = 0.7,
    old: float = 0.7,
    error: float = 0.02,
    *,
    work: tuple[float, float] = (100, 100),
    work_error: float = 5,
    **fields: Any,
) -> Comparison:
    groups = fields.setdefault("groups", 100)
    whole: dict[str, Any] = {
        "against": "v1",
        "labels": ("Car",),
        "added": (),
        "images": groups,
        "objects": 400,
        "score": Estimate(new, old, error, groups - 1),
        "work": Estimate(*work, work_error, groups - 1, more_is_worse=True),
        **fields,
    }
    return Comparison(**whole)


def scored(found: Comparison | None = None, **fields: Any) -> Scored:
    base = Scored("mAP50-95", 0.7, 100, 100, 400)
    if found is not None:
        base = Scored("mAP50-95", found.score.candidate, found.work.candidate, found.images, found.objects)
    return replace(base, **fields)


def decided(champion: Comparison, best: Comparison | None = None, **options: Any) -> Decision:
    return decide(scored(champion), champion, best, serves=True, **options)


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        (compared(0.7, 0.7), "not worse"),
        (compared(0.8, 0.7), "not worse"),
        (compared(0.675, 0.7), "not worse"),  # 1.25 standard errors
        (compared(0.665, 0.7), "worse"),  # 1.75: one equal candidate in twenty-five looks as bad
        (compared(0.64, 0.7), "worse"),
        (compared(0.695, 0.7, 0.0001), "not worse"),  # sure, and too little to matter
        (compared(0.685, 0.7, 0.001), "worse"),
        (compared(0.5, 0.7, 0.15), "not worse"),
        (compared(work=(109, 100)), "not worse"),
        (compared(work=(113, 100)), "more corrections"),
        (compared(work=(107, 100), work_error=0.1), "not worse"),  # fewer than one for fifty objects
        (compared(work=(109, 100), work_error=0.1), "more corrections"),
        (compared(0.8, 0.7, work=(400, 0), work_error=20), "more corrections"),  # nothing at the served threshold
        (compared(0.45, 0.7, 0.2, groups=3), "not worse"),
        (compared(0.35, 0.7, 0.3, groups=3), "much worse"),
        (compared(0.35, 0.7, 0.3, groups=5), "not worse"),
        (compared(0.35, 0.7, 0.0, groups=1), "much worse"),
        (compared(0.45, 0.7, 0.0, groups=1), "not worse"),  # of one group nothing is known
        (compared(0.2, 0.9, 0.05, groups=4), "worse"),
    ],
)
def test_what_decides(found: Comparison, rule: str) -> None:
    decision = decided(found)
    assert (decision.rule, decision.promote) == (rule, rule == "not worse")
    assert f"{found.score.candidate:.3f} instead of {found.score.other:.3f} of v1" in decision.reason
    json.dumps(decision.numbers, allow_nan=False)


def test_the_reason_is_for_a_person() -> None:
    found = compared(0.812, 0.795, 0.01, work=(41, 45), images=34, groups=34, objects=120)
    assert decided(found).reason == (
        "mAP50-95 0.812 instead of 0.795 of v1 (+0.017, 95 % sure between -0.003 and +0.037) and 41 instead of 45 "
        "corrections, on 120 objects on 34 held-out images: it is not worse; so few could tell 0.03."
    )


def test_why_a_lower_figure_may_serve_is_told() -> None:
    found = compared(0.55, 0.6, 0.08, images=9, groups=9, objects=20, added=("Bus", "Tram"))
    reason = decided(found).reason
    assert "on 20 objects on 9 held-out images: it is not clearly worse; so few could tell 0.2" in reason
    assert reason.endswith(" It knows 2 more labels (Bus, Tram).")
    many = replace(found, added=tuple("abcd"))
    assert decided(many).reason.endswith(" It knows 4 more labels.")


@pytest.mark.parametrize("rule", ["not worse", "worse", "more corrections"])
def test_few_objects_tell_what_they_could_tell(rule: str) -> None:
    found = {
        "not worse": compared(objects=299),
        "worse": compared(0.5, 0.7, objects=299),
        "more corrections": compared(work=(200, 100), objects=299),
    }[rule]
    decision = decided(found)
    assert decision.rule == rule
    # 1.57 and 1.29 standard errors: refused in nine of ten cases.
    assert "could tell 0.06" in decision.reason
    assert decision.numbers["could_tell"] == pytest.approx(0.0572, abs=0.0005)
    assert "could tell" not in decided(replace(found, objects=300)).reason


def test_choices_are_judged_by_accuracy() -> None:
    found = compared(0.7, 0.9)
    decision = decide(scored(found, metric="accuracy"), found, serves=True)
    assert not decision.promote
    assert "accuracy 0.700 instead of 0.900 of v1" in decision.reason and "400 choices on 100" in decision.reason


class TestLabels:
    def lost(self, loss: float, error: float, labels: int, most: float = 0.1) -> Decision:
        same = {f"same {number}": Estimate(0.7, 0.7, error, 99) for number in range(labels - 1)}
        return decided(compared(by_label={**same, "Bus": Estimate(0.8 - loss, 0.8, error, 99)}), max_class_drop=most)

    def test_none_may_be_given_up_for_the_others(self) -> None:
        decision = self.lost(0.3, 0.05, 3)
        assert (decision.promote, decision.rule) == (False, "a label lost")
        assert "label 'Bus' clearly fell, from 0.800 to 0.500" in decision.reason
        assert decision.numbers["label"] == "Bus"

    def test_a_loss_that_is_allowed_or_chance_is_no_matter(self) -> None:
        assert self.lost(0.09, 0.001, 1).promote
        assert self.lost(0.11, 0.001, 1).rule == "a label lost"
        assert self.lost(0.3, 0.2, 1).promote

    def test_each_of_many_labels_may_look_bad_by_chance(self) -> None:
        """2.8 standard errors are beyond chance for one label, and not for the worst of eighty."""
        assert not self.lost(0.28, 0.1, 1).promote
        assert self.lost(0.28, 0.1, 80).promote
        assert not self.lost(0.5, 0.1, 80).promote

    def test_the_one_that_loses_most_is_named(self) -> None:
        both = {"Car": Estimate(0.5, 0.7, 0.01, 99), "Bus": Estimate(0.5, 0.8, 0.01, 99)}
        assert decided(compared(by_label=both), max_class_drop=0.1).numbers["label"] == "Bus"


class TestBestSoFar:
    def test_many_small_losses_do_not_add_up(self) -> None:
        """No clear loss against what serves, but one against the best version so far."""
        champion = compared(0.62, 0.65, 0.02, against="v4")
        assert decided(replace(champion, score=Estimate(0.63, 0.65, 0.02, 99))).promote
        decision = decided(champion, compared(0.62, 0.7, 0.02))
        assert (decision.promote, decision.rule) == (False, "slow slide")
        assert "0.620 instead of 0.650 of v4" in decision.reason and "0.620 instead of 0.700 of v1" in decision.reason
        assert decision.numbers["best"]["against"] == "v1"  # type: ignore[index]

    def test_its_margin_is_wider(self) -> None:
        sure = compared(0.685, 0.7, 0.001)
        assert not decided(sure).promote
        assert decided(compared(against="v4"), sure).promote
        assert BEST_MARGIN > MARGIN

    def test_corrections_are_held_against_what_serves_alone(self) -> None:
        assert decided(compared(against="v4"), compared(work=(200, 100))).promote

    @pytest.mark.parametrize(
        "best", [compared(0.5, 0.9, labels=()), compared(0.5, 0.9, objects=0), compared(0.5, math.nan)]
    )
    def test_one_that_cannot_be_compared_with_stops_nothing(self, best: Comparison) -> None:
        assert decided(compared(against="v4"), best).promote

    def test_only_what_is_proven_better_takes_its_place(self) -> None:
        assert not decided(compared(0.74, 0.7, 0.02)).best
        assert decided(compared(0.8, 0.7, 0.02)).best
        # Better than what serves, and not than the best.
        assert not decided(compared(0.8, 0.7, 0.02, against="v4"), compared(0.8, 0.79, 0.02)).best
        assert not decided(compared(0.5, 0.7, 0.02)).best


@pytest.mark.parametrize("serves", [True, False])
@pytest.mark.parametrize("none", [scored(images=0, objects=0, score=0), scored(objects=0, score=0)])
def test_without_a_held_out_object_nothing_is_proven(none: Scored, serves: bool) -> None:
    decision = decide(none, None, serves=serves)
    assert (decision.promote, decision.rule) == (not serves, "unproven")
    assert ("`yoloop promote`" in decision.reason) is serves


def test_nor_is_it_where_none_is_of_a_label_that_both_know() -> None:
    found = compared(0.0, 0.0, objects=0)
    assert decide(scored(), found, serves=True).rule == "unproven"
    assert decide(scored(), found, serves=False).promote, "the pretrained model is no version"


def test_nothing_found_never_wins() -> None:
    nothing = scored(score=0.0)
    for found in (None, compared(0.0, 0.0), compared(0.0, 0.0, work=(0, 0))):
        for serves in (True, False):
            assert decide(nothing, found, serves=serves).rule == "nothing found"


@pytest.mark.parametrize("spoiled", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_never_wins(spoiled: float) -> None:
    for candidate, found in (
        (scored(score=spoiled), None),
        (scored(work=spoiled), None),
        (scored(score=spoiled), compared()),
        (scored(), compared(spoiled)),
    ):
        decision = decide(candidate, found, serves=True)
        assert (decision.promote, decision.rule) == (False, "not measured")
        json.dumps(decision.numbers, allow_nan=False)
    assert decide(scored(), compared(0.7, spoiled), serves=True).promote, "nor does it keep anything out"


@pytest.mark.parametrize("found", [None, compared(0.0, 0.0, labels=(), objects=0)])
def test_what_knows_none_of_the_labels_is_no_opponent(found: Comparison | None) -> None:
    decision = decide(scored(score=0.01, work=650), found, serves=True)
    assert (decision.promote, decision.rule, decision.best) == (True, "first version", True)
    assert "need 650 corrections, and without any 400" in decision.reason


def test_new_labels_do_not_excuse_a_loss() -> None:
    """0.000 against 0.900 on 500 images, with a label more."""
    found = compared(0.0, 0.9, 0.02, groups=500, added=("Bus",))
    assert decide(scored(score=0.4), found, serves=True).rule == "worse"


def test_the_levels_are_ordered() -> None:
    assert 0 < LABEL_LEVEL <= LEVEL < BEST_LEVEL < 0.1
    assert 0 < MARGIN < BEST_MARGIN and WORK_MARGIN > 0


ERROR = st.floats(0, 0.5)


@given(score=SCORE, error=ERROR, groups=st.integers(1, 10_000), labels=st.integers(0, 90), work=st.floats(0, 1e4))
def test_an_equal_candidate_is_never_refused(score: float, error: float, groups: int, labels: int, work: float) -> None:
    same = Estimate(score, score, error, groups - 1)
    found = compared(
        score, score, error, groups=groups, work=(work, work), by_label={str(each): same for each in range(labels)}
    )
    assert decided(found, found, max_class_drop=0.0).promote


@given(new=SCORE, old=SCORE, better=st.floats(0, 0.5), error=ERROR, groups=st.integers(1, 100))
def test_a_better_candidate_is_not_refused_where_a_worse_one_is_promoted(
    new: float, old: float, better: float, error: float, groups: int
) -> None:
    if decided(compared(new, old, error, groups=groups)).promote:
        assert decided(compared(new + better, old, error, groups=groups)).promote
