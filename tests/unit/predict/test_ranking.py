from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from backend.predict.ranking import ranked


def region(score: float, name: str = "") -> dict[str, Any]:
    return {"id": name, "score": score}


REGIONS = st.lists(st.builds(region, st.floats(0, 1), st.text()), unique_by=lambda each: each["id"])


@given(REGIONS)
def test_best_first_and_nothing_lost(regions: list[dict[str, Any]]) -> None:
    before = list(regions)
    found = ranked(regions)
    assert regions == before
    assert sorted(map(id, found)) == sorted(map(id, regions))
    assert all(one["score"] >= other["score"] for one, other in itertools.pairwise(found))


def test_equal_scores_keep_their_order() -> None:
    regions = [region(0.5, "a"), region(0.9, "b"), region(0.5, "c")]
    assert [each["id"] for each in ranked(regions)] == ["b", "a", "c"]


def test_what_belongs_together_stays_together() -> None:
    box, weak, strong = region(0.6, "box"), region(0.1, "weak"), region(0.99, "strong")
    points = [{**each, "parentID": "box"} for each in (weak, strong)]
    labels, other = region(0.6, "box"), region(0.7, "other")
    found = ranked([box, *points, labels, other])
    assert [each["id"] for each in found] == ["other", "box", "weak", "strong", "box"]
