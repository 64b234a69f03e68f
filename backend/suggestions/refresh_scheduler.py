"""The worker's part: starts a refresh when one is due, one at a time, and ends it with the worker."""

from __future__ import annotations

import logging
import os
import subprocess

from backend.observability.logs import about, new_job
from backend.processes import child
from backend.processes.child import end_group
from backend.services import Services
from backend.store.heartbeats import Heartbeat
from backend.store.refreshes import Refreshes
from backend.suggestions.refresh_due import is_due, key_of

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between looks at what serves."""

FIRST_RETRY = 30.0
LAST_RETRY = 600.0


class Keeper:
    """Keeps the suggestions of all projects fresh.

    Args:
        services: the worker's.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._refreshes = Refreshes(services.store)
        self._heartbeat = Heartbeat(services.store)
        self._process: subprocess.Popen[bytes] | None = None
        self._uid = self._key = self._job = ""
        self._looked = 0.0
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    def tick(self, now: float) -> None:
        """Take note of a refresh that ended, and start the next that is due."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process = None
            with about(job_id=self._job, project=self._uid):
                self._ended(code, now)
        if now < self._looked:  # the clock was set back
            self._not_before.clear()
        if abs(now - self._looked) < LOOK:
            return
        self._looked = now
        connected = self._services.store.connected()
        if self._process is not None and self._uid not in connected:
            self.stop()
        champions = self._services.champions.numbers()
        if champions is None:  # nobody knows what serves: what runs goes on, and nothing begins
            return
        for uid in connected:
            if self._process is not None and uid != self._uid:
                continue
            project, tasks = self._services.store.project(uid), self._services.ledger.task_count(uid)
            if project is None:
                continue
            champion = champions.get(uid)
            key = key_of(project, champion, self._services.settings)
            if self._process is not None:
                if key != self._key:
                    self.stop()  # its version serves no more
                continue
            last = self._refreshes.get(uid)
            if now >= self._not_before.get(uid, 0.0) and is_due(
                last, key, champion, tasks, now, self._services.settings
            ):
                self._start(uid, key)

    def retry(self) -> None:
        """Try at once what failed: what was in its way, in the way of all, is gone."""
        self._failures.clear()
        self._not_before.clear()

    def stop(self) -> None:
        """End a running refresh; the next worker goes on with it."""
        if self._process is not None:
            end_group(self._process)
            self._process = None

    def _start(self, uid: str, key: str) -> None:
        logs = self._services.settings.root / "logs"
        logs.mkdir(exist_ok=True)
        self._uid, self._key, self._job = uid, key, new_job("refresh")
        with about(job_id=self._job, project=uid):
            self._process = child.start("backend.suggestions.refresh", [uid, str(os.getpid())], logs / "refresh.log")

    def _ended(self, code: int, now: float) -> None:
        uid = self._uid
        refresh = self._refreshes.get(uid)
        if code == 0:
            self._failures.pop(uid, None)
            if refresh is not None and refresh.finished_at is not None:
                log.info("Project %s: %d of %d tasks carry %s", uid, refresh.done, refresh.total, refresh.version)
            return
        self._heartbeat.failed("refresh")
        failures = self._failures[uid] = self._failures.get(uid, 0) + 1
        wait = min(LAST_RETRY, FIRST_RETRY * 2.0 ** (failures - 1))
        self._not_before[uid] = now + wait
        log.warning("Project %s: its suggestions were not refreshed (%d); next try in %.0f s", uid, code, wait)
