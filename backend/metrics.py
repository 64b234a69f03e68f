"""What the serving process counts, in Prometheus' format."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backend.fit.jobs import Job
from backend.refresh.state import Refresh
from backend.suggestions.report import Report

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 80)

SUMMED = 30.0
"""Seconds for which sums over all annotations are good."""


class Metrics:
    """The metrics of one process.

    Args:
        loaded: project → version in memory.
        unfinished: the jobs that wait or run.
        reports: what suggestions are worth, of each project.
        refreshes: how far suggestions are refreshed.
    """

    def __init__(
        self,
        loaded: Callable[[], dict[str, str]],
        unfinished: Callable[[], list[Job]],
        reports: Callable[[], Sequence[Report]],
        refreshes: Callable[[], Sequence[Refresh]],
    ) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("yoloop_requests", "Answered requests", ["endpoint", "status"], registry=self._registry)
        self.seconds = Histogram(
            "yoloop_request_seconds", "Time to answer", ["endpoint"], buckets=SECONDS, registry=self._registry
        )
        self.tasks = Counter(
            "yoloop_predicted_tasks",
            "Tasks in prediction requests: answered, failed (no image in time) or no_model",
            ["outcome"],
            registry=self._registry,
        )
        self.regions = Counter("yoloop_suggested_regions", "Suggested regions", registry=self._registry)
        self.skipped = Counter(
            "yoloop_skipped_regions",
            "Objects that were found but could not be drawn: no area, an empty mask",
            ["control"],
            registry=self._registry,
        )
        self.events = Counter("yoloop_events", "Webhook events", ["action"], registry=self._registry)
        self._registry.register(_State(loaded, unfinished))
        self._registry.register(_Suggestions(reports, refreshes))

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _State(Collector):
    """Read at every scrape instead of kept up to date."""

    def __init__(self, loaded: Callable[[], dict[str, str]], unfinished: Callable[[], list[Job]]) -> None:
        self._loaded = loaded
        self._unfinished = unfinished

    def collect(self) -> Iterable[Metric]:
        served = GaugeMetricFamily("yoloop_served", "Version in memory", labels=["project", "version"])
        for uid, version in self._loaded().items():
            served.add_metric([uid, version], 1)
        epoch = GaugeMetricFamily("yoloop_training_epoch", "Epoch of an unfinished training", labels=["project"])
        jobs = GaugeMetricFamily("yoloop_jobs", "Unfinished trainings", labels=["project", "status"])
        for job in self._unfinished():
            jobs.add_metric([job.uid, job.status], 1)
            epoch.add_metric([job.uid], job.epoch or 0)
        return [served, jobs, epoch]


class _Suggestions(Collector):
    """Read at a scrape, too: the worker writes it, and it must survive this process.

    Sums over all annotations take a moment, so they are made at most every `SUMMED` seconds.
    """

    def __init__(self, reports: Callable[[], Sequence[Report]], refreshes: Callable[[], Sequence[Refresh]]) -> None:
        self._reports = reports
        self._refreshes = refreshes
        self._summed: tuple[float, list[Metric]] = -math.inf, []

    def collect(self) -> Iterable[Metric]:
        fresh = GaugeMetricFamily(
            "yoloop_fresh_tasks",
            "Unlabelled tasks by whether they carry suggestions of the version in service: done, failed, total",
            labels=["project", "version", "state"],
        )
        for refresh in self._refreshes():
            for state in ("done", "failed", "total"):
                fresh.add_metric([refresh.uid, refresh.version, state], getattr(refresh, state))
        at, found = self._summed
        if time.monotonic() - at > SUMMED:
            found = list(self._worth())
            self._summed = time.monotonic(), found
        return [fresh, *found]

    def _worth(self) -> Iterable[Metric]:
        outcomes = GaugeMetricFamily(
            "yoloop_suggestion_outcomes",
            "What became of suggested regions in submitted annotations, by their least score; missed ones have none",
            labels=["project", "version", "label", "score", "outcome"],
        )
        trusted = GaugeMetricFamily(
            "yoloop_trusted_score",
            "Score from which 95 % of a label's suggestions are right",
            labels=["project", "label"],
        )
        seconds = GaugeMetricFamily(
            "yoloop_lead_time_seconds", "Median time of an annotation", labels=["project", "suggestions"]
        )
        for report in self._reports():
            for each in report.worth.bins:
                score = "" if each.low is None else f"{each.low:.1f}"
                for what in ("accepted", "moved", "relabelled", "deleted", "missed"):
                    if count := getattr(each, what):
                        outcomes.add_metric([report.uid, each.version, each.label, score, what], count)
            for known in report.advice:
                if known.threshold is not None:
                    trusted.add_metric([report.uid, known.label], known.threshold)
            lead = report.worth.lead_time
            for median, how in ((lead.with_suggestions, "with"), (lead.without, "without")):
                if median is not None:
                    seconds.add_metric([report.uid, how], median)
        return [outcomes, trusted, seconds]
