"""From which score on a label's suggestions can be trusted: where at least 95 % of them are right, for all we know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.feedback.precision import Precision, lacking
from backend.feedback.statistics import Percents, by_percent, last_version
from backend.store.database import Store

TARGET = 0.95
"""Least precision that can be trusted, as the lower end of Wilson's interval."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What is known about one label.

    Attributes:
        threshold: the lowest score, in [0, 1], whose suggestions at or above it can be trusted; None: none can yet.
        version: whose suggestions say so; empty: those of all versions together.
        precision: of the suggestions at or above the threshold; without one, of the score that is nearest to it.
        nearest: that score, None when there is no suggestion with a score at all.
        lacking: how many more suggestions at least, all of them right, would make a threshold; 0 when there is one.
    """

    label: str
    threshold: float | None
    version: str
    precision: Precision
    nearest: float | None
    lacking: int

    def __str__(self) -> str:
        of = f"suggestions of {self.version}" if self.version else "suggestions of all versions together"
        if self.threshold is not None:
            return f"{self.label}: trust scores from {self.threshold:.2f} on; {of}: {self.precision}."
        known = "nothing is known yet" if self.nearest is None else f"{of} from {self.nearest:.2f} on: {self.precision}"
        return (
            f"{self.label}: no score can be trusted yet; {known}. "
            f"It takes at least {self.lacking} more right ones, and none wrong."
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "threshold": self.threshold,
            "version": self.version,
            "nearest": self.nearest,
            "lacking": self.lacking,
            **self.precision.as_json(),
        }


def advise(label: str, version: str, own: Mapping[int, Precision], every: Mapping[int, Precision]) -> Advice:
    """The advice for one label.

    The version's own suggestions decide. Where they are too few, those of all versions together do, unless the
    version's own already say that it is not as good.

    Args:
        own, every: suggestions by score in whole percent, of the version and of all versions.
    """
    mine, all_together = _from(own), _from(every)
    for name, cuts in ((version, mine), ("", all_together)):
        trusted = [
            percent
            for percent, precision in cuts.items()
            if precision.low >= TARGET and (name or _above(own, percent).high >= TARGET)
        ]
        if trusted:
            lowest = min(trusted)
            return Advice(label, lowest / 100, name, cuts[lowest], lowest / 100, 0)
    near = [
        (lacking(precision.right, precision.shown, TARGET), not name, -percent, name, precision)
        for name, cuts in ((version, mine), ("", all_together))
        for percent, precision in cuts.items()
        if name or _above(own, percent).high >= TARGET
    ]
    if not near:
        return Advice(label, None, version, Precision(0, 0), None, lacking(0, 0, TARGET))
    missing, _, percent, name, precision = min(near, key=lambda each: each[:3])
    return Advice(label, None, name, precision, -percent / 100, missing)


def advice(store: Store, uid: str, version: str | None = None) -> list[Advice]:
    """The advice for each label that was ever suggested, in their alphabet.

    Args:
        version: the one in service, as predictions carry it; None: the one that was shown last.
    """
    serving = last_version(store, uid) if version is None else version
    own, every = by_percent(store, uid, serving), by_percent(store, uid)
    return [advise(label, serving, own.get(label, {}), every[label]) for label in sorted(every)]


def _from(percents: Mapping[int, Precision]) -> Percents:
    """Score → the suggestions at or above it, for each score that occurs."""
    found: Percents = {}
    right = suggested = 0
    for percent in sorted(percents, reverse=True):
        right, suggested = right + percents[percent].right, suggested + percents[percent].shown
        found[percent] = Precision(right, suggested)
    return found


def _above(percents: Mapping[int, Precision], least: int) -> Precision:
    there = [each for percent, each in percents.items() if percent >= least]
    return Precision(sum(each.right for each in there), sum(each.shown for each in there))
