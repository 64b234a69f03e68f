"""Of candidates for one object only the best stays: as ultralytics suppresses, without torch."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.labels.overlap import probiou

IOU = 0.7
"""Overlap above which the lower-scored of two candidates of one class goes: ultralytics' default for prediction."""

MOST_CANDIDATES = 30_000
"""Candidates that suppression looks at, as in ultralytics."""

AT_ONCE = 2**20
"""Pairs of turned boxes whose distance is looked at in one go, which bounds the memory."""

Rows = NDArray[np.float32]


def best(found: Rows, conf: float) -> Rows:
    """Of an end-to-end head's (n, 6 + more) those that score enough, by descending score."""
    chosen = found[(found[:, 4] >= conf) & np.isfinite(found[:, :6]).all(axis=1)]
    return chosen[np.argsort(-chosen[:, 4], kind="stable")]


def suppress(found: Rows, conf: float, classes: int, *, turned: bool = False) -> Rows:
    """Each candidate with its best class, without what overlaps a better one of that class; by descending score.

    Args:
        found: (4 + classes + more, candidates): centre, width and height, the classes' scores, and what else the head
            gives.
        turned: the last row is an angle in radians, by which the box is turned.

    Returns:
        (n, 6 + more): left, top, right and bottom, or of turned boxes centre, width and height; score, class, more.
    """
    scores = found[4 : 4 + classes].max(axis=0)
    kept = np.flatnonzero(scores >= conf)
    kept = kept[np.isfinite(found[: 4 + classes, kept]).all(axis=0)]
    kept = kept[np.argsort(-scores[kept], kind="stable")[:MOST_CANDIDATES]]
    boxes, more, scores = found[:4, kept].T, found[4 + classes :, kept].T, scores[kept]
    labels = found[4 : 4 + classes, kept].argmax(axis=0)
    if turned:
        stays = _stays(np.concatenate([boxes, more[:, -1:]], axis=1), labels)
    else:
        corner = boxes[:, :2] - boxes[:, 2:] / 2
        stays = np.asarray((boxes[:, 2:] <= 0).any(axis=1))  # what covers nothing overlaps nothing
        full = np.flatnonzero(~stays)
        if len(full):
            sides = np.concatenate([corner, boxes[:, 2:]], axis=1)[full]
            chosen = cv2.dnn.NMSBoxesBatched(sides.tolist(), scores[full].tolist(), labels[full].tolist(), 0.0, IOU)
            stays[full[chosen]] = True
        boxes = np.concatenate([corner, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    rows = np.concatenate([boxes, scores[:, None], labels[:, None].astype(np.float32), more], axis=1)
    left: Rows = rows[stays]
    return left


def _stays(boxes: Rows, classes: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which turned boxes, given by descending score, do not overlap a better one, be it suppressed itself.

    Boxes that overlap so much are near each other: (distance / 2)² is at most the overlap's Bhattacharyya distance
    times the sum of the boxes' larger variances. Only such pairs are looked at closely.
    """
    stays = np.ones(len(boxes), bool)
    near = -4 * np.log(1 - (1 - IOU) ** 2) * 1.01 / 12
    for cls in np.unique(classes):
        members = np.flatnonzero(classes == cls)
        x, y, reach = boxes[members, 0], boxes[members, 1], boxes[members, 2:4].max(axis=1) ** 2 * near
        step = max(1, AT_ONCE // len(members))
        for start in range(0, len(members), step):
            rows = slice(start, start + step)
            distance = (x[rows, None] - x) ** 2 + (y[rows, None] - y) ** 2
            lower, upper = np.nonzero(distance <= reach[rows, None] + reach)
            lower += start
            lower, upper = lower[upper < lower], upper[upper < lower]
            overlap = probiou(boxes[members[lower]], boxes[members[upper]])
            stays[members[lower[overlap > IOU]]] = False
    return stays
