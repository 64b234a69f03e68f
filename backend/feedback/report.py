"""What suggestions are worth, and from which score on they can be trusted, for people and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from backend.feedback.advice import Advice, advice
from backend.feedback.precision import Precision
from backend.feedback.statistics import SuggestionStatistics, suggestion_statistics
from backend.served_models.parts import parts_of
from backend.served_models.thresholds import TAG
from backend.services import Services
from backend.store.database import Project
from backend.store.refreshes import Refreshes
from model_registry import RegistryError


@dataclass(frozen=True, slots=True)
class Report:
    """Of one project; `uid` is Label Studio's; `thresholds` are those of the version in service, by label, as its tag
    keeps them."""

    uid: str
    statistics: SuggestionStatistics
    advice: tuple[Advice, ...]
    thresholds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "project": self.uid,
            "thresholds": self.thresholds,
            "advice": [each.as_json() for each in self.advice],
            **self.statistics.as_json(),
        }

    def __str__(self) -> str:
        shown = [shown_from(label, found) for label, found in self.thresholds.items()]
        if not self.statistics.bins:
            return "\n".join([*shown, "No suggestion was corrected or accepted by a person yet."])
        lines = [*shown, *map(str, self.advice)]
        lines += [
            _counted(self.statistics, *key)
            for key in sorted({(each.version, each.label) for each in self.statistics.bins})
        ]
        seconds = self.statistics.lead_time
        for known, count, how in (
            (seconds.with_suggestions, seconds.annotations_with, "with suggestions"),
            (seconds.without, seconds.annotations_without, "without"),
        ):
            if known is not None:
                lines.append(f"An annotation took {known:.1f} s {how} (median of {count}).")
        return "\n".join(lines)


def report(services: Services, project: Project, version: str | None = None) -> Report:
    """What is known of a project's suggestions.

    Args:
        version: whose suggestions the advice is about, as predictions carry it; None: the one in service, as far as
            that is known, else the one that was shown last.
    """
    store, uid = services.store, project.uid
    refresh = Refreshes(store).get(uid)
    served = refresh.version if refresh is not None and refresh.version else None
    return Report(
        uid, suggestion_statistics(store, uid), tuple(advice(store, uid, version or served)), _thresholds(services, uid)
    )


def shown_from(label: str, found: Mapping[str, Any]) -> str:
    """What a version's held-out images say of one label, for a person."""
    if found["least"] is None:
        return f"{label}: not suggested by itself, as no held-out image says yet that this would save work."
    if not found["shown"]:
        return f"{label}: shown from {found['least']:.2f} on."
    right = Precision(found["right"], found["shown"])
    return (
        f"{label}: shown from {found['least']:.2f} on; {100 * right.right / right.shown:.0f} % right "
        f"({100 * right.low:.0f} to {100 * right.high:.0f}); saves about {found['seconds']:.1f} s an image."
    )


def _thresholds(services: Services, uid: str) -> dict[str, dict[str, Any]]:
    if services.settings.thresholds != "auto":
        return {}
    with suppress(RegistryError):  # the report is no check of the registry
        champion = services.registry.champion(uid)
        if champion is None:
            return {}
        found: dict[str, dict[str, Any]] = json.loads(champion.tags.get(TAG, "{}"))
        parts = parts_of(champion)
        for part in parts:  # one that an earlier version trained has no figures here
            for label, least in part.thresholds.items():
                full = f"{label} ({part.network.key})"
                name = full if len(parts) > 1 and label not in found else label
                found.setdefault(name, {"least": least, "right": 0, "shown": 0, "seconds": 0.0})
        return found
    return {}


def _counted(found: SuggestionStatistics, version: str, label: str) -> str:
    total = Counter[str]()
    for each in found.bins:
        if (each.version, each.label) == (version, label):
            for fate in ("accepted", "moved", "relabelled", "deleted", "missed"):
                total[fate] += getattr(each, fate)
    return f"{version} {label}: " + ", ".join(f"{count} {fate}" for fate, count in total.items()) + "."
