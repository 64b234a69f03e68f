"""Whether a candidate may serve: a pure function of what it and others scored on the same images.

Newer versions know more annotations, so one that is as good is let through in nine of ten cases, however few images
there are. It is kept out where it is worse than what serves in its score or in the corrections that its suggestions
need, or worse in its score than the best version so far: beyond chance, and by more than does not matter. How rare a
chance must be was chosen by `bench/gate.py`, which tells how often decisions are right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from model_registry.comparison import Comparison, Estimate, Scored
from model_registry.reason import added, compared, count, first, tellable

LEVEL = 0.01
"""How rare a loss as large must be between equals, against what serves: of the score and of the corrections each."""

MARGIN = 0.01
"""Loss of score against what serves that does not matter, however sure it is."""

WORK_MARGIN = 0.02
"""More corrections for each object that do not matter, however sure they are."""

BEST_LEVEL = 0.06
"""As `LEVEL`, of the score against the best version so far: many losses by chance add up to a slow slide."""

BEST_MARGIN = 0.02
"""As `MARGIN`, against the best version so far."""

LABEL_LEVEL = 0.005
"""As `LEVEL`, for all single labels together: each of n labels must be worse by a chance of an nth of it."""

BETTER_LEVEL = 0.001
"""How rare a gain as large must be between equals for a candidate to be the best version so far: the luckiest of many
equal ones is not."""

FEWEST_GROUPS = 5
"""Groups of held-out images below which nothing is proven, so that only a large loss keeps a candidate out."""

LARGEST_LOSS_OF_FEW = 0.3

Rule = Literal[
    "",
    "not measured",
    "unproven",
    "nothing found",
    "first version",
    "worse",
    "more corrections",
    "much worse",
    "a label lost",
    "slow slide",
    "not worse",
]
"""Names of what decided."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`promote` and, in a sentence or two for a person, why; which rule decided, and the numbers it rests on.

    `best` tells that it is proven to be better than the best version so far, or that there is none.
    """

    promote: bool
    reason: str
    rule: Rule = ""
    numbers: Mapping[str, object] = field(default_factory=dict)
    best: bool = False


def decide(
    candidate: Scored,
    champion: Comparison | None = None,
    best: Comparison | None = None,
    *,
    serves: bool = False,
    max_class_drop: float = 1.0,
) -> Decision:
    """Compare a candidate with the version in service and with the best one so far.

    Args:
        candidate: what it does on the hold-out.
        champion: it against what is in service; None when that knows none of the labels, or nothing serves.
        best: it against the best version so far; None when that is the one in service, or knows none of the labels.
        serves: whether a version is in service, so that an unproven one is none too many.
        max_class_drop: most that a single label's score may lose.
    """
    numbers: dict[str, object] = {
        "metric": candidate.metric,
        "candidate": candidate.score,
        "corrections": candidate.work,
        "holdout": candidate.images,
        "objects": candidate.objects,
    }
    compared_with = () if champion is None else (champion.score.candidate, champion.work.candidate)
    if not _finite(candidate.score, candidate.work, *compared_with):
        numbers |= {"candidate": None, "corrections": None}
        reason = "What it scores is no number, so its weights are spoiled: it is never put into service."
        return Decision(False, reason, "not measured", numbers)
    if not candidate.images or not candidate.objects:
        return _unproven(serves, "No held-out image shows an object yet", numbers)
    if candidate.score <= 0:
        return Decision(
            False,
            f"It found nothing on {count(candidate.images, 'held-out image')}; more annotations are needed.",
            "nothing found",
            numbers,
        )
    if champion is None or not champion.labels or not _finite(champion.score.other, champion.work.other):
        return Decision(True, first(candidate), "first version", numbers, best=True)
    if not champion.objects:
        return _unproven(serves, f"No held-out image shows an object that {champion.against} knows", numbers)
    numbers |= {**_numbers(champion), "could_tell": champion.could_tell(BEST_LEVEL)}
    told, few = compared(candidate.metric, champion), tellable(champion, BEST_LEVEL)
    if (rule := _worse(champion)) is not None:
        why = {
            "worse": "it is clearly worse",
            "more corrections": "its suggestions clearly need more corrections",
            "much worse": "that is too much to serve it, even if so few images may mislead",
        }[rule]
        return Decision(False, f"{told}: {why}{few}.", rule, numbers)
    if (lost := _lost(champion, max_class_drop)) is not None:
        label, change = lost
        numbers |= {"label": label, "label_candidate": change.candidate, "label_champion": change.other}
        why = f"label '{label}' clearly fell, from {change.other:.3f} to {change.candidate:.3f}"
        return Decision(False, f"{told}: {why}{few}.", "a label lost", numbers)
    top = champion
    if (
        best is not None
        and best.labels
        and best.objects
        and _finite(best.score.candidate, best.score.other, best.work.candidate, best.work.other)
    ):
        top = best
        numbers["best"] = {"against": best.against, **_numbers(best)}
    if top.score.loss > BEST_MARGIN and top.score.chance < BEST_LEVEL:
        if top is champion:
            return Decision(False, f"{told}: it is worse{few}.", "worse", numbers)
        why = f"held against the best version so far, {compared(candidate.metric, top)}, it is worse"
        return Decision(False, f"{told}: no clear loss, but {why}{few}.", "slow slide", numbers)
    lower = champion.score.loss > 0 or champion.work.loss > 0
    why = "it is not clearly worse" if lower else "it is not worse"
    more = f" It knows {added(champion.added)}." if champion.added else ""
    return Decision(
        True,
        f"{told}: {why}{few}.{more}",
        "not worse",
        numbers,
        best=top.score.loss < 0 and 1 - top.score.chance < BETTER_LEVEL,
    )


def _is_measured(found: Comparison) -> bool:
    return _finite(found.score.candidate, found.score.other, found.work.candidate, found.work.other)


def _finite(*numbers: float) -> bool:
    return all(map(math.isfinite, numbers))


def _worse(found: Comparison) -> Rule | None:
    """How the candidate is worse than what serves, if it is."""
    if found.score.loss > MARGIN and found.score.chance < LEVEL:
        return "worse"
    if found.work.loss > WORK_MARGIN * found.objects and found.work.chance < LEVEL:
        return "more corrections"
    if found.groups < FEWEST_GROUPS and found.score.loss > LARGEST_LOSS_OF_FEW:
        return "much worse"
    return None


def _lost(found: Comparison, most: float) -> tuple[str, Estimate] | None:
    """The label that loses most, where it is sure that one does: each of many labels may look bad by chance."""
    level = LABEL_LEVEL / max(len(found.by_label), 1)
    lost = [(label, each) for label, each in found.by_label.items() if each.loss > most and each.chance < level]
    return max(lost, key=lambda pair: pair[1].loss, default=None)


def _unproven(serves: bool, why: str, numbers: Mapping[str, object]) -> Decision:
    what = "what serves stays; `yoloop promote` puts it into service" if serves else "it serves, as nothing else does"
    return Decision(not serves, f"{why}, so nothing could be compared: {what}.", "unproven", numbers, best=not serves)


def _numbers(found: Comparison) -> dict[str, object]:
    score = found.score.as_json()
    score["champion"] = score.pop("other")
    score.pop("candidate")
    return {"compared": found.score.candidate, **score, "work": found.work.as_json(), "groups": found.groups}


def decide_together(decisions: Mapping[str, tuple[Decision, bool]]) -> Decision:
    """Whether a version of several models may serve: no model that replaces one may be worse than it.

    Args:
        decisions: name of the model → the decision on it alone, and whether the version in service has such a model.
    """
    if len(decisions) == 1:
        return next(iter(decisions.values()))[0]
    # Of what no held-out image shows nothing is known: that may not keep out what is proven of another model.
    worse = any(
        replaces and not decision.promote and decision.rule != "unproven" for decision, replaces in decisions.values()
    )
    some = any(decision.promote for decision, _ in decisions.values())
    reason = " ".join(f"{name}: {decision.reason}" for name, (decision, _) in decisions.items())
    return Decision(some and not worse, reason)
