"""What the page of a task shows while a person points at it, so that nothing is answered a second time.

The editor itself is asked for nothing: Label Studio sends the task with its annotations, its predictions and the
drafts of the person who points. A draft is at most some seconds behind the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.labels.convert import from_regions
from backend.labels.geometry import Detection, ImageSize
from backend.labels.schema import Control
from backend.labels.shapes import shape_of
from backend.predict.marks import Entry, Marks, id_of, kind_of, page_of


def shown(task: object, marks: Marks, version: str) -> list[Entry]:
    """The entries of the regions on the page, without the marks themselves.

    A draft tells what is there; where there is none the annotations, and without those the newest prediction, as
    that is what a task opens with. What the request itself shows beside the mark is there in any case.

    Args:
        version: whose predictions Label Studio shows, if there are any.
    """
    before = {name for entry in marks.others if (name := id_of(entry))}
    told = _results(task, "drafts")
    if told:
        found = _displayed(told, before | marks.ids)
    else:
        annotations = [each for each in _results(task, "annotations") if not each.get("was_cancelled")]
        predictions = _results(task, "predictions")
        mine = [each for each in predictions if each.get("model_version") == version]
        found = [entry for each in annotations for entry in each["result"]]
        if not annotations and predictions:
            found = _displayed(mine or predictions, before)
    entries = [entry for entry in found if isinstance(entry, Mapping) and id_of(entry) not in before | marks.ids]
    return [*entries, *marks.others]


def objects_of(entries: Sequence[Entry], control: Control, page: int, size: ImageSize) -> list[Detection]:
    """The objects that one control's regions show on one page, whatever their labels."""
    if control.kind == "keypoint":
        return from_regions(entries, control, control.labels, size, page)
    found = []
    for entry in entries:
        # Of a drawing tag and its Labels tag the first tells where; of any other control nothing counts here.
        mine = entry.get("from_name") == control.name and entry.get("to_name") == control.to_name
        value = entry.get("value")
        if mine and kind_of(entry) == control.kind and page_of(entry) == page and isinstance(value, Mapping):
            layer = (entry.get("original_width"), entry.get("original_height"))
            if (one := shape_of(control.kind, value, size, layer)) is not None:
                found.append(one)
    return found


def _results(task: object, name: str) -> list[Mapping[str, Any]]:
    """A task's drafts, annotations or predictions that have a result."""
    found = task.get(name) if isinstance(task, Mapping) else None
    each = found if isinstance(found, list) else []
    return [one for one in each if isinstance(one, Mapping) and isinstance(one.get("result"), list)]


def _displayed(told: Sequence[Mapping[str, Any]], ids: set[str]) -> list[Any]:
    """The result of the one that shares most regions with what is on the page, else of the one changed last."""

    def known(one: Mapping[str, Any]) -> tuple[int, str, int]:
        there = {id_of(entry) for entry in one["result"] if isinstance(entry, Mapping)}
        number = one.get("id")
        changed = str(one.get("updated_at") or one.get("created_at") or "")
        return len(there & ids), changed, number if type(number) is int else 0

    return list(max(enumerate(told), key=lambda pair: (*known(pair[1]), pair[0]))[1]["result"])
