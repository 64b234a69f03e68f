"""Brings the ledger in step with Label Studio, reading only what changed since the last time.

What became of suggestions is written down on the way: an annotation judges the one it was made from, then teaches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from backend.errors import LabelConfigError, LabelStudioError
from backend.feedback.record import record
from backend.labels.schema import parse_label_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.records import TaskRecord
from backend.services import Services
from backend.store.database import Project

log = logging.getLogger(__name__)

OVERLAP = 5.0
"""Seconds read again each time: a task saved by a slow transaction can appear behind the cursor."""


@dataclass(frozen=True, slots=True)
class Synced:
    """Tasks that were read because they changed, and tasks that are gone."""

    changed: int
    gone: int


def sync(services: Services, uid: str, now: float, *, deletions: bool = False, whole: bool = True) -> Synced:
    """Read a project's changes into the ledger. Safe to repeat and to interrupt at any point.

    Args:
        now: epoch seconds, remembered as the time of the sync.
        deletions: look for deleted tasks even when the number of tasks does not tell of any.
        whole: read the project, too: its config and title, its number of tasks, and whether it still is the one that
            is known. Otherwise only the tasks that changed are asked for, in one request.

    Raises LabelStudioError; then what was read so far is kept, and the next sync goes on from there.
    """
    client, project, there = _reached(services, uid) if whole or deletions else (*_known(services, uid), None)
    changed = 0
    for tasks in changes(services, client, project):
        services.ledger.update(uid, tasks, max(task.updated_at for task in tasks).timestamp())
        changed += len(tasks)
    gone = 0
    if deletions or (there is not None and _fewer(services, client, project, there)):
        gone = services.ledger.keep_only(uid, client.task_ids(project.id))
    services.store.save_project(uid, synced_at=now, sync_error="")
    log.debug("Project %s: %d tasks changed, %d gone", uid, changed, gone)
    return Synced(changed, gone)


def changes(services: Services, client: LabelStudioClient, project: Project) -> Iterator[list[TaskRecord]]:
    """Pages of the tasks that changed since the last sync, once it is written down what they say of suggestions."""
    since = None if project.cursor is None else datetime.fromtimestamp(project.cursor - OVERLAP, UTC)
    controls = _controls(project)
    for tasks in client.changed_tasks(project.id, since):
        if tasks:
            record(services.store, project.uid, tasks, controls)
            yield tasks


def reach(services: Services, uid: str) -> tuple[LabelStudioClient, Project]:
    """The way to a project's Label Studio, and the project with its config and title as they are there now.

    Raises LabelStudioError, also when the project of that number is another one by now.
    """
    client, project, _ = _reached(services, uid)
    return client, project


def _fewer(services: Services, client: LabelStudioClient, project: Project, there: int) -> bool:
    """Whether tasks are gone: all that is there has been read by now, so that equal numbers say that none is."""
    known = services.ledger.task_count(project.uid)
    # Asked once more, as tasks may have come in between.
    return known != there and known != client.count_tasks(project.id)


def _known(services: Services, uid: str) -> tuple[LabelStudioClient, Project]:
    """The way to a project's Label Studio, and the project as it was there when it was read last."""
    project = services.store.project(uid)
    if project is None:
        raise LabelStudioError("The project is not known.", "Run `yoloop connect --project N`.")
    return services.client(project), project


def _reached(services: Services, uid: str) -> tuple[LabelStudioClient, Project, int]:
    """As `reach`, with the number of tasks that the project has there."""
    client, project = _known(services, uid)
    info = client.project(project.id)
    if info.uid != uid:
        raise LabelStudioError(
            f"Label Studio's project {project.id} was made at another time than the one that yoloop learned from.",
            "Run `yoloop connect --project N` for the new one.",
        )
    if (info.label_config, info.title) != (project.label_config, project.title):
        services.store.save_project(uid, label_config=info.label_config, title=info.title)
    return client, replace(project, label_config=info.label_config, title=info.title), info.tasks


def _controls(project: Project) -> frozenset[str] | None:
    """Names of the tags that yoloop suggests with; None when the config cannot be read."""
    try:
        controls = parse_label_config(project.label_config).controls
    except LabelConfigError:
        return None
    return frozenset(each.from_name for one in controls for each in (one, one.box) if each is not None)
