"""A disk of its own that can be filled: a tmpfs, which only root may mount, or anybody in a namespace of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path


def mount(folder: Path, megabytes: int) -> None:
    """Make the folder a disk of that size. It lasts as long as the namespace of mounts, see `alone`."""
    folder.mkdir(parents=True, exist_ok=True)
    program = shutil.which("mount") or "/bin/mount"
    subprocess.run([program, "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)], check=True)


def alone() -> list[str]:
    """What to put before a command, so that what it mounts is seen by itself only, and goes with it."""
    return [shutil.which("unshare") or "unshare", "-m" if os.geteuid() == 0 else "-Urm", "--propagation", "private"]


def fill(folder: Path, left: int = 0) -> None:
    """Take all room but so many bytes."""
    size = os.statvfs(folder)
    with (folder / "filler").open("ab", buffering=0) as file:
        with contextlib.suppress(OSError):
            # Not quite all at once: where others write meanwhile, all would be given back.
            os.posix_fallocate(file.fileno(), 0, max(4096, size.f_bavail * size.f_frsize - max(left, 2**20)))
        if not left:
            with contextlib.suppress(OSError):
                file.seek(0, os.SEEK_END)
                while True:
                    file.write(bytes(4096))


def free(folder: Path) -> None:
    (folder / "filler").unlink(missing_ok=True)
