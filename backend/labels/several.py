"""What several annotations of one task say together: pure functions.

Objects are the same where their shapes overlap: boxes, turned boxes or masks, as their control draws them. What is not
understood stays as it is, so that nobody takes it for background.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backend.labels.convert import from_regions
from backend.labels.entries import CHOOSES, Region, is_about_a_region
from backend.labels.geometry import Box, Detection, ImageSize
from backend.labels.overlap import iou, mask_iou, rotated_iou
from backend.labels.reading import DISAGREED, Reader, Reading, Understood
from backend.labels.schema import Control

Policy = Literal["newest", "union", "consensus"]

SAME = 0.5
"""Intersection over union beyond which two shapes show one object."""

ALIKE = 0.25
"""What equal labels count for, as intersection over union, where an object overlaps with more than one."""

LONGEST = 1024
"""Pixels of the longer side of outlines that are compared; painted masks are compared as they are."""

_REMARKS = ("relation", "textarea", "rating", "number", "datetime", "pairwise", "ranker")

Key = tuple[str, str, str, int]
"""A control's names, and the page."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """One submitted annotation of a task. `author` None: it is not known who."""

    id: int
    author: int | None
    ground_truth: bool
    updated_at: float
    result: Sequence[Region]

    @property
    def rank(self) -> tuple[bool, float, int]:
        """The highest is the one that counts where only one does: ground truth first, then the newest."""
        return self.ground_truth, self.updated_at, self.id


@dataclass(frozen=True, slots=True)
class Together:
    """What annotations say together. `agreement`: of annotators, 0 to 1, see `consensus`; None: there is only one."""

    result: Sequence[Region]
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class _Thing:
    """An object, or an answer to a question: `shape` is None for the latter. `entries` are all that belong to it."""

    by: int
    control: Control
    page: int
    labels: tuple[str, ...]
    entries: tuple[Region, ...]
    shape: Detection | None = None

    @property
    def key(self) -> Key:
        return self.control.name, self.control.from_name, self.control.to_name, self.page


@dataclass(frozen=True, slots=True)
class _Said:
    """One annotation: its things, and what is left of its entries."""

    things: Sequence[_Thing]
    rest: Sequence[Region]
    unasked: frozenset[str]


def together(policy: Policy, annotations: Sequence[Submitted], reader: Reader) -> Together:
    """What some annotations of one task say; of those, ground truth alone counts where there is any.

    Args:
        annotations: at least one.
    """
    ranked = sorted(annotations, key=lambda each: each.rank, reverse=True)
    ranked = [each for each in ranked if each.ground_truth == ranked[0].ground_truth]
    if policy == "union":
        return Together(union([each for each in ranked if each is ranked[0] or _by_one(each, ranked[0])], reader))
    if policy == "consensus":
        return consensus(_newest_of_each(ranked), reader)
    return Together(ranked[0].result)


def union(annotations: Sequence[Submitted], reader: Reader) -> Sequence[Region]:
    """The first annotation, and of each later one what overlaps with nothing of the same control so far.

    An answer is added where the question has none yet.
    """
    said = _read_all(annotations, reader)
    kept, rest, added = list(said[0].things), list(said[0].rest), False
    for each in said[1:]:
        fresh = [thing for thing in each.things if not any(_same(thing, other) for other in kept)]
        more = [entry for entry in each.rest if not _is_remark(entry) and not _is_in(entry, rest)]
        added = added or bool(fresh or more)
        kept += fresh
        rest += more
    return [*_entries(kept), *rest] if added else annotations[0].result


