"""Controls that are only asked sometimes: `visibleWhen` on a control or on a View around it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

WHENS = ("choice-selected", "choice-unselected", "region-selected", "no-region-selected")


@dataclass(frozen=True, slots=True)
class Condition:
    """When a part of the form is shown.

    Attributes:
        when: Label Studio's word: one of `WHENS`; another one is never taken to hold.
        tag: name of the control whose answer decides; empty: any.
        choices: the answers that count; none: any answer.
    """

    when: str
    tag: str = ""
    choices: tuple[str, ...] = ()


def conditions_in(root: ET.Element) -> dict[ET.Element, tuple[Condition, ...]]:
    """The tags that stand under conditions, each with all of them, the outermost first."""
    found: dict[ET.Element, tuple[Condition, ...]] = {}
    for tag in root.iter():  # each parent comes before its children
        own = _condition(tag)
        above = found.get(tag, ())
        all_of_them = above if own is None else (*above, own)
        if all_of_them:
            found[tag] = all_of_them
            found.update(dict.fromkeys(tag, all_of_them))
    return found


def asked(
    conditions: Collection[Condition],
    result: Sequence[Mapping[str, Any]],
    values: Mapping[str, str] | None = None,
    doubtful: Collection[str] = (),
) -> bool:
    """Whether an annotation's own answers say that a control under these conditions was shown.

    What depends on a selected region is never known afterwards.

    Args:
        values: what an answer's alias stands for: conditions may name either.
        doubtful: names of the controls with an answer that is not understood: what hangs on one is not known to hold.
    """
    clear = [each for each in conditions if each.tag not in doubtful and (each.tag or not doubtful)]
    return len(clear) == len(conditions) and all(_holds(each, result, values or {}) for each in clear)


def _condition(tag: ET.Element) -> Condition | None:
    when = tag.get("visibleWhen", "").strip().lower()
    if not when:
        return None
    choices = tag.get("whenChoiceValue", "").split(",")
    return Condition(
        when, tag.get("whenTagName", "").strip(), tuple(part for each in choices if (part := each.strip()))
    )


def _holds(condition: Condition, result: Sequence[Mapping[str, Any]], values: Mapping[str, str]) -> bool:
    if condition.when not in ("choice-selected", "choice-unselected"):
        return False
    answers: set[str] = set()
    for region in result:
        if condition.tag in ("", region.get("from_name")) and region.get("type") in ("choices", "taxonomy"):
            value = region.get("value")
            named = value.get(region["type"]) if isinstance(value, Mapping) else None
            for name in named if isinstance(named, list) else ():
                answers.update(each for each in (name if isinstance(name, list) else [name]) if isinstance(each, str))
    answers.update(values[each] for each in tuple(answers) if each in values)
    chosen = bool(answers.intersection(condition.choices) if condition.choices else answers)
    return chosen == (condition.when == "choice-selected")
