from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from backend import errors
from backend.observability.metrics import KINDS, Metrics
from backend.server.collectors import Read


def kinds(metrics: Metrics) -> dict[str, float]:
    return {
        sample.labels["kind"]: sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if sample.name == "yoloop_errors_total"
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.BadRequest("x"), "bad_request"),
        (errors.LabelConfigError("x"), "label_config"),
        (errors.Unauthorized("x"), "unauthorized"),
        (errors.NotFound("x"), "not_found"),
        (errors.Busy("x"), "busy"),
        (errors.LabelStudioError("x"), "label_studio"),
        (errors.ImageUnavailable("x"), "image_unavailable"),
        (errors.ImageUnreadable("x"), "image_unreadable"),
        (errors.TrainingError("x"), "internal"),
        (KeyError("x"), "internal"),
    ],
)
def test_an_error_counts_as_one_of_a_few_kinds(error: Exception, kind: str) -> None:
    metrics = Metrics()
    assert kinds(metrics) == dict.fromkeys(KINDS.values(), 0.0), "each is there from the start on"
    metrics.failed(error)
    assert {name for name, count in kinds(metrics).items() if count} == {kind}


def test_the_process_is_measured() -> None:
    (memory,) = (
        family.samples[0].value
        for family in text_string_to_metric_families(Metrics().text().decode())
        if family.name == "process_resident_memory_bytes"
    )
    assert memory > 10 * 2**20


def test_what_cannot_be_read_is_left_out_and_spoils_nothing() -> None:
    metrics = Metrics()

    def broken() -> Iterator[Metric]:
        yield GaugeMetricFamily("yoloop_half", "Half of it", value=1)
        raise OSError("gone")

    metrics.add(Read(broken))
    metrics.add(Read(lambda: [GaugeMetricFamily("yoloop_there", "There", value=1)]))
    text = metrics.text().decode()
    assert "yoloop_half" not in text
    assert "yoloop_there 1.0" in text


def test_what_takes_long_to_read_is_told_again_for_a_while() -> None:
    asked: list[int] = []

    def count() -> Iterator[Metric]:
        asked.append(1)
        yield GaugeMetricFamily("yoloop_asked", "Asked", value=len(asked))

    kept, fresh = Read(count, good=60.0), Read(count)
    assert [next(iter(kept.collect())).samples[0].value for _ in range(3)] == [1, 1, 1]
    assert [next(iter(fresh.collect())).samples[0].value for _ in range(2)] == [2, 3]
