"""The events that Label Studio's webhook sends us, and the secret header that it sends them with."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

HEADER = "X-Yoloop-Secret"
"""The header that `yoloop connect` gives to Label Studio's webhook, whose events carry no basic auth."""

EVENTS = frozenset(
    {
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATIONS_DELETED",
        "TASKS_CREATED",
        "TASKS_DELETED",
        "PROJECT_UPDATED",
    }
)
"""What the webhook is asked to tell of."""

START_TRAINING = "START_TRAINING"
"""The event of the button that asks for a training; Label Studio's switch sends the same at a submit."""

SWITCH = "Start model training on annotation submission"
"""Label Studio's name of that switch, under Settings → Model."""

DELETIONS = ("ANNOTATIONS_DELETED", "TASKS_DELETED")

_SUBMITS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")


def by_switch(event: str, data: Mapping[str, Any]) -> bool:
    """Whether an event that asks for a training may come from the switch.

    The button's event is the same to the last field. But the project in it tells whether the switch is on; while it
    is off, only a person can have asked.
    """
    project = data.get("project")
    if event != START_TRAINING or not isinstance(project, Mapping):
        return False
    # Label Studio keeps the switch as a number of annotations: 1 is on.
    return bool(project.get("min_annotations_to_start_training") or project.get("start_training_on_annotation_update"))


def is_submit(event: str, data: Mapping[str, Any]) -> bool:
    """Whether the event tells of an annotation at whose submit the switch, if it is on, asks for a training."""
    annotation = data.get("annotation")
    return event in _SUBMITS and not (isinstance(annotation, Mapping) and annotation.get("ground_truth") is True)


def webhook_secret(home: Path) -> str:
    """The installation's secret, made at first use, in a file that only its owner may read."""
    path = home / "webhook-secret"
    with FileLock(path.with_suffix(".lock")):  # the server and `yoloop connect` may come first together
        if path.exists() and (found := path.read_text().strip()):
            path.chmod(0o600)  # it may have been set by hand
            return found
        secret = secrets.token_urlsafe(32)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secret)
    return secret
