"""From what a training measured to the decision on each of its networks, and which version is the best so far."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from backend.fit.evaluation.metrics import metric_of
from backend.fit.training.spec import NetworkSpec
from backend.labels.networks import Network
from backend.served_models.parts import network_from, parts_of
from model_registry import Comparison, Decision, Estimate, Scored, Version, decide

GATE = "gate"
"""Tag of a version with the decision's numbers, as JSON."""

ROLLED_BACK = "rolled back"


def judge(
    measured: Mapping[str, Any], todo: NetworkSpec, candidate: str, parent: str, max_class_drop: float
) -> tuple[Decision, str]:
    """The decision on one network, and the name of the best version so far once it is carried out.

    Args:
        measured: what `measure` gave, or that of an earlier release.
        candidate, parent: names of the versions.
        max_class_drop: see `decide`.
    """
    network = network_from(todo.network)
    serves = bool(todo.opponent and todo.opponent_network.get("own", True))
    others = {name: each["comparison"] for name, each in measured.get("others", {}).items() if each["comparison"]}
    best_name, best = next(iter(others.items()), (parent if serves else "", None))
    if "scored" in measured:
        scored = Scored(**measured["scored"])
        compared = measured["comparison"] and Comparison.load(measured["comparison"])
    else:
        scored, compared = _earlier(measured, network, todo, parent)
    decision = decide(
        scored,
        compared or None,
        best and Comparison.load(best),
        serves=serves,
        max_class_drop=max_class_drop,
    )
    return decision, candidate if decision.promote and decision.best else best_name


def replaces(measured: Mapping[str, Any]) -> bool:
    """Whether there is a model in service that finds something, so that a candidate's network may be worse than it."""
    if "scored" not in measured:
        return measured["champion"] is not None
    return bool(measured["comparison"]) and Comparison.load(measured["comparison"]).score.other > 0


def record(decision: Decision, networks: Mapping[str, tuple[Decision, str]]) -> str:
    """The numbers that a decision rests on, as the version's tag `GATE`."""
    alone = {
        key: {"promote": each.promote, "rule": each.rule, "best_version": best, **each.numbers}
        for key, (each, best) in networks.items()
    }
    return json.dumps({"promote": decision.promote, "networks": alone}, allow_nan=False)


def best_so_far(key: str, served: Sequence[Version]) -> Version | None:
    """The version that a candidate's network is held against beside the one in service; None where that is the same.

    It is the one that the newest decision names. Where that is gone or was rolled back, or an earlier release decided,
    it is the one of the highest remembered score; it is measured anew in any case.

    Args:
        key: the network's.
        served: the version in service, then those before it, the last one first.
    """
    known = [each for each in served if any(part.network.key == key for part in parts_of(each))]
    known = [each for each in known if each is served[0] or each.decision != ROLLED_BACK]
    if not known:
        return None
    named = next((name for each in known if (name := _best_named(each, key))), "")
    found = next((each for each in known if each.name == named), None)
    if found is None:
        found = max(known, key=lambda each: _remembered(each, key))
    return None if found is served[0] else found


def _best_named(version: Version, key: str) -> str:
    try:
        return str(json.loads(version.tags[GATE])["networks"][key]["best_version"])
    except (KeyError, ValueError, TypeError):
        return ""


def _remembered(version: Version, key: str) -> float:
    """What it scored when it was made; 0 where nothing is known."""
    network = next(part.network for part in parts_of(version) if part.network.key == key)
    name = metric_of(network.task)
    score = version.metrics.get(f"{key}/{name}".replace(":", "_"), version.metrics.get(name, 0.0))
    return score if score == score else 0.0  # not NaN


def _earlier(
    measured: Mapping[str, Any], network: Network, todo: NetworkSpec, parent: str
) -> tuple[Scored, Comparison | None]:
    """What an earlier release measured: it counted no corrections, and drew images one by one."""
    metric, images = metric_of(network.task), int(measured["holdout"])
    counts = measured.get("objects") or {}
    objects = sum(counts.values()) if counts else images
    new = float(measured["candidate"][metric])
    scored = Scored(metric, new, float(objects), images, objects)
    if measured["champion"] is None:
        return scored, None
    interval = measured.get("difference")
    error = 0.0 if interval is None else (interval["high"] - interval["low"]) / 2 / NormalDist().inv_cdf(0.975)
    theirs = todo.opponent_network.get("classes", ()) if todo.opponent_network.get("own", True) else network.classes
    shared = tuple(label for label in network.classes if label in theirs)
    return scored, Comparison(
        against=parent or "v0",
        labels=shared,
        added=tuple(label for label in network.classes if label not in theirs),
        images=images,
        groups=images,
        objects=objects,
        score=Estimate(new, float(measured["champion"][metric]), error, 0 if interval is None else images - 1),
        work=Estimate(float(objects), float(objects), 0.0, 0, more_is_worse=True),
    )
