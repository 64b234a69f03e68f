"""The worker: keeps the ledgers in step with Label Studio, runs the trainings, keeps suggestions fresh.

One loop looks at the hints, the clock and the jobs; DBOS runs the trainings, one at a time, beside it.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from backend.errors import Busy, LabelConfigError, LabelStudioError, YoloopError, unwritable
from backend.fit.queue import Queue
from backend.fit.sync import sync
from backend.fit.training.process import Ahead
from backend.fit.triggers import Rules, should_train
from backend.fit.unreadable import try_again
from backend.fit.workflow import Training
from backend.labels.schema import parse_label_config
from backend.observability.full_disk import message_of
from backend.observability.logs import about, adopt, new_job
from backend.observability.masking import masked
from backend.processes.heartbeat import Pulse
from backend.processes.room import is_full, missing_space, trouble
from backend.served_models.base_model import starts_pretrained
from backend.services import Services
from backend.settings import Settings, sqlite_url
from backend.store.database import EVERY_PROJECT, GIVES_WAY
from backend.store.heartbeats import Heartbeat
from backend.store.hints import Hint
from backend.store.jobs import ASKED
from backend.suggestions.refresh_scheduler import Keeper
from model_registry import configure

log = logging.getLogger(__name__)

TICK = 0.25
QUEUE = "training"
CHECK_ROOM = 2.0
"""Seconds between two tries to write, where nothing could be written."""

BUSY = 1.0
"""Seconds before a project is read that somebody else reads just now."""

NOT_FOUND = 404

LATEST_RETRY = 600.0
"""Seconds between tries to sync a project whose Label Studio does not answer, at most."""


class Worker:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._stop = threading.Event()
        self._next_sync: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._failed_at: dict[str, float] = {}
        self._compared: set[str] = set()
        self._looked = 0.0
        self._keeper = Keeper(services)
        self._ahead = Ahead(services.settings.root)
        self._weighed: dict[str, Hint] = {}
        self._guessed: dict[str, tuple[int, int]] = {}
        self._heartbeat = Heartbeat(services.store)
        self._full = ""
        self._tried = 0.0
        self._queue = Queue(services, self)

    def run(self) -> None:
        """Until SIGTERM or SIGINT. A training that runs then is ended, and goes on at the next start."""
        self._launch()
        self._services.champions.start()
        self._services.registry.tidy(time.time())
        # What was imported stays: to look through it again and again takes longer than to read ten thousand tasks.
        gc.freeze()
        log.info("Worker is up")
        pulse = Pulse(self._heartbeat)
        pulse.start()
        while not self._stop.is_set():
            try:
                if self._has_room(time.monotonic()):
                    self.tick(time.time())
                    self._keeper.tick(time.time())
                else:
                    self._queue.look(room=False)
            except Exception as error:
                log.exception("The worker's look around failed; it tries again")
                if why := unwritable(error):
                    self._full, self._tried = why, time.monotonic()
                else:
                    self._heartbeat.failed("loop")
                    self._stop.wait(5)
            pulse.turned(time.time())
            self._stop.wait(TICK)
        self._keeper.stop()
        self._ahead.close()
        pulse.stop()

    def stop(self) -> None:
        self._stop.set()

    def tick(self, now: float) -> None:
        """One look: start what was asked for, then sync the projects whose time has come."""
        settings = self._services.settings
        if now < self._looked:  # the clock was set back: nothing waits until it is again as late as it was
            self._next_sync.clear()
            self._failed_at.clear()
        self._looked = now
        self._queue.look()
        self._ahead.look(time.monotonic())
        hints = {hint.uid: hint for hint in self._services.store.hints()}
        due = {uid: hint for uid, hint in hints.items() if hint.due(now, settings.debounce, settings.debounce_max)}
        for uid in self._services.store.connected():
            hint = due.get(uid) or due.get(EVERY_PROJECT)
            # While events still come in, the clock waits with them: they will be learned together.
            waiting = uid in hints and uid not in due
            # After a failure an old hint waits for its turn; a newer one shows that Label Studio is back.
            news = hint is not None and hint.last_at > self._failed_at.get(uid, 0.0)
            on_time = now >= self._next_sync.get(uid, 0.0)
            if news or (on_time and not waiting):
                self._look(uid, hint, now)
            elif waiting:
                self._expect(hints[uid], now)
        if EVERY_PROJECT in due:
            self._services.store.answered(due[EVERY_PROJECT])

    def _look(self, uid: str, hint: Hint | None, now: float) -> None:
        """Sync a project and decide whether to train it."""
        with about(job_id=new_job("sync"), project=uid):
            self._synced(uid, hint, now)

    def _synced(self, uid: str, hint: Hint | None, now: float) -> None:
        store, settings = self._services.store, self._services.settings
        # An event tells that tasks changed, so these are asked for. Now and then the project itself is read, and so it
        # is where nobody knows what changed.
        certain = hint is not None and hint.uid == uid and not hint.deletions
        first = uid not in self._compared
        whole = not certain or first or now >= self._next_sync.get(uid, 0.0)
        try:
            synced = sync(
                self._services,
                uid,
                now,
                deletions=hint is not None and hint.deletions,
                whole=whole,
                compare=first,
                wait=0.0,
            )
        except Busy:  # a training or an acceptance reads it just now
            self._next_sync[uid] = now + BUSY
            return
        except Exception as error:  # whatever it is, the other projects go on
            if unwritable(error):
                raise  # they do not
            if not isinstance(error, LabelStudioError):
                log.exception("Project %s could not be synced", uid)
            self._compared.discard(uid)
            self._heartbeat.failed("sync")
            failures = self._failures[uid] = self._failures.get(uid, 0) + 1
            self._failed_at[uid] = now
            self._next_sync[uid] = now + min(LATEST_RETRY, settings.sync_interval * 2 ** min(failures - 1, 10))
            self._not_read(uid, error)
            if failures == 1 and isinstance(error, LabelStudioError):
                log.warning("Project %s cannot be read: %s", uid, error)
            return
        self._failed_at.pop(uid, None)
        if self._failures.pop(uid, 0):
            log.info("Project %s can be read again", uid)
        self._compared.add(uid)
        if whole:
            self._next_sync[uid] = now + settings.sync_interval if synced.complete else now
        if hint is not None and hint.uid == uid:
            if hint.asked_by_a_person(synced.changed):
                self._services.jobs.request(uid, ASKED, now)
            store.answered(hint)
        try_again(self._services, uid, now)
        self._decide(uid, now)

    def _not_read(self, uid: str, error: Exception) -> None:
        """Write down why a project could not be read. One that is not there, and that nobody connected, gives way."""
        words, known = _in_words(error), self._services.store.project(uid)
        missing = isinstance(error, LabelStudioError) and error.code == NOT_FOUND
        if missing and known is not None and known.by_name_only:
            words = f"{words} {GIVES_WAY}"
        self._services.store.save_project(uid, sync_error=words)

    def _expect(self, hint: Hint, now: float) -> None:
        """While events still come in that make a training likely, let its process start: its imports take as long."""
        if self._weighed.get(hint.uid) == hint:
            return
        self._weighed[hint.uid] = hint
        progress = self._services.ledger.progress(hint.uid)
        known = progress.seen, progress.new
        # Events may also say that something changed once more. Then the guess is wrong, but only once.
        if self._guessed.get(hint.uid) == known or self._services.jobs.unfinished():
            return
        soon = replace(progress, new=progress.new + hint.events)
        project = self._services.store.project(hint.uid)
        rules = self._rules(project.label_config if project is not None else "")
        if should_train(soon, rules, now).train:
            self._guessed[hint.uid] = known
            self._ahead.expect(time.monotonic())

    def _decide(self, uid: str, now: float) -> None:
        project = self._services.store.project(uid)
        if project is None:
            return
        try:
            parse_label_config(project.label_config).require()
            trigger = should_train(self._services.ledger.progress(uid), self._rules(project.label_config), now)
            train, reason = trigger.train, trigger.reason
            if train and (why := missing_space(self._services.settings.root, self._services.settings.min_free_gb)):
                train, reason = False, why
        except LabelConfigError as error:
            train, reason = False, str(error)
        if reason != project.waiting_for:
            self._services.store.save_project(uid, waiting_for="" if train else reason)
        if train:
            job, new = self._services.jobs.request(uid, reason, now)
            if new:
                log.info("Project %s: training starts, %s", uid, reason)
            self._queue.start(job)

    def _rules(self, label_config: str) -> Rules:
        settings = self._services.settings
        return Rules.of(settings, pretrained=starts_pretrained(settings, label_config))

    def _has_room(self, now: float) -> bool:
        """Whether anything can be written. Where it cannot, that is told once; afterwards all goes on at once.

        Args:
            now: of a clock that only counts.
        """
        home = self._services.settings.root
        if not self._full:
            if not is_full(home):
                return True
            self._full = "the disk is full"
            log.warning("%s", message_of(self._full))
        if now - self._tried < CHECK_ROOM:
            return False
        self._tried = now
        if trouble(home):
            return False
        self._full = ""
        log.info("YOLOOP_HOME can be written again: what waited goes on")
        self._next_sync.clear()
        self._failed_at.clear()
        self._keeper.retry()
        return True

    def _launch(self) -> None:
        """Start DBOS, which goes on with the trainings that a dead worker left."""
        from dbos import DBOS

        home = self._services.settings.root
        DBOS(
            config={
                "name": "yoloop",
                "system_database_url": sqlite_url(home / "dbos.db"),
                # One fixed version: trainings go on after an update of yoloop too, their steps being its contract.
                "application_version": "1",
                "executor_id": "worker",
                "log_level": "WARNING",
                "console_log_level": "WARNING",
            }
        )
        services, ahead = self._services, self._ahead

        def step(name: str, function: Any) -> Any:
            return DBOS.run_step({"name": name}, function)

        @DBOS.workflow(  # type: ignore[untyped-decorator]
            name="train", max_recovery_attempts=50
        )
        def train(job_id: str) -> str:
            return Training(services, step, trainer=ahead.take).run(job_id)

        self._train = train
        adopt("dbos")
        DBOS.launch()
        DBOS.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=0.25)

    def status(self, job_id: str) -> str:
        from dbos import DBOS

        found = DBOS.get_workflow_status(job_id)
        return "" if found is None else str(found.status)

    def enqueue(self, job_id: str) -> None:
        """Its job's id is the workflow's, so a repetition finds the first."""
        from dbos import DBOS, SetWorkflowID

        with SetWorkflowID(job_id):
            DBOS.enqueue_workflow(QUEUE, self._train, job_id)

    def resume(self, job_id: str) -> None:
        from dbos import DBOS

        DBOS.resume_workflow(job_id, queue_name=QUEUE)


def _in_words(error: Exception) -> str:
    return (
        masked(str(error)) if isinstance(error, YoloopError) else f"{type(error).__name__}; the worker's log says more."
    )


def _wait_for_room(home: Path, stop: threading.Event) -> bool:
    """Wait until something can be written; False when told to stop before."""
    if why := trouble(home):
        log.warning("%s", message_of(why))
    while trouble(home):
        if stop.wait(CHECK_ROOM):
            return False
    return True


def run_worker(settings: Settings) -> None:
    """The process `yoloop worker`. Raises YoloopError when another one works on the same home."""
    lock = FileLock(settings.root / "worker.lock")
    try:
        lock.acquire(timeout=10)
    except Timeout:
        raise YoloopError(
            "Another worker works on this YOLOOP_HOME already.",
            "Stop it, or give this one a home of its own.",
        ) from None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if not _wait_for_room(settings.root, stop):
        return
    configure(patient=True)  # what a training takes minutes to find is worth a few tries to keep
    worker = Worker(Services(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    worker.run()
    # Threads of a running training would hold the process; what they did is on the disk.
    log.info("Worker stops")
    logging.shutdown()
    os._exit(0)
