"""The last layer of a network, which tells its classes apart: a row of weights for each class."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from backend.engine.detector import Detector
from backend.labels.geometry import Box, Detection
from backend.labels.networks import Task
from backend.labels.overlap import iou

log = logging.getLogger(__name__)

SAME = 0.5
"""Intersection over union from which a detection is of the annotated object."""

LEAST = 0.05
"""Score from which a class of the base model says something about an object."""

FIRST = 24
"""Annotated images that are looked at: two seconds on two cores, and more would not change what most of them say."""

Firing = Mapping[int, Mapping[int, float]]
"""Class that is to be learned → class of the base model → the scores that it gave to annotated objects of the former,
added up."""


def rows_of(labels: Sequence[str], known: Mapping[int, str], names: Mapping[int, str], fired: Firing) -> list[int]:
    """Which row of a trained head each label starts from; -1 for none.

    A label's own classes come first: of several the one that fires most on its objects, else the one of its name. A
    label that the model does not know starts from any class that fires on its objects.

    Args:
        labels: what is to be learned, by index.
        known: class of the model → label, for the classes that have one.
        names: the model's classes.
        fired: what the model makes of the annotated objects.
    """
    rows = []
    for index, label in enumerate(labels):
        scores = fired.get(index, {})
        own = [row for row, named in sorted(known.items()) if named == label]
        if own:
            rows.append(max(own, key=lambda row: (scores.get(row, 0.0), names.get(row) == label)))
        else:
            rows.append(max(sorted(scores), key=lambda row: scores[row], default=-1))
    return rows


def undecided(labels: Sequence[str], known: Mapping[int, str]) -> list[int]:
    """Indexes of the labels for which `rows_of` asks what fires."""
    counts = [list(known.values()).count(label) for label in labels]
    return [index for index, count in enumerate(counts) if count != 1]


def fired_on(detector: Detector, images: Iterable[Path], classes: Sequence[int]) -> dict[int, dict[int, float]]:
    """What a model makes of the first annotated objects of some classes; see `Firing`.

    Args:
        images: prepared ones, with their label files where ultralytics looks for them.
        classes: that are asked about.
    """
    from ultralytics.data.utils import img2label_paths

    found: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    looked = 0
    for image in images:
        lines = _lines(Path(img2label_paths([str(image)])[0]))
        if looked >= FIRST or not any(int(line[0]) in classes for line in lines):
            continue
        pixels = cv2.imread(str(image))
        if pixels is None:
            continue
        looked += 1
        height, width = pixels.shape[:2]
        truths = [Detection(int(line[0]), 1.0, _box(line[1:], detector.task, width, height)) for line in lines]
        # The detections are of a model that says much of the rest of the image, too.
        (detections,) = detector.detect([pixels], conf=LEAST)
        if not detections:
            continue
        for truth, overlaps in zip(truths, iou(truths, detections), strict=True):
            best: dict[int, float] = {}
            for each, overlap in zip(detections, overlaps, strict=True):
                if overlap >= SAME:
                    best[each.cls] = max(best.get(each.cls, 0.0), each.score)
            if truth.cls in classes:
                for row, score in best.items():
                    found[truth.cls][row] += score
    return {index: dict(scores) for index, scores in found.items()}


def lay_rows(network: Any, rows: Sequence[int], names: Sequence[str]) -> bool:
    """Give a trained network the classes of these names, each with the weights of a row that it has, or new ones.

    Args:
        network: ultralytics' model in torch; its head is changed in place.
        rows: of the head as it is, one for each name; -1: weights as before any training.

    Returns:
        Whether it was done. A head that compares with texts has no rows; it stays as it is.
    """
    import torch
    from ultralytics.nn.modules import Detect

    head = network.model[-1]
    if not isinstance(head, Detect) or any(branch[-1].out_channels != head.nc for branch in head.cv3):
        return False
    strides = [float(stride) for stride in head.stride]
    layers: list[tuple[Any, float | None]] = [
        (branch, math.log(5 / len(names) / (640 / stride) ** 2))  # as ultralytics begins
        for kind in ("cv3", "one2one_cv3")
        for branch, stride in zip(getattr(head, kind, None) or (), strides, strict=False)
    ]
    masks = getattr(getattr(head, "proto", None), "semseg", None)
    if masks is not None and masks[-1].out_channels == head.nc:
        layers.append((masks, None))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a training that is begun again begins with the same
        for branch, bias in layers:
            branch[-1] = _with_rows(branch[-1], rows, bias)
    head.no += len(names) - head.nc
    head.nc = network.nc = network.yaml["nc"] = len(names)
    network.names = dict(enumerate(names))
    return True


def _with_rows(old: Any, rows: Sequence[int], bias: float | None) -> Any:
    import torch
    from torch import nn

    new: Any = nn.Conv2d(old.in_channels, len(rows), 1).to(old.weight.device, old.weight.dtype)
    with torch.no_grad():
        if bias is not None:
            new.bias.fill_(bias)
        for index, row in enumerate(rows):
            if 0 <= row < old.out_channels:
                new.weight[index] = old.weight[row]
                new.bias[index] = old.bias[row]
    for mine, before in zip(new.parameters(), old.parameters(), strict=True):
        mine.requires_grad_(before.requires_grad)
    return new


def _lines(path: Path) -> list[list[float]]:
    try:
        return [[float(part) for part in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except OSError:
        return []


def _box(numbers: Sequence[float], task: Task, width: int, height: int) -> Box:
    """What bounds an object of a label file."""
    if task in ("detect", "pose"):
        x, y, w, h = numbers[:4]
        return Box((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    across, down = numbers[0::2], numbers[1::2]
    return Box(min(across) * width, min(down) * height, max(across) * width, max(down) * height)
