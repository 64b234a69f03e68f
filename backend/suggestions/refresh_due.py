"""When a project's suggestions are to be refreshed again, and what they depend on."""

from __future__ import annotations

import hashlib
import math

from backend.served_models.version_string import PREFIX
from backend.settings import Settings
from backend.store.database import Project
from backend.store.refreshes import Refresh

NEW_TASKS = 60.0
"""Seconds after a refresh before tasks that were imported since get their suggestions."""

FAILED = 600.0
"""Seconds before tasks whose image could not be read are tried again."""


def key_of(project: Project, champion: int | None, settings: Settings) -> str:
    """What a project's suggestions depend on: the version, the labelling config, and the settings that change them."""
    said = [PREFIX, project.label_config, str(settings.score_threshold), settings.sampling]
    if settings.thresholds != "auto":
        said.append(settings.thresholds)
    text = "\n".join(said)
    return f"{champion}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def is_due(refresh: Refresh | None, key: str, champion: int | None, tasks: int, now: float, settings: Settings) -> bool:
    """Whether a project's suggestions are to be refreshed now.

    Args:
        refresh: the last one; None: there was none.
        key: what suggestions depend on now.
        champion: number of the version in service; None: none was trained yet.
        tasks: tasks of the project.

    A refresh that ended after `now` did so before the clock was set back: that is taken for long ago.
    """
    if refresh is None:
        return champion is not None
    if refresh.key != key or refresh.finished_at is None:
        return True
    since = now - refresh.finished_at if now >= refresh.finished_at else math.inf
    return (
        (tasks > refresh.tasks and since > NEW_TASKS)
        or (refresh.failed > 0 and since > FAILED)
        or (refresh.outdated > 0 and since > 60 * settings.keep_minutes)
    )
