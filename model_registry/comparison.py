"""Two versions on the same held-out images: what each scores, and how sure their difference is. Plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any

NORMAL = NormalDist()

SURE = 0.95
"""Share of all cases in which the true difference lies in the interval that is told."""

MOST_CASES = 0.9
"""Share of all cases in which a difference as large as `could_tell` is noticed."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One number of two versions, and the standard error of its difference.

    Attributes:
        candidate, other: the number on all the images.
        error: standard error of `difference`, from pairs: what is hard for both does not count.
        freedom: degrees of freedom of it, groups of images less one. 0: nothing is known of the error.
        more_is_worse: True of corrections, False of a score.
    """

    candidate: float
    other: float
    error: float
    freedom: int
    more_is_worse: bool = False

    @property
    def difference(self) -> float:
        """Candidate's less the other's."""
        return self.candidate - self.other

    @property
    def loss(self) -> float:
        """How much worse the candidate is; below 0: better."""
        return self.difference if self.more_is_worse else -self.difference

    @property
    def chance(self) -> float:
        """How often a candidate that is as good looks as bad as this one or worse, in [0, 1]; 1: not known."""
        if self.freedom < 1 or not math.isfinite(self.loss) or not math.isfinite(self.error):
            return 1.0
        if self.error <= 0:
            return 0.0 if self.loss > 0 else 1.0
        return 1 - NORMAL.cdf(as_normal(self.loss / self.error, self.freedom))

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true difference lies with 95 % confidence."""
        reach = self.reach((1 + SURE) / 2)
        return self.difference - reach, self.difference + reach

    def reach(self, share: float) -> float:
        """How far above the true difference the measured one lies at most in that share of all cases."""
        return as_student(NORMAL.inv_cdf(share), self.freedom) * self.error if self.freedom >= 1 else math.inf

    def could_tell(self, level: float) -> float:
        """The loss that would be noticed in nine of ten cases, where `chance` must be below `level`."""
        return self.reach(1 - level) + self.reach(MOST_CASES)

    def as_json(self) -> dict[str, Any]:
        """Its numbers; an interval that is not known is left out, as JSON has no infinity."""
        found: dict[str, Any] = {"candidate": self.candidate, "other": self.other, "difference": self.difference}
        if all(map(math.isfinite, self.interval)):
            found["interval"] = list(self.interval)
        return found


@dataclass(frozen=True, slots=True)
class Scored:
    """What a candidate does on the held-out images, whatever else there is.

    Attributes:
        metric: name of the score.
        score: in [0, 1].
        work: corrections that its suggestions would need there.
        images: number of them.
        objects: what is to be found on them, or the choices to be made.
    """

    metric: str
    score: float
    work: float
    images: int
    objects: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate and another version on the same images, on the labels that both know.

    Attributes:
        against: name of the other version.
        labels: what both know.
        added: what only the candidate knows.
        images, groups, objects: of the hold-out; objects of the shared labels, or choices.
        score: what `Scored.metric` names.
        work: corrections that the suggestions would need on all the images.
        by_label: the score of each shared label, where there are enough objects to say something.
    """

    against: str
    labels: tuple[str, ...]
    added: tuple[str, ...]
    images: int
    groups: int
    objects: int
    score: Estimate
    work: Estimate
    by_label: Mapping[str, Estimate] = field(default_factory=dict)

    def could_tell(self, level: float) -> float | None:
        """Loss of score that so many images would tell: see `Estimate.could_tell`. None: they can tell nothing."""
        found = self.score.could_tell(level)
        return found if found < 1 else None

    def dump(self) -> dict[str, Any]:
        """As JSON, for `load`."""
        return {**asdict(self), "labels": list(self.labels), "added": list(self.added)}

    @classmethod
    def load(cls, found: Mapping[str, Any]) -> Comparison:
        """From what `dump` gave."""
        estimates = {name: Estimate(**found[name]) for name in ("score", "work")}
        by_label = {label: Estimate(**each) for label, each in found["by_label"].items()}
        names = {name: tuple(found[name]) for name in ("labels", "added")}
        return cls(**{**found, **names, **estimates, "by_label": by_label})


def as_normal(t: float, freedom: int) -> float:
    """The standard normal quantile that lies as deep as Student's t with so many degrees of freedom.

    D. L. Wallace, Bounds on normal approximations to Student's and the chi-square distributions, Annals of Mathematical
    Statistics 30 (1959), 1121-1130; within 0.05 from one degree of freedom on.
    """
    size = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return math.copysign(size, t)


def as_student(z: float, freedom: int) -> float:
    """The inverse of `as_normal`."""
    size = abs(z) * (8 * freedom + 3) / (8 * freedom + 1)
    return math.copysign(math.sqrt(freedom * math.expm1(size * size / freedom)), z)
