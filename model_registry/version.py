"""One registered version, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from model_registry.serving import PERSON

HASHES = "sha256s"
SINCE = "in_service_since"
DECISION = "decision"
REASON = "reason"
DECIDED_BY = "decided_by"
ACT = "act"


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version of one model.

    `number` counts from 1 and never repeats; `tags` hold the lineage (see `Registry.register`),
    `metrics` the numbers that the decision rests on.
    """

    model: str
    number: int
    created_at: datetime
    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    champion: bool

    @property
    def name(self) -> str:
        """What people and Label Studio call it: `v3`."""
        return f"v{self.number}"

    @property
    def parent(self) -> str:
        """Name of the version its weights started from; empty for none."""
        return self.tags.get("parent", "")

    @property
    def classes(self) -> list[str]:
        """Names of the model's classes, in the order of their indexes."""
        found: list[str] = json.loads(self.tags.get("classes", "[]"))
        return found

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each artifact by its name; before 0.4 of the weights only, and in 0.1 there is one file."""
        text = self.tags.get(HASHES)
        found: dict[str, str] = json.loads(text) if text else {"weights.pt": self.tags.get("sha256", "")}
        return found

    @property
    def fitness(self) -> dict[str, float]:
        """Name of a metric → the mean of that score over the version's models that have it; '' where all have one."""
        alone = {name.partition("/")[2]: score for name, score in self.metrics.items() if name.startswith("fitness/")}
        return alone or {"": self.metrics.get("fitness", self.metrics.get("mAP50-95", 0.0))}

    @property
    def since(self) -> float:
        """Epoch seconds when it was last put into service; when it was made, before 0.7 and where it never was."""
        return float(self.tags.get(SINCE, self.created_at.timestamp()))

    @property
    def decision(self) -> str:
        """What became of it last: `promoted`, `rejected`, `rolled back`, or `undecided`."""
        return self.tags.get(DECISION, "undecided")

    @property
    def decided_by(self) -> str:
        """Who put it in service or took it out last, `person` or `training`; empty: nobody did."""
        return self.tags.get(DECIDED_BY, "")

    @property
    def reason(self) -> str:
        """Why its training promoted or rejected it, by what was measured; a person's act leaves that as it is."""
        return self.tags.get(REASON, "")

    @property
    def gate(self) -> Mapping[str, Any]:
        """The numbers that its training's decision rests on; empty where none were kept."""
        found: dict[str, Any] = json.loads(self.tags.get("gate", "{}"))
        return found

    @property
    def message(self) -> str:
        """For people: what a person did with it last, and what was measured."""
        act = self.tags.get(ACT, "") if self.decided_by == PERSON else ""
        return "; measured: ".join(dict.fromkeys(filter(None, (act, self.reason))))
