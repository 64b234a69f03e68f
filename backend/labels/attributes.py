"""The attributes of control and label tags that yoloop reads, in the words of the README's table.

Those of the public YOLO example for Label Studio mean here what they mean there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.errors import LabelConfigError


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: its names (the first is the one to use), the tags that take it, what it does."""

    names: tuple[str, ...]
    tags: str
    default: str
    meaning: str


SKIP = Attribute(("model_skip",), "every control", "false", "Leave the control alone: no suggestions, no learning.")
THRESHOLD = Attribute(
    ("model_score_threshold", "score_threshold"),
    "every control",
    "`YOLOOP_SCORE_THRESHOLD`",
    "Least score of a suggestion, 0 to 1.",
)
PATH = Attribute(
    ("model_path",),
    "every control",
    "the base model",
    "What suggests until a version is trained, and what training starts from: a file in `YOLOOP_MODELS`. Or a "
    "version of this project such as `v3`, which then suggests for good and is not trained further.",
)
OBB = Attribute(
    ("model_obb",),
    "RectangleLabels, EllipseLabels, Rectangle, Ellipse",
    "found out",
    "Rotated boxes: `true` or `false`. By default they are learned as soon as an annotation holds one.",
)
POLYGON_POINTS = Attribute(
    ("model_polygon_points",), "PolygonLabels, Polygon", "60", "Most points of a suggested polygon, at least 3."
)
ADD_BBOXES = Attribute(
    ("model_add_bboxes",),
    "KeyPointLabels, KeyPoint",
    "true",
    "Suggest each skeleton's box too, with the RectangleLabels named like the control and `_bbox`. Where there is "
    "none, `true` takes the only RectangleLabels on the image.",
)
POINT_SIZE = Attribute(("model_point_size",), "KeyPointLabels, KeyPoint", "1", "Size of a suggested point, in pixels.")
POINT_THRESHOLD = Attribute(
    ("model_point_threshold",), "KeyPointLabels, KeyPoint", "0", "Least score of a single point, 0 to 1."
)
INDEX = Attribute(
    ("model_index",),
    "Label of a keypoint",
    "the first free one",
    "Which of the model's keypoints the label is, from 0.",
)
PREDICTED_VALUES = Attribute(
    ("predicted_values",), "Label, Choice", "its own name", "Names of the model's classes that mean it, with commas."
)
SAMPLING = Attribute(
    ("model_sampling",),
    "every control",
    "`YOLOOP_SAMPLING`",
    "What the score of a task says: `least-confidence`, `margin`, `entropy`, `mean` or `diverse`. The first control "
    "that names one decides for the project.",
)
STRATEGIES = ("least-confidence", "margin", "entropy", "mean", "diverse")

ATTRIBUTES = (
    SKIP,
    THRESHOLD,
    SAMPLING,
    PATH,
    OBB,
    POLYGON_POINTS,
    ADD_BBOXES,
    POINT_SIZE,
    POINT_THRESHOLD,
    INDEX,
    PREDICTED_VALUES,
)


def text(attribute: Attribute, given: Mapping[str, str]) -> str | None:
    """The attribute's value under the first of its names that is there."""
    return next((given[name] for name in attribute.names if name in given), None)


def names(attribute: Attribute, given: Mapping[str, str]) -> tuple[str, ...]:
    """A list with commas, without blanks and empty entries."""
    return tuple(part for each in (text(attribute, given) or "").split(",") if (part := each.strip()))


def flag(attribute: Attribute, given: Mapping[str, str]) -> bool | None:
    """True or false, None when it is not given; like the public example, all but true, 1 and yes is false."""
    found = text(attribute, given)
    return None if found is None else found.strip().lower() in ("true", "1", "yes")


def choice(attribute: Attribute, given: Mapping[str, str], owner: str, among: Sequence[str]) -> str:
    """One of some words, empty when it is not given. Raises LabelConfigError."""
    found = (text(attribute, given) or "").strip()
    if found and found not in among:
        raise _wrong(attribute, given, owner, f"one of {', '.join(among)}")
    return found


def share(attribute: Attribute, given: Mapping[str, str], owner: str) -> float | None:
    """A number from 0 to 1. Raises LabelConfigError, which names the control `owner`."""
    return _number(attribute, given, owner, 0.0, 1.0, "a number from 0 to 1, such as 0.25")


def size(attribute: Attribute, given: Mapping[str, str], owner: str) -> float | None:
    """A positive number of pixels. Raises LabelConfigError."""
    return _number(attribute, given, owner, 1e-6, 1e6, "a positive number of pixels, such as 4")


def count(attribute: Attribute, given: Mapping[str, str], owner: str, least: int) -> int | None:
    """A whole number. Raises LabelConfigError."""
    found = _number(attribute, given, owner, least, 10_000, f"a whole number from {least} to 10000")
    if found is not None and found != int(found):
        raise _wrong(attribute, given, owner, f"a whole number from {least} to 10000")
    return None if found is None else int(found)


def _number(
    attribute: Attribute, given: Mapping[str, str], owner: str, least: float, most: float, wanted: str
) -> float | None:
    found = text(attribute, given)
    if found is None:
        return None
    try:
        value = float(found)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise _wrong(attribute, given, owner, wanted)
    return value


def _wrong(attribute: Attribute, given: Mapping[str, str], owner: str, wanted: str) -> LabelConfigError:
    name = next(name for name in attribute.names if name in given)
    return LabelConfigError(f"{name} of the control {owner!r} is {given[name]!r}.", f"It must be {wanted}.")