def consensus(annotations: Sequence[Submitted], reader: Reader) -> Together:
    """What most annotators say: one annotation of each, the first one counts where two shapes are as good.

    An object is there if more than half of those who were asked have drawn it, with the label that most of them gave
    and the shape that overlaps most with the others' of that label. An answer is the one that most gave, none being one
    as well; where several go together, each choice that more than half made. A tie is an entry that nobody understands
    (see `reading.DISAGREED`).

    The agreement is the mean over all pairs of annotators of 2 × what both say alike / (what one says + what the other
    says); 1 where both say that nothing is there.
    """
    if len(annotations) == 1:
        return Together(annotations[0].result)
    said = _read_all(annotations, reader)
    kept: list[_Thing] = []
    disputed: list[Region] = []
    alike: Counter[tuple[int, int]] = Counter()
    by_key: dict[Key, list[_Thing]] = {}
    for each in said:
        for thing in each.things:
            by_key.setdefault(thing.key, []).append(thing)
    for things in by_key.values():
        control = things[0].control
        asked = {number for number, each in enumerate(said) if control.name not in each.unasked}
        asked |= {each.by for each in things}
        if control.kind in CHOOSES:
            found, pairs = _answers(things, asked)
        else:
            found, pairs = _objects(things, len(asked))
        alike.update(pairs)
        for one in found:
            if isinstance(one, _Thing):
                kept.append(one)
            else:
                disputed.append(_disputed(things[0], one, len(disputed)))
    rest: list[Region] = []
    for each in said:
        rest += [entry for entry in each.rest if not _is_remark(entry) and not _is_in(entry, rest)]
    counts = [len(each.things) for each in said]
    both = list(itertools.combinations(range(len(said)), 2))
    shares = [2 * alike[a, b] / (counts[a] + counts[b]) if counts[a] + counts[b] else 1.0 for a, b in both]
    return Together([*_entries(kept), *disputed, *rest], sum(shares) / len(shares))


def _by_one(one: Submitted, other: Submitted) -> bool:
    return one.author is not None and one.author == other.author


def _newest_of_each(ranked: Iterable[Submitted]) -> list[Submitted]:
    found: dict[object, Submitted] = {}
    for each in ranked:
        found.setdefault(("annotation", each.id) if each.author is None else each.author, each)
    return list(found.values())


def _objects(things: Sequence[_Thing], asked: int) -> tuple[list[_Thing | tuple[str, ...]], Iterator[tuple[int, int]]]:
    """Of one control on one page: what is there, labels for what is disputed, and who agrees with whom on what."""
    groups = _matched(things)
    found: list[_Thing | tuple[str, ...]] = []
    for group in groups:
        if 2 * len(group) < asked:
            continue
        votes = Counter(frozenset(each.labels) for each in group).most_common()
        labels = tuple(dict.fromkeys(label for each in group for label in each.labels))
        if 2 * len(group) == asked or (len(votes) > 1 and votes[0][1] == votes[1][1]):
            found.append(labels)
            continue
        chosen = [each for each in group if frozenset(each.labels) == votes[0][0]]
        found.append(max(chosen, key=lambda each: round(sum(_overlap(each, other) for other in chosen), 6)))
    return found, _pairs(groups)


def _answers(
    things: Sequence[_Thing], asked: Iterable[int]
) -> tuple[list[_Thing | tuple[str, ...]], Iterator[tuple[int, int]]]:
    """The same of a question."""
    given: dict[int, set[str]] = {each: set() for each in asked}
    for each in things:
        given[each.by].update(each.labels)
    pairs = _pairs([things])
    every = tuple(dict.fromkeys(label for each in things for label in each.labels))
    if things[0].control.multiple:
        counts = {label: sum(label in each for each in given.values()) for label in every}
        if any(2 * count == len(given) for count in counts.values()):
            return [every], pairs
        labels = tuple(label for label in every if 2 * counts[label] > len(given))
        return [_answered(things, labels)] if labels else [], pairs
    votes = Counter(frozenset(each) for each in given.values()).most_common()
    if len(votes) > 1 and votes[0][1] == votes[1][1]:
        return [every], pairs
    chosen = tuple(label for label in every if label in votes[0][0])
    return [_answered(things, chosen)] if chosen else [], pairs


def _answered(things: Sequence[_Thing], labels: tuple[str, ...]) -> _Thing:
    """An answer with these labels: somebody's, or one made of somebody's."""
    for each in things:
        if set(each.labels) == set(labels):
            return each
    (entry, *_), control = things[0].entries, things[0].control
    said: list[Any] = [list(control.paths[each]) for each in labels] if control.kind == "taxonomy" else list(labels)
    made = {**entry, "type": control.region_type, "value": {control.region_type: said}}
    return _Thing(things[0].by, control, things[0].page, labels, (made,))


