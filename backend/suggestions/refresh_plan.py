"""Which unlabelled tasks lack suggestions of a version, in which order they get them, and what is outdated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from backend.labelstudio.records import OpenTask, PredictionRecord
from backend.served_models.version_string import is_ours

Ours = Callable[[PredictionRecord], bool]
"""Tells yoloop's own predictions from those of others."""


def called_ours(prediction: PredictionRecord) -> bool:
    return is_ours(prediction.version)


def lacking(tasks: Iterable[OpenTask], version: str, ours: Ours = called_ours) -> list[OpenTask]:
    """The tasks without a prediction of yoloop's of the version, most useful first.

    What an older version was least sure of comes first. Tasks that no version has seen come last: nothing is known of
    them, and the label stream asks for their suggestions itself.
    """

    def usefulness(task: OpenTask) -> tuple[bool, float, int]:
        newest = max(filter(ours, task.predictions), key=_age, default=None)
        score = newest.score if newest is not None else None
        return score is None, score or 0.0, task.id

    without = (task for task in tasks if all(each.version != version or not ours(each) for each in task.predictions))
    return sorted(without, key=usefulness)


def outdated(task: OpenTask, version: str, keep: int, ours: Ours = called_ours) -> list[tuple[int, datetime]]:
    """The predictions of a task that are needed no more, each with the time of the one that replaces it.

    These are yoloop's own: twins of one version but the newest, and versions that are not among the newest `keep`.
    Nothing goes as long as the version in service has no prediction there, or somebody has begun to work on the task.
    """
    own = sorted(filter(ours, task.predictions), key=_age)
    if task.touched or all(each.version != version for each in own):
        return []
    by_version: dict[str, list[PredictionRecord]] = {}
    for each in own:
        by_version.setdefault(each.version, []).append(each)
    # The version in service counts as the newest, also after a rollback to it.
    order = sorted(by_version, key=lambda name: (name == version, _age(by_version[name][-1])), reverse=True)
    served = by_version[version][-1]
    found = [(twin.id, twins[-1].created_at) for twins in by_version.values() for twin in twins[:-1]]
    found += [(by_version[name][-1].id, served.created_at) for name in order[max(1, keep) :]]
    return found


def _age(prediction: PredictionRecord) -> tuple[datetime, int]:
    return prediction.created_at, prediction.id
