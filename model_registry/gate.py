"""Whether a candidate may serve: a pure function of what both versions scored on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

METRIC = "mAP50-95"

BY_LABEL = {"mAP50-95": "mAP50", "accuracy": "accuracy"}
"""The metric that decides → the one that is known for each label, as `mAP50/<label>`."""

LARGEST_LOSS = 0.05
"""Loss that rejects although it might be chance: waiting for more annotations costs less than serving it."""

FEW_IMAGES = 10
"""Held-out images below which a comparison says little, so that only a large loss rejects without proof."""

LARGEST_LOSS_OF_FEW = 0.2

FEWEST_IMAGES = 5
"""Held-out images below which there is no proof: of four, all speak against an equal candidate once in sixteen."""

FEWEST_OBJECTS = 5
"""Held-out objects of a label below which its own loss says nothing."""

Rule = Literal[
    "",
    "no hold-out",
    "nothing found",
    "first version",
    "labels changed",
    "worse beyond chance",
    "much worse",
    "a label lost",
    "not worse",
]
"""Names of what decided."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`promote` and, in a sentence or two for a person, why; which rule decided, and the numbers it rests on."""

    promote: bool
    reason: str
    rule: Rule = ""
    numbers: Mapping[str, object] = field(default_factory=dict)


def decide(
    candidate: Mapping[str, float],
    champion: Mapping[str, float] | None,
    *,
    holdout: int,
    same_classes: bool = True,
    metric: str = METRIC,
    interval: tuple[float, float] | None = None,
    objects: Mapping[str, int] | None = None,
    max_class_drop: float = 1.0,
) -> Decision:
    """Compare a candidate with the version in service.

    Args:
        candidate: its metrics on the hold-out, each in [0, 1]: what `metric` names, `mAP50` where there is one, and
            that of each label, e.g. `mAP50/Car`.
        champion: the same of the version in service on the same images; None when nothing serves.
        holdout: number of held-out images that both were measured on.
        same_classes: False when the labelling config's labels have changed since the champion.
        metric: the metric that decides.
        interval: what 95 % of resampled differences of it, candidate's less champion's, lie between; None: unknown.
        objects: label → its objects on the hold-out.
        max_class_drop: most that a label with at least five of them may lose.
    """
    new = candidate[metric]
    numbers: dict[str, object] = {"metric": metric, "candidate": new, "holdout": holdout}
    if champion is not None:
        numbers |= {"champion": champion[metric], "difference": new - champion[metric]}
    if interval is not None:
        numbers["interval"] = list(interval)

    def decided(promote: bool, rule: Rule, reason: str) -> Decision:
        return Decision(promote, reason, rule, numbers)

    images = f"{holdout} held-out image{'' if holdout == 1 else 's'}"
    if holdout == 0:
        return decided(True, "no hold-out", "No annotated image is held out yet, so there was nothing to compare on.")
    if champion is None:
        if candidate.get("mAP50", new) <= 0:
            return decided(False, "nothing found", f"It found nothing on {images}; more annotations are needed.")
        return decided(True, "first version", f"First version: {metric} {new:.3f} on {images}.")
    if not same_classes:
        return decided(True, "labels changed", f"The labels have changed: {metric} {new:.3f} on {images}.")
    old = champion[metric]
    compared = f"{metric} {new:.3f} against {old:.3f} on {images}; difference {new - old:+.3f}"
    if interval is not None:
        compared += f", between {interval[0]:+.3f} and {interval[1]:+.3f}"
    if interval is not None and interval[1] < 0 and holdout >= FEWEST_IMAGES:
        return decided(False, "worse beyond chance", f"{compared}: worse beyond chance.")
    few = holdout < FEW_IMAGES
    if new - old < -(LARGEST_LOSS_OF_FEW if few else LARGEST_LOSS):
        return decided(False, "much worse", f"{compared}: too much to serve it, even if it may be chance.")
    lost = None if few else _lost(candidate, champion, BY_LABEL.get(metric, metric), objects or {}, max_class_drop)
    if lost is not None:
        label, now, before = lost
        numbers |= {"label": label, "label_candidate": now, "label_champion": before}
        return decided(
            False,
            "a label lost",
            f"{compared}. Label '{label}' fell from {before:.3f} to {now:.3f} ({BY_LABEL.get(metric, metric)}).",
        )
    hardly = " So few images tell hardly better than chance." if few else ""
    return decided(True, "not worse", f"{compared}.{hardly}")


def _lost(
    candidate: Mapping[str, float],
    champion: Mapping[str, float],
    metric: str,
    objects: Mapping[str, int],
    most: float,
) -> tuple[str, float, float] | None:
    """The label that loses most, and more than it may: its name, the candidate's number, the champion's."""
    both = [
        (label, candidate.get(f"{metric}/{label}", 0.0), champion.get(f"{metric}/{label}", 0.0))
        for label, count in sorted(objects.items())
        if count >= FEWEST_OBJECTS
    ]
    lost = [each for each in both if each[2] - each[1] > most]
    return max(lost, key=lambda each: each[2] - each[1], default=None)


def decide_together(decisions: Mapping[str, tuple[Decision, bool]]) -> Decision:
    """Whether a version of several models may serve: no model that replaces one may be worse than it.

    Args:
        decisions: name of the model → the decision on it alone, and whether the version in service has such a model.
    """
    if len(decisions) == 1:
        return next(iter(decisions.values()))[0]
    worse = any(replaces and not decision.promote for decision, replaces in decisions.values())
    some = any(decision.promote for decision, _ in decisions.values())
    reason = " ".join(f"{name}: {decision.reason}" for name, (decision, _) in decisions.items())
    return Decision(some and not worse, reason)
