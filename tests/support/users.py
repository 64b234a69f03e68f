"""A user whom the system does not know, as containers run: a number without an entry, in group 0, without HOME."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

UNKNOWN = 12345

_NAMES = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME")
"""Where libraries look for a user's home and name."""


def as_unknown(command: Sequence[str]) -> list[str]:
    """The command, run by that user. It may read every file, as the tests' own lie anywhere, and writes its own only.

    Only root can become another user: others run it as themselves, without HOME.
    """
    forget = ["env", *(part for name in _NAMES for part in ("-u", name))]
    if os.geteuid() != 0:
        return [*forget, *command]
    capabilities = "-all,+dac_read_search"
    become = ["setpriv", "--reuid", str(UNKNOWN), "--regid", "0", "--clear-groups"]
    limits = [f"--{which}={capabilities}" for which in ("inh-caps", "ambient-caps", "bounding-set")]
    return [*become, *limits, *forget, *command]


def give(folder: Path) -> None:
    """Let a folder belong to that user; it is made when it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, UNKNOWN, 0)
