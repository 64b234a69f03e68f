"""When a training is worth its time: a pure function of what the ledger holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from backend.settings import Settings
from backend.store.progress import Progress

GROWTH = 0.2
"""Share of what is known that must be new before the next training."""

PATIENCE = 1.5
MOST_PATIENCE = 4.0
"""By how much each candidate in a row that was not better raises what must be new, and all of them at most."""

FIRST_PRETRAINED = 5
FEWEST_PRETRAINED, MANY_OBJECTS = 3, 20
"""Annotations before the first training from pretrained weights; the fewer where they hold so many objects."""

GROWTH_PRETRAINED = 0.5
"""Share of what is known that must be new while that is less than what is asked for later."""

ENOUGH = 3
"""Times the minimum of labelled tasks after which the first training waits for rare labels no more."""

FIRST_RETRY = 60.0
LAST_RETRY = 3600.0
"""Seconds to wait after one failed training and, doubling each time, at most."""

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What starts a training by itself.

    `min_new_annotations` are the fewest; `min_per_class` the objects of each label in use before the first training;
    `cooldown` the seconds after one that began by itself; `max_trainings_per_hour` the most of those. `early`: it
    begins with fewer, as pretrained weights learn from them.
    """

    min_new_annotations: int
    min_per_class: int = 0
    cooldown: float = 0.0
    max_trainings_per_hour: int = 1_000_000
    early: bool = False

    @classmethod
    def of(cls, settings: Settings, *, pretrained: bool = False) -> Rules:
        """Those of the settings. What somebody has set holds, whatever a project starts from.

        Args:
            pretrained: whether the project's models start from pretrained weights.
        """
        chosen = settings.model_fields_set
        return cls(
            settings.min_new_annotations,
            0 if pretrained and "min_per_class" not in chosen else settings.min_per_class,
            settings.cooldown,
            settings.max_trainings_per_hour,
            early=pretrained and "min_new_annotations" not in chosen,
        )


@dataclass(frozen=True, slots=True)
class Trigger:
    train: bool
    reason: str


def annotations_needed(seen: int, minimum: int, rejected: int = 0, *, early: bool = False, objects: int = 0) -> int:
    """New annotations that start a training: `minimum` at first, later 20 % more, at least `minimum`.

    With `early` 5 at first, or 3 with 20 `objects`, and later half as many again where that is less: at 5, 8, 12, 18.

    Each of the last versions in a row that was `rejected` makes it half as many again, all of them at most four
    times as many: as much news as before made nothing better.
    """
    usual = max(minimum, math.ceil(GROWTH * seen))
    if early:
        first = FEWEST_PRETRAINED if objects >= MANY_OBJECTS else FIRST_PRETRAINED
        usual = min(usual, math.ceil(GROWTH_PRETRAINED * seen) if seen else first)
    return math.ceil(usual * min(MOST_PATIENCE, PATIENCE ** min(rejected, 16)))


def retry_at(progress: Progress) -> float:
    """Epoch seconds before which a failed training is not tried again."""
    if not progress.failures:
        return 0.0
    return progress.failed_at + min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(progress.failures - 1, 16))


def should_train(progress: Progress, rules: Rules, now: float) -> Trigger:
    """Whether to train now, and the reason in words that a person reads in `yoloop status`.

    Times after `now` were written before the clock was set back: nothing waits for them.
    """
    objects = sum(progress.objects.values())
    needed = annotations_needed(
        progress.seen, rules.min_new_annotations, progress.rejected, early=rules.early, objects=objects
    )
    after = ""
    if progress.rejected:
        versions = "version was" if progress.rejected == 1 else f"{progress.rejected} versions were"
        after = f" (more than usual, as the last {versions} not better)"
    if not progress.labelled and progress.left_out:
        return Trigger(False, f"none of {progress.left_out} submitted annotations is understood")
    if not progress.labelled:
        return Trigger(False, "no submitted annotation yet")
    if progress.new < needed:
        return Trigger(False, f"{progress.new} of {needed} new annotations{after}")
    if (rare := _rare(progress, rules)) is not None:
        return Trigger(False, f"label '{rare}' has {progress.objects[rare]} of {rules.min_per_class} objects")
    if progress.failed_at <= now < (at := retry_at(progress)):
        return Trigger(False, f"the last training failed; next try in {at - now:.0f} s")
    if progress.ended_at <= now < (at := progress.ended_at + rules.cooldown):
        return Trigger(False, f"the last training has just ended; next one in {at - now:.0f} s")
    recent = [began for began in progress.began if now - HOUR < began <= now]
    if len(recent) >= (most := rules.max_trainings_per_hour):
        wait = sorted(recent, reverse=True)[most - 1] + HOUR - now
        return Trigger(False, f"{len(recent)} trainings began within an hour; next one in {wait:.0f} s")
    return Trigger(True, f"{progress.new} new annotations{after}")


def _rare(progress: Progress, rules: Rules) -> str | None:
    """The rarest label that the first training waits for."""
    if progress.labelled >= ENOUGH * rules.min_new_annotations:
        return None
    few = (label for label, count in sorted(progress.objects.items()) if count < rules.min_per_class)
    return min(few, key=lambda label: progress.objects[label], default=None)
