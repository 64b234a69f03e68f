"""The labelling config, parsed once: which controls say what about which image, with which labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count, islice
from typing import Literal
from xml.etree import ElementTree as ET

from backend.errors import LabelConfigError
from backend.labels import attributes as given
from backend.labels.conditions import Condition, conditions_in
from backend.labels.document import EXAMPLE, parse
from backend.labels.paths import PATH_SEPARATOR

Kind = Literal["rectangle", "ellipse", "polygon", "brush", "bitmask", "keypoint", "choices", "taxonomy"]

_LABELLED: dict[str, tuple[str, Kind]] = {
    "rectanglelabels": ("RectangleLabels", "rectangle"),
    "ellipselabels": ("EllipseLabels", "ellipse"),
    "polygonlabels": ("PolygonLabels", "polygon"),
    "brushlabels": ("BrushLabels", "brush"),
    "bitmasklabels": ("BitmaskLabels", "bitmask"),
    "keypointlabels": ("KeyPointLabels", "keypoint"),
    "choices": ("Choices", "choices"),
    "taxonomy": ("Taxonomy", "taxonomy"),
}
_SHAPES: dict[str, tuple[str, Kind]] = {
    "rectangle": ("Rectangle", "rectangle"),
    "ellipse": ("Ellipse", "ellipse"),
    "polygon": ("Polygon", "polygon"),
    "brush": ("Brush", "brush"),
    "bitmask": ("Bitmask", "bitmask"),
    "keypoint": ("KeyPoint", "keypoint"),
}
_TASK_FIELD = re.compile(r"\$([^\s$./\\\[\]{}]+(?:\.[^\s$./\\\[\]{}]+|\[[0-9]{1,6}\])*)")
_VERSION = re.compile(r"v([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Keypoint:
    """One point of a skeleton.

    Attributes:
        label: what its regions carry.
        index: which of the model's keypoints it is.
        classes: the model's classes that have it; empty: all.
    """

    label: str
    index: int
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Control:
    """One control tag on one image; a control on several images is several of these.

    Attributes:
        from_name, to_name: the control's and the image's names, as regions carry them.
        kind: what it draws or chooses.
        data_key: the field of the task's data that holds the image's address, maybe within another one: "meta.url",
            "images[0]" (see `backend.labels.references.field_of`).
        labels: what regions carry, in config order: an `alias` where there is one, else the `value`. For
            keypoints the labels of skeletons; for a taxonomy its full paths as text (see `paths`).
        predicted_values: label -> names of a model's classes that mean it.
        score_threshold: least score of a suggestion, in [0, 1]; None: the setting decides.
        shape_name: name of the drawing tag, when that is not the tag with the labels.
        pages: the field holds a list of images, and regions say which by `item_index`.
        per_item: of choices, whether each of these images gets its own.
        sampling: the strategy that scores tasks; empty: the setting decides.
        model_path: a file of pretrained weights or a version, from the config; empty: the usual one.
        obb: whether boxes are rotated; None: the annotations tell.
        polygon_points: most points of a suggested polygon.
        points, box, add_bboxes, point_size, point_threshold: of keypoints; `box` draws the skeletons' boxes,
            `point_size` is in pixels.
        multiple: several choices may be made at once.
        paths: taxonomy label -> its path from the root.
        pointing: it has a smart tool for clicks, or nothing but a smart tool: what is drawn with it may be meant for
            interactive mode alone.
        values: label -> the `value` that its `alias` stands for.
        conditions: all that must hold for the control to be asked at all.
    """

    from_name: str
    to_name: str
    kind: Kind
    data_key: str
    labels: tuple[str, ...]
    predicted_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    score_threshold: float | None = None
    shape_name: str = ""
    pages: bool = False
    per_item: bool = False
    sampling: str = ""
    model_path: str = ""
    obb: bool | None = None
    polygon_points: int = 60
    points: tuple[Keypoint, ...] = ()
    box: Control | None = None
    add_bboxes: bool = False
    point_size: float = 1.0
    point_threshold: float = 0.0
    multiple: bool = False
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    pointing: bool = False
    values: Mapping[str, str] = field(default_factory=dict, hash=False)
    conditions: tuple[Condition, ...] = ()

    @property
    def name(self) -> str:
        """Of the tag that draws or asks: unique in the config, but for several images."""
        return self.shape_name or self.from_name

    @property
    def pinned(self) -> int | None:
        """Number of the version that `model_path` names, as in `v3`; None when it names something else."""
        found = _VERSION.fullmatch(self.model_path)
        return int(found.group(1)) if found else None

    @property
    def region_type(self) -> str:
        """`type` of its regions when it is one tag, e.g. "rectanglelabels"; also the key of their labels."""
        return self.kind if self.kind in ("choices", "taxonomy") else f"{self.kind}labels"


@dataclass(frozen=True)
class OtherTag:
    """A control tag that yoloop leaves alone: its `tag` in lower case, the names of its objects, its labels."""

    name: str
    tag: str
    to_names: tuple[str, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelSchema:
    """Every control that yoloop works with, in config order.

    `notes` say, one sentence each, which controls of the config it leaves alone and why. `skipped` are those that the
    config tells it to leave alone, `others` those that it does not work with; `images` are the names of Image tags.
    """

    controls: tuple[Control, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[Control, ...] = ()
    others: tuple[OtherTag, ...] = ()
    images: tuple[str, ...] = ()

    def require(self) -> LabelSchema:
        """Itself. Raises LabelConfigError when there is no control to work with."""
        if self.controls:
            return self
        why = self.notes[0] if self.notes else "The labelling config has no control over an Image."
        raise LabelConfigError(why, EXAMPLE)

    @property
    def classes(self) -> tuple[str, ...]:
        """All labels in config order, without repeats."""
        return tuple(dict.fromkeys(label for control in self.controls for label in control.labels))


LARGE = 100_000
"""Characters from which on few are kept in memory."""

MOST_CONTROLS = 500
MOST_LABELS = 50_000
MOST_NAMED = 200_000
"""Labels of all controls together, those of a control on several images as often: reading them takes a second."""

LONGEST_LABEL = 1000


def parse_label_config(xml: str) -> LabelSchema:
    """Finds the controls over images of a labelling config; everything else in it is ignored.

    Raises:
        LabelConfigError: not XML, past all measure, or an attribute that yoloop reads has an impossible value.
    """
    return (_read_small if len(xml) < LARGE else _read_large)(xml)


def _read(xml: str) -> LabelSchema:
    root = parse(xml)
    repeaters = list(_tags(root, "repeater"))
    repeated: set[ET.Element] = set()
    for repeater in repeaters:
        if repeater not in repeated:
            repeated.update(repeater.iter())
    tags = [tag for tag in root.iter() if tag not in repeated]
    images = {tag.get("name", ""): tag for tag in tags if _name(tag) == "image" and tag.get("name")}
    fields = {name: _data_key(image) for name, image in images.items()}
    controls: list[Control] = []
    skipped: list[Control] = []
    boxes: list[Control] = []
    asked: set[str] = set()
    notes = [
        f"The Repeater over {repeater.get('on', '')!r} makes controls for each task anew, which cannot be learned "
        'from; show the pages of a task with <Image valueList="$images"/> instead.'
        for repeater in repeaters
    ]
    shapes = [tag for tag in tags if _name(tag) in _SHAPES and tag.get("name")]
    drawing: dict[str, list[ET.Element]] = {}
    for shape in shapes:
        for to_name in _targets(shape):
            drawing.setdefault(to_name, []).append(shape)
    conditions = conditions_in(root)
    known_entries: dict[ET.Element, _Entries] = {}
    tried = named = 0
    for tag in tags:
        name = _name(tag)
        if name not in _LABELLED and name != "labels":
            continue
        for to_name in _targets(tag):
            key, pages, why = fields.get(to_name, ("", False, ""))
            if why:
                notes.append(why)
            if not key or not tag.get("name"):
                continue
            for shape in [tag] if name in _LABELLED else drawing.get(to_name, ()):
                tried += 1  # also what is skipped, or comes to nothing: it is work all the same
                if tried > MOST_CONTROLS:
                    raise LabelConfigError(f"The labelling config has more than {MOST_CONTROLS} controls.", _FEWER)
                read = known_entries.get(tag) or known_entries.setdefault(tag, _Entries.of(tag))
                named += len(read.entries)
                if named > MOST_NAMED:
                    most = f"more than {MOST_NAMED} labels in all its controls"
                    raise LabelConfigError(f"The labelling config has {most}.", _FEWER)
                control = _control(tag, shape, to_name, key, pages, notes, read)
                if control is None:
                    continue
                asked_if = dict.fromkeys((*conditions.get(tag, ()), *conditions.get(shape, ())))
                control = replace(control, conditions=tuple(asked_if))
                if control.kind == "rectangle":
                    boxes.append(control)
                if given.flag(given.ADD_BBOXES, {**tag.attrib, **shape.attrib}):
                    asked.add(control.name)
                left_alone = given.flag(given.SKIP, tag.attrib) or given.flag(given.SKIP, shape.attrib)
                (skipped if left_alone else controls).append(control)
                if len(controls) + len(boxes) > MOST_CONTROLS:
                    raise LabelConfigError(f"The labelling config has more than {MOST_CONTROLS} controls.", _FEWER)
    notes += _left_alone(tags, images.keys())
    known = {name for control in (*controls, *skipped, *boxes) for name in (control.from_name, control.shape_name)}
    return LabelSchema(
        _with_boxes(controls, boxes, asked),
        tuple(dict.fromkeys(notes)),
        tuple(skipped),
        tuple(_others(root, {"", *known})),
        tuple(images),
    )


_read_small, _read_large = lru_cache(maxsize=256)(_read), lru_cache(maxsize=8)(_read)
_ENTRIES = ("label", "choice")
_FEWER = "Split the project, or use shorter labels."


def _name(tag: ET.Element) -> str:
    """Label Studio's editor does not mind the case of tag names, so neither does this."""
    return tag.tag.lower() if isinstance(tag.tag, str) else ""


