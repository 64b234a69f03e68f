"""Whether yoloop can do its work now: `GET /ready`. Liveness is `/health`, which asks for nothing."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from backend.health.check import Check, ill, well
from backend.served_models.cache import Models
from backend.services import Services
from backend.store.heartbeats import Heartbeat
from backend.store.sqlite_file import Locked, check_writable

log = logging.getLogger(__name__)

WAIT = 2.0
"""Seconds that all checks together may take; what they ask may hang."""

DOCTOR = "`yoloop doctor` says why."
WORKER = "Start `yoloop up` or `yoloop worker`; if it runs, its log says why it hangs."


class Readiness:
    """The checks of one process. What they tell names no path and no secret.

    Args:
        checks: by name; one that raises has failed.
        wait: seconds that they may take together.
    """

    def __init__(self, checks: Mapping[str, Callable[[], Check]], wait: float = WAIT) -> None:
        self._asked = [_Asked(name, check) for name, check in checks.items()]
        self._wait = wait

    def look(self) -> list[Check]:
        """What each finds now, in their order."""
        until = time.monotonic() + self._wait
        runs = [each.begin() for each in self._asked]
        return [each.end(until, self._wait) for each in runs]

    def was_well(self, name: str) -> bool:
        """Whether a check was well at the last look."""
        return any(each.name == name and each.well for each in self._asked)


class _Asked:
    """A check in a thread of its own, one at a time: one that hangs holds neither its caller nor the next ones up."""

    def __init__(self, name: str, check: Callable[[], Check]) -> None:
        self.name = name
        self._check = check
        self._lock = threading.Lock()
        self._run: _Run | None = None

    @property
    def well(self) -> bool:
        return self._run is not None and self._run.well

    def begin(self) -> _Run:
        """The run that goes on, or a new one: what another look begins later changes nothing in this one."""
        with self._lock:
            if self._run is None or not self._run.goes_on:
                self._run = _Run(self.name, self._check)
            return self._run


class _Run:
    """One run of a check."""

    def __init__(self, name: str, check: Callable[[], Check]) -> None:
        self._name = name
        self._check = check
        self._found: Check | None = None
        self._thread = threading.Thread(target=self._look, name=f"ready-{name}", daemon=True)
        self._thread.start()

    @property
    def goes_on(self) -> bool:
        return self._thread.is_alive()

    @property
    def well(self) -> bool:
        return self._found is not None and self._found.ok is True

    def end(self, until: float, wait: float) -> Check:
        self._thread.join(max(0.0, until - time.monotonic()))
        return self._found or ill(self._name, f"No answer within {wait:g} s.", DOCTOR)

    def _look(self) -> None:
        try:
            self._found = self._check()
        except Exception as error:
            log.debug("The check of the %s failed", self._name, exc_info=True)
            self._found = ill(self._name, f"It cannot be used ({type(error).__name__}).", DOCTOR)


def readiness(services: Services, models: Models, heartbeat: Heartbeat) -> Readiness:
    """The checks of a serving process."""
    home = services.settings.root
    return Readiness(
        {
            "database": lambda: database(home / "yoloop.db"),
            "registry": lambda: registry(services),
            "home": lambda: writable(home),
            "worker": lambda: worker(heartbeat, time.time()),
            "models": lambda: loaded(models),
        }
    )


def database(path: Path, wait: float = WAIT / 2) -> Check:
    """Whether the database can be read, and written as the next event will be."""
    try:
        check_writable(path, wait, "projects")
    except Locked:
        return ill(
            "database",
            f"It has been locked for {wait:g} s.",
            "End the program that holds it: `fuser $YOLOOP_HOME/yoloop.db` names it.",
        )
    return well("database", "It can be read and written.")


def registry(services: Services) -> Check:
    """Whether it can be read; a server was asked in the background, as it may not answer for long."""
    if services.registry.in_file:
        services.registry.champion_number("none")
    elif services.champions.away:
        return ill(
            "registry",
            f"MLflow is away. {services.champions.trouble} What it said last serves.",
            "Start it, or correct MLFLOW_TRACKING_URI; yoloop then goes on by itself.",
        )
    return well("registry", "It can be read.")


def writable(home: Path) -> Check:
    """Whether there are the rights and the room to write."""
    try:
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        return ill(
            "home",
            f"It cannot be written: {error.strerror}.",
            "Let yoloop's user own YOLOOP_HOME, on a disk that has room.",
        )
    return well("home", "It can be written.")


def worker(heartbeat: Heartbeat, now: float) -> Check:
    """Whether the worker gave a sign of life lately."""
    last = heartbeat.last()
    if last is None:
        return ill("worker", "None runs, so nothing is learned.", WORKER)
    if not last.alive(now):
        return ill("worker", f"No sign of life for {max(now - last.at, now - last.turned_at):.0f} s.", WORKER)
    return well("worker", "It lives.")


def loaded(models: Models) -> Check:
    """Whether what served before the start is in memory again, or nothing is to be loaded."""
    if not models.settled:
        return ill("models", "They are still being loaded.", "Wait; the log says when they serve.")
    broken = models.unloadable()
    if broken:
        names = ", ".join(f"{version} of project {uid.partition('.')[0]}" for uid, version in broken.items())
        return well("models", f"Loaded, all but {names}: what served before serves on.")
    return well("models", "They are loaded.")
