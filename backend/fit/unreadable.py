"""Tries the images again that could not be read; what can be read by now is news."""

from __future__ import annotations

import logging
import time

from backend.errors import ImageError, LabelConfigError
from backend.fit.dataset.examples import pictures_of
from backend.labels.schema import parse_label_config
from backend.services import Services

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Tasks that are tried in one look."""

DEADLINE = 10.0
"""Seconds that it may take."""


def try_again(services: Services, uid: str, now: float) -> None:
    """Try the tasks whose time has come."""
    due = [each.task_id for each in services.unreadable.all(uid) if each.due(now)][:AT_ONCE]
    project = services.store.project(uid) if due else None
    if project is None:
        return
    try:
        schema = parse_label_config(project.label_config)
    except LabelConfigError:
        return
    source = services.source_of(project)
    pictures = pictures_of(services.ledger.examples(uid, due), schema)
    sources = [source(picture.reference, picture.example.task_id) for picture in pictures]
    failed: dict[int, str] = {}
    for place, image in services.images.load_many(sources, time.monotonic() + DEADLINE):
        if isinstance(image, ImageError):
            failed[pictures[place].example.task_id] = str(image)
    read = [task_id for task_id in due if task_id not in failed]
    services.unreadable.failed(uid, failed, now)
    services.unreadable.read(uid, read)
    if read:
        log.info("Project %s: images of %d tasks can be read now", uid, len(read))
