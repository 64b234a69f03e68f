"""The events that Label Studio's webhook sends us, and the secret header that it sends them with."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

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
"""The event of the button that asks for a training."""

DELETIONS = ("ANNOTATIONS_DELETED", "TASKS_DELETED")


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
