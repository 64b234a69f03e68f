"""Which suggestions of a task are sure enough to be accepted unseen, and how accepted regions are marked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.feedback.outcomes import labels_of
from backend.labels.region import number

Region = Mapping[str, Any]

_NOTE = re.compile(r"Accepted by yoloop at [0-9.e-]+ or above, run (\S+)")


@dataclass(frozen=True, slots=True)
class Group:
    """Regions that are accepted together or not at all: a skeleton and its box, the two entries of one region.

    Attributes:
        labels: of the region that stands for the group.
        score: of that region; of points without a box the lowest. None: it came without.
        least: from which score on the group is accepted.
    """

    regions: tuple[Region, ...]
    labels: tuple[str, ...]
    score: float | None
    least: float

    @property
    def sure(self) -> bool:
        return self.score is not None and self.score >= self.least

    @property
    def objects(self) -> list[str]:
        """A label for each region of the group; two entries with one id count once."""
        named = {str(each.get("id")): "" for each in self.regions}
        for each in reversed(self.regions):
            for label in labels_of(each)[:1]:
                named[str(each.get("id"))] = label
        return list(named.values())


def groups_of(result: Sequence[Region], min_score: float, labels: Mapping[str, float]) -> list[Group]:
    """The groups of a prediction, in its order.

    A child goes with its parent, and points without a box with those that carry the same note. A region with several
    labels must be sure enough for each of them.

    Args:
        min_score: least score, in [0, 1], of labels that are not in `labels`.
    """
    regions = [each for each in result if isinstance(each.get("id"), str)]
    parents = {each["id"]: _parent(each) for each in regions}
    grouped: dict[str, list[Region]] = {}
    for each in regions:
        grouped.setdefault(_root(each["id"], parents), []).append(each)
    return [_group(root, members, min_score, labels) for root, members in grouped.items()]


def note(least: float, run: str) -> str:
    return f"Accepted by yoloop at {least:g} or above, run {run}"


def accepted(group: Group, run: str) -> list[dict[str, Any]]:
    """The group's regions as an annotation holds them: as they were, with their origin and a note."""
    return [
        {**each, "origin": "prediction", "meta": _noted(each.get("meta"), note(group.least, run))}
        for each in group.regions
    ]


def run_of(result: Sequence[Region]) -> str:
    """The run that made an annotation with these regions; empty when a region of it carries no note of that run."""
    runs = {next((found[1] for text in _texts(each) if (found := _NOTE.fullmatch(text))), "") for each in result}
    return runs.pop() if len(runs) == 1 else ""


def _group(root: str, members: Sequence[Region], min_score: float, labels: Mapping[str, float]) -> Group:
    heads = [each for each in members if each["id"] == root] or members[:1]
    named = tuple(dict.fromkeys(label for each in heads for label in labels_of(each)))
    standing = members if str(heads[0].get("type", "")).startswith("keypoint") else heads
    scores = [number(each.get("score")) for each in standing]
    known = [score for score in scores if score is not None]
    least = max((labels.get(label, min_score) for label in named), default=min_score)
    return Group(tuple(members), named, min(known) if known and len(known) == len(scores) else None, least)


def _parent(region: Region) -> str:
    if region.get("parentID"):
        return str(region["parentID"])
    if str(region.get("type", "")).startswith("keypoint"):
        for text in _texts(region):
            return text.rpartition(" ")[2]
    return ""


def _root(region_id: str, parents: Mapping[str, str]) -> str:
    seen = set[str]()
    while (parent := parents.get(region_id, "")) in parents and parent != region_id and parent not in seen:
        seen.add(parent)
        region_id = parent
    return region_id


def _texts(region: Region) -> list[str]:
    meta = region.get("meta")
    text = meta.get("text") if isinstance(meta, Mapping) else None
    texts = text if isinstance(text, list) else [text]
    return [each for each in texts if isinstance(each, str)]


def _noted(meta: object, text: str) -> dict[str, Any]:
    known = dict(meta) if isinstance(meta, Mapping) else {}
    return {**known, "text": [*_texts({"meta": known}), text]}
