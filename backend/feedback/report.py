"""What suggestions are worth, and from which score on they can be trusted, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from backend.feedback.advice import Advice, advice
from backend.feedback.statistics import SuggestionStatistics, suggestion_statistics
from backend.services import Services
from backend.store.database import Project
from backend.store.refreshes import Refreshes


@dataclass(frozen=True, slots=True)
class Report:
    """Of one project; `uid` is Label Studio's."""

    uid: str
    statistics: SuggestionStatistics
    advice: tuple[Advice, ...]

    def as_json(self) -> dict[str, Any]:
        return {"project": self.uid, "advice": [each.as_json() for each in self.advice], **self.statistics.as_json()}

    def __str__(self) -> str:
        if not self.statistics.bins:
            return "No suggestion was corrected or accepted by a person yet."
        lines = [str(each) for each in self.advice]
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
    return Report(uid, suggestion_statistics(store, uid), tuple(advice(store, uid, version or served)))


def _counted(found: SuggestionStatistics, version: str, label: str) -> str:
    total = Counter[str]()
    for each in found.bins:
        if (each.version, each.label) == (version, label):
            for fate in ("accepted", "moved", "relabelled", "deleted", "missed"):
                total[fate] += getattr(each, fate)
    return f"{version} {label}: " + ", ".join(f"{count} {fate}" for fate, count in total.items()) + "."
