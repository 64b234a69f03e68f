"""From which score on a version's objects are suggested: what a person has set, and what the version's held-out images
said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from backend.labels.schema import Control
from backend.settings import Settings

TAG = "thresholds"
"""The version's tag: label → what its held-out images said (see `fit.evaluation.thresholds.Threshold`), as JSON."""

Learned = Mapping[str, float | None]
"""Class name → least score that saves work, None where none does; classes that are not in it have none of their own."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The least scores of one control's suggestions.

    Attributes:
        usual: of classes without one of their own, in [0, 1]. It also tells a task's score what is likely.
        own: class index → its own, infinite where nothing is suggested.
    """

    usual: float
    own: Mapping[int, float] = field(default_factory=dict)

    def of(self, cls: int) -> float:
        return self.own.get(cls, self.usual)

    @property
    def lowest(self) -> float:
        return min([self.usual, *self.own.values()])


@dataclass(frozen=True, slots=True)
class ThresholdPolicy:
    """What settings say of scores.

    Attributes:
        usual: least score where neither the control names one nor the version has found one.
        floor: least score that a person has set; None: nobody has.
        learns: whether what a version's held-out images said counts.
    """

    usual: float
    floor: float | None = None
    learns: bool = True

    @classmethod
    def of(cls, settings: Settings) -> ThresholdPolicy:
        is_set = "score_threshold" in settings.model_fields_set
        return cls(
            settings.score_threshold, settings.score_threshold if is_set else None, settings.thresholds == "auto"
        )

    def thresholds(self, control: Control, names: Mapping[int, str], learned: Learned) -> Thresholds:
        """The thresholds of a control.

        Args:
            names: its model's classes by index.
            learned: of the version's model; what a person has set for the control or for all goes before less.
        """
        usual = self.usual if control.score_threshold is None else control.score_threshold
        if not self.learns or not learned:
            return Thresholds(usual)
        floor = self.floor if control.score_threshold is None else control.score_threshold
        own = {
            index: math.inf if least is None else max(floor or 0.0, least)
            for index, name in names.items()
            if name in learned
            for least in (learned[name],)
        }
        return Thresholds(usual, own)
