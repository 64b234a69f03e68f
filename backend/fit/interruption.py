"""A training that cannot go on now, though nothing is wrong with it: the disk is full, or a database locked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from backend.errors import TrainingCancelled, unwritable
from backend.processes.room import trouble

T = TypeVar("T")


class Interrupted(BaseException):
    """The training is to be run again later; its finished steps are kept.

    As what ends a process it is no Exception: who keeps the steps would write it down as the training's end.
    """


def reason(error: BaseException, home: Path) -> str:
    """Why nothing can be written, where an error came of that; what a library made of it seldom says so."""
    return "" if isinstance(error, TrainingCancelled) else unwritable(error) or trouble(home)


def resumable(function: Callable[[], T], home: Path) -> T:
    """What the function returns. Raises Interrupted in the place of an error that came of a home that takes nothing."""
    try:
        return function()
    except Exception as error:
        if why := reason(error, home):
            raise Interrupted(why) from error
        raise
