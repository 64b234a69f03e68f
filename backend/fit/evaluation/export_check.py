"""Export of a network that was just trained, and the proof that it serves as torch would.

Beside what `backend.engine.parity` compares, the metrics on the hold-out must be the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend.engine.detector import Detector, Image
from backend.engine.export import export
from backend.engine.openvino import OpenVinoDetector
from backend.engine.parity import PRECISIONS, SLACK, SUGGESTED, Parity, compare
from backend.errors import unwritable
from backend.fit.evaluation.metrics import LOWEST, Measured, Tally
from backend.labels.geometry import Detection
from backend.labels.networks import Network
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


class ExportCheck:
    """The export of a network that was just trained, looked at beside torch image by image: nothing is kept of one.

    Nothing that goes wrong here may cost a training: torch can serve all that it trained. Only what a full disk makes
    of it is raised, as the training goes on when there is room.

    Args:
        weights: the checkpoint; the export is written beside it, as `.xml` and `.bin`.
        torch: finds the objects of an image, of any score.
        image_size, max_regions: as the network is served.
        threads: of the processor.
    """

    def __init__(
        self,
        weights: Path,
        network: Network,
        torch: Callable[[Image], Sequence[Detection]],
        *,
        image_size: int,
        max_regions: int,
        threads: int,
    ) -> None:
        self._weights, self._network, self._torch, self._size = weights, network, torch, image_size
        self._options: dict[str, Any] = {
            "names": network.classes,
            "multiple": network.multiple,
            "whole": True,
            "image_size": image_size,
            "max_regions": max_regions,
            "threads": threads,
        }
        self._note = ""
        self._left = list(PRECISIONS)
        self._try: _Try | None = None
        with self._harmless():
            export(weights, weights.with_suffix(".xml"))
            self._next()

    @property
    def trying(self) -> bool:
        """Whether there is a precision that may do."""
        return self._try is not None

    @property
    def promising(self) -> bool:
        """Whether the next image could still tell anything about the precision that is tried."""
        return self._try is not None and self._try.promising

    def look(self, image: Image, truth: Sequence[Detection] | None, found: Sequence[Detection] | None = None) -> None:
        """Look at one more image with the precision that is tried.

        Args:
            truth: the objects on it; None: they are not known, and only what is found is compared.
            found: what torch finds on it; None: torch is asked, on the first `COMPARED` images.
        """
        if self._try is not None and self._try.promising:
            with self._harmless():
                self._try.look(image, truth, found)

    def same(self, candidate: Tally | None) -> bool:
        """Whether the precision that is tried finds what torch finds on all images so far; else the next one is up.

        Args:
            candidate: what torch made of the held-out images; None: there are none.
        """
        if self._try is None:
            return False
        with self._harmless():
            parity = self._try.parity(candidate)
            log.info("%s: OpenVINO (%s) against torch: %s", self._network.key, self._try.precision, parity)
            if parity.same:
                self._note = f"OpenVINO ({self._try.precision}) finds what torch finds: {parity}"
                return True
            self._note = f"torch serves it, for its export finds something else: {parity}"
            self._next()
            if self._try is None:
                log.warning("%s: %s", self._network.key, self._note)
        return False

    @property
    def result(self) -> Exported:
        """What was found out: of the precision for which `same` was true, if there was one."""
        return Exported(self._try.precision if self._try is not None else "", self._note)

    def _next(self) -> None:
        """Go on to the next precision, if there is one."""
        self._try = None
        if self._left:
            precision = self._left.pop(0)
            detector = OpenVinoDetector(self._weights.with_suffix(".xml"), precision=precision, **self._options)
            self._try = _Try(precision, detector, self._torch, self._network, self._size)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if unwritable(error) or trouble(self._weights.parent):
                raise  # once there is room, it is exported
            self._try = None
            self._note = f"torch serves it, for it could not be exported ({type(error).__name__})"
            log.exception("%s: %s", self._network.key, self._note)


class _Try:
    """One precision, and what it made of the images so far."""

    def __init__(
        self,
        precision: str,
        detector: Detector,
        torch: Callable[[Image], Sequence[Detection]],
        network: Network,
        image_size: int,
    ) -> None:
        self.precision, self._detector, self._torch = precision, detector, torch
        self._task, self._size = network.task, image_size
        self._images = 0
        self._compared = Parity(0)
        self._tally = Tally(network, {index: index for index in range(len(network.classes))})

    @property
    def promising(self) -> bool:
        """False once it is to be given up: all other images cannot mend what it finds on the first ones."""
        return self._images < GLANCED or self._compared.same

    def look(self, image: Image, truth: Sequence[Detection] | None, found: Sequence[Detection] | None) -> None:
        """See `ExportCheck.look`."""
        here = self._detector.detect([image], SUGGESTED - SLACK if truth is None else LOWEST)[0]
        if truth is not None:
            self._tally.add(here, truth)
        if self._images < COMPARED:
            there = self._torch(image) if found is None else found
            self._compared += compare(self._task, [there], [here], [self._size / max(image.shape[:2])])
        self._images += 1

    def parity(self, candidate: Tally | None) -> Parity:
        """Of all images so far; the metrics are compared where both saw the same ones."""
        if candidate is None or candidate.images != self._tally.images:
            return self._compared
        return replace(self._compared, metric=_differ(candidate.measured(), self._tally.measured()))


def _differ(one: Measured, other: Measured) -> float:
    """The furthest that two of the deciding metrics are apart."""
    names = [name for name in METRICS if name in one.metrics]
    return max((abs(one.metrics[name] - other.metrics.get(name, 0.0)) for name in names), default=0.0)
