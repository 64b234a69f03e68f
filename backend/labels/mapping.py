"""Which of a model's classes is which label of the project, and a fingerprint of that choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from backend.labels.schema import Control


def map_classes(names: Mapping[int, str], control: Control, *, own: bool = False) -> dict[int, str]:
    """Model class index -> label, for the classes that have one.

    A class goes to the first label that claims it: by `predicted_values`, then by the same name,
    then by either of them in another case. Several classes may go to one label.

    Args:
        own: the classes are labels of this project. Then the same name comes first, and `predicted_values` speak
            only for classes that are no label any more: so a label can be renamed. The case counts unless a single
            class and a single label are left that differ in nothing else.
    """
    claimed: dict[str, str] = {}
    for label, values in control.predicted_values.items():
        for value in values:
            claimed.setdefault(value, label)
    same = {label: label for label in control.labels}
    exact = {**claimed, **same} if own else {**same, **claimed}
    folded = _labels_by_case(names, exact) if own else {}
    if not own:
        for name, label in (*claimed.items(), *same.items()):
            folded.setdefault(name.casefold(), label)

    mapped: dict[int, str] = {}
    for index, name in names.items():
        found = exact.get(name) or folded.get(name.casefold())
        if found is not None:
            mapped[index] = found
    return mapped


def _labels_by_case(names: Mapping[int, str], exact: Mapping[str, str]) -> dict[str, str]:
    """Name in lower case → label, where one class and one label can be meant and nothing else: `a` and `A` may be two
    labels of the project."""
    taken = {exact[name] for name in names.values() if name in exact}
    classes = Counter(name.casefold() for name in names.values() if name not in exact)
    labels: dict[str, set[str]] = {}
    for name, label in exact.items():
        labels.setdefault(name.casefold(), set()).add(label)
    return {
        name: min(found)
        for name, found in labels.items()
        if classes[name] == 1 and len(found) == 1 and taken.isdisjoint(found)
    }


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
