from __future__ import annotations

import pytest

from model_registry import Decision, decide_together

YES, NO = Decision(True, "good"), Decision(False, "bad")
UNPROVEN = Decision(False, "not seen", "unproven")


@pytest.mark.parametrize(
    ("decisions", "promote"),
    [
        ({"detect": (YES, True)}, True),
        ({"detect": (NO, True)}, False),
        ({"detect": (YES, True), "segment": (YES, True)}, True),
        ({"detect": (YES, True), "segment": (NO, True)}, False),  # what serves now would get worse
        ({"detect": (YES, True), "segment": (NO, False)}, True),  # nothing served there before
        ({"detect": (NO, False), "segment": (NO, False)}, False),
        ({"detect": (YES, True), "segment": (UNPROVEN, True)}, True),  # of what is not held out nothing is known
        ({"detect": (NO, True), "segment": (UNPROVEN, True)}, False),
        ({"detect": (UNPROVEN, True), "segment": (UNPROVEN, True)}, False),
    ],
)
def test_no_model_may_get_worse(decisions: dict[str, tuple[Decision, bool]], promote: bool) -> None:
    decision = decide_together(decisions)
    assert decision.promote is promote
    assert all(each.reason in decision.reason for each, _ in decisions.values())


def test_several_reasons_name_their_models() -> None:
    assert decide_together({"detect": (YES, True), "pose:kp": (NO, True)}).reason == "detect: good pose:kp: bad"
