"""From which score on a version's suggestions save a person work, for each label, found on held-out images.

A suggestion that is right spares drawing an object and costs a look; one that is wrong costs the look and its removal.
A threshold that is the same for all versions knows nothing of that: between equally good models the best one differs by
0.3.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.fit.evaluation.bootstrap import Objects
from backend.labels.networks import Task
from backend.settings import ActionSeconds

GRID = np.arange(2, 100) / 100
"""Scores that a threshold may be."""

ROUNDS = 400
"""Times that groups of images are drawn."""

SURE = 10
"""Percentile of the drawn savings that must be above nothing: nine times in ten a threshold then saves some."""

ENOUGH_OBJECTS = 20
"""Held-out objects of a label that say by themselves where its threshold is; with fewer, all labels together say it."""

RIGHT, NEAR = 4, 0
"""Columns of `Objects.hits`: an overlap of 0.7, which stays as it is, and of 0.5, which is moved."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which score on a label is suggested.

    Attributes:
        least: in [0, 1]; None: no score saves anything, so that nothing is suggested.
        right: suggestions at or above it whose label and place (overlap 0.5 or more) are right, on the held-out images.
        shown: all of them.
        seconds: that they save on one image, looks and corrections counted.
    """

    least: float | None
    right: int = 0
    shown: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Savings:
    """By group of images and least score, (groups, grid): seconds and actions saved, suggestions right and shown."""

    seconds: NDArray[np.float64]
    actions: NDArray[np.float64]
    right: NDArray[np.float64]
    shown: NDArray[np.float64]


def thresholds(
    found: Objects, classes: Sequence[str], task: Task, costs: ActionSeconds, groups: Sequence[Hashable], seed: int = 0
) -> dict[str, Threshold]:
    """The threshold of each label that the held-out images show, or that was found on them.

    The one that saves most seconds, of those that in 90 of 100 drawn sets of images save some and that cost no more
    actions than drawing everything by hand. Labels with few objects take the one of all labels together; which has to
    save something on the label's own images, too, as far as there are suggestions of it.

    Args:
        found: what the version found on the held-out images, and what is there.
        classes: labels by class index.
        groups: of each image the group that it belongs to; images of one group are drawn together.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    group = np.array([numbers[name] for name in groups], np.int64)
    weights = np.random.default_rng(seed).multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), ROUNDS)
    everything = _savings(found, np.ones(len(found.scores), bool), task, costs, group, len(numbers))
    pooled = _best(everything, weights)
    chosen: dict[str, Threshold] = {}
    for cls in np.unique(np.concatenate([found.truths, found.classes])):
        own = _savings(found, found.classes == cls, task, costs, group, len(numbers))
        there = int((found.truths == cls).sum())
        at = _best(own, weights) if there >= ENOUGH_OBJECTS else pooled
        chosen[classes[int(cls)]] = _described(own, at, len(groups))
    return chosen


FOLDS = 5
"""Parts of the groups, each of which gets the thresholds that the others say."""


def left_out_thresholds(
    found: Objects, classes: int, task: Task, costs: ActionSeconds, groups: Sequence[Hashable], usual: Sequence[float]
) -> NDArray[np.float64]:
    """The least score of each class on each image, from the images of other groups only: (images, classes).

    So a version is judged at thresholds that its suggestions on the image had no say in. Where all images are of one
    group, and for classes that the others do not show, it is the usual one.

    Args:
        classes: how many.
        usual: of each class, the least score of one that nothing was found out about.
    """
    least = np.tile(np.asarray(usual, np.float64), (found.images, 1))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    fold = np.array([numbers[name] % FOLDS for name in groups], np.int64)
    names = [str(cls) for cls in range(classes)]
    for part in np.unique(fold) if len(numbers) > 1 else ():
        others = np.flatnonzero(fold != part)
        chosen = thresholds(_of_images(found, others), names, task, costs, [groups[image] for image in others])
        for name, each in chosen.items():
            least[fold == part, int(name)] = np.inf if each.least is None else each.least
    return least


def _of_images(found: Objects, images: NDArray[np.int64]) -> Objects:
    place = np.full(found.images, -1, np.int64)
    place[images] = np.arange(len(images))
    mine, there = place[found.image] >= 0, place[found.truth_image] >= 0
    return Objects(
        len(images),
        place[found.image[mine]],
        found.hits[mine],
        found.scores[mine],
        found.classes[mine],
        place[found.truth_image[there]],
        found.truths[there],
    )


def _savings(
    found: Objects,
    mine: NDArray[np.bool_],
    task: Task,
    costs: ActionSeconds,
    group: NDArray[np.int64],
    groups: int,
) -> _Savings:
    right, near = found.hits[mine, RIGHT], found.hits[mine, NEAR] & ~found.hits[mine, RIGHT]
    wrong = ~(right | near)
    draw = costs.drawing(task)
    seconds = np.where(right, draw, np.where(near, draw - costs.move, -costs.delete)) - costs.look
    actions = np.where(right, 1.0, np.where(wrong, -1.0, 0.0))
    # The last score of the grid that lets a suggestion through, then sums from the highest score down.
    last = np.searchsorted(GRID, found.scores[mine], side="right") - 1
    where = group[found.image[mine]], last

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        by_score = np.zeros((groups, len(GRID)))
        shown = last >= 0
        np.add.at(by_score, (where[0][shown], where[1][shown]), values[shown])
        total: NDArray[np.float64] = by_score[:, ::-1].cumsum(axis=1)[:, ::-1]
        return total

    return _Savings(
        summed(seconds), summed(actions), summed((~wrong).astype(np.float64)), summed(np.ones(int(mine.sum())))
    )


def _best(savings: _Savings, weights: NDArray[np.int64]) -> int | None:
    """Which score of the grid; None: none."""
    if not savings.seconds.size:
        return None
    total = savings.seconds.sum(axis=0)
    low = np.percentile(weights @ savings.seconds, SURE, axis=0)
    allowed = (low > 0) & (savings.actions.sum(axis=0) >= 0)
    if not allowed.any():
        return None
    # Between the highest and the lowest of those that save alike lies the one that is least likely chance.
    best = np.flatnonzero(allowed & (total >= total[allowed].max() - 1e-9))
    return int(best[len(best) // 2])


def _described(own: _Savings, at: int | None, images: int) -> Threshold:
    if at is None or (own.shown[:, at].sum() and own.seconds[:, at].sum() < 0):
        return Threshold(None)
    return Threshold(
        float(GRID[at]),
        int(own.right[:, at].sum()),
        int(own.shown[:, at].sum()),
        round(float(own.seconds[:, at].sum()) / max(images, 1), 2),
    )
