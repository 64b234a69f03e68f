"""Which version a candidate is held against beside the one in service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest

from backend.fit.evaluation.judgement import best_so_far, judge, replaces
from backend.fit.training.spec import NetworkSpec
from backend.labels.networks import Network
from backend.served_models.parts import TAG, Part, dump
from model_registry import Comparison, Estimate, Scored, Version

DETECT = Network("detect", "detect", ("Car",), ("label",))
POSE = Network("pose:kp", "pose", ("Man",), ("kp",))


def version(
    number: int,
    score: float = 0.5,
    best: str | None = None,
    networks: tuple[Network, ...] = (DETECT,),
    **tags: str,
) -> Version:
    gate: Mapping[str, str] = {}
    if best is not None:
        gate = {"gate": json.dumps({"promote": True, "networks": {DETECT.key: {"best_version": best}}})}
    return Version(
        "1.0",
        number,
        datetime.now(UTC),
        "run",
        {TAG: dump(Part(each) for each in networks), **gate, **tags},
        {"mAP50-95": score},
        False,
    )


def test_it_is_the_one_that_the_newest_decision_names() -> None:
    first, second, third = version(1, 0.4, "v1"), version(2, 0.9, "v1"), version(3, 0.5, "v1")
    assert best_so_far("detect", [third, second, first]) is first


def test_the_one_in_service_is_held_against_anyway() -> None:
    assert best_so_far("detect", [version(2, best="v2"), version(1, 0.9)]) is None
    assert best_so_far("detect", [version(1, best="v1")]) is None
    assert best_so_far("detect", []) is None


@pytest.mark.parametrize("named", [None, "v9", ""])
def test_where_the_named_one_is_gone_the_highest_score_counts(named: str | None) -> None:
    first, second, third = version(1, 0.6), version(2, 0.4), version(3, 0.5, named)
    assert best_so_far("detect", [third, second, first]) is first
    assert best_so_far("detect", [version(4, 0.7, named), second, first]) is None


def test_what_a_person_took_back_is_not_the_best() -> None:
    first = version(1, 0.6)
    taken = version(2, 0.9, decision="rolled back")
    assert best_so_far("detect", [version(3, 0.5, "v2"), taken, first]) is first
    # Put into service again by hand it is what serves.
    assert best_so_far("detect", [version(2, 0.9, decision="rolled back"), first]) is None


def test_one_of_other_networks_says_nothing() -> None:
    other = version(1, 0.9, networks=(POSE,))
    assert best_so_far("detect", [version(2, 0.5), other]) is None
    assert best_so_far("pose:kp", [version(2, 0.5), other]) is other


def test_a_network_that_was_taken_over_is_named_by_the_decision_on_it() -> None:
    newest = version(
        3, 0.5, networks=(POSE, DETECT), gate=json.dumps({"networks": {"pose:kp": {"best_version": "v3"}}})
    )
    first = version(1, 0.3)
    assert best_so_far("detect", [newest, version(2, 0.9, "v1"), first]) is first


@pytest.mark.parametrize("spoiled", ["", "[]", '{"networks": []}', "no JSON"])
def test_a_record_that_cannot_be_read_says_nothing(spoiled: str) -> None:
    first = version(1, 0.6)
    assert best_so_far("detect", [version(2, 0.5, gate=spoiled), first]) is first


def test_a_score_that_is_no_number_is_none() -> None:
    first = version(1, 0.4)
    assert best_so_far("detect", [version(3, 0.3), version(2, float("nan")), first]) is first


def told(other: float, labels: tuple[str, ...] = ("Car",), objects: int = 40) -> dict[str, Any]:
    score, work = Estimate(0.5, other, 0.05, 19), Estimate(30, 30, 2, 19, more_is_worse=True)
    found = Comparison("v1", labels, (), 20, 20, objects, score, work)
    scored = asdict(Scored("mAP50-95", 0.5, 30, 20, 40))
    return {"candidate": {}, "champion": {}, "holdout": 20, "scored": scored, "comparison": found.dump()}


def test_only_what_finds_something_can_be_replaced_by_something_worse() -> None:
    """Of several models one may be no better than nothing: that keeps out none of the others."""
    assert replaces(told(0.4))
    assert not replaces(told(0.0))
    assert not replaces({**told(0.4), "comparison": None})
    assert replaces({"champion": {"mAP50": 0.1}}), "of an earlier release"
    assert not replaces({"champion": None})


@pytest.mark.parametrize(("own", "promote"), [(True, False), (False, True)])
def test_unproven_replaces_the_pretrained_model_but_no_version(own: bool, promote: bool) -> None:
    network = {**asdict(DETECT), "own": own}
    todo = NetworkSpec(asdict(DETECT), "", "", "", 1, 64, "opponent.pt", network, 64)
    decision, best = judge(told(0.0, objects=0), todo, "v3", "v1" if own else "", 0.1)
    assert (decision.promote, decision.rule) == (promote, "unproven")
    assert best == ("v1" if own else "v3")
