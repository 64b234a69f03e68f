"""Where a task's data says that its images are."""

from __future__ import annotations

from collections.abc import Mapping

LARGEST_ID = 2**63 - 1
"""What a database can keep."""


def pages_of(value: object, pages: bool) -> list[str]:
    """The addresses in one field: one image, or with `pages` a list of them. Anything else is no image."""
    if pages and isinstance(value, list):
        return [each if isinstance(each, str) else "" for each in value]
    return [value] if isinstance(value, str) and value else []


def task_id_of(task: object) -> int | None:
    """Label Studio's id of a task, None when it has none that could be one."""
    found = task.get("id") if isinstance(task, Mapping) else None
    return found if type(found) is int and 0 < found <= LARGEST_ID else None
