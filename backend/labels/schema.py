"""The labelling config, parsed once: which controls draw boxes on which image, with which labels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from xml.etree import ElementTree as ET

from backend.errors import LabelConfigError

_TASK_FIELD = re.compile(r"\$([^\s$./\\\[\]{}]+)")
_EXAMPLE = (
    "Add one to the labelling config, for example "
    '<Image name="image" value="$image"/> and '
    '<RectangleLabels name="label" toName="image"><Label value="Car"/></RectangleLabels>.'
)


@dataclass(frozen=True)
class Control:
    """One control tag on one image; a control on several images is several of these.

    Attributes:
        from_name, to_name: the control's and the image's names, as regions carry them.
        tag: the tag's name as Label Studio spells it, e.g. "RectangleLabels".
        data_key: the field of the task's data that holds the image's address.
        labels: what regions carry, in config order: a Label's `alias` where it has one, else its `value`.
        predicted_values: label -> names of a model's classes that mean it.
        score_threshold: least score of a suggestion, in [0, 1]; None: the setting decides.
    """

    from_name: str
    to_name: str
    tag: str
    data_key: str
    labels: tuple[str, ...]
    predicted_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    score_threshold: float | None = None


@dataclass(frozen=True)
class LabelSchema:
    """Every control that yoloop works with, in config order; never empty."""

    controls: tuple[Control, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """All labels in config order, without repeats: the class list of a trained model."""
        return tuple(dict.fromkeys(label for control in self.controls for label in control.labels))

    def own_labels(self) -> LabelSchema:
        """The same controls for a model whose classes are the labels, so `predicted_values` mean nothing."""
        return LabelSchema(tuple(replace(control, predicted_values={}) for control in self.controls))


@lru_cache(maxsize=256)
def parse_label_config(xml: str) -> LabelSchema:
    """Finds the box controls of a labelling config; everything else in it is ignored.

    Raises:
        LabelConfigError: not XML, no RectangleLabels over an Image, one without labels,
            or a threshold outside [0, 1].
    """
    root = _parse(xml)
    images = {tag.get("name", ""): tag.get("value", "") for tag in _tags(root, "image") if tag.get("name") is not None}
    controls: list[Control] = []
    unusable: list[str] = []
    for tag in _tags(root, "rectanglelabels"):
        for to_name in (part.strip() for part in tag.get("toName", "").split(",")):
            if to_name not in images or not tag.get("name"):
                continue
            key = _TASK_FIELD.fullmatch(images[to_name].strip())
            if key is None:
                unusable.append(images[to_name])
                continue
            controls.append(_control(tag, to_name, key.group(1)))
    if controls:
        return LabelSchema(tuple(controls))
    if unusable:
        raise LabelConfigError(
            f"The Image tag reads {unusable[0]!r}, which is not one plain field of the task.",
            'Write value="$image", where "image" is a field of the tasks\' data.',
        )
    raise LabelConfigError("The labelling config has no RectangleLabels control over an Image.", _EXAMPLE)


class _NoDoctype(ET.TreeBuilder):
    """Refuses a document type: without one there are no entities to expand."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise LabelConfigError(
            "The labelling config declares a document type, which is not allowed.",
            "Remove <!DOCTYPE …> and every <!ENTITY …> from it.",
        )


def _parse(xml: str) -> ET.Element:
    try:
        return ET.fromstring(xml, ET.XMLParser(target=_NoDoctype()))
    except (ET.ParseError, ValueError) as error:
        raise LabelConfigError(f"The labelling config is not XML: {error}.", _EXAMPLE) from None


def _tags(root: ET.Element, name: str) -> Iterator[ET.Element]:
    """Label Studio's editor does not mind the case of tag names, so neither does this."""
    return (tag for tag in root.iter() if isinstance(tag.tag, str) and tag.tag.lower() == name)


def _control(tag: ET.Element, to_name: str, data_key: str) -> Control:
    name = tag.get("name", "")
    labels: dict[str, tuple[str, ...]] = {}
    for child in _tags(tag, "label"):
        label = child.get("alias") or child.get("value")
        if label:
            names = (part.strip() for part in child.get("predicted_values", "").split(","))
            labels[label] = (*labels.get(label, ()), *(part for part in names if part))
    if not labels:
        raise LabelConfigError(
            f"The RectangleLabels control {name!r} has no labels.",
            'Put <Label value="…"/> tags inside it; labels that each task brings along cannot be learnt.',
        )
    return Control(
        from_name=name,
        to_name=to_name,
        tag="RectangleLabels",
        data_key=data_key,
        labels=tuple(labels),
        predicted_values={label: names for label, names in labels.items() if names},
        score_threshold=_threshold(tag, name),
    )


def _threshold(tag: ET.Element, name: str) -> float | None:
    for attribute in ("model_score_threshold", "score_threshold"):
        text = tag.get(attribute)
        if text is None:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0.0 <= value <= 1.0:
            raise LabelConfigError(
                f"{attribute} of the control {name!r} is {text!r}.",
                "It must be a number from 0 to 1, such as 0.25.",
            )
        return value
    return None
