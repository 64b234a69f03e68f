"""Objects as lines of YOLO's label files: class index, then numbers normalised to [0, 1] of the upright image.

detect `cls cx cy w h`; obb and segment `cls x1 y1 x2 y2 …`, a polygon; pose `cls cx cy w h x1 y1 v1 …`, where v
is 2 for a visible point and 0 for a missing one. One number outside of [0, 1] would cost ultralytics the image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.labels.geometry import Box, Detection, ImageSize, RotatedBox
from backend.labels.networks import Task
from backend.labels.outline import as_one_polygon

OKS_SIGMA = 0.1
"""Fall-off of the keypoint similarity, for every point alike, to train and to judge by.

COCO's seventeen have 0.067 on average, for people of whom thousands are known. ultralytics takes 1 / K of K points:
with four of them a point half a body away still counts for something, and the points never come to sit well.
"""


def label_line(task: Task, found: Detection, size: ImageSize, keypoints: int = 0) -> str | None:
    """One object's line, without its end; None when nothing of it lies on the image.

    Args:
        keypoints: of a pose model, how many it has.
    """
    if task in ("detect", "pose"):
        box = _centred(found.box, size)
        numbers = None if box is None else box + (_points(found, size, keypoints) if task == "pose" else [])
    elif task == "obb":
        numbers = _polygon(_clipped(found.rotated, size), size) if found.rotated else None
    elif task == "segment":
        outline = as_one_polygon(found.mask) if found.mask else None
        numbers = None if outline is None else _polygon(outline, size)
    else:
        raise ValueError(f"{task} has no label files")
    return None if numbers is None else " ".join([str(found.cls), *(f"{number:.8g}" for number in numbers)])


def class_names(classes: Sequence[str]) -> list[str]:
    """Names that ultralytics takes for as many classes: it minds neither case nor the space around a name, and takes
    names that are numbers in order for none at all."""
    numbers = all(name == str(index) for index, name in enumerate(classes))
    names: list[str] = []
    taken: set[str] = set()
    for index, label in enumerate(classes):
        name = f"{label} (class {index})" if numbers else label
        while name.strip().lower() in taken:
            name += f" (class {index})"
        taken.add(name.strip().lower())
        names.append(name)
    return names


def as_yaml(config: object) -> str:
    """JSON that is YAML as well, whatever characters a label has: YAML knows no pairs of surrogates, and JSON escapes
    only some of the characters that YAML forbids."""
    return _NO_YAML.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(config, ensure_ascii=False))


_NO_YAML = re.compile("[\x7f-\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def _centred(box: Box, size: ImageSize) -> list[float] | None:
    left, right = (min(max(x / size.width, 0.0), 1.0) for x in (box.x1, box.x2))
    top, bottom = (min(max(y / size.height, 0.0), 1.0) for y in (box.y1, box.y2))
    if not (right > left and bottom > top):  # NaN neither
        return None
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def _points(found: Detection, size: ImageSize, count: int) -> list[float]:
    numbers: list[float] = []
    for point in found.points[:count]:
        seen = point.score > 0
        numbers += [
            min(max(point.x / size.width, 0.0), 1.0) if seen else 0.0,
            min(max(point.y / size.height, 0.0), 1.0) if seen else 0.0,
            2.0 if seen else 0.0,
        ]
    return numbers + [0.0] * (3 * count - len(numbers))


def _clipped(box: RotatedBox, size: ImageSize) -> NDArray[np.float64]:
    """The part of a turned box that lies on the image, as a polygon; ultralytics turns it into a box again."""
    frame = np.array([[0, 0], [size.width, 0], [size.width, size.height], [0, size.height]], np.float32)
    area, polygon = cv2.intersectConvexConvex(box.corners().astype(np.float32), frame)
    return polygon.reshape(-1, 2).astype(np.float64) if area > 0 and polygon is not None else np.zeros((0, 2))


def _polygon(points: NDArray[np.float64], size: ImageSize) -> list[float] | None:
    if len(points) < 3:
        return None
    normalised: list[float] = np.clip(points / (size.width, size.height), 0.0, 1.0).ravel().tolist()
    return normalised
