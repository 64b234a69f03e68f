"""Whether an exported network still finds what its checkpoint finds on torch.

An export may serve when each object that torch suggests is there again: the sides of its box, the corners of a turned
one and its keypoints within `MOST_PIXELS`, its mask overlapping by `LEAST_OVERLAP`; and when the classes of an image
score the same within `MOST_SCORE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.labels.geometry import Detection, Mask, RotatedBox
from backend.labels.networks import Task
from backend.labels.overlap import shared_pixels

PRECISIONS = ("auto", "f32")
"""In which an export is tried: what the processor is fastest at, then as exact as torch."""

MOST_PIXELS = 1.0
"""How far a box's side, a corner or a keypoint may be from where torch has it, in pixels of the network's input."""

LEAST_OVERLAP = 0.95
"""How much of a mask (IoU) must be there again, unless what differs is a seam of `SEAM`."""

SEAM = 0.5
"""Width of what may differ all along a mask's outline, in pixels of the network's input: of a small mask that is
much."""

MOST_SCORE = 0.01
"""How much the score of an image's class may differ."""

MOST_METRIC = 0.002
"""How much mAP50, mAP50-95 and accuracy may differ."""

SUGGESTED = 0.25
"""Least score of the objects that are compared; those that nobody sees may differ."""

SLACK = 0.05
"""How much lower the score of the same object may be."""

SHOWN = 0.5
"""Least score of the keypoints that are compared."""


@dataclass(frozen=True, slots=True)
class Parity:
    """`objects` were compared, of which the worst was `pixels` away (infinite: one was missing), its mask overlapped
    by `overlap`, or its class scored `score` more or less; the metrics differed by `metric` (None: none was taken)."""

    objects: int
    pixels: float = 0.0
    overlap: float = 1.0
    score: float = 0.0
    metric: float | None = None

    @property
    def same(self) -> bool:
        return (
            self.pixels <= MOST_PIXELS
            and self.overlap >= LEAST_OVERLAP
            and self.score <= MOST_SCORE
            and (self.metric is None or self.metric <= MOST_METRIC)
        )

    def __add__(self, other: Parity) -> Parity:
        """What is known of both images; the metric is of all images and stays this one's."""
        return Parity(
            self.objects + other.objects,
            max(self.pixels, other.pixels),
            min(self.overlap, other.overlap),
            max(self.score, other.score),
            self.metric,
        )

    def __str__(self) -> str:
        said = [f"{self.objects} objects"]
        if self.pixels == float("inf"):
            said.append("one is missing")
        elif self.pixels:
            said.append(f"at most {self.pixels:.2f} pixels apart")
        if self.overlap < 1:
            said.append(f"masks overlap by {self.overlap:.3f}")
        if self.score:
            said.append(f"scores {self.score:.4f} apart")
        if self.metric is not None:
            said.append(f"metrics {self.metric:.4f} apart")
        return ", ".join(said)


def compare(
    task: Task,
    expected: Sequence[Sequence[Detection]],
    found: Sequence[Sequence[Detection]],
    gains: Sequence[float],
    *,
    least: float = SUGGESTED,
) -> Parity:
    """Compare what two engines found on the same images.

    Args:
        expected: what torch found on each image.
        found: what the export found there, with scores down to `SLACK` below `least`.
        gains: pixels of the network's input for one of each image.
        least: least score of the expected objects that count.
    """
    if task == "classify":
        pairs = [
            (each.score, {other.cls: other.score for other in there}.get(each.cls, 0.0))
            for here, there in zip(expected, found, strict=True)
            for each in here
        ]
        return Parity(len(pairs), score=max((abs(one - other) for one, other in pairs), default=0.0))
    objects, pixels, overlap = 0, 0.0, 1.0
    for here, there, gain in zip(expected, found, gains, strict=True):
        for each in here:
            if each.score < least:
                continue
            objects += 1
            same = [other for other in there if other.cls == each.cls and other.score >= least - SLACK]
            away = [gain * _apart(each, other) for other in same]
            pixels = max(pixels, min(away, default=float("inf")))
            # Boxes that reach beyond the image may be the same on it, with other masks.
            near = [other for other, far in zip(same, away, strict=True) if far <= MOST_PIXELS]
            overlap = min(overlap, max((_overlap(each, other, gain) for other in near), default=overlap))
    return Parity(objects, pixels, overlap)


def _apart(one: Detection, other: Detection) -> float:
    """Pixels of the image between the sides, corners and shown keypoints of two objects: the furthest."""
    if one.rotated is not None and other.rotated is not None:
        return _corners_apart(one.rotated, other.rotated)
    a, b = one.box, other.box
    furthest = max(abs(a.x1 - b.x1), abs(a.y1 - b.y1), abs(a.x2 - b.x2), abs(a.y2 - b.y2))
    points = zip(one.points, other.points, strict=True)
    return max([furthest, *(max(abs(p.x - q.x), abs(p.y - q.y)) for p, q in points if p.score >= SHOWN)])


def _corners_apart(one: RotatedBox, other: RotatedBox) -> float:
    """The furthest of four corners, whichever of them is called the first: a box may be turned by 90° more."""
    a, b = one.corners(), other.corners()
    return min(float(np.abs(a - np.roll(b, shift, axis=0)).max()) for shift in range(4))


def _overlap(one: Detection, other: Detection, gain: float) -> float:
    """IoU of two masks; 1 where all that differs is a seam."""
    a, b = one.mask, other.mask
    areas = sum(int(each.bits.sum()) for each in (a, b) if each is not None)
    shared = shared_pixels(a, b) if a is not None and b is not None else 0
    differ = areas - 2 * shared
    outline = max((_outline(each) for each in (a, b) if each is not None), default=0)
    return 1.0 if differ * gain <= SEAM * outline else shared / (areas - shared)


def _outline(mask: Mask) -> int:
    """Pixels around a mask's cut-out."""
    return 2 * sum(mask.bits.shape)
