"""Which of a model's classes is which label of the project, and a fingerprint of that choice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from backend.labels.schema import Control

DEFAULT_SAMPLING = "least-confidence"
"""The strategy that a fingerprint does not mention."""


def map_classes(names: Mapping[int, str], control: Control, *, own: bool = False) -> dict[int, str]:
    """Model class index -> label, for the classes that have one.

    A class goes to the first label that claims it: by `predicted_values`, then by the same name,
    then by either of them in another case. Several classes may go to one label.

    Args:
        own: the classes are labels of this project. Then the same name comes first, and `predicted_values` speak
            only for classes that are no label any more: so a label can be renamed.
    """
    claimed: dict[str, str] = {}
    for label, values in control.predicted_values.items():
        for value in values:
            claimed.setdefault(value, label)
    same = {label: label for label in control.labels}
    exact = {**claimed, **same} if own else {**same, **claimed}
    folded: dict[str, str] = {}
    for name, label in (*same.items(), *claimed.items()) if own else (*claimed.items(), *same.items()):
        folded.setdefault(name.casefold(), label)

    mapped: dict[int, str] = {}
    for index, name in names.items():
        found = exact.get(name) or folded.get(name.casefold())
        if found is not None:
            mapped[index] = found
    return mapped


def unmapped(
    names: Mapping[int, str], control: Control, *, own: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The model's classes without a label, and the labels that no class goes to."""
    mapped = map_classes(names, control, own=own)
    served = set(mapped.values())
    return (
        tuple(name for index, name in names.items() if index not in mapped),
        tuple(label for label in control.labels if label not in served),
    )


def fingerprint(
    suggested: Iterable[tuple[Control, Mapping[int, str], str, bool]],
    default_threshold: float,
    sampling: str = DEFAULT_SAMPLING,
) -> str:
    """Six hexadecimal digits that change when, with the same weights, other suggestions would be made.

    Colours, layout, other tags, the order of labels and labels that no class goes to leave it as it is.

    Args:
        suggested: each control with its model's class names by index, the model's name, and whether the classes
            are labels of this project.
        default_threshold: least score where a control names none, in [0, 1].
        sampling: the strategy that scores tasks.
    """
    models: set[str] = set()
    parts = []
    for control, names, model, own in suggested:
        models.add(model)
        mapped = map_classes(names, control, own=own)
        part = {
            "from_name": control.from_name,
            "to_name": control.to_name,
            "data_key": control.data_key,
            "labels": sorted((names[index], label) for index, label in mapped.items()),
            "threshold": float(default_threshold if control.score_threshold is None else control.score_threshold),
        }
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
