from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from backend.feedback.advice import advise
from backend.feedback.precision import Precision

GOOD, HALF = Precision(100, 100), Precision(50, 100)


def test_the_lowest_score_that_can_be_trusted() -> None:
    own = {95: GOOD, 80: Precision(98, 100), 60: HALF, 30: GOOD}
    found = advise("Car", "yoloop-v3", own, own)
    assert (found.threshold, found.version, found.precision, found.lacking) == (
        0.8,
        "yoloop-v3",
        Precision(198, 200),
        0,
    )
    assert str(found) == "Car: trust scores from 0.80 on; suggestions of yoloop-v3: 198 of 200 right (96–100 %)."


def test_it_names_a_score_that_was_seen() -> None:
    assert advise("Car", "yoloop-v3", {42: GOOD}, {42: GOOD}).threshold == 0.42


def test_all_versions_together_where_the_own_are_few() -> None:
    found = advise("Car", "yoloop-v3", {90: Precision(3, 3)}, {90: Precision(103, 103)})
    assert (found.threshold, found.version, found.precision) == (0.9, "", Precision(103, 103))
    assert "all versions together" in str(found)
    assert advise("Car", "yoloop-v3", {}, {90: GOOD}).version == ""


def test_older_versions_say_nothing_of_one_that_is_worse() -> None:
    own = {90: Precision(30, 60)}
    found = advise("Car", "yoloop-v3", own, {90: Precision(1030, 1060)})
    assert found.threshold is None and found.version == "yoloop-v3" and found.precision == Precision(30, 60)


def test_too_little_says_how_much_is_lacking() -> None:
    found = advise("Car", "yoloop-v3", {90: Precision(12, 12)}, {90: Precision(12, 12)})
    assert (found.threshold, found.lacking, found.version) == (None, 61, "yoloop-v3")
    assert "from 0.90 on: 12 of 12 right" in str(found) and "at least 61 more right ones" in str(found)
    nothing = advise("Car", "yoloop-v3", {}, {})
    assert (nothing.threshold, nothing.lacking) == (None, 73) and "nothing is known" in str(nothing)
    json.dumps([found.as_json(), nothing.as_json()])


PERCENTS = st.dictionaries(
    st.integers(0, 100),
    st.tuples(st.integers(0, 200), st.integers(0, 20)).map(lambda p: Precision(p[0], sum(p))),
    max_size=8,
)


@given(PERCENTS)
def test_no_lower_score_could_be_trusted(own: dict[int, Precision]) -> None:
    found = advise("Car", "yoloop-v3", own, own)

    def above(percent: int) -> Precision:
        there = [each for score, each in own.items() if score >= percent]
        return Precision(sum(each.right for each in there), sum(each.shown for each in there))

    trusted = [percent for percent in own if above(percent).low >= 0.95]
    if trusted:
        assert found.threshold == min(trusted) / 100 and found.precision == above(min(trusted))
    else:
        assert found.threshold is None and found.lacking > 0
        assert found.lacking <= 73 or own
