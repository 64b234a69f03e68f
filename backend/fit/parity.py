"""Whether a network exported for another engine still finds what its checkpoint finds.

An export may serve when each box that torch suggests is there again, within `MOST_PIXELS`, and the metrics on the
hold-out are the same within `MOST_METRIC`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.fit.evaluate import Measured, measured
from backend.labels.geometry import Detection
from backend.labels.networks import Network
from backend.predict.engine.base import Detector, Image
from backend.predict.engine.openvino import OpenVinoDetector, export

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "f32")
"""In which an export is tried: what the processor is fastest at, then as exact as torch."""

COMPARED = 50
"""Images on which an export is compared with torch, box by box."""

MOST_PIXELS = 1.0
"""How far a side of a box may be from where torch has it, in pixels of the network's input."""

MOST_METRIC = 0.002
"""How much mAP50 and mAP50-95 may differ."""

SUGGESTED = 0.25
"""Least score of the boxes that are compared; those that nobody sees may differ."""

SLACK = 0.05
"""How much lower the score of the same box may be."""


@dataclass(frozen=True, slots=True)
class Parity:
    """`boxes` were compared, of which the worst was `pixels` away (infinite: one was missing)."""

    boxes: int
    pixels: float
    metric: float

    @property
    def same(self) -> bool:
        return self.pixels <= MOST_PIXELS and self.metric <= MOST_METRIC

    def __str__(self) -> str:
        pixels = "one is missing" if self.pixels == float("inf") else f"at most {self.pixels:.2f} pixels apart"
        return f"{self.boxes} boxes, {pixels}, metrics {self.metric:.4f} apart"


@dataclass(frozen=True, slots=True)
class Exported:
    """In which precision an export may serve ('': not at all), and what a person may want to know of it."""

    precision: str = ""
    note: str = ""


def exported(
    weights: Path,
    network: Network,
    images: Sequence[Image],
    truths: Sequence[Sequence[Detection]],
    candidate: Measured | None,
    *,
    image_size: int,
    max_regions: int,
    threads: int,
) -> Exported:
    """Export a network for boxes beside its checkpoint, as `.xml` and `.bin`, and check it.

    Nothing that goes wrong here may cost a training: torch can serve all that it trained.

    Args:
        images: to compare on.
        truths: the objects on them, when torch was measured on them.
        candidate: what torch scored there; None: only boxes are compared.
    """
    from backend.predict.engine.torch import TorchDetector

    options: dict[str, Any] = {"names": network.classes, "image_size": image_size, "max_regions": max_regions}
    try:
        path = weights.with_suffix(".xml")
        export(weights, path)
        torch = TorchDetector(weights, whole=True, device="cpu", **options)
        labels = {index: index for index in range(len(network.classes))}
        for precision in PRECISIONS:
            detector = OpenVinoDetector(path, precision=precision, threads=threads, **options)
            theirs = None if candidate is None else (candidate, measured(detector, labels, images, truths, network))
            parity = compare(torch, detector, images[:COMPARED], image_size, theirs)
            log.info("OpenVINO (%s) against torch: %s", precision, parity)
            if parity.same:
                return Exported(precision, f"OpenVINO ({precision}) finds what torch finds: {parity}")
        note = f"torch serves it, for its export finds other boxes: {parity}"
        log.warning("%s: %s", network.key, note)
    except Exception as error:
        note = f"torch serves it, for it could not be exported ({type(error).__name__})"
        log.exception("%s: %s", network.key, note)
    return Exported("", note)


def compare(
    reference: Detector,
    other: Detector,
    images: Sequence[Image],
    image_size: int,
    measured: tuple[Measured, Measured] | None = None,
) -> Parity:
    """Compare two detectors for boxes.

    Args:
        images: any; best those that neither has learned from.
        image_size: longer side of the networks' input, in pixels.
        measured: what each of them scored on a hold-out, if there is one.
    """
    boxes, furthest = 0, 0.0
    for image in images:
        (expected,), (found,) = reference.detect([image], SUGGESTED), other.detect([image], SUGGESTED - SLACK)
        gain = image_size / max(image.shape[:2])
        boxes += len(expected)
        furthest = max([furthest, *(gain * _nearest(each, found) for each in expected)])
    metric = 0.0
    if measured is not None:
        one, two = (each.metrics for each in measured)
        metric = max((abs(one[name] - two[name]) for name in ("mAP50", "mAP50-95") if name in one), default=0.0)
    return Parity(boxes, furthest, metric)


def _nearest(expected: Detection, found: Sequence[Detection]) -> float:
    """Pixels of the image between a box and the likeliest other of its class."""
    return min((_apart(expected, each) for each in found if each.cls == expected.cls), default=float("inf"))


def _apart(one: Detection, other: Detection) -> float:
    a, b = one.box, other.box
    return max(abs(a.x1 - b.x1), abs(a.y1 - b.y1), abs(a.x2 - b.x2), abs(a.y2 - b.y2))
