"""What each region of an annotation says: understood, as a region of a control of the config, or not, and why.

Importers, renamed tags and changed configs leave regions that no control knows as they stand. They are read where the
meaning is certain, each step only where the one before found nothing and a single label fits: the label itself, its
`value` behind an `alias` or an old name in `predicted_values`, the same without space around it, the same with its
letters composed another way (é, or e and an accent) or other space within, the same in another case. What stays unclear
is a reason, never silence: silence would teach that nothing is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from backend.labels.conditions import asked
from backend.labels.entries import (
    BOXES,
    CHOOSES,
    NO_PAGE,
    OUTLINES,
    TYPES,
    Region,
    is_about_a_region,
    is_placed,
    joined,
    labels_in,
    page_in,
)
from backend.labels.names import Names
from backend.labels.place import place_of
from backend.labels.rectangle import LEAST_TURN, off_quarter
from backend.labels.references import field_of, pages_of
from backend.labels.schema import Control, Kind, LabelSchema

Reason = Literal[
    "label unknown",
    "no label",
    "control unknown",
    "image unknown",
    "page unknown",
    "no shape",
    "numbers that cannot be",
    "tool not learned",
    "several answers",
    "about a region",
    "malformed",
    "annotators disagree",
]

DISAGREED = "disagreement"
"""Type of an entry that stands for what annotators of one task are evenly split over (see `labels.several`)."""

_WITHOUT_MEANING = ("relation", "textarea", "rating", "number", "datetime", "pairwise", "ranker")


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A region that is not understood.

    Attributes:
        name: the label, control or image that the reason is about.
        controls: names of the controls whose models it concerns.
        page: index of the image in a task with several pages.
        to_name: name of the image that it is on; empty: any.
        unless_used: names of the controls whose models it may concern, too, where they are not used on the image.
    """

    reason: Reason
    name: str
    controls: frozenset[str]
    page: int = 0
    region: str = ""
    to_name: str = ""
    unless_used: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return {
            "label unknown": f"label `{self.name}` is not in the config",
            "no label": f"no label was given to a region of `{self.name}`",
            "control unknown": f"control `{self.name}` is not in the config",
            "image unknown": f"image `{self.name}` is not in the config",
            "page unknown": f"a region of `{self.name}` is on a page that its task does not have",
            "no shape": f"a region of `{self.name}` covers nothing of the image",
            "numbers that cannot be": f"a region of `{self.name}` has numbers that cannot be",
            "tool not learned": f"a region of `{self.name}` was drawn with another tool",
            "several answers": f"`{self.name}` has several answers, of which one can be learned",
            "about a region": f"an answer to `{self.name}` is about a single region",
            "malformed": "a region is malformed",
            "annotators disagree": f"the annotators disagree on `{self.name}`",
        }[self.reason]


@dataclass(frozen=True, slots=True)
class Understood:
    """A region that is understood.

    Attributes:
        control: of the config.
        drawn: as which control it is to be read: it may have been drawn with another tool than the config has now.
        labels: as the control has them; of keypoints the points' labels.
        entry: in Label Studio's form, as one entry of `drawn`.
        box: it is the rectangle around a skeleton of `control`.
        skipped: the config tells to leave its control alone.
    """

    control: Control
    drawn: Control
    labels: tuple[str, ...]
    entry: Region
    page: int
    box: bool = False
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Foreign:
    """A region with labels that was drawn with a tool which is not learned."""

    labels: tuple[str, ...]
    to_name: str
    page: int


