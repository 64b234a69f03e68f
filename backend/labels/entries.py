"""The entries of an annotation's `result` as Label Studio and importers write them: kind, page and labels of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from backend.labels.paths import PATH_SEPARATOR
from backend.labels.place import as_number
from backend.labels.schema import Kind

Region = Mapping[str, Any]

NO_PAGE = -1
"""In place of a page: a region says which it is on, and that cannot be. It may be on any."""

KINDS: tuple[Kind, ...] = get_args(Kind)
CHOOSES: tuple[Kind, ...] = ("choices", "taxonomy")
BOXES: tuple[Kind, ...] = ("rectangle", "ellipse")
OUTLINES: tuple[Kind, ...] = ("polygon", "brush", "bitmask")
TYPES: dict[str, Kind] = {name: kind for kind in KINDS for name in (kind, f"{kind}labels")}


def joined(entries: Sequence[Region]) -> Iterator[tuple[Region, Region | None]]:
    """Each region once: an entry, and the one with its labels where shape and labels come as two with one id."""
    shapes = {each["id"]: each for each in entries if each.get("type") in KINDS and _has_id(each)}
    labelled: dict[str, list[Region]] = {}
    for each in entries:
        if each.get("type") == "labels" and _has_id(each) and each["id"] in shapes:
            labelled.setdefault(each["id"], []).append(each)
    for each in entries:
        if each.get("type") == "labels" and _has_id(each) and each["id"] in shapes:
            continue
        if each.get("type") in KINDS and _has_id(each) and shapes[each["id"]] is each and each["id"] in labelled:
            for other in labelled[each["id"]]:
                yield each, other
            continue
        yield each, None


def page_in(entry: Region) -> int:
    """Which image of a task with several pages; as with places, importers write numbers as text and with a point."""
    if entry.get("item_index") is None:
        return 0
    found = as_number(entry["item_index"])
    return int(found) if found is not None and found >= 0 and found.is_integer() else NO_PAGE


def _has_id(entry: Region) -> bool:
    return isinstance(entry.get("id"), str)


def labels_in(entry: Region, kind: Kind | None) -> tuple[str, ...]:
    """The labels of an entry, without repeats: names, or the paths of a taxonomy as text."""
    value = entry.get("value")
    if not isinstance(value, Mapping):
        return ()
    own = () if kind is None else (kind,) if kind in CHOOSES else (f"{kind}labels",)
    keys = dict.fromkeys((str(entry.get("type")), *own, "labels"))
    named: Any = next((value[key] for key in keys if value.get(key)), None)
    if isinstance(named, str):
        named = [named]
    found: list[str] = []
    for name in named if isinstance(named, list) else ():
        if isinstance(name, str):
            found.append(name)
        elif type(name) is int:  # a label that looks like a number, as some exports write it
            found.append(str(name))
        elif isinstance(name, list) and name and all(isinstance(part, str) for part in name):
            found.append(PATH_SEPARATOR.join(name) if kind == "taxonomy" else name[-1])
    return tuple(dict.fromkeys(found))


def is_about_a_region(entry: Region, entries: Sequence[Region]) -> bool:
    """Whether an answer is about a single region, whose place or id it has."""
    shared = _has_id(entry) and any(
        each is not entry
        and each.get("id") == entry["id"]
        and TYPES.get(str(each.get("type")), "choices") not in CHOOSES
        for each in entries
    )
    return is_placed(entry) or shared


def is_placed(entry: Region) -> bool:
    value = entry.get("value")
    return isinstance(value, Mapping) and bool({"x", "points", "rle", "imageDataURL"} & value.keys())
