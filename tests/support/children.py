"""The processes that the tests' own process started."""

from __future__ import annotations

import contextlib
import time

import psutil


def trainers() -> list[psutil.Process]:
    """Those that train or wait for a training, and have not ended."""
    found = []
    for each in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a process that has ended, too, has no command line
            while not (words := each.cmdline()):  # neither has one, for a moment, that has just begun
                time.sleep(0.01)
            if "backend.fit.training.train" in words:
                found.append(each)
    return found
