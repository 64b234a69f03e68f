"""Somebody who asks for suggestions all the time, and writes down every answer."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests

CALM, BUSY = 3.5, 1.0
"""Seconds between two questions. More often than every two seconds, and the refresh of suggestions would stand aside
all the time: it is asked so while a fault lasts."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; times on the clock of `time.monotonic`. `number` is its version's, 0 for none.

    `wrong` says what is wrong with it; `silent` is True when there was no answer at all.
    """

    asked: float
    came: float
    number: int
    wrong: str
    silent: bool = False


class Prober:
    """Asks a yoloop for suggestions from a thread of its own.

    Args:
        url: yoloop's address.
        body: a question without its tasks.
        tasks: of which one is asked at a time, in turn.
    """

    def __init__(self, url: str, body: dict[str, Any], tasks: Sequence[dict[str, Any]]) -> None:
        self._url, self._body, self._tasks = url, body, tasks
        self.answers: list[Answer] = []
        self.pause = CALM
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)

    def ask(self, index: int) -> Answer:
        began = time.monotonic()
        body = {**self._body, "tasks": [self._tasks[index % len(self._tasks)]]}
        try:
            response = requests.post(f"{self._url}/predict", json=body, timeout=100)
        except requests.RequestException as error:
            return Answer(began, time.monotonic(), 0, type(error).__name__, silent=True)
        came = time.monotonic()
        if "Traceback" in response.text:
            return Answer(began, came, 0, "a traceback in an answer")
        if response.status_code != 200:
            return Answer(began, came, 0, f"HTTP {response.status_code} {response.text[:200]}")
        (entry,) = response.json()["results"]
        version = re.fullmatch(r"yoloop-v(\d+)", entry["model_version"])
        if version is None or "result" not in entry:
            return Answer(began, came, 0, f"{entry['model_version']}: {entry.get('error', 'no trained version')}")
        return Answer(began, came, int(version[1]), "")

    def since(self, moment: float) -> list[Answer]:
        return [each for each in list(self.answers) if each.asked >= moment]

    def _run(self) -> None:
        index = 0
        while not self._stop.is_set():
            answer = self.ask(index)
            self.answers.append(answer)
            index += 1
            # A server that is being started anew is asked until it is there: its absence is measured.
            self._stop.wait(0.2 if answer.silent else self.pause)


def longest_silence(answers: Sequence[Answer]) -> float:
    """Seconds for which nobody got an answer: from the last good one before a silence to the end of the first after.

    What was only slow counts as well: somebody who asks waits for it.
    """
    longest, last = 0.0, None
    for each in answers:
        if each.wrong:
            continue
        waited = each.came - each.asked
        if last is not None and any(other.wrong for other in answers if last.came <= other.asked < each.asked):
            waited = each.came - last.came
        longest, last = max(longest, waited), each
    return longest