def _tags(root: ET.Element, name: str) -> Iterator[ET.Element]:
    return (tag for tag in root.iter() if _name(tag) == name)


def _left_alone(tags: Sequence[ET.Element], images: Set[str]) -> Iterator[str]:
    """One sentence for each tag over an image that nothing is learned from because of what it is."""
    over = [(tag, images & set(_targets(tag))) for tag in tags if tag.get("name") and images & set(_targets(tag))]
    drawn = {image for tag, on in over if _name(tag) in _SHAPES for image in on}
    labelled = {image for tag, on in over if _name(tag) == "labels" for image in on}
    for tag, on in over:
        name = tag.get("name")
        if _name(tag) in _SHAPES:
            if not on & labelled:
                spelled = f"{_SHAPES[_name(tag)][0]}Labels"
                yield f"The {tag.tag} control {name!r} has no labels: use {spelled}, or add a Labels tag for its image."
        elif _name(tag) == "labels":
            if not on & drawn:
                yield f"The Labels control {name!r} has no tool that can be learned from, such as Rectangle."
        elif _name(tag) not in _LABELLED:
            yield f"The {tag.tag} control {name!r} is not learned from."


def _others(root: ET.Element, known: Set[str]) -> Iterator[OtherTag]:
    """Raises LabelConfigError: tags within tags have all labels below them, each anew."""
    named = 0
    for tag in root.iter():
        if tag.get("toName") and tag.get("name", "") not in known:
            other = _other(tag)
            named += len(other.labels)
            if named > MOST_NAMED:
                most = f"more than {MOST_NAMED} labels in tags that are not learned from"
                raise LabelConfigError(f"The labelling config has {most}.", _FEWER)
            yield other