def _matched(things: Sequence[_Thing]) -> list[list[_Thing]]:
    """Groups of one object each, with at most one shape of each annotator; what overlaps most comes together first."""
    near = []
    for a, b in itertools.combinations(range(len(things)), 2):
        if things[a].by != things[b].by and (shared := _overlap(things[a], things[b])) > SAME:
            near.append((shared + ALIKE * (set(things[a].labels) == set(things[b].labels)), a, b))
    group = {index: [index] for index in range(len(things))}
    for _, a, b in sorted(near, key=lambda each: (-each[0], each[1], each[2])):
        one, other = group[a], group[b]
        if one is not other and {things[each].by for each in one}.isdisjoint(things[each].by for each in other):
            one += other
            group.update(dict.fromkeys(other, one))
    return [[things[each] for each in sorted(one)] for index, one in group.items() if index == min(one)]


def _pairs(groups: Iterable[Sequence[_Thing]]) -> Iterator[tuple[int, int]]:
    for group in groups:
        for one, other in itertools.combinations(group, 2):
            if one.by != other.by and set(one.labels) == set(other.labels):
                yield min(one.by, other.by), max(one.by, other.by)


def _disputed(thing: _Thing, labels: Sequence[str], number: int) -> Region:
    """An entry that says: annotators disagree here."""
    control = thing.control
    return {
        "id": f"disagreed-{number}",
        "type": DISAGREED,
        "from_name": control.from_name,
        "to_name": control.to_name,
        "item_index": thing.page,
        "value": {"labels": list(labels)},
    }


def _same(one: _Thing, other: _Thing) -> bool:
    if one.by == other.by or one.key != other.key:
        return False
    return one.control.kind in CHOOSES or _overlap(one, other) > SAME


def _overlap(one: _Thing, other: _Thing) -> float:
    """Intersection over union, in the shape that both have."""
    a, b = one.shape, other.shape
    if a is None or b is None:
        return 0.0
    compare: Callable[[Sequence[Detection], Sequence[Detection]], Any] = iou
    if a.mask is not None and b.mask is not None:
        compare = mask_iou
    elif a.rotated is not None and b.rotated is not None:
        compare = rotated_iou
    return float(compare([a], [b])[0, 0])


def _read_all(annotations: Sequence[Submitted], reader: Reader) -> list[_Said]:
    size = _size(entry for each in annotations for entry in each.result)
    return [_read(number, each, reader, size) for number, each in enumerate(annotations)]


def _read(number: int, annotation: Submitted, reader: Reader, size: ImageSize) -> _Said:
    """An annotation's things; its entries get ids that no other annotation has, as they come together."""
    entries = _with_ids(annotation)
    reading = reader.read(entries)
    of: dict[str, list[Region]] = {}
    for entry in entries:
        of.setdefault(entry["id"], []).append(entry)
    things: list[_Thing] = []
    for group in _grouped(reading, size):
        first = group[0]
        labels = tuple(dict.fromkeys(label for each in _headed(group) for label in each.labels))
        own = [entry for name in dict.fromkeys(each.entry["id"] for each in group) for entry in of[name]]
        page = first.page if first.control.pages else 0
        chooses = first.control.kind in CHOOSES
        shape = None if chooses else _shape(group, size)
        if chooses and not first.control.per_item:
            page = 0
        if chooses or shape is not None:
            things.append(_Thing(number, first.control, page, labels, tuple(own), shape))
    taken = {entry["id"] for each in things for entry in each.entries}
    return _Said(things, [entry for entry in entries if entry["id"] not in taken], reading.unasked)


def _grouped(reading: Reading, size: ImageSize) -> list[list[Understood]]:
    """Regions that are one thing: a skeleton's box and points, the answers to one question, or a region alone."""
    frames = {each.entry["id"]: each for each in reading.regions if each.box}
    bounds = {name: _bounds([each], size) for name, each in frames.items()}
    groups: dict[object, list[Understood]] = {}
    for number, each in enumerate(reading.regions):
        control = each.control
        place = (control.name, control.from_name, control.to_name)
        if control.kind in CHOOSES:
            groups.setdefault((*place, each.page if control.per_item else 0), []).append(each)
        elif control.kind == "keypoint" and each.box:
            groups.setdefault((*place, each.page, each.entry["id"]), []).append(each)
        elif control.kind == "keypoint":
            frame = _frame_of(each, frames, bounds, size) or f"loose {each.entry.get('parentID') or _note(each)}"
            groups.setdefault((*place, each.page, frame), []).append(each)
        else:
            groups[number] = [each]
    return list(groups.values())


