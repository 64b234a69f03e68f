"""How sure a model is of a whole image: the score of a task, which orders Label Studio's uncertainty sampling.

Label Studio opens the lowest first, so a score says how little a person's look at the image would teach. A model
says several things about an image: that an object is here, that nothing is there, which choice is right. Each is a
`Place` with the probabilities of its readings; a strategy makes one number of all places of a task.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from backend.labels.geometry import Detection
from backend.labels.networks import Task
from backend.labels.overlap import iou_of
from backend.labels.schema import Control
from backend.settings import Sampling

FLOOR: Mapping[Task, float] = {"detect": 0.01, "obb": 0.01, "pose": 0.01, "segment": 0.05, "classify": 0.0}
"""Least score that a candidate under the threshold is looked for. Masks cost time each, so only likely ones."""

SAME_PLACE = 0.5
"""Intersection over union from which two boxes are readings of one place."""


@dataclass(frozen=True, slots=True)
class Place:
    """One thing that the model says of an image.

    `readings` are the probabilities of what may be there: first the one that the prediction tells, then the others.
    They add up to 1. `shown` is False for what the prediction tells by silence.
    """

    readings: tuple[float, ...]
    shown: bool = True

    @property
    def confidence(self) -> float:
        return self.readings[0]

    @property
    def margin(self) -> float:
        """Distance of the two likeliest readings."""
        first, second = sorted(self.readings)[-1:-3:-1]
        return first - second

    @property
    def entropy(self) -> float:
        """Shannon's entropy over its largest possible value, in [0, 1]."""
        spread = -sum(each * math.log(each) for each in self.readings if each > 0)
        return spread / math.log(len(self.readings))


class Strategy(Protocol):
    """How places become the score of a task. `compares` says that it looks at other images, too."""

    compares: ClassVar[bool]

    def score(self, places: Sequence[Place], distance: float = 1.0) -> float:
        """In [0, 1], 0 for the image that is most worth a person's look; 1 where nothing is in doubt.

        Args:
            distance: to the nearest image that was seen or picked before, over the usual one; in [0, 1].
        """
        ...


class LeastConfidence:
    """The probability of the least sure thing that the prediction tells.

    Lewis & Gale 1994, "A Sequential Algorithm for Training Text Classifiers"; Culotta & McCallum 2005: an answer of
    several parts is as sure as the model is of it.
    """

    compares: ClassVar[bool] = False

    def score(self, places: Sequence[Place], distance: float = 1.0) -> float:
        return min((place.confidence for place in places), default=1.0)


class Margin:
    """The smallest distance between the two likeliest readings of a place ("1-vs-2").

    Scheffer, Decomain & Wrobel 2001; for detectors Brust, Käding & Denzler 2019.
    """

    compares: ClassVar[bool] = False

    def score(self, places: Sequence[Place], distance: float = 1.0) -> float:
        return min((place.margin for place in places), default=1.0)


class Entropy:
    """One less the mean entropy of the places (Shannon 1948; Settles 2009, section 3.1)."""

    compares: ClassVar[bool] = False

    def score(self, places: Sequence[Place], distance: float = 1.0) -> float:
        return 1.0 - _mean([place.entropy for place in places]) if places else 1.0


class Mean:
    """The mean score of what is shown; where nothing is, how sure the model is of that."""

    compares: ClassVar[bool] = False

    def score(self, places: Sequence[Place], distance: float = 1.0) -> float:
        shown = [place.confidence for place in places if place.shown]
        return _mean(shown or [place.confidence for place in places]) if places else 1.0


class Diverse:
    """Least confidence, weighed by how far an image is from those before it.

    Greedy k-centre over the model's own embeddings (Sener & Savarese 2018), with the uncertainty as weight: of ten
    near-duplicates the first counts in full, the others as if nothing was in doubt.
    """

    compares: ClassVar[bool] = True

    def score(self, places: Sequence[Place], distance: float = 1.0) -> float:
        return 1.0 - (1.0 - LeastConfidence().score(places)) * distance


STRATEGIES: Mapping[Sampling, Strategy] = {
    "least-confidence": LeastConfidence(),
    "margin": Margin(),
    "entropy": Entropy(),
    "mean": Mean(),
    "diverse": Diverse(),
}


def places_of(found: Sequence[Detection], control: Control, labels: Mapping[int, str], threshold: float) -> list[Place]:
    """What a model says of one image to one control.

    Every object at the threshold or above is a place. So is the strongest candidate under it, with the prediction
    telling that nothing is there: an image without detections is placed by that one.

    Args:
        found: objects down to `FLOOR`, or the score of each class of the whole image.
        labels: the model's class index → the control's label; other classes are not looked at.
        threshold: least score of a suggestion.
    """
    known = [each for each in found if each.cls in labels]
    if control.kind in ("choices", "taxonomy"):
        return _choices(known, control, labels)
    shown = [each for each in known if each.score >= threshold]
    places = [_object(each, known, labels) for each in shown]
    hidden = max((each.score for each in known if each.score < threshold), default=None)
    if hidden is not None:
        places.append(Place((1.0 - hidden, hidden), shown=False))
    return places


def distances(vectors: NDArray[np.float32], before: NDArray[np.float32]) -> list[float]:
    """How far each image is from all before it, over the usual distance: (n,), each in [0, 1].

    Args:
        vectors: (n, d) embeddings of length 1, in the order in which they are picked.
        before: (m, d), those known already.
    """
    known = np.concatenate([before, vectors])
    spread = float(np.median(np.linalg.norm(known - known.mean(axis=0), axis=1))) if len(known) > 1 else 0.0
    found = []
    for index, vector in enumerate(vectors):
        others = known[: len(before) + index]
        if not len(others):
            found.append(1.0)
            continue
        nearest = float(np.linalg.norm(others - vector, axis=1).min())
        found.append(min(1.0, nearest / spread) if spread > 1e-6 else 0.0)
    return found


def _object(found: Detection, known: Iterable[Detection], labels: Mapping[int, str]) -> Place:
    """An object's readings: its label, another label at the same place, nothing."""
    rival = max(
        (
            each.score
            for each in known
            if labels[each.cls] != labels[found.cls] and iou_of(each.box, found.box) >= SAME_PLACE
        ),
        default=None,
    )
    if rival is None:
        return Place((found.score, 1.0 - found.score))
    total = max(1.0, found.score + rival)
    return Place((found.score / total, rival / total, 1.0 - (found.score + rival) / total))


def _choices(known: Sequence[Detection], control: Control, labels: Mapping[int, str]) -> list[Place]:
    sums = dict.fromkeys(labels.values(), 0.0)
    for each in known:
        label = labels[each.cls]
        sums[label] = max(sums[label], each.score) if control.multiple else sums[label] + each.score
    scores = [min(1.0, score) for score in sums.values()]
    if control.multiple:
        return [Place((max(score, 1 - score), min(score, 1 - score))) for score in scores]
    total = sum(scores)
    if len(scores) < 2 or total <= 0:
        return []
    return [Place(tuple(sorted((score / total for score in scores), reverse=True)))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
