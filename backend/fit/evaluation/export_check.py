"""Export of a network that was just trained, and the proof that it serves as torch would.

Beside what `backend.engine.parity` compares, the metrics on the hold-out must be the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.engine.detector import Detector, Image
from backend.engine.export import export
from backend.engine.openvino import OpenVinoDetector
from backend.engine.parity import PRECISIONS, SLACK, SUGGESTED, Parity, compare
from backend.errors import unwritable
from backend.fit.evaluation.metrics import Measured, measured
from backend.labels.geometry import Detection
from backend.labels.networks import Network, Task
from backend.processes.room import trouble

log = logging.getLogger(__name__)

COMPARED = 50
"""Images on which an export is compared with torch, object by object."""

GLANCED = 5
"""Images after which a precision that finds something else on them is given up: all the others cannot mend that."""

METRICS = ("mAP50", "mAP50-95", "accuracy")


@dataclass(frozen=True, slots=True)
class Exported:
    """In which precision an export may serve ('': not at all), and what a person may want to know of it."""

    precision: str = ""
    note: str = ""


class Keeping:
    """A detector that keeps what a person would see of what it finds, on the first `COMPARED` images: see `Detector`.

    What is measured need not be found once more to be compared.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.names: Mapping[int, str] = detector.names
        self.task: Task = detector.task
        self.batch = detector.batch
        self.found: list[list[Detection]] = []

    def detect(self, images: Sequence[Image], conf: float, most: int | None = None) -> list[list[Detection]]:
        found = self._detector.detect(images, conf, most)
        least = 0.0 if self.task == "classify" else SUGGESTED - SLACK
        for each in found[: COMPARED - len(self.found)]:
            self.found.append([one for one in each if one.score >= least])
        return found

    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        return self._detector.embed(images)

    def warm(self) -> None:
        self._detector.warm()


def exported(
    weights: Path,
    network: Network,
    images: Sequence[Image],
    truths: Sequence[Sequence[Detection]],
    candidate: Measured | None,
    seen: Sequence[Sequence[Detection]] | None,
    *,
    image_size: int,
    max_regions: int,
    threads: int,
) -> Exported:
    """Export a network beside its checkpoint, as `.xml` and `.bin`, and check it.

    Nothing that goes wrong here may cost a training: torch can serve all that it trained. Only what a full disk makes
    of it is raised, as the training goes on when there is room.

    Args:
        images: to compare on.
        truths: the objects on them, when torch was measured on them.
        candidate: what torch scored there; None: only objects are compared.
        seen: what torch found on the first `COMPARED` images; None: that is found here.
    """
    from backend.engine.torch import TorchDetector

    options: dict[str, Any] = {
        "names": network.classes,
        "multiple": network.multiple,
        "whole": True,
        "image_size": image_size,
        "max_regions": max_regions,
    }
    try:
        path = weights.with_suffix(".xml")
        export(weights, path)
        if seen is None:
            torch = Keeping(TorchDetector(weights, device="cpu", **options))
            _look(torch, images)
            seen = torch.found
        gains = [image_size / max(image.shape[:2]) for image in images[:COMPARED]]
        for precision in PRECISIONS:
            detector = OpenVinoDetector(path, precision=precision, threads=threads, **options)
            glance = Keeping(detector)
            _look(glance, images[:GLANCED])
            parity = compare(network.task, seen[:GLANCED], glance.found, gains[:GLANCED])
            if parity.same:
                parity = _whole(detector, network, images, truths, candidate, seen, gains)
            log.info("%s: OpenVINO (%s) against torch: %s", network.key, precision, parity)
            if parity.same:
                return Exported(precision, f"OpenVINO ({precision}) finds what torch finds: {parity}")
        note = f"torch serves it, for its export finds something else: {parity}"
        log.warning("%s: %s", network.key, note)
    except Exception as error:
        if unwritable(error) or trouble(weights.parent):
            raise  # once there is room, it is exported
        note = f"torch serves it, for it could not be exported ({type(error).__name__})"
        log.exception("%s: %s", network.key, note)
    return Exported("", note)


def _whole(
    detector: Detector,
    network: Network,
    images: Sequence[Image],
    truths: Sequence[Sequence[Detection]],
    candidate: Measured | None,
    seen: Sequence[Sequence[Detection]],
    gains: Sequence[float],
) -> Parity:
    """All images, and what is measured on them: see `exported`."""
    keeping = Keeping(detector)
    if candidate is None:
        _look(keeping, images)
        return compare(network.task, seen, keeping.found, gains)
    labels = {index: index for index in range(len(network.classes))}
    metric = _differ(candidate, measured(keeping, labels, images, truths, network))
    return replace(compare(network.task, seen, keeping.found, gains), metric=metric)


def _look(detector: Detector, images: Sequence[Image]) -> None:
    for image in images[:COMPARED]:
        detector.detect([image], SUGGESTED - SLACK)


def _differ(one: Measured, other: Measured) -> float:
    """The furthest that two of the deciding metrics are apart."""
    names = [name for name in METRICS if name in one.metrics]
    return max((abs(one.metrics[name] - other.metrics.get(name, 0.0)) for name in names), default=0.0)
