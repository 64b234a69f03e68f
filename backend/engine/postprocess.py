"""What networks find as objects in pixels of the upright image: from rows of numbers, and from ultralytics' results;
and the two predictors that differ from ultralytics' own.

What is not a finite number is left out: a model that has diverged finds nothing rather than nonsense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.labels.geometry import Box, Detection, Mask, Point, RotatedBox
from backend.labels.networks import Task


def read(task: Task, result: Any) -> list[Detection]:
    """The objects of one of ultralytics' `Results`, by descending score."""
    found = sorted(_READ[task](result), key=lambda each: -each.score)
    return [each for each in found if math.isfinite(each.score)]


def predictor(task: Task, *, multiple: bool) -> type[Any] | None:
    """What `YOLO.predict` must use in place of its own predictor; None: nothing."""
    if task == "segment":
        return _mask_predictor()
    return _sigmoid_predictor() if task == "classify" and multiple else None


def boxed(rows: NDArray[np.float64]) -> list[Detection]:
    """Rows of left, top, right, bottom in pixels, score and class as objects."""
    return [_object(row) for row in _numbers(rows)]


def turned(rows: NDArray[np.float64]) -> list[Detection]:
    """Rows of centre, width, height in pixels, angle in radians, score and class as objects."""
    found = []
    for cx, cy, width, height, angle, score, cls in _numbers(rows).tolist():
        around = RotatedBox(cx, cy, width, height, math.degrees(angle))
        corners = around.corners()
        box = Box(*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
        found.append(Detection(int(cls), _clamped(score), box, rotated=around))
    return found


def outlined(rows: NDArray[np.float64], masks: Sequence[Mask | None]) -> list[Detection]:
    """Rows as `boxed` takes them, each with its mask."""
    return [replace(_object(row), mask=mask) for row, mask in zip(rows, masks, strict=True) if np.isfinite(row).all()]


def skeletons(rows: NDArray[np.float64], points: NDArray[np.float64]) -> list[Detection]:
    """Rows as `boxed` takes them, each with its keypoints: (rows, points, 2 or 3), x and y in pixels, score."""
    return [
        replace(_object(row), points=tuple(_point(each) for each in skeleton))
        for row, skeleton in zip(rows, points, strict=True)
        if np.isfinite(row).all()
    ]


def choices(scores: NDArray[np.float64], height: int, width: int) -> list[Detection]:
    """Scores of the classes of an image of that size, each as an object."""
    return [
        Detection(cls, _clamped(score), Box(0, 0, width, height))
        for cls, score in enumerate(scores.tolist())
        if math.isfinite(score)
    ]


def _object(row: NDArray[np.float64]) -> Detection:
    x1, y1, x2, y2, score, cls = row[:6].tolist()
    return Detection(int(cls), _clamped(score), Box(x1, y1, x2, y2))


def _point(numbers: NDArray[np.float64]) -> Point:
    if not np.isfinite(numbers).all():
        return Point(0.0, 0.0, 0.0)
    x, y, *score = numbers.tolist()
    return Point(x, y, _clamped(score[0]) if score else 1.0)


def _numbers(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows[np.isfinite(rows).all(axis=1)]


def _clamped(score: float) -> float:
    return min(1.0, max(0.0, score))


def _array(found: Any) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = found.data.double().cpu().numpy()
    return numbers


_READ: dict[Task, Callable[[Any], list[Detection]]] = {
    "detect": lambda result: boxed(_array(result.boxes)),
    "obb": lambda result: turned(_array(result.obb)),
    "segment": lambda result: outlined(_array(result.boxes), result.cutouts),
    "pose": lambda result: skeletons(_array(result.boxes), _array(result.keypoints)),
    "classify": lambda result: choices(_array(result.probs), *result.orig_shape),
}


@cache
def _mask_predictor() -> type[Any]:
    from ultralytics.engine.results import Results
    from ultralytics.models.yolo.segment import SegmentationPredictor
    from ultralytics.utils.ops import scale_boxes

    class CutoutPredictor(SegmentationPredictor):  # type: ignore[misc]
        """Scales each mask inside its own box only: whole masks of many objects fill gigabytes on large images."""

        def construct_result(self, pred: Any, img: Any, orig_img: Any, img_path: str, proto: Any) -> Any:
            channels, rows, columns = proto.shape
            values = (pred[:, 6:] @ proto.float().view(channels, -1)).view(-1, rows, columns).cpu().numpy()
            pred[:, :4] = scale_boxes(img.shape[2:], pred[:, :4], orig_img.shape)
            result = Results(orig_img, path=img_path, names=self.model.names, boxes=pred[:, :6])
            boxes = pred[:, :4].cpu().numpy()
            result.cutouts = [
                cutout(value, box, orig_img.shape[:2], img.shape[2:]) for value, box in zip(values, boxes, strict=True)
            ]
            return result

    return CutoutPredictor


def cutout(
    values: NDArray[np.float32], box: NDArray[np.float32], image: tuple[int, int], network: tuple[int, int]
) -> Mask | None:
    """A mask at the image's own size, inside its box; None when it is empty.

    Args:
        values: the network's mask, positive on the object; it covers the letterboxed input, at a lower resolution.
        box: left, top, right, bottom in pixels of the image.
        image: height and width of the image.
        network: height and width of the network's input, padding included.
    """
    if not np.isfinite(box).all():
        return None
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(image[1], math.ceil(box[2])), min(image[0], math.ceil(box[3]))
    if right <= left or bottom <= top:
        return None
    gain = min(network[0] / image[0], network[1] / image[1])
    pad = [round((network[axis] - round(image[axis] * gain)) / 2 - 0.1) for axis in (0, 1)]  # as ultralytics pads
    down, across = values.shape[0] / network[0], values.shape[1] / network[1]
    # Pixel centres of the cut-out -> of the image -> of the input -> of the values.
    sample = np.array(
        [
            [gain * across, 0, ((left + 0.5) * gain + pad[1]) * across - 0.5],
            [0, gain * down, ((top + 0.5) * gain + pad[0]) * down - 0.5],
        ]
    )
    sampled = cv2.warpAffine(
        values,
        sample,
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    bits: NDArray[np.bool_] = sampled > 0
    return Mask(left, top, bits) if bits.any() else None


@cache
def _sigmoid_predictor() -> type[Any]:
    from ultralytics.engine.results import Results
    from ultralytics.models.yolo.classify import ClassificationPredictor

    class SigmoidPredictor(ClassificationPredictor):  # type: ignore[misc]
        """Scores each class for itself: the network was trained one class against the rest."""

        def postprocess(self, preds: Any, img: Any, orig_imgs: Any) -> Any:
            scores = preds[1].float().sigmoid()
            return [
                Results(image, path=path, names=self.model.names, probs=score)
                for score, image, path in zip(scores, orig_imgs, self.batch[0], strict=True)
            ]

    return SigmoidPredictor
