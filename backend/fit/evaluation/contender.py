"""One of the models that are measured: loaded, with its classes taken for the labels of the network that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backend.engine.torch import TorchDetector
from backend.fit.evaluation.metrics import LOWEST, Measured, Tally
from backend.fit.training.spec import NetworkSpec, Spec, labels_of
from backend.labels.geometry import Detection
from backend.labels.networks import Network
from backend.served_models.parts import network_from

if TYPE_CHECKING:
    from backend.engine.detector import Image


class Contender:
    """A checkpoint, and what it makes of the images that it is shown.

    Args:
        todo: what is trained, and with which labels.
        weights: the checkpoint.
        size: its input, in pixels.
        known: what it is.
    """

    def __init__(self, spec: Spec, todo: NetworkSpec, weights: str, size: int, known: Network) -> None:
        self._detector = TorchDetector(
            Path(weights),
            names=known.classes if known.own else None,
            multiple=known.multiple,
            whole=known.own,
            device=spec.device,
            image_size=size,
            max_regions=spec.max_regions,
        )
        network = network_from(todo.network)
        index = {label: position for position, label in enumerate(network.classes)}
        found = labels_of(self._detector.names, todo, spec, own=known.own)
        labels = {cls: index[label] for cls, label in found.items()}
        points = None
        if known.own and known.points:
            theirs = {point.label: point.index for point in known.points}
            points = {point.index: theirs[point.label] for point in network.points if point.label in theirs}
        task = self._detector.task
        self._blind = not labels or (task != network.task and (network.task != "detect" or task == "classify"))
        self._tally = Tally(network, labels, points, blind=self._blind)

    def find(self, image: Image) -> Sequence[Detection]:
        """What it finds on an image, in its own classes, of scores from `LOWEST` on."""
        return self._detector.detect([image], LOWEST)[0]

    def look(self, image: Image, truth: Sequence[Detection]) -> Sequence[Detection]:
        """As `find`, for an image that counts; where it cannot find any of the labels, it finds nothing.

        Args:
            truth: the objects on it.
        """
        found = [] if self._blind else self.find(image)
        self._tally.add(found, truth)
        return found

    @property
    def tally(self) -> Tally:
        """What it made of the images that count."""
        return self._tally

    def measured(self) -> Measured:
        """Its metrics on them."""
        return self._tally.measured()
