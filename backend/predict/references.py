"""Where a task's data says that its images are."""

from __future__ import annotations


def pages_of(value: object, pages: bool) -> list[str]:
    """The addresses in one field: one image, or with `pages` a list of them. Anything else is no image."""
    if pages and isinstance(value, list):
        return [each if isinstance(each, str) else "" for each in value]
    return [value] if isinstance(value, str) and value else []
