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
) -> Decision:
    """Compare a candidate with the version in service.

    Args:
        candidate: its metrics on the hold-out; `mAP50-95` and `mAP50`, each in [0, 1].
        champion: the same of the version in service on the same images; None when nothing serves.
        holdout: number of held-out images that both were measured on.
        same_classes: False when the labelling config's labels have changed since the champion.
        tolerance: largest loss of mAP50-95 that still promotes.
    """
    if holdout == 0:
        return Decision(True, "No annotated image is held out yet, so there was nothing to compare on.")
    new = candidate[METRIC]
    images = f"{holdout} held-out image{'' if holdout == 1 else 's'}"
    if champion is None:
        if candidate.get("mAP50", new) <= 0:
            return Decision(False, f"It found nothing on {images}; more annotations are needed.")
        return Decision(True, f"First version: {METRIC} {new:.3f} on {images}.")
    if not same_classes:
        return Decision(True, f"The labels have changed: {METRIC} {new:.3f} on {images}.")
    old = champion[METRIC]
    if new >= old - tolerance:
        return Decision(True, f"{METRIC} {new:.3f} against {old:.3f} on {images}.")
    return Decision(False, f"{METRIC} {new:.3f} is worse than {old:.3f} of the version in service on {images}.")
