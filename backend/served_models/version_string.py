"""The text that Label Studio knows a version by, `yoloop-v3` or `yoloop-v3-1a2b3c`, and what it is made of.

Others call their versions `v3`, too; until 0.7 so did yoloop. What carries such a name is told by more than that.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from backend.labels.mapping import map_classes
from backend.labels.schema import Control, LabelSchema
from backend.served_models.thresholds import Learned, ThresholdPolicy
from backend.settings import Sampling

DEFAULT_SAMPLING = "least-confidence"
"""The strategy that a fingerprint does not mention."""

PREFIX = "yoloop-"

_OURS = re.compile(PREFIX + r"v([0-9]{1,9})(-[0-9a-f]{6})?")
_UNTIL_0_7 = re.compile(r"v([0-9]{1,9})(-[0-9a-f]{6})?")
_REGION = re.compile(r"[0-9a-f]{10}")


def version_string(name: str, fingerprint: str = "", baseline: str = "") -> str:
    """A version's name as Label Studio is told it, followed by the fingerprint once it is no longer the `baseline` that
    the name stands for."""
    return f"{PREFIX}{name}" + ("" if not baseline or fingerprint == baseline else f"-{fingerprint}")


def is_ours(version: str) -> bool:
    """Whether a prediction's version is called as yoloop calls its own: `yoloop-v3` or `yoloop-v3-1a2b3c`."""
    return _OURS.fullmatch(version) is not None


def may_be_ours(version: str) -> bool:
    """Whether yoloop calls, or until 0.7 called, its versions so."""
    return is_ours(version) or _UNTIL_0_7.fullmatch(version) is not None


def number_of(version: str) -> int | None:
    """The number in a version called so; None where it is another's."""
    found = _OURS.fullmatch(version)
    return None if found is None else int(found[1])


def made_here(version: str, result: Iterable[Mapping[str, object]], trained: Callable[[], Collection[int]]) -> bool:
    """Whether a stored prediction is yoloop's.

    One of the plain names that 0.7 gave is, where a version of that number was trained here and every region's id looks
    as yoloop makes them; one without any region may be anybody's.

    Args:
        trained: gives the numbers of the project's versions; asked only where it matters.
    """
    if is_ours(version):
        return True
    plain = _UNTIL_0_7.fullmatch(version)
    ids = [str(region.get("id", "")) for region in result] if plain else []
    return plain is not None and bool(ids) and all(map(_REGION.fullmatch, ids)) and int(plain[1]) in trained()


@dataclass(frozen=True, slots=True)
class Suggested:
    """One control and the model that suggests for it: class names by index, the model's name, whether the classes are
    labels of this project, and what its held-out images said of scores."""

    control: Control
    names: Mapping[int, str]
    model: str
    own: bool
    learned: Learned = field(default_factory=dict)


def fingerprint(
    suggested: Iterable[Suggested],
    policy: ThresholdPolicy,
    sampling: str = DEFAULT_SAMPLING,
) -> str:
    """Six hexadecimal digits that change when, with the same weights, other suggestions would be made.

    Colours, layout, other tags, the order of labels and labels that no class goes to leave it as it is.

    Args:
        suggested: each control with its model.
        policy: what settings say of scores.
        sampling: the strategy that scores tasks.
    """
    models: set[str] = set()
    parts = []
    for each in suggested:
        control, names = each.control, each.names
        models.add(each.model)
        mapped = map_classes(names, control, own=each.own)
        thresholds = policy.thresholds(control, names, each.learned)
        part = {
            "from_name": control.from_name,
            "to_name": control.to_name,
            "data_key": control.data_key,
            "labels": sorted((names[index], label) for index, label in mapped.items()),
            "threshold": float(thresholds.usual),
        }
        if thresholds.own:
            part["thresholds"] = sorted((mapped[index], str(thresholds.of(index))) for index in mapped)
        parts.append(json.dumps(part | _drawing(control), sort_keys=True))
    said: list[object] = [",".join(sorted(models)), sorted(parts)]
    if sampling != DEFAULT_SAMPLING:
        said.append(sampling)
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:6]


def _drawing(control: Control) -> dict[str, object]:
    """How a control draws, as far as that is not how a plain RectangleLabels does."""
    plain = Control("", "", "rectangle", "", ())
    names = ("kind", "shape_name", "pages", "per_item", "polygon_points", "multiple", "add_bboxes", "point_size")
    found: dict[str, object] = {
        name: getattr(control, name) for name in names if getattr(control, name) != getattr(plain, name)
    }
    if control.points:
        found["points"] = [[point.label, point.index, list(point.classes)] for point in control.points]
        found["point_threshold"] = control.point_threshold
        found["box"] = control.box.from_name if control.box else ""
    return found


def strategy_of(schema: LabelSchema, setting: Sampling) -> Sampling:
    """The strategy of a project: the first that a control names, else the setting's."""
    named = next((control.sampling for control in schema.controls if control.sampling), setting)
    return cast(Sampling, named)
