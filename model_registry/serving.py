"""Which version of a model serves, and how it came to that: plain data, and what each act makes of it.

The data is a row of a database that all processes share (`Rows`), which is changed only by whoever has seen its present
state: two acts at once are one after the other. MLflow's alias `champion` is written after it and follows it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

PERSON = "person"
TRAINING = "training"
"""Who decides which version serves."""

PROMOTED = "promoted"
ROLLED_BACK = "rolled back"
DELETED = "deleted"
UNSET = "unset"
"""What was done: a version put into service; taken out of it; deleted in MLflow; its alias removed there."""

BY_HAND = {PROMOTED: "promoted by hand", ROLLED_BACK: "rolled back by hand"}
"""How a person's act is told."""

DEEPEST_ROLLBACK = 100
"""Promotions, and versions with what was done to them last, that are kept."""


class CancelledMeanwhile(Exception):
    """The training that wanted to promote was cancelled."""


@dataclass(frozen=True, slots=True)
class Act:
    """What was done to a version last: `what` is PROMOTED or ROLLED_BACK, `at` in epoch seconds."""

    what: str
    by: str
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves for one model.

    `number` is None where no trained version serves. `what`, `by`, `at` and `reason` tell of the act that led there.
    `stack` holds the promotions that were not rolled back, the last one at the end; `acts` the last act on each
    version. `highest` is the highest number that was ever given out. `sequence` grows with each act; up to `mirrored`
    MLflow was told of them.
    """

    number: int | None = None
    what: str = ""
    by: str = TRAINING
    at: float = 0.0
    reason: str = ""
    stack: tuple[int, ...] = ()
    acts: Mapping[int, Act] = field(default_factory=dict)
    highest: int = 0
    sequence: int = 0
    mirrored: int = 0

    @property
    def name(self) -> str:
        return "v0, the model before any training," if self.number is None else f"v{self.number}"

    @property
    def before(self) -> tuple[int, ...]:
        """Numbers that led to the one in service, the last one first; that one is not among them."""
        return tuple(dict.fromkeys(number for number in reversed(self.stack) if number != self.number))

    @property
    def rolled_back(self) -> frozenset[int]:
        """Numbers that a person took out of service and nobody put back."""
        return frozenset(number for number, act in self.acts.items() if act.what == ROLLED_BACK)

    def promoted(self, number: int, by: str, reason: str, at: float) -> Serving:
        """With a version in service; as it is, if that serves already."""
        if number == self.number:
            return self
        act = Act(PROMOTED, by, at, reason)
        stack = self.stack if self.stack[-1:] == (number,) else (*self.stack, number)
        return replace(self._done(act, number), number=number, stack=stack[-DEEPEST_ROLLBACK:])

    def left(self, by: str, at: float, there: Callable[[int], bool]) -> Serving:
        """Without the version in service: the one before it that is `there` serves."""
        if self.number is None:
            return self
        stack = tuple(number for number in self.stack if number != self.number)
        target = next((number for number in reversed(stack) if there(number)), None)
        act = Act(ROLLED_BACK, by, at, BY_HAND[ROLLED_BACK])
        return replace(self._done(act, self.number), number=target, stack=stack)

    def without(self, existing: Collection[int], at: float) -> Serving:
        """When the version in service is not among those that exist in MLflow: the newest before it that is, serves.

        What is gone stays on the stack: it may be MLflow that somebody mistook.
        """
        target = next((number for number in self.before if number in existing), None)
        after = "no trained version that served before it is left" if target is None else f"v{target} served before it"
        reason = f"v{self.number} was deleted in MLflow, and {after}"
        return replace(self, number=target, what=DELETED, by=PERSON, at=at, reason=reason)

    def unset(self, at: float) -> Serving:
        reason = "the alias champion was removed in MLflow"
        return replace(self, number=None, what=UNSET, by=PERSON, at=at, reason=reason)

    def _done(self, act: Act, number: int) -> Serving:
        acts = {**{each: known for each, known in self.acts.items() if each != number}, number: act}
        kept = dict(list(acts.items())[-DEEPEST_ROLLBACK:])
        return replace(self, what=act.what, by=act.by, at=act.at, reason=act.reason, acts=kept)


class Brief(NamedTuple):
    """What a look at all models needs of each, see `Serving`."""

    number: int | None
    sequence: int
    mirrored: int


class Rows(Protocol):
    """Where it is kept."""

    shared: bool
    """Whether all processes see it; where not, MLflow is asked each time."""

    def get(self, model: str) -> Serving | None:
        """What serves for a model; None: nothing is known of it."""

    def all(self) -> dict[str, Brief]:
        """Of all models, in one question."""

    def replace(self, model: str, seen: int, wanted: Serving, *, job: str = "", mirrored: bool = False) -> bool:
        """Put `wanted` in the place of what has the sequence number `seen` (0: nothing is known), and count one up.

        Args:
            job: the training that does it, if one does.
            mirrored: MLflow says so already.

        Returns False when it is another one by now. Raises CancelledMeanwhile when the training was cancelled.
        """

    def highest(self, model: str) -> int:
        """The highest number that is known to have been given to a version of a model; 0: none."""

    def given(self, model: str, number: int) -> None:
        """Keep a number as given out."""

    def mirror(self, model: str, write: Callable[[Serving], None]) -> None:
        """Call `write` with what serves, where MLflow was not told of it yet, and keep that it was.

        One process at a time does so for a model; where another one is at it, nothing is done.
        """


class Unshared:
    """What one process alone knows, where there is no database: MLflow itself then says which version serves."""

    shared = False

    def __init__(self) -> None:
        self._known: dict[str, Serving] = {}
        self._lock = threading.RLock()

    def get(self, model: str) -> Serving | None:
        return self._known.get(model)

    def all(self) -> dict[str, Brief]:
        return {model: Brief(each.number, each.sequence, each.mirrored) for model, each in self._known.items()}

    def replace(self, model: str, seen: int, wanted: Serving, *, job: str = "", mirrored: bool = False) -> bool:
        with self._lock:
            known = self._known.get(model, Serving())
            if known.sequence != seen:
                return False
            done = seen + 1 if mirrored else known.mirrored
            self._known[model] = replace(wanted, sequence=seen + 1, mirrored=done)
            return True

    def highest(self, model: str) -> int:
        return 0  # MLflow's own numbers are all that is known

    def given(self, model: str, number: int) -> None:
        pass

    def mirror(self, model: str, write: Callable[[Serving], None]) -> None:
        with self._lock:
            known = self._known[model]
            if known.mirrored < known.sequence:
                write(known)
                self._known[model] = replace(known, mirrored=known.sequence)
