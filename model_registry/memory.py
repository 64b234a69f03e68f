"""What the registry said of a model last, in a file beside the local copies of its weights."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from model_registry.version import Version

log = logging.getLogger(__name__)

NAME = "registry.json"
MOST = 20
"""Versions of a model that are remembered: those with the highest numbers."""


@dataclass(slots=True)
class Remembered:
    """The version in service (None: none), the numbers that served before it, the last one first, and what is known
    of each version."""

    champion: int | None = None
    served_before: list[int] = field(default_factory=list)
    versions: dict[int, Version] = field(default_factory=dict)


class Memory:
    """The files of one home.

    Args:
        folder: with one folder for each model, as `Registry.fetch` makes them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, model: str) -> Remembered | None:
        """None where nothing is known, or nobody can tell what was written."""
        try:
            said = json.loads((self._folder / model / NAME).read_text(encoding="utf-8"))
            versions = [
                Version(**{**each, "created_at": datetime.fromisoformat(each["created_at"])})
                for each in said["versions"]
            ]
            champion = said["champion"]
            return Remembered(
                None if champion is None else int(champion),
                [int(each) for each in said["served_before"]],
                {each.number: each for each in versions},
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s of %s cannot be read (%s); the registry is asked", NAME, model, type(error).__name__)
            return None

    def write(self, model: str, known: Remembered) -> None:
        """Replace what was known. On a disk that is full it stays as it was."""
        kept = sorted(known.versions, reverse=True)[:MOST]
        if known.champion in known.versions:
            kept.append(known.champion)
        text = json.dumps(
            {
                "champion": known.champion,
                "served_before": known.served_before,
                "versions": [
                    {**asdict(known.versions[each]), "created_at": known.versions[each].created_at.isoformat()}
                    for each in dict.fromkeys(kept)
                ],
            }
        )
        target = self._folder / model / NAME
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, made = tempfile.mkstemp(dir=target.parent, prefix=NAME)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                Path(made).replace(target)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(made).unlink()
                raise
        except OSError as error:
            log.warning("%s of %s cannot be written (%s)", NAME, model, error.strerror)