def _other(tag: ET.Element) -> OtherTag:
    entries = [entry for entry in tag.iter() if _name(entry) in _ENTRIES]
    labels = tuple(label for entry in entries if (label := entry.get("alias") or entry.get("value")))
    return OtherTag(tag.get("name", ""), _name(tag), tuple(_targets(tag)), labels)


def _targets(tag: ET.Element) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in tag.get("toName", "").split(",")))


def _data_key(image: ET.Element) -> tuple[str, bool, str]:
    """The field of the task that holds the image, whether it is a list, and why it cannot be used."""
    pages = image.get("valueList") is not None
    text = image.get("valueList" if pages else "value", "").strip()
    found = _TASK_FIELD.fullmatch(text)
    if found is None:
        why = (
            f'The Image tag reads {text[:100]!r}, which is not one field of the task, such as "$image" or "$meta.url".'
        )
        return "", pages, why
    return found.group(1), pages, ""


@dataclass(frozen=True, slots=True)
class _Entries:
    """The labels of a tag, as `_entries` gives them, which may be one too many, and what is predicted for each."""

    entries: Sequence[tuple[str, ET.Element, tuple[str, ...]]]
    predicted: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, tag: ET.Element) -> _Entries:
        kind = _LABELLED.get(_name(tag), ("Labels", "rectangle"))[1]
        entries = list(islice(_entries(tag, kind), MOST_LABELS + 1))
        predicted: dict[str, list[str]] = {}
        for label, entry, _ in entries:  # each is added to once, however many tags share a label
            predicted.setdefault(label, []).extend(given.names(given.PREDICTED_VALUES, entry.attrib))
        return cls(entries, {label: tuple(values) for label, values in predicted.items() if values})


