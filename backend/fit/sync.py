"""Brings the ledger in step with Label Studio, reading only what changed since the last time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from backend.errors import LabelStudioError
from backend.services import Services

log = logging.getLogger(__name__)

OVERLAP = 5.0
"""Seconds read again each time: a task saved by a slow transaction can appear behind the cursor."""


@dataclass(frozen=True, slots=True)
class Synced:
    """Tasks that were read because they changed, and tasks that are gone."""

    changed: int
    gone: int


def sync(services: Services, uid: str, now: float, *, deletions: bool = False) -> Synced:
    """Read a project's changes into the ledger. Safe to repeat and to interrupt at any point.

    Args:
        now: epoch seconds, remembered as the time of the sync.
        deletions: look for deleted tasks even when the number of tasks does not tell of any.

    Raises LabelStudioError; then what was read so far is kept, and the next sync goes on from there.
    """
    project = services.store.project(uid)
    if project is None:
        raise LabelStudioError("The project is not known.", "Run `yoloop connect --project N`.")
    client = services.client(project)
    info = client.project(project.id)
    if info.uid != uid:
        raise LabelStudioError(
            f"Label Studio's project {project.id} was made at another time than the one that yoloop learned from.",
            "Run `yoloop connect --project N` for the new one.",
        )
    if (info.label_config, info.title) != (project.label_config, project.title):
        services.store.save_project(uid, label_config=info.label_config, title=info.title)
    since = None if project.cursor is None else datetime.fromtimestamp(project.cursor - OVERLAP, UTC)
    changed = 0
    for tasks in client.changed_tasks(project.id, since):
        if tasks:
            services.ledger.update(uid, tasks, max(task.updated_at for task in tasks).timestamp())
            changed += len(tasks)
    gone = 0
    if deletions or client.count_tasks(project.id) != services.ledger.task_count(uid):
        gone = services.ledger.keep_only(uid, client.task_ids(project.id))
    services.store.save_project(uid, synced_at=now, sync_error="")
    log.debug("Project %s: %d tasks changed, %d gone", uid, changed, gone)
    return Synced(changed, gone)
