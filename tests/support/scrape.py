"""What a scrape of /metrics holds."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """The samples of one scrape."""

    def __init__(self, client: FlaskClient) -> None:
        answer = client.get("/metrics")
        assert answer.status_code == 200
        self.samples = [each for one in text_string_to_metric_families(answer.text) for each in one.samples]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}

    def __call__(self, name: str, **labels: Any) -> float | None:
        """The value of the only sample with these labels, among others; None: there is none."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= dict(sample.labels).items()
        ]
        assert len(found) < 2, f"{name} {labels} is there {len(found)} times"
        return found[0] if found else None
