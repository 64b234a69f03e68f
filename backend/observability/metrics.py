"""What the serving process counts, in Prometheus' format; `scraped` reads what others know.

There is one such process (`wsgi`), so its counters are the whole truth since its start.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.registry import Collector

from backend.errors import (
    BadRequest,
    Busy,
    ImageUnavailable,
    ImageUnreadable,
    LabelConfigError,
    LabelStudioError,
    NotFound,
    Unauthorized,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 80)

KINDS: Mapping[type[Exception], str] = {
    LabelConfigError: "label_config",
    BadRequest: "bad_request",
    Unauthorized: "unauthorized",
    NotFound: "not_found",
    Busy: "busy",
    LabelStudioError: "label_studio",
    ImageUnavailable: "image_unavailable",
    ImageUnreadable: "image_unreadable",
    Exception: "internal",
}
"""What `yoloop_errors_total` tells apart; a subclass counts as its nearest class in here."""


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, processor time, open files
        self.requests = Counter("yoloop_requests", "Answered requests", ["endpoint", "status"], registry=self._registry)
        self.seconds = Histogram(
            "yoloop_request_seconds", "Time to answer", ["endpoint"], buckets=SECONDS, registry=self._registry
        )
        self.predicting = Gauge(
            "yoloop_predictions_under_way", "Prediction requests that are being answered", registry=self._registry
        )
        self.refused = Counter(
            "yoloop_refused_requests",
            "Requests that were answered with 503, as too much was under way",
            registry=self._registry,
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
        self.limited = Counter(
            "yoloop_limited_regions",
            "Objects that were found but not suggested, as the image shows more than YOLOOP_MAX_REGIONS",
            registry=self._registry,
        )
        self.events = Counter("yoloop_events", "Webhook events", ["action"], registry=self._registry)
        self.errors = Counter(
            "yoloop_errors", "What failed in requests, images of tasks included", ["kind"], registry=self._registry
        )
        for kind in KINDS.values():
            self.errors.labels(kind)  # from zero on, so that the first one is an increase

    def failed(self, error: Exception) -> None:
        """Count an error by its kind."""
        self.errors.labels(next(KINDS[each] for each in type(error).__mro__ if each in KINDS)).inc()

    def add(self, collector: Collector) -> None:
        """Also tell what this reads at each scrape."""
        self._registry.register(collector)

    def text(self) -> bytes:
        return generate_latest(self._registry)