def _control(
    tag: ET.Element, shape: ET.Element, to_name: str, data_key: str, pages: bool, notes: list[str], read: _Entries
) -> Control | None:
    """The control that `tag` (with the labels) and `shape` (which draws; mostly the same) make together."""
    name = tag.get("name", "")
    spelled, kind = _LABELLED[_name(tag)] if shape is tag else _SHAPES[_name(shape)]
    if kind in ("choices", "taxonomy") and tag.get("perRegion", "").lower() == "true":
        notes.append(f"The {spelled} control {name!r} is about single regions, not about the image.")
        return None
    entries, predicted = read.entries, read.predicted
    if len(entries) > MOST_LABELS or any(len(label) > LONGEST_LABEL for label, _, _ in entries):
        most = f"{MOST_LABELS} labels, or one of more than {LONGEST_LABEL} characters"
        raise LabelConfigError(f"The {spelled} control {name!r} has more than {most}.", _FEWER)
    labels = dict.fromkeys(label for label, _, _ in entries)
    if not labels:
        notes.append(
            f"The {spelled} control {name!r} has no labels of its own; labels that each task brings along "
            "cannot be learnt."
        )
        return None
    attributes = {**tag.attrib, **shape.attrib}
    control = Control(
        from_name=name,
        to_name=to_name,
        kind=kind,
        data_key=data_key,
        labels=tuple(labels),
        predicted_values=predicted,
        score_threshold=given.share(given.THRESHOLD, attributes, name),
        shape_name="" if shape is tag else shape.get("name", ""),
        pages=pages,
        per_item=pages and tag.get("perItem", "").lower() == "true",
        sampling=given.choice(given.SAMPLING, attributes, name, given.STRATEGIES),
        model_path=(given.text(given.PATH, attributes) or "").strip(),
        pointing=_is_true(attributes, "smartonly") or (kind == "keypoint" and _is_true(attributes, "smart")),
        values={label: _value(entry, path) for label, entry, path in entries if entry.get("alias")},
    )
    if kind in ("rectangle", "ellipse"):
        return replace(control, obb=given.flag(given.OBB, attributes))
    if kind == "polygon":
        return replace(control, polygon_points=given.count(given.POLYGON_POINTS, attributes, name, 3) or 60)
    if kind == "choices":
        return replace(control, multiple=tag.get("choice", "").lower() == "multiple")
    if kind == "taxonomy":
        return replace(control, paths={label: path for label, _, path in entries})
    if kind == "keypoint":
        return _keypoints(control, [(label, entry) for label, entry, _ in entries], attributes)
    return control


def _is_true(attributes: Mapping[str, str], name: str) -> bool:
    """Label Studio's editor does not mind the case of attributes."""
    return any(key.lower() == name and value.strip().lower() == "true" for key, value in attributes.items())


