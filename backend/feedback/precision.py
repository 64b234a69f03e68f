"""How sure a share is that was counted: Wilson's score interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Z = 1.96
"""Of a two-sided interval of 95 %."""


@dataclass(frozen=True, slots=True)
class Precision:
    """So many suggestions were right, of so many that were shown."""

    right: int
    shown: int

    @property
    def share(self) -> float | None:
        """In [0, 1]; None when nothing was shown."""
        return self.right / self.shown if self.shown else None

    @property
    def low(self) -> float:
        return interval(self.right, self.shown)[0]

    @property
    def high(self) -> float:
        return interval(self.right, self.shown)[1]

    def __str__(self) -> str:
        return f"{self.right} of {self.shown} right ({100 * self.low:.0f}–{100 * self.high:.0f} %)"

    def as_json(self) -> dict[str, Any]:
        return {
            "right": self.right,
            "shown": self.shown,
            "precision": _rounded(self.share),
            "low": _rounded(self.low),
            "high": _rounded(self.high),
        }


def interval(right: int, shown: int) -> tuple[float, float]:
    """Where the true share lies with 95 % confidence, in [0, 1]; all of it when nothing was shown.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal of the American
    Statistical Association 22 (1927), 209-212: the shares p from which the counted share is at most Z standard
    errors sqrt(p (1 - p) / n) away.
    """
    if shown <= 0:
        return 0.0, 1.0
    share, square = right / shown, Z * Z
    middle = share + square / (2 * shown)
    reach = Z * math.sqrt(share * (1 - share) / shown + square / (4 * shown * shown))
    whole = 1 + square / shown
    return max(0.0, (middle - reach) / whole), min(1.0, (middle + reach) / whole)


def lacking(right: int, shown: int, least: float) -> int:
    """How many more suggestions, all of them right, bring the interval's lower end to `least`, in (0, 1)."""
    high = 1
    while interval(right + high, shown + high)[0] < least:
        high *= 2
    low = -1
    while high - low > 1:
        middle = (low + high) // 2
        if interval(right + middle, shown + middle)[0] >= least:
            high = middle
        else:
            low = middle
    return high


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
