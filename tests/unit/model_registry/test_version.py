from __future__ import annotations

from datetime import UTC, datetime

import pytest

from model_registry import Version


@pytest.mark.parametrize(
    ("metrics", "fitness"),
    [
        ({"fitness": 0.5, "mAP50-95": 0.6}, {"": 0.5}),
        ({"mAP50-95": 0.6}, {"": 0.6}),  # 0.1
        ({"fitness/mAP50-95": 0.5, "fitness/accuracy": 0.9}, {"mAP50-95": 0.5, "accuracy": 0.9}),
        ({}, {"": 0.0}),
    ],
)
def test_each_metric_has_its_score(metrics: dict[str, float], fitness: dict[str, float]) -> None:
    assert Version("1.0", 1, datetime.now(UTC), "run", {}, metrics, False).fitness == fitness
