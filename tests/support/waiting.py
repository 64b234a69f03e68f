"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

PATIENCE = 60.0
"""Seconds after which what takes no time on an idle machine has failed on any."""


def wait_for(
    condition: Callable[[], Found], seconds: float = PATIENCE, what: str = "the condition", *, pause: float = 0.3
) -> Found:
    """What `condition` returns once it is true; AssertionError after so many seconds.

    Args:
        pause: seconds between two questions.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(pause)
    raise AssertionError(f"Waited {seconds:.0f} s in vain for {what}.")
