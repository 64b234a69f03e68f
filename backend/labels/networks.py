"""Which YOLO models a labelling config needs: controls of one YOLO task learn and suggest together.

Boxes, rotated boxes and masks share one model for all controls that draw them, whose classes are the controls'
labels. Keypoints and choices have a model for each control: skeletons differ, and so do questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from backend.labels.mapping import map_classes
from backend.labels.schema import Control, Keypoint, Kind, LabelSchema

Task = Literal["detect", "obb", "segment", "pose", "classify"]
"""ultralytics' names."""

SERVES: Mapping[Kind, tuple[Task, ...]] = {
    "rectangle": ("detect", "obb", "segment", "pose"),
    "ellipse": ("detect", "obb", "segment", "pose"),
    "polygon": ("segment",),
    "brush": ("segment",),
    "bitmask": ("segment",),
    "keypoint": ("pose",),
    "choices": ("classify",),
    "taxonomy": ("classify",),
}
"""The YOLO tasks whose models can suggest for a control; the first is the one it learns by."""


@dataclass(frozen=True)
class Network:
    """One YOLO model of a version.

    Attributes:
        key: names it among the version's models, in all versions alike, e.g. `detect` or `classify:weather`.
        task: what it does.
        classes: names of its classes, by index: labels.
        controls: names of the controls that it learned from (see `Control.name`); empty for pretrained models.
        points: of a pose model, its keypoints.
        multiple: of a classify model, whether its classes go together (sigmoid instead of softmax).
        own: its classes are the labels of this project, not those of some pretrained model.
    """

    key: str
    task: Task
    classes: tuple[str, ...]
    controls: tuple[str, ...] = ()
    points: tuple[Keypoint, ...] = ()
    multiple: bool = False
    own: bool = True


def pixels_enough(tasks: Iterable[Task], image_size: int) -> int:
    """Pixels of an image's longer side that are enough for models of these tasks; 0: all that there are.

    Boxes and keypoints lose nothing that their input does not lose anyway. Outlines are drawn at the image's own
    size, and what is turned or squeezed should not depend on a decoder's rounding.

    Args:
        image_size: longer side of the largest input, in pixels.
    """
    return image_size if all(task in ("detect", "pose") for task in tasks) else 0


def task_of(control: Control, *, rotated: bool = False) -> Task:
    """What a control learns by; `rotated`: an annotation holds a turned box, and the config does not forbid it."""
    if control.kind in ("rectangle", "ellipse"):
        return "obb" if control.obb or (control.obb is None and rotated) else "detect"
    return SERVES[control.kind][0]


def plan(schema: LabelSchema, rotated: Callable[[Control], bool]) -> tuple[tuple[Network, tuple[Control, ...]], ...]:
    """The models that a version of this config consists of, each with the controls that teach it.

    Controls that a version is pinned to by `model_path` teach none.

    Args:
        rotated: whether an annotation holds a turned box of the control.
    """
    groups: dict[str, list[Control]] = {}
    tasks: dict[str, Task] = {}
    # A control on several images is one control: what is turned on one image makes it learn turned boxes on all.
    turned = {control.name for control in schema.controls if rotated(control)}
    for control in schema.controls:
        if control.pinned is not None:
            continue
        task = task_of(control, rotated=control.name in turned)
        key = f"{task}:{control.from_name}" if task in ("pose", "classify") else task
        if control.model_path:
            key += f"@{control.model_path}"
        groups.setdefault(key, []).append(control)
        tasks[key] = task
    return tuple((_network(key, tasks[key], controls), tuple(controls)) for key, controls in groups.items())


def _network(key: str, task: Task, controls: Sequence[Control]) -> Network:
    return Network(
        key=key,
        task=task,
        classes=tuple(dict.fromkeys(label for control in controls for label in control.labels)),
        controls=tuple(dict.fromkeys(control.name for control in controls)),
        points=controls[0].points,
        multiple=any(control.multiple for control in controls),
    )


def assign(schema: LabelSchema, networks: Sequence[Network]) -> tuple[tuple[Control, Network], ...]:
    """Which of a trained version's models suggests for which control; controls that none knows are left out.

    A control gets the newest model that learned from it, else the one that knows most of its labels; but no question
    gets the answers to another one that the config still asks. Of several drawing tags that share one Labels tag, those
    that nobody has drawn with get none, or the first if there is no other: objects would be suggested twice.

    Args:
        networks: the newest first, as a version lists them.
    """
    found: list[tuple[Control, Network]] = []
    asked = {control.name for control in schema.controls if task_of(control) in ("pose", "classify")}
    taught = {name for network in networks for name in network.controls}
    for control in schema.controls:
        fitting = [network for network in networks if network.task in SERVES[control.kind]]
        newest = next((network for network in fitting if control.name in network.controls), None)
        if newest is not None:
            found.append((control, newest))
            continue
        siblings = [each for each in schema.controls if each.shape_name and _siblings(each, control)]
        served = [each for each, _ in found]
        if any(each.name in taught or (each is not control and each in served) for each in siblings):
            continue
        knowing = [
            (len(map_classes(dict(enumerate(network.classes)), control, own=network.own)), network)
            for network in fitting
            if task_of(control) not in ("pose", "classify") or asked.isdisjoint(network.controls)
        ]
        shared, best = max(knowing, key=lambda pair: pair[0], default=(0, None))
        if shared and best is not None:
            found.append((control, best))
    return tuple(found)


def serves(schema: LabelSchema, newer: Sequence[Network], network: Network) -> bool:
    """Whether a trained model suggests for some control beside `newer` ones, which go before it."""
    free = LabelSchema(tuple(control for control in schema.controls if control.pinned is None))
    return any(found is network for _, found in assign(free, [*newer, network]))


def first_drawn(schema: LabelSchema) -> tuple[Control, ...]:
    """The controls that a pretrained model suggests for: of drawing tags that share a Labels tag only the first."""
    found: list[Control] = []
    for control in schema.controls:
        if not (control.shape_name and any(_siblings(control, each) for each in found)):
            found.append(control)
    return tuple(found)


def _siblings(left: Control, right: Control) -> bool:
    """Whether two drawing tags say the same with other shapes; points say something else than what outlines do."""
    same = (left.from_name, left.to_name) == (right.from_name, right.to_name)
    return same and (left.kind == "keypoint") == (right.kind == "keypoint")


def at_serving(control: Control, network: Network) -> Control:
    """The control as a model must take it: with the keypoints in the order in which the model learned them."""
    if control.kind != "keypoint" or not network.own:
        return control
    known = {point.label for point in control.points}
    return replace(control, points=tuple(point for point in network.points if point.label in known))
