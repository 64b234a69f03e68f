"""What is read at a scrape instead of counted: the database, the registry, the machine, the models in memory.

The worker writes most of it, and it must survive this process.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backend import __version__
from backend.engine.pool import EnginePool
from backend.feedback.report import Report, report
from backend.health.readiness import Readiness
from backend.observability.metrics import Metrics
from backend.served_models.cache import Models
from backend.services import Services
from backend.store.heartbeats import Heartbeat
from backend.store.jobs import FINISHED
from backend.store.refreshes import Refreshes

log = logging.getLogger(__name__)

SUMMED = 30.0
"""Seconds for which sums over all annotations, and what the registry says of versions, are good."""


class Read(Collector):
    """A group of metrics. One that cannot be read is left out, and leaves the others alone.

    Args:
        read: reads them.
        good: seconds for which what was read may be told again.
    """

    def __init__(self, read: Callable[[], Iterable[Metric]], good: float = 0.0) -> None:
        self._read = read
        self._good = good
        self._found: tuple[float, list[Metric]] = -math.inf, []

    def collect(self) -> Iterable[Metric]:
        at, found = self._found
        if time.monotonic() - at <= self._good:
            return found
        try:
            found = list(self._read())
        except Exception as error:  # the database may be what is broken, and the rest is wanted then
            log.warning("Some metrics could not be read: %s", type(error).__name__)
            return []
        self._found = time.monotonic(), found
        return found


def read_all(metrics: Metrics, services: Services, models: Models, pool: EnginePool, readiness: Readiness) -> None:
    """Add everything that a serving process can tell to its metrics."""
    heartbeat = Heartbeat(services.store)
    groups: list[tuple[Callable[[], Iterable[Metric]], float]] = [
        (lambda: ready(readiness), 0.0),
        (lambda: worker(heartbeat, time.time()), 0.0),
        (lambda: engine(pool), 0.0),
        (lambda: machine(services), 0.0),
        (lambda: served(models), 0.0),
        # A registry that does not answer would hold the scrape up for minutes.
        (lambda: versions(services, models) if readiness.was_well("registry") else (), SUMMED),
        (lambda: work(services, time.time()), 0.0),
        (lambda: learned(services, time.time()), 0.0),
        (lambda: fresh(Refreshes(services.store)), 0.0),
        (lambda: taught(services), SUMMED),
        (lambda: suggestion_statistics([report(services, project) for project in services.store.projects()]), SUMMED),
    ]
    for read, good in groups:
        metrics.add(Read(read, good))


def _gauge(name: str, told: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"yoloop_{name}", told, labels=labels)


def _one(name: str, told: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"yoloop_{name}", told, value=value)


def ready(readiness: Readiness) -> Iterator[Metric]:
    found = _gauge("ready", "1: the check of /ready is well, 0: it is not", "check")
    for check in readiness.look():
        found.add_metric([check.name], float(check.ok is True))
    yield found
    version = _gauge("info", "The release that runs", "version")
    version.add_metric([__version__], 1)
    yield version


def worker(heartbeat: Heartbeat, now: float) -> Iterator[Metric]:
    last = heartbeat.last()
    yield _one("worker_up", "1: the worker gave a sign of life lately", last is not None and last.alive(now))
    if last is not None:
        yield _one("worker_heartbeat_age_seconds", "Time since the worker's last sign of life", now - last.at)
        yield _one("worker_turn_age_seconds", "Time since the worker's loop last came round", now - last.turned_at)
    failed = CounterMetricFamily("yoloop_worker_errors", "Syncs, refreshes and rounds that failed", labels=["kind"])
    for kind, count in heartbeat.failures().items():
        failed.add_metric([kind], count)
    yield failed


def engine(pool: EnginePool) -> Iterator[Metric]:
    waiting = _gauge("waiting_images", "Decoded images that wait for the device", "lane")
    for lane, count in pool.waiting().items():
        waiting.add_metric([lane], count)
    yield waiting
    yield CounterMetricFamily("yoloop_failed_images", "Images that no model could be run on", value=pool.failures)


def machine(services: Services) -> Iterator[Metric]:
    disk = shutil.disk_usage(services.settings.root)
    yield _one("disk_free_bytes", "Room on the disk of YOLOOP_HOME", disk.free)
    yield _one("disk_total_bytes", "Size of the disk of YOLOOP_HOME", disk.total)


def served(models: Models) -> Iterator[Metric]:
    there = _gauge("served", "Version in memory", "project", "version")
    for uid, version in models.loaded().items():
        there.add_metric([uid, version], 1)
    broken = _gauge("unloadable", "Version in service that could not be loaded", "project", "version")
    for uid, version in models.unloadable().items():
        broken.add_metric([uid, version], 1)
    return iter((there, broken))


def versions(services: Services, models: Models) -> Iterator[Metric]:
    since = _gauge("served_since_timestamp_seconds", "When the version was put into service", "project", "version")
    fitness = _gauge(
        "served_fitness",
        "Score of the version in service on held-out images, 0 to 1: mAP50-95, or share of right choices",
        "project",
        "version",
    )
    for uid in [uid for uid, version in models.loaded().items() if version != "v0"]:
        number = services.champions.number(uid, wait=0.0)
        if number is not None:
            champion = services.champions.version(uid, number)
            since.add_metric([uid, champion.name], champion.since)
            if (score := champion.metrics.get("fitness")) is not None:
                fitness.add_metric([uid, champion.name], score)
    return iter((since, fitness))


def work(services: Services, now: float) -> Iterator[Metric]:
    """What waits, and what runs."""
    jobs = _gauge("jobs", "Unfinished trainings", "project", "status")
    epoch = _gauge("training_epoch", "Epoch of an unfinished training", "project")
    epochs = _gauge("training_epochs", "Most epochs of an unfinished training", "project")
    unfinished = services.jobs.unfinished()
    for job in unfinished:
        jobs.add_metric([job.uid, job.status], 1)
        epoch.add_metric([job.uid], job.epoch or 0)
        epochs.add_metric([job.uid], job.epochs or 0)
    queued = [now - job.created_at for job in unfinished if job.status == "queued"]
    events = _gauge("waiting_events", "Webhook events that the worker has not looked into yet", "project")
    hints = services.store.hints()
    for hint in hints:
        events.add_metric([hint.uid], hint.events)
    oldest = [now - hint.first_at for hint in hints]
    yield from (jobs, epoch, epochs, events)
    yield _one("oldest_job_seconds", "How long the oldest queued training waits; 0: none does", max(queued, default=0))
    yield _one("oldest_event_seconds", "How long the oldest event waits; 0: none does", max(oldest, default=0))


def learned(services: Services, now: float) -> Iterator[Metric]:
    """Age of the last sync, and training outcomes."""
    age = _gauge("sync_age_seconds", "Time since Label Studio was last read", "project")
    failing = _gauge("sync_failing", "1: Label Studio could not be read the last time", "project")
    for project in services.store.projects():
        if project.disconnected_at is not None:
            continue
        if project.synced_at is not None:
            age.add_metric([project.uid], now - project.synced_at)
        if project.synced_at is not None or project.sync_error:
            failing.add_metric([project.uid], bool(project.sync_error))
    ended = CounterMetricFamily("yoloop_trainings", "Trainings that ended", labels=["project", "status"])
    counts = services.jobs.ended()
    for uid in sorted({uid for uid, _ in counts}):
        for status in FINISHED:  # from zero on, so that the first failure is an increase
            ended.add_metric([uid, status], counts.get((uid, status), 0))
    last = _gauge("last_training", "How the last training ended: 1 for its status", "project", "status")
    at = _gauge("last_training_timestamp_seconds", "When the last training ended", "project")
    took = _gauge("last_training_seconds", "How long the last training took", "project")
    for job in services.jobs.last_ended():
        for status in FINISHED:
            last.add_metric([job.uid, status], job.status == status)
        at.add_metric([job.uid], job.finished_at or 0)
        took.add_metric([job.uid], (job.finished_at or 0) - (job.started_at or job.created_at))
    return iter((age, failing, ended, last, at, took))


def fresh(refreshes: Refreshes) -> Iterator[Metric]:
    found = _gauge(
        "fresh_tasks",
        "Unlabelled tasks by whether they carry suggestions of the version in service: done, failed, total",
        "project",
        "version",
        "state",
    )
    running = _gauge("refreshing", "1: suggestions are being refreshed, or are to be", "project")
    for refresh in refreshes.all():
        for state in ("done", "failed", "total"):
            found.add_metric([refresh.uid, refresh.version, state], getattr(refresh, state))
        running.add_metric([refresh.uid], refresh.finished_at is None)
    return iter((found, running))


def taught(services: Services) -> Iterator[Metric]:
    found = _gauge(
        "annotations",
        "Annotated tasks: known (all that teach), and new (since the last training)",
        "project",
        "state",
    )
    left_out = _gauge("annotations_not_understood", "Annotated tasks from which nothing can be learned", "project")
    for project in services.store.projects():
        if project.synced_at is not None:
            left_out.add_metric([project.uid], services.readings.annotations(project.uid).left_out)
            known, new = services.ledger.counts(project.uid)
            found.add_metric([project.uid, "known"], known)
            found.add_metric([project.uid, "new"], new)
    yield from (found, left_out)


def suggestion_statistics(reports: Sequence[Report]) -> Iterator[Metric]:
    """What suggestions are worth, of each project."""
    outcomes = _gauge(
        "suggestion_outcomes",
        "What became of suggested regions in submitted annotations, by their least score; missed ones have none",
        "project",
        "version",
        "label",
        "score",
        "outcome",
    )
    trusted = _gauge("trusted_score", "Score from which 95 % of a label's suggestions are right", "project", "label")
    seconds = _gauge("lead_time_seconds", "Median time of an annotation", "project", "suggestions")
    for each in reports:
        for part in each.statistics.bins:
            score = "" if part.low is None else f"{part.low:.1f}"
            for what in ("accepted", "moved", "relabelled", "deleted", "missed"):
                if count := getattr(part, what):
                    outcomes.add_metric([each.uid, part.version, part.label, score, what], count)
        for known in each.advice:
            if known.threshold is not None:
                trusted.add_metric([each.uid, known.label], known.threshold)
        lead = each.statistics.lead_time
        for median, how in ((lead.with_suggestions, "with"), (lead.without, "without")):
            if median is not None:
                seconds.add_metric([each.uid, how], median)
    return iter((outcomes, trusted, seconds))
