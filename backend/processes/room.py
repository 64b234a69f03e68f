"""Room on the disk of YOLOOP_HOME: for anything to be written, and for a training to begin."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from backend.errors import unwritable

GIB = 2**30

LEAST = 16 * 2**20
"""Bytes below which nothing new is begun: databases and checkpoints would break off in their middle."""

PROBE = bytes(65536)


def trouble(folder: Path) -> str:
    """Why nothing can be written below a folder, such as "the disk is full"; empty when it can."""
    try:
        if shutil.disk_usage(folder).free < LEAST:
            return "the disk is full"
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(PROBE)
            file.flush()
    except OSError as error:
        return unwritable(error) or f"it cannot be written ({error.strerror})"
    return ""


def is_full(folder: Path) -> bool:
    """As `trouble`, but only by what the disk says of itself: cheap enough to be asked many times a second."""
    try:
        return shutil.disk_usage(folder).free < LEAST
    except OSError:
        return True


def missing_space(folder: Path, least_gb: float) -> str:
    """What lacks for a training to begin, in words; empty when there is room. `least_gb` in GiB."""
    free = shutil.disk_usage(folder).free / GIB
    if free >= least_gb:
        return ""
    return f"only {free:.{1 if free >= 1 else 2}f} GiB are free in YOLOOP_HOME, and a training needs {least_gb:g}"
