"""The minutes of a training: how many are spent, how far it is by them, and when it has to come to its end.

Only durations of a clock that never goes back count. How long a batch takes, and the end of an epoch with its
validation and its checkpoints, is learned while it trains: other work on the machine may change it at any time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

NEWS = 0.2
"""Weight of the last batch in what a batch is expected to take."""


class Minutes:
    """The time of one network's training. Told of each batch and each end of an epoch.

    Args:
        seconds: what it may take in all, with what was `spent` before it was interrupted.
        ending: batches that the end of an epoch is taken to last as long as, until one has been seen.
        clock: seconds that only ever grow.
    """

    def __init__(
        self, seconds: float, *, spent: float = 0.0, ending: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._clock, self._began, self._guess = clock, clock() - spent, ending
        self._first = 0.0 if spent else None
        """What was spent before the first batch: preparing teaches nothing."""
        self._last = self._began
        self._batch: float | None = None
        self._ending: float | None = None

    @property
    def spent(self) -> float:
        """Seconds until now, of earlier tries as well."""
        return self._clock() - self._began

    def begin(self) -> None:
        """A batch is loaded next, the first one of an epoch or of what is left of it."""
        self._last = self._clock()
        if self._first is None:
            self._first = self.spent

    def batch(self) -> None:
        """A batch has been learned from."""
        now = self._clock()
        took, self._last = now - self._last, now
        self._batch = took if self._batch is None else NEWS * took + (1 - NEWS) * self._batch

    def epoch(self) -> None:
        """An epoch has ended, its validation and checkpoints included."""
        self._ending = self._clock() - self._last
        self._last = self._clock()

    @property
    def ending(self) -> float:
        """Seconds that the end of an epoch takes."""
        return self._ending if self._ending is not None else self._guess * (self._batch or 0.0)

    @property
    def over(self) -> bool:
        """Whether one more batch would end nearer to a time beyond the minutes than its absence to one before them."""
        return self.spent + (self._batch or 0.0) / 2 + self.ending >= self.seconds

    @property
    def share(self) -> float:
        """How much of the time to learn has gone by: 0 at the first batch, 1 when it is over."""
        first = self._first or 0.0
        whole = self.seconds - self.ending - first
        return min(1.0, max(0.0, (self.spent - first) / whole)) if whole > 0 else 1.0

    def batches(self) -> float:
        """How many more batches there is time for."""
        if not self._batch:
            return math.inf
        return max(0.0, (self.seconds - self.ending - self.spent) / self._batch)

    def epochs(self, batches: int) -> float:
        """How many more epochs of so many batches will at least begin; 0 where not one batch has room."""
        if self._batch is None:
            return math.inf
        if self.over:
            return 0
        return max(1, math.ceil((self.seconds - self.spent) / max(batches * self._batch + self.ending, 1e-9)))
