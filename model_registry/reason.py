"""The sentences of a decision, for the people who label: what was compared, on what, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

from model_registry.comparison import Comparison, Scored

FEW_OBJECTS = 300
"""Held-out objects below which it is told what difference they can tell."""

MOST_NAMED = 3
"""Labels that are named; of more only the number is told."""


def count(number: int, name: str) -> str:
    """Such as "1 image", "2 images"."""
    return f"{number} {name}{'' if number == 1 else 's'}"


def hold_out(images: int, objects: int, metric: str) -> str:
    what = "choice" if metric == "accuracy" else "object"
    return f"{count(objects, what)} on {count(images, 'held-out image')}"


def first(candidate: Scored) -> str:
    """Of a version that there is nothing to compare with."""
    where = hold_out(candidate.images, candidate.objects, candidate.metric)
    work = f"its suggestions would need {corrections(candidate.work)}, and without any {candidate.objects}"
    return f"First version for these labels: {candidate.metric} {candidate.score:.3f} on {where}; there {work}."


def compared(metric: str, found: Comparison) -> str:
    """Both numbers of both, and how sure the score's difference is; without a full stop."""
    score, work = found.score, found.work
    low, high = score.interval
    between = f", 95 % sure between {low:+.3f} and {high:+.3f}" if found.groups > 1 else ""
    where = hold_out(found.images, found.objects, metric)
    return (
        f"{metric} {score.candidate:.3f} instead of {score.other:.3f} of {found.against} ({score.difference:+.3f}"
        f"{between}) and {work.candidate:.0f} instead of {corrections(work.other)}, on {where}"
    )


def tellable(found: Comparison, level: float) -> str:
    """What so few objects can tell; empty where there are enough."""
    if found.objects >= FEW_OBJECTS:
        return ""
    loss = found.could_tell(level)
    return "; so few could tell nothing" if loss is None else f"; so few could tell {loss:.2f}"


def added(labels: Sequence[str]) -> str:
    """The labels that only the candidate knows."""
    names = f" ({', '.join(labels)})" if len(labels) <= MOST_NAMED else ""
    return f"{count(len(labels), 'more label')}{names}"


def corrections(number: float) -> str:
    return count(round(number), "correction")
