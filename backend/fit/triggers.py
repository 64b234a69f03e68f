"""When a training is worth its time: a pure function of what the ledger holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

GROWTH = 0.2
"""Share of what is known that must be new before the next training."""

FIRST_RETRY = 60.0
LAST_RETRY = 3600.0
"""Seconds to wait after one failed training and, doubling each time, at most."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A project's ledger in numbers.

    `labelled` tasks have an annotation that teaches; `new` tasks have another one, or none any more, since the
    last finished training, which saw `seen`. `failures` trainings in a row failed, the last one at `failed_at`.
    """

    labelled: int
    new: int
    seen: int
    failures: int = 0
    failed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Trigger:
    train: bool
    reason: str


def annotations_needed(seen: int, minimum: int) -> int:
    """New annotations that start a training: `minimum` at first, later 20 % more, at least `minimum`."""
    return max(minimum, math.ceil(GROWTH * seen))


def retry_at(progress: Progress) -> float:
    """Epoch seconds before which a failed training is not tried again."""
    if not progress.failures:
        return 0.0
    return progress.failed_at + min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(progress.failures - 1, 16))


def should_train(progress: Progress, minimum: int, now: float) -> Trigger:
    """Whether to train now, and the reason in words that a person reads in `yoloop doctor`."""
    needed = annotations_needed(progress.seen, minimum)
    if not progress.labelled:
        return Trigger(False, "no submitted annotation yet")
    if progress.new < needed:
        return Trigger(False, f"{progress.new} of {needed} new annotations")
    if now < (at := retry_at(progress)):
        return Trigger(False, f"the last training failed; next try in {at - now:.0f} s")
    return Trigger(True, f"{progress.new} new annotations")
