"""Keeps the backend's title in Label Studio equal to the version in service.

Label Studio's uncertainty sampling and its score column count only predictions whose version is called like the
project's `model_version`, and that is the title of the backend whose predictions are shown.
"""

from __future__ import annotations

import time

from backend.errors import LabelStudioError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.connect import our_backends
from backend.labelstudio.records import BackendInfo

WAIT = 60.0
"""Seconds for the serving process to report the version."""


def follow(client: LabelStudioClient, project_id: int, version: str, wait: float = WAIT) -> bool:
    """Give the backend's title the version, once the serving process reports it. Returns whether that took a change.

    Raises LabelStudioError; also when the project has no backend of ours, or another version goes on being served.
    """
    until = time.monotonic() + wait
    while (row := _ours(client, project_id)).model_version != version:
        if time.monotonic() > until:
            raise LabelStudioError(
                f"yoloop serves {row.model_version or 'nothing'}, and not {version}, to Label Studio.",
                "Look at `yoloop status`; the backend in the project's settings must be this yoloop.",
            )
        time.sleep(1.0)
    changed = row.title != version
    if changed:
        client.update_backend(row.id, project_id, row.url, version)
    if client.project(project_id).model_version != version:
        client.set_model_version(project_id, version)
        changed = True
    return changed


def _ours(client: LabelStudioClient, project_id: int) -> BackendInfo:
    found = our_backends(client.backends(project_id), client.webhooks(project_id), "", "yoloop")
    if not found:
        raise LabelStudioError(
            "The project has no ML backend of yoloop.", "Run `yoloop connect --project N --active-learning` again."
        )
    return found[0]