def _frame_of(
    point: Understood, frames: Mapping[str, Understood], bounds: Mapping[str, Box], size: ImageSize
) -> str | None:
    """The id of the rectangle that a point belongs to: its parent, else the smallest that holds it."""
    if (parent := point.entry.get("parentID")) in frames:
        return str(parent)
    at = _bounds([point], size)
    holding = [
        (_area(box), name)
        for name, box in bounds.items()
        if frames[name].page == point.page and box.x1 <= at.x1 <= box.x2 and box.y1 <= at.y1 <= box.y2
    ]
    return min(holding)[1] if holding else None


def _headed(group: Sequence[Understood]) -> Sequence[Understood]:
    """Those that give a thing its labels: of a skeleton its box; points say by theirs which points they are."""
    if group[0].control.kind != "keypoint":
        return group
    return [each for each in group if each.box]


def _shape(group: Sequence[Understood], size: ImageSize) -> Detection | None:
    first = group[0]
    if first.control.kind == "keypoint":
        boxes = [each for each in group if each.box]
        return Detection(0, 1.0, _bounds(boxes or group, size))
    seen = from_regions([first.entry], first.drawn, list(first.drawn.labels), size)
    return seen[0] if seen else None


def _bounds(group: Sequence[Understood], size: ImageSize) -> Box:
    """What rectangles or points cover, in pixels; at least a pixel around each."""
    xs: list[float] = []
    ys: list[float] = []
    for each in group:
        value = each.entry["value"]
        x, y = value["x"] / 100 * size.width, value["y"] / 100 * size.height
        wide, high = (value["width"], value["height"]) if each.box else (0.0, 0.0)
        xs += [x, x + wide / 100 * size.width]
        ys += [y, y + high / 100 * size.height]
    margin = 0.0 if any(each.box for each in group) else 1.0
    return Box(min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin)


def _area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _note(region: Understood) -> str:
    meta = region.entry.get("meta")
    text = meta.get("text") if isinstance(meta, Mapping) else None
    first = text[0] if isinstance(text, list) and text else text
    return first if isinstance(first, str) else ""


def _with_ids(annotation: Submitted) -> list[dict[str, Any]]:
    """The entries with ids of their own: those of another annotation may have the same, as of one suggestion.

    Entries that are one region keep one id. What importers gave the same id although it is another one gets its own.
    """
    known = {each["id"] for each in annotation.result if isinstance(each.get("id"), str)}
    seen = set[str]()
    found = []
    for number, each in enumerate(annotation.result):
        name = f"{annotation.id}#{number}"
        place = (each.get("id"), each.get("type"), each.get("from_name"), each.get("to_name"))
        alone = each.get("type") in CHOOSES and not is_about_a_region(each, annotation.result)
        if isinstance(each.get("id"), str) and not alone and repr(place) not in seen:
            seen.add(repr(place))
            name = f"{annotation.id}/{each['id']}"
        parent = each.get("parentID")
        moved = {"parentID": f"{annotation.id}/{parent}"} if isinstance(parent, str) and parent in known else {}
        found.append({**each, "id": name, **moved})
    return found


def _size(entries: Iterable[Region]) -> ImageSize:
    """Pixels to compare in: of the image as the annotations tell it, and not more than are needed."""
    for each in entries:
        width, height = each.get("original_width"), each.get("original_height")
        if type(width) is int and type(height) is int and width > 0 and height > 0:
            share = min(1.0, LONGEST / max(width, height))
            return ImageSize(width=max(1, round(width * share)), height=max(1, round(height * share)))
    return ImageSize(width=LONGEST, height=LONGEST)


def _entries(things: Iterable[_Thing]) -> list[Region]:
    return [entry for each in things for entry in each.entries]


def _is_remark(entry: Region) -> bool:
    return entry.get("type") in _REMARKS


def _is_in(entry: Region, others: Iterable[Region]) -> bool:
    """Whether there is an entry that says the same, whatever the ids."""
    plain = {name: value for name, value in entry.items() if name not in ("id", "parentID")}
    return any(
        plain == {name: value for name, value in each.items() if name not in ("id", "parentID")} for each in others
    )