def _entries(tag: ET.Element, kind: Kind) -> Iterator[tuple[str, ET.Element, tuple[str, ...]]]:
    """Label, its tag, and its path from the root, of all labels or choices of a control."""
    if kind == "taxonomy":
        yield from _nodes(tag, ())
        return
    for entry in tag.iter():
        if _name(entry) == ("choice" if kind == "choices" else "label"):
            label = entry.get("alias") or entry.get("value")
            if label:
                yield label, entry, ()


def _value(entry: ET.Element, path: Sequence[str]) -> str:
    """What a label is called without its alias."""
    return PATH_SEPARATOR.join((*path[:-1], entry.get("value", "")))


def _nodes(tag: ET.Element, above: tuple[str, ...]) -> Iterator[tuple[str, ET.Element, tuple[str, ...]]]:
    for entry in tag:
        value = entry.get("alias") or entry.get("value")
        if _name(entry) != "choice" or not value:
            yield from _nodes(entry, above)
            continue
        path = (*above, value)
        yield PATH_SEPARATOR.join(path), entry, path
        yield from _nodes(entry, path)


def _keypoints(control: Control, entries: Sequence[tuple[str, ET.Element]], attributes: Mapping[str, str]) -> Control:
    """A control whose labels are points: its skeletons are named by `predicted_values`, else by the control."""
    indexes = {
        label: given.count(given.INDEX, entry.attrib, control.from_name, 0) for label, entry in dict(entries).items()
    }
    taken = set(indexes.values())
    free = (index for index in count() if index not in taken)
    points = [
        Keypoint(label, next(free) if index is None else index, control.predicted_values.get(label, ()))
        for label, index in indexes.items()
    ]
    skeletons = dict.fromkeys(name for point in points for name in point.classes) or {control.from_name: None}
    size = given.size(given.POINT_SIZE, attributes, control.from_name)
    threshold = given.share(given.POINT_THRESHOLD, attributes, control.from_name)
    return replace(
        control,
        labels=tuple(skeletons),
        predicted_values={},
        points=tuple(points),
        add_bboxes=given.flag(given.ADD_BBOXES, attributes) is not False,
        point_size=1.0 if size is None else size,
        point_threshold=threshold or 0.0,
    )


def _with_boxes(controls: Sequence[Control], boxes: Sequence[Control], asked: Set[str]) -> tuple[Control, ...]:
    """Gives keypoints the rectangles that hold their skeletons; those they draw are no controls any more.

    Args:
        asked: names of the keypoint controls whose config says `model_add_bboxes="true"` in so many words.
    """
    found: list[Control] = []
    taken: set[tuple[str, str]] = set()
    for control in controls:
        if control.kind == "keypoint":
            near = [
                box
                for box in boxes
                if (box.to_name, box.data_key) == (control.to_name, control.data_key)
                # The labels of one Labels tag cannot be both points and skeletons.
                and box.from_name != control.from_name
            ]
            named = [box for box in near if f"{control.from_name}_bbox" in (box.from_name, box.name)]
            box = next(iter(named or (near if len(near) == 1 else [])), None)
            # Another control's boxes group points, but are not drawn here unless the config asks for it.
            drawn = control.add_bboxes if named else control.name in asked
            control = replace(control, add_bboxes=box is not None and drawn)
            if box is not None:
                control = replace(control, box=box, labels=box.labels, predicted_values=_skeletons(control, box))
                if drawn:
                    taken.add((box.from_name, box.to_name))
        found.append(control)
    return tuple(each for each in found if each.kind != "rectangle" or (each.from_name, each.to_name) not in taken)


def _skeletons(points: Control, box: Control) -> Mapping[str, tuple[str, ...]]:
    """The model's classes for each label of the boxes; a single label also stands for what its points name."""
    if len(box.labels) != 1:
        return box.predicted_values
    named = dict.fromkeys(name for point in points.points for name in point.classes)
    (label,) = box.labels
    values = (*box.predicted_values.get(label, ()), *(name for name in named if name != label))
    return {label: tuple(dict.fromkeys(values))} if values else {}
