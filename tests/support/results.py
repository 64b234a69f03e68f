"""What a run leaves behind: the slow tests by name, and of failed ones the logs, traces and screenshots.

Servers and browsers of the end-to-end tests say what is worth keeping of them (`evidence`) for as long as they live;
when a test fails, that is copied into a folder of the test's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Evidence = Callable[[Path], Iterable[Path]]
"""Given a folder, writes there what only exists in memory, and names the files to be copied besides."""

SLOW = 20.0
"""Seconds from which on a test is named in a run's last lines."""

LARGEST = 20 * 2**20
"""Bytes that are kept of one file: its end."""


@dataclass
class _Watched:
    name: str
    found: Evidence
    ended: bool = False


_watched: list[_Watched] = []


@contextlib.contextmanager
def evidence(name: str, found: Evidence) -> Iterator[None]:
    """While the block runs, and until the next test begins, a failing test keeps what `found` names.

    Args:
        name: of the folder that gets it.
        found: see `Evidence`.
    """
    entry = _Watched(name, found)
    _watched.append(entry)
    try:
        yield
    finally:
        entry.ended = True


def begin_test() -> None:
    """Forget what ended with an earlier test."""
    _watched[:] = [entry for entry in _watched if not entry.ended]


def keep(results: Path, nodeid: str, report: str) -> None:
    """Copy the evidence of a test that failed, and what pytest has to say of it."""
    short = hashlib.sha256(nodeid.encode(errors="backslashreplace")).hexdigest()[:6]
    name = re.sub(r"[^\w.-]+", "-", nodeid)[-140:]
    folder = results / "failed" / f"{name}-{short}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "report.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(report + "\n")
    for number, entry in enumerate(_watched):
        place = folder / f"{number}-{entry.name}"
        place.mkdir(exist_ok=True)
        try:
            for path in entry.found(place):
                _copy(path, place / f"{path.parent.name}-{path.name}")
        except Exception as error:  # what is kept is a help; the failure itself must stay to be seen
            (place / "not-kept.txt").write_text(f"{type(error).__name__}: {error}")


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        return
    if source.stat().st_size <= LARGEST:
        shutil.copyfile(source, target)
        return
    with source.open("rb") as file:
        file.seek(-LARGEST, 2)
        target.write_bytes(file.read())


def slow(seconds: Mapping[str, float]) -> list[str]:
    """A line for each test that took long, slowest first."""
    found = sorted((item for item in seconds.items() if item[1] >= SLOW), key=lambda item: -item[1])
    return [f"{spent:7.1f} s  {nodeid}" for nodeid, spent in found]