@dataclass(frozen=True, slots=True)
class Reading:
    """An annotation. `unasked` are the names of the controls that its answers did not bring up."""

    regions: tuple[Understood, ...] = ()
    problems: tuple[NotUnderstood, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    unasked: frozenset[str] = frozenset()

    @property
    def turned(self) -> frozenset[str]:
        """Names of the controls with a box that a person turned by more than a slip of the hand."""
        return frozenset(
            each.control.name
            for each in self.regions
            if each.drawn.kind in ("rectangle", "ellipse")
            and not each.box
            and off_quarter(each.entry["value"].get("rotation", 0.0)) > LEAST_TURN
        )

    @property
    def labels(self) -> Counter[str]:
        """How often each label is used by what will be learned."""
        return Counter(label for each in self.regions if not each.skipped for label in each.labels)


@dataclass(frozen=True, slots=True)
class _Tool:
    """What draws or asks for a control: itself, or the rectangle around its skeletons."""

    control: Control
    draws: Control
    names: Names
    box: bool = False
    skipped: bool = False

    @property
    def said(self) -> tuple[str, ...]:
        """What its regions, and those around its points, may carry."""
        return (*self.control.labels, *(point.label for point in self.control.points))

    def knows(self, label: str) -> bool:
        return label in self.control.labels or self.names.find(label) is not None


class Reader:
    """Reads annotations of one labelling config."""

    def __init__(self, schema: LabelSchema) -> None:
        self._schema = schema
        tools = [_tool(control, control) for control in schema.controls]
        own = {(control.from_name, control.to_name) for control in schema.controls}
        for control in schema.controls:
            if control.box is not None and (control.box.from_name, control.box.to_name) not in own:
                tools.append(_tool(control, control.box, box=True))
        taken = {(tool.draws.from_name, tool.draws.to_name) for tool in tools}
        tools += [
            _tool(each, each, skipped=True) for each in schema.skipped if (each.from_name, each.to_name) not in taken
        ]
        self._tools = tools
        self._values = {label: value for tool in tools for label, value in tool.control.values.items()}
        self._others = {tag.name for tag in schema.others}

    def read(self, result: Sequence[Any], data: object = None) -> Reading:
        """What an annotation's `result` says.

        Args:
            data: the task's: how many pages it has. Without it, a region may be on any page.
        """
        entries = [each for each in result if isinstance(each, Mapping)]
        pages = _pages_of(self._tools, data)
        regions: list[Understood] = []
        problems: list[NotUnderstood] = []
        foreign: list[Foreign] = []
        if len(entries) < len(result):
            problems.append(NotUnderstood("malformed", "", frozenset(tool.control.name for tool in self._tools)))
        for entry, labelled in joined(entries):
            said = self._one(entry, labelled, entries, pages)
            if isinstance(said, Understood):
                regions.append(said)
            elif isinstance(said, NotUnderstood):
                problems.append(said)
            elif said is not None:
                foreign.append(said)
        regions, more = _without_contradictions(regions)
        settled = [_settled(each, regions) for each in (*problems, *more)]
        problems = [each for each in settled if each.controls]
        return Reading(tuple(regions), tuple(problems), tuple(foreign), self._unasked(entries, regions, problems))

    def _unasked(
        self, entries: Sequence[Region], regions: Sequence[Understood], problems: Sequence[NotUnderstood]
    ) -> frozenset[str]:
        """Names of the controls that the answers, as they are understood, did not bring up."""
        conditional = [control for control in self._schema.controls if control.conditions]
        if not conditional:
            return frozenset()
        mine = {each.draws.from_name for each in self._tools if each.draws.kind in CHOOSES}
        answers = [each.entry for each in regions if each.drawn.kind in CHOOSES]
        answers += [each for each in entries if each.get("from_name") not in mine]
        doubtful = {name for each in problems for name in each.controls & mine}
        return frozenset(
            control.name for control in conditional if not asked(control.conditions, answers, self._values, doubtful)
        )

    def _one(
        self, entry: Region, labelled: Region | None, entries: Sequence[Region], pages: Mapping[str, int]
    ) -> Understood | NotUnderstood | Foreign | None:
        """One region; `labelled` is the entry with its labels where these come apart from the shape."""
        kind = TYPES.get(str(entry.get("type")).lower())
        name = str(entry.get("from_name") or "")
        labels = labels_in(labelled or entry, kind)
        page = page_in(entry)
        there = pages.get(str(entry.get("to_name")), next(iter(pages.values()), 0) if len(pages) == 1 else 0)
        beyond = bool(there) and page >= there
        if beyond:
            page = NO_PAGE
        label_name = name if labelled is None else str(labelled.get("from_name") or "")
        here = [each for each in self._tools if name == each.draws.name and label_name == each.draws.from_name]
        here = here or [each for each in self._tools if label_name == each.draws.from_name]
        here = here or [each for each in self._tools if name == each.draws.name and labelled is None]
        if entry.get("type") == DISAGREED:
            here = self._on_image(here, entry)
            disputed = str(entry.get("id") or "")
            if not here:
                return NotUnderstood("annotators disagree", name, frozenset(), page, disputed)
            return self._problem("annotators disagree", name, here, labels, page, disputed)
        if kind is None and not here and not isinstance(entry.get("type"), str):
            return NotUnderstood("malformed", "", frozenset(each.control.name for each in self._tools), page)
        if kind is None:
            return self._of_another_tool(entry, here, labels, page)
        if not here and {name, label_name} & self._others:
            return self._foreign(entry, labels, page) if kind not in CHOOSES else None
        if kind in CHOOSES and not here and is_about_a_region(entry, entries):
            return None
        region = str(entry.get("id") or "")
        if kind in CHOOSES and here and is_placed(entry):
            return self._problem("about a region", name, here, labels, page, region)
        found = self._on_image(here, entry) if here else self._renamed(kind, entry)
        if here and not found:
            return self._problem(
                "image unknown", str(entry.get("to_name")), here, labels, NO_PAGE, region, anywhere=True
            )
        tool = next((each for each in found if each.draws.kind == kind), found[0] if found else None)
        if tool is None:
            return NotUnderstood("control unknown", name, self._concerned(kind, labels, entries), page, region)
        if not labels:
            return self._problem("no label", name, [tool], labels, page, region)
        meant = [tool.names.find(label) for label in labels]
        if None in meant:
            unknown = labels[meant.index(None)]
            if not here:
                return NotUnderstood("control unknown", name, self._concerned(kind, labels, entries), page, region)
            return self._problem("label unknown", unknown, [tool], labels, page, region)
        if not _gives(kind, tool.draws.kind):
            return self._problem("tool not learned", name, [tool], labels, page, region)
        if page == NO_PAGE and (beyond or tool.control.pages) and (kind not in CHOOSES or tool.control.per_item):
            why_page: Reason = "page unknown" if beyond else "numbers that cannot be"
            return self._problem(why_page, name, [tool], labels, page, region)
        place, why = place_of(kind, entry)
        if place is None:
            return self._problem(why or "no shape", name, [tool], labels, page, region)
        known = tuple(dict.fromkeys(label for label in meant if label is not None))
        return _understood(tool, kind, known, place, entry, page)

    def _of_another_tool(
        self, entry: Region, here: Sequence[_Tool], labels: tuple[str, ...], page: int
    ) -> NotUnderstood | Foreign | None:
        if here and entry.get("type") not in _WITHOUT_MEANING:
            reason: Reason = "no shape" if entry.get("type") == "labels" else "tool not learned"
            return self._problem(reason, str(entry.get("from_name")), here, labels, page, str(entry.get("id") or ""))
        return self._foreign(entry, labels, page)

    def _foreign(self, entry: Region, labels: tuple[str, ...], page: int) -> Foreign | None:
        """With all that the labels may mean to a control: where they say nothing, any that its own tag has."""
        tag = next((each for each in self._schema.others if each.name == entry.get("from_name")), None)
        if tag is not None and not set(tag.to_names).intersection(self._schema.images):
            return None  # of a text, or something else beside the image
        if tag is not None and entry.get("type") not in _WITHOUT_MEANING and not set(labels).intersection(tag.labels):
            labels = (*labels, *tag.labels)
        to_name = str(entry.get("to_name") or "")
        if to_name not in self._schema.images and len(self._schema.images) == 1:
            to_name = self._schema.images[0]
        tools = [each for each in self._tools if each.draws.to_name == to_name]
        meant = [label for each in labels for label in (each, *(tool.names.find(each) for tool in tools))]
        return Foreign(tuple(dict.fromkeys(each for each in meant if each)), to_name, page) if labels else None

    def _on_image(self, tools: Sequence[_Tool], entry: Region) -> list[_Tool]:
        """Of tools of one name those on the region's image; of an image that is not in the config the only one."""
        to_name = entry.get("to_name")
        found = [each for each in tools if each.draws.to_name == to_name]
        if found or to_name in self._schema.images:
            return found
        return list(tools) if len({each.draws.to_name for each in tools}) == 1 else []

    def _renamed(self, kind: Kind, entry: Region) -> list[_Tool]:
        """The tool of a kind, if there is only one on the image: the region was drawn under its old name."""
        to_name = entry.get("to_name")
        if to_name not in self._schema.images and len(self._schema.images) != 1:
            return []
        image = to_name if to_name in self._schema.images else self._schema.images[0]
        mine = [each for each in self._tools if each.draws.kind == kind and each.draws.to_name == image]
        others = [each for each in self._schema.others if TYPES.get(each.tag) == kind and image in each.to_names]
        others = [each for each in others if each.labels or each.tag != kind]
        return mine if len(mine) == 1 and not others and not mine[0].skipped else []

    def _problem(
        self,
        reason: Reason,
        name: str,
        tools: Sequence[_Tool],
        labels: Sequence[str],
        page: int,
        region: str,
        *,
        anywhere: bool = False,
    ) -> NotUnderstood:
        """A region of one of the tools. It concerns its own control, and the other drawing ones on the same image that
        could have drawn it: with one of its labels. Where these say nothing it may be an object of any label that its
        control has, and of one that was renamed or is drawn with the wrong tool: an object of any control that is not
        used there.

        Args:
            anywhere: it may be on any image of the config.
        """
        own = frozenset(each.control.name for each in tools)
        if reason not in ("label unknown", "image unknown"):
            name = name or tools[0].control.name
        images = {each.draws.to_name for each in tools}
        to_name = "" if anywhere or len(images) > 1 else next(iter(images))
        if all(each.draws.kind in CHOOSES for each in tools):
            return NotUnderstood(reason, name, own, page, region, to_name)
        drawing = [
            each
            for each in self._tools
            if each.draws.kind not in CHOOSES and (anywhere or each.draws.to_name in images)
        ]
        known = [label for label in labels if any(each.knows(label) for each in drawing)]
        clear = bool(labels) and len(known) == len(labels)
        wanted = known if clear else [*known, *(label for each in tools for label in each.said)]
        related = frozenset(each.control.name for each in drawing if any(each.knows(label) for label in wanted))
        skipped = all(each.skipped for each in tools)
        others = frozenset() if clear or skipped else frozenset(each.control.name for each in drawing)
        return NotUnderstood(reason, name, own | related, page, region, to_name, others - own - related)

    def _concerned(self, kind: Kind, labels: Sequence[str], entries: Sequence[Region]) -> frozenset[str]:
        """Names of the controls that a region of an unknown one may speak for."""
        if kind in CHOOSES:
            answered = {each.get("from_name") for each in entries}
            tools = [each for each in self._tools if each.draws.kind == kind and each.draws.from_name not in answered]
        elif kind == "keypoint":
            drawing = [each for each in self._tools if each.draws.kind not in CHOOSES]
            named = [each for each in drawing if any(each.names.find(label) is not None for label in labels)]
            tools = named or drawing
        else:
            tools = [each for each in self._tools if each.draws.kind not in CHOOSES]
        fitting = [each for each in tools if any(each.names.find(label) is not None for label in labels)]
        return _named(fitting or tools)


def _tool(control: Control, draws: Control, *, box: bool = False, skipped: bool = False) -> _Tool:
    points = draws.kind == "keypoint"
    labels = [point.label for point in draws.points] if points else draws.labels
    others: dict[str, tuple[str, ...]] = {label: (value,) for label, value in draws.values.items()}
    for label, names in () if points else draws.predicted_values.items():
        others[label] = (*others.get(label, ()), *names)
    return _Tool(control, draws, Names(labels, others), box, skipped)


def _gives(kind: Kind, wanted: Kind) -> bool:
    """Whether what was drawn with one tool says what another one would: an outline has a box, a box has no outline."""
    groups: tuple[tuple[Kind, ...], ...] = (CHOOSES, ("keypoint",), OUTLINES)
    for group in groups:
        if wanted in group:
            return kind in group
    return kind in (*BOXES, *OUTLINES)


def _named(tools: Iterable[_Tool]) -> frozenset[str]:
    return frozenset(each.control.name for each in tools if not each.skipped)


def _pages_of(tools: Iterable[_Tool], data: object) -> dict[str, int]:
    """Name of an image → how many pages a task has there, where that is known."""
    found: dict[str, int] = {}
    for control in (each.control for each in tools):
        there = pages_of(field_of(data, control.data_key), True) if control.pages and data is not None else ()
        found[control.to_name] = len(there) if control.pages else 1
    return found


def _without_contradictions(regions: Sequence[Understood]) -> tuple[list[Understood], list[NotUnderstood]]:
    """Where one answer can be learned, several say nothing: which of them is right is not known."""
    answers: dict[tuple[str, str, int], set[str]] = {}
    keys = [
        (each.control.name, each.control.to_name, each.page if each.control.per_item else 0)
        if each.control.kind in CHOOSES and not each.control.multiple and not each.skipped
        else None
        for each in regions
    ]
    for key, each in zip(keys, regions, strict=True):
        if key is not None:
            answers.setdefault(key, set()).update(each.labels)
    unclear = [key for key, labels in answers.items() if len(labels) > 1]
    kept = [each for key, each in zip(keys, regions, strict=True) if key not in unclear]
    return kept, [
        NotUnderstood("several answers", name, frozenset({name}), page, to_name=image) for name, image, page in unclear
    ]


def _settled(problem: NotUnderstood, regions: Sequence[Understood]) -> NotUnderstood:
    """With the controls that it concerns because they were not used on its image."""
    if not problem.unless_used:
        return problem
    used = {
        each.control.name
        for each in regions
        if each.control.to_name == problem.to_name and (each.page == problem.page or not each.control.pages)
    }
    return replace(problem, controls=problem.controls | (problem.unless_used - used), unless_used=frozenset())


def _understood(
    tool: _Tool, kind: Kind, labels: tuple[str, ...], place: Mapping[str, Any], entry: Region, page: int
) -> Understood:
    drawn = as_drawn(tool.draws, kind)
    said: list[Any] = [list(tool.draws.paths[each]) for each in labels] if kind == "taxonomy" else list(labels)
    if kind in CHOOSES and kind != tool.draws.kind:
        drawn = as_drawn(tool.draws, tool.draws.kind)
        said = [list(drawn.paths[each]) for each in labels] if drawn.kind == "taxonomy" else list(labels)
    made = {
        **entry,
        "from_name": drawn.from_name,
        "to_name": drawn.to_name,
        "type": drawn.region_type,
        "value": {**place, drawn.region_type: said},
    }
    if "item_index" in entry:
        made["item_index"] = page
    return Understood(tool.control, drawn, labels, made, page, tool.box, tool.skipped)


def counted(reasons: Iterable[str]) -> str:
    """Reasons with their numbers, the most frequent first: "label `car` is not in the config (2), …"."""
    return ", ".join(f"{why} ({count})" for why, count in Counter(reasons).most_common(5))


def as_drawn(control: Control, kind: Kind) -> Control:
    """A control as the regions of a reading have it: one tag, with the tool that they were drawn with."""
    box = None if control.box is None else replace(control.box, shape_name="")
    return replace(control, kind=kind, shape_name="", box=box)
