"""Which of a model's classes is which label of the project, and a fingerprint of that choice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from backend.labels.schema import Control, LabelSchema


def map_classes(names: Mapping[int, str], control: Control) -> dict[int, str]:
    """Model class index -> label, for the classes that have one.

    A class goes to the first label that claims it: by `predicted_values`, then by the same name,
    then by either of them in another case. Several classes may go to one label.
    """
    claimed: dict[str, str] = {}
    for label, values in control.predicted_values.items():
        for value in values:
            claimed.setdefault(value, label)
    exact = {**{label: label for label in control.labels}, **claimed}
    folded: dict[str, str] = {}
    for name, label in (*claimed.items(), *((label, label) for label in control.labels)):
        folded.setdefault(name.casefold(), label)

    mapped: dict[int, str] = {}
    for index, name in names.items():
        found = exact.get(name) or folded.get(name.casefold())
        if found is not None:
            mapped[index] = found
    return mapped


def unmapped(names: Mapping[int, str], control: Control) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The model's classes without a label, and the labels that no class goes to."""
    mapped = map_classes(names, control)
    served = set(mapped.values())
    return (
        tuple(name for index, name in names.items() if index not in mapped),
        tuple(label for label in control.labels if label not in served),
    )


def fingerprint(schema: LabelSchema, names: Mapping[int, str], default_threshold: float, model: str) -> str:
    """Six hexadecimal digits that change when, with the same weights, other suggestions would be made.

    Colours, layout, other tags, the order of labels and labels that no class goes to leave it as it is.

    Args:
        names: the model's class names by index.
        default_threshold: least score where a control names none, in [0, 1].
        model: the name of the chosen model.
    """
    controls = [
        {
            "from_name": control.from_name,
            "to_name": control.to_name,
            "data_key": control.data_key,
            "labels": sorted((names[index], label) for index, label in map_classes(names, control).items()),
            "threshold": float(default_threshold if control.score_threshold is None else control.score_threshold),
        }
        for control in schema.controls
    ]
    parts = sorted(json.dumps(control, sort_keys=True) for control in controls)
    return hashlib.sha256(json.dumps([model, parts]).encode()).hexdigest()[:6]
