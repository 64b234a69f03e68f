from __future__ import annotations

import pytest

from model_registry import Decision, decide, decide_together

YES, NO = Decision(True, "good"), Decision(False, "bad")


@pytest.mark.parametrize(
    ("decisions", "promote"),
    [
        ({"detect": (YES, True)}, True),
        ({"detect": (NO, True)}, False),
        ({"detect": (YES, True), "segment": (YES, True)}, True),
        ({"detect": (YES, True), "segment": (NO, True)}, False),  # what serves now would get worse
        ({"detect": (YES, True), "segment": (NO, False)}, True),  # nothing served there before
        ({"detect": (NO, False), "segment": (NO, False)}, False),
    ],
)
def test_no_model_may_get_worse(decisions: dict[str, tuple[Decision, bool]], promote: bool) -> None:
    decision = decide_together(decisions)
    assert decision.promote is promote
    assert all(each.reason in decision.reason for each, _ in decisions.values())


def test_several_reasons_name_their_models() -> None:
    assert decide_together({"detect": (YES, True), "pose:kp": (NO, True)}).reason == "detect: good pose:kp: bad"


def test_choices_are_judged_by_accuracy() -> None:
    decision = decide({"accuracy": 0.7}, {"accuracy": 0.8}, holdout=10, metric="accuracy")
    assert not decision.promote
    assert "accuracy 0.700 against 0.800" in decision.reason
    assert not decide({"accuracy": 0.0}, None, holdout=10, metric="accuracy").promote
