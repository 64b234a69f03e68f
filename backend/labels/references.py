"""Where a task's data says that its images are."""

from __future__ import annotations

import re
from collections.abc import Mapping

LARGEST_ID = 2**63 - 1
"""What a database can keep."""


_STEP = re.compile(r"[^.\[\]]+")


def field_of(data: object, path: str) -> object:
    """What a task's data holds where an Image tag looks, e.g. "image", "meta.url" or "images[0]"; None: nothing.

    As in Label Studio's editor, a field whose own name is the whole path comes first.
    """
    if isinstance(data, Mapping) and path in data:
        return data[path]
    for step in _STEP.findall(path):
        if isinstance(data, Mapping):
            data = data.get(step)
        elif isinstance(data, list) and step.isdecimal() and int(step) < len(data):
            data = data[int(step)]
        else:
            return None
    return data


def pages_of(value: object, pages: bool) -> list[str]:
    """The addresses in one field: one image, or with `pages` a list of them. Anything else is no image."""
    if pages and isinstance(value, list):
        return [each if isinstance(each, str) else "" for each in value]
    return [value] if isinstance(value, str) and value else []


def task_id_of(task: object) -> int | None:
    """Label Studio's id of a task, None when it has none that could be one."""
    found = task.get("id") if isinstance(task, Mapping) else None
    return found if type(found) is int and 0 < found <= LARGEST_ID else None
