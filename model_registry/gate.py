"""Whether a candidate may serve: a pure function of what both versions scored on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

METRIC = "mAP50-95"
TOLERANCE = 0.01
"""A loss of mAP smaller than this is not told from noise, and more data is behind the candidate."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`promote` and, in one sentence for a person, why."""

    promote: bool
    reason: str


def decide(
    candidate: Mapping[str, float],
    champion: Mapping[str, float] | None,
    *,
    holdout: int,
    same_classes: bool = True,
    tolerance: float = TOLERANCE,
    metric: str = METRIC,
) -> Decision:
    """Compare a candidate with the version in service.

    Args:
        candidate: its metrics on the hold-out, each in [0, 1]: what `metric` names, and `mAP50` where there is one.
        champion: the same of the version in service on the same images; None when nothing serves.
        holdout: number of held-out images that both were measured on.
        same_classes: False when the labelling config's labels have changed since the champion.
        tolerance: largest loss that still promotes.
        metric: the metric that decides.
    """
    if holdout == 0:
        return Decision(True, "No annotated image is held out yet, so there was nothing to compare on.")
    new = candidate[metric]
    images = f"{holdout} held-out image{'' if holdout == 1 else 's'}"
    if champion is None:
        if candidate.get("mAP50", new) <= 0:
            return Decision(False, f"It found nothing on {images}; more annotations are needed.")
        return Decision(True, f"First version: {metric} {new:.3f} on {images}.")
    if not same_classes:
        return Decision(True, f"The labels have changed: {metric} {new:.3f} on {images}.")
    old = champion[metric]
    if new >= old - tolerance:
        return Decision(True, f"{metric} {new:.3f} against {old:.3f} on {images}.")
    return Decision(False, f"{metric} {new:.3f} is worse than {old:.3f} of the version in service on {images}.")


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
