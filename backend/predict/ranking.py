"""The order of regions in a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def ranked(regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Regions by descending score: Label Studio's outliner keeps the order of `result`.

    What belongs together stays together, in its order: a skeleton's points after their box, and the two entries of
    one region whose labels stand in a tag of their own. Such a group goes by the score of its first entry.
    """
    ordered = sorted(_groups(regions), key=lambda group: -float(group[0]["score"]))
    return [region for group in ordered for region in group]


def _groups(regions: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for region in regions:
        groups.setdefault(str(region.get("parentID") or region["id"]), []).append(region)
    return list(groups.values())
