"""How long one annotator waits while Label Studio retrieves the predictions of a thousand tasks.

"Retrieve Predictions" sends all chosen tasks in one request. Meanwhile somebody labels: one task after the other, with
a pause between them that is far shorter than a person's, so that there are enough of them before the request ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from threading import Thread
from typing import Any

import numpy as np

TASKS = 1000
"""Of the one request."""

PAUSE = 0.25
"""Seconds between an answer and the annotator's next task."""

IDLE = 100
"""Tasks of the annotator before the retrieve and again after it, while nothing else runs."""

SETTLE = 1.0
"""Seconds after which the request has arrived and its images are on their way."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds that single tasks took, and images a second of the retrieve."""

    idle: list[float]
    busy: list[float]
    bulk: float

    def told(self) -> Mapping[str, float]:
        ratio, alone = (np.percentile(each, [50, 95]) for each in (self.busy, self.idle))
        return {
            "bulk_p95": float(ratio[1] / alone[1]),
            "bulk_p50": float(ratio[0] / alone[0]),
            "bulk_images_per_s": self.bulk,
            "bulk_idle_p95_ms": 1000 * float(alone[1]),
        }


def beside_a_retrieve(one: Callable[[int], Any], many: Callable[[], Any], tasks: int = TASKS) -> Waits:
    """Ask for one task after the other, alone and beside one request for a thousand.

    Args:
        one: asks for the suggestions of the task of a number, and fails unless they come.
        many: asks for those of `tasks` tasks in one request, and fails unless all come.
    """
    numbers = count()
    idle = [wait_for(one, next(numbers)) for _ in range(IDLE)]
    taken: list[float] = []
    failed: list[BaseException] = []

    def retrieve() -> None:
        began = time.perf_counter()
        try:
            many()
        except BaseException as error:
            failed.append(error)
        taken.append(time.perf_counter() - began)

    running = Thread(target=retrieve)
    running.start()
    time.sleep(SETTLE)
    busy = list(while_alive(running, one, numbers))
    running.join()
    if failed:
        raise failed[0]
    idle += [wait_for(one, next(numbers)) for _ in range(IDLE)]
    return Waits(idle, busy, tasks / taken[0])


def while_alive(running: Thread, one: Callable[[int], Any], numbers: Iterator[int]) -> Iterator[float]:
    """Seconds of each task that was asked for and answered while a thread was at work."""
    while running.is_alive():
        waited = wait_for(one, next(numbers))
        if running.is_alive():
            yield waited


def wait_for(one: Callable[[int], Any], number: int) -> float:
    """Seconds that a task takes, after a pause."""
    time.sleep(PAUSE)
    began = time.perf_counter()
    one(number)
    return time.perf_counter() - began
