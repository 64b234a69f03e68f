"""Tags of a version whose texts are longer than MLflow takes: they are cut, and put together again when they are read.

A project of thousands of labels has such: they name each of them.
"""

from __future__ import annotations

from collections.abc import Mapping

LONGEST = 5000
"""Characters of a tag. MLflow 3 takes 100,000, servers of earlier releases no more than this."""


def cut(tags: Mapping[str, str]) -> dict[str, str]:
    """Name → text, with what goes beyond `LONGEST` in `name.1`, `name.2` …"""
    found: dict[str, str] = {}
    for name, text in tags.items():
        found[name] = text[:LONGEST]
        for number, start in enumerate(range(LONGEST, len(text), LONGEST), 1):
            found[f"{name}.{number}"] = text[start : start + LONGEST]
    return found


def joined(tags: Mapping[str, str]) -> dict[str, str]:
    """What `cut` was given."""
    found = dict(tags)
    for name in tags:
        number = 1
        while f"{name}.{number}" in tags:
            found[name] += found.pop(f"{name}.{number}", "")
            number += 1
    return found
