"""A project's annotations and trainings in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

KEPT = "kept, not promoted"
"""In the message of a finished training whose version does not serve."""

NOTHING_YET = "There is no submitted annotation yet."
"""How the message begins of a training that was asked for too early: the next one waits for annotations alone."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A project's ledger and trainings in numbers; times are epoch seconds.

    `labelled` tasks have an annotation that teaches; `new` tasks have another one, or none any more, since the
    last finished training, which saw `seen`. `failures` trainings in a row failed, the last one at `failed_at`.
    `rejected` versions in a row were not better than the one in service. `objects` counts the objects of each label
    that is in use, as long as there is no version; then it is empty. `began` are the times, newest first, at which
    trainings began by themselves, and the last such one ended at `ended_at`. From `left_out` annotations nothing can be
    learned, as they are not understood.
    """

    labelled: int
    new: int
    seen: int
    failures: int = 0
    failed_at: float = 0.0
    rejected: int = 0
    objects: Mapping[str, int] = field(default_factory=dict)
    began: tuple[float, ...] = ()
    ended_at: float = -math.inf
    left_out: int = 0


def by_itself(reason: str) -> bool:
    """Whether a job with this reason was started by the trigger, and not asked for by a person."""
    return not reason.startswith("asked for ")
