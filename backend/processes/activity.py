"""Recent prediction requests, shared with background processes so that they yield.

A file of lines, `<epoch seconds> <project> <task>,<task>…`, added to without waiting for the disk: losing its end in
a power cut costs nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

LARGEST = 2**20
"""Bytes; then it is begun anew."""

CLOCK_SET_BACK = 60.0
"""Seconds by which a request must seem to be still to come, to tell nothing any more."""


class Activity:
    """The requests for suggestions that came in lately.

    Args:
        path: the file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self, uid: str, tasks: Iterable[int], now: float) -> None:
        """Somebody waits for suggestions for these tasks. Never an error."""
        line = f"{now:.3f} {uid or '-'} {','.join(map(str, tasks))}\n"
        with contextlib.suppress(OSError):
            if self._path.exists() and self._path.stat().st_size > LARGEST:
                os.truncate(self._path, 0)
            with self._path.open("a") as file:
                file.write(line)

    def idle(self, now: float) -> float:
        """Seconds since somebody waited; infinite when nobody ever did."""
        try:
            seconds = now - self._path.stat().st_mtime
        except OSError:
            return float("inf")
        return seconds if seconds > -CLOCK_SET_BACK else float("inf")

    def asked(self, uid: str, since: float) -> frozenset[int]:
        """Ids of the project's tasks that were asked for since an epoch second."""
        mine = (tasks for at, project, tasks in self._lines() if project == uid and at >= since)
        return frozenset(task for tasks in mine for task in tasks)

    def _lines(self) -> Iterator[tuple[float, str, list[int]]]:
        try:
            text = self._path.read_text(errors="replace")
        except OSError:
            return
        for line in text.splitlines():
            with contextlib.suppress(ValueError):  # the last line may be half written
                at, project, tasks = line.split(" ")
                yield float(at), project, [int(task) for task in tasks.split(",") if task]
