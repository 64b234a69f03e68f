"""One of the models that are measured: loaded, with its classes taken for the labels of the network that is trained."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backend.engine.torch import TorchDetector
from backend.fit.evaluation.bootstrap import Objects
from backend.fit.evaluation.metrics import LOWEST, Measured, Tally
from backend.fit.evaluation.shown import Shown
from backend.fit.evaluation.thresholds import GRID, left_out_thresholds
from backend.fit.training.spec import NetworkSpec, Spec, labels_of
from backend.labels.geometry import Detection
from backend.labels.networks import Network
from backend.labels.schema import parse_label_config
from backend.served_models.parts import network_from
from backend.settings import ActionSeconds

if TYPE_CHECKING:
    from backend.engine.detector import Image


LOWEST_SHOWN = float(GRID[0])
"""Least score that a threshold may be."""


class Contender:
    """A checkpoint, and what it makes of the images that it is shown.

    Args:
        todo: what is trained, and with which labels.
        weights: the checkpoint.
        size: its input, in pixels.
        known: what it is.
        learns: whether it serves at thresholds of its own, which the images themselves say: see `settle`.
    """

    def __init__(
        self, spec: Spec, todo: NetworkSpec, weights: str, size: int, known: Network, *, learns: bool = False
    ) -> None:
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
        self._blind = not labels or (
            task != network.task and (network.task not in ("detect", "obb") or task == "classify")
        )
        self._shown = shown_of(spec, network)
        self._learns = learns and network.task != "classify"
        self._costs = ActionSeconds(**spec.action_seconds)
        self._floor = floor_of(spec, network)
        lowest = replace(self._shown, thresholds=(LOWEST_SHOWN,) * len(network.classes)) if self._learns else None
        self._tally = Tally(network, labels, points, blind=self._blind, shown=lowest or self._shown)

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

    def settle(self, groups: Sequence[Hashable]) -> None:
        """After the last image: find the thresholds at which it would serve, each image's by those of other groups.

        Args:
            groups: of each image that counts.
        """
        evidence = self._tally.evidence()
        if not self._learns or not isinstance(evidence, Objects):
            return
        network = self._shown.network
        usual = self._shown.thresholds
        least = left_out_thresholds(evidence, len(network.classes), network.task, self._costs, groups, usual)
        self._tally.show_from(np.maximum(least, self._floor))

    @property
    def tally(self) -> Tally:
        """What it made of the images that count."""
        return self._tally

    def measured(self) -> Measured:
        """Its metrics on them."""
        return self._tally.measured()


def floor_of(spec: Spec, network: Network) -> list[float]:
    """The least score of each class that a person has set, for its control or for all; 0: nobody has."""
    general = spec.score_threshold if spec.is_least else 0.0
    found: dict[str, float] = {}
    for control in parse_label_config(spec.label_config).controls:
        if control.name in network.controls:
            least = general if control.score_threshold is None else control.score_threshold
            for label in control.labels:
                found[label] = min(least, found.get(label, 1.0))
    return [found.get(label, general) for label in network.classes]


def shown_of(spec: Spec, network: Network) -> Shown:
    """What people would see: a label of several controls from the lowest of their thresholds on."""
    thresholds: dict[str, float] = {}
    for control in parse_label_config(spec.label_config).controls:
        if control.name in network.controls:
            least = spec.score_threshold if control.score_threshold is None else control.score_threshold
            for label in control.labels:
                thresholds[label] = min(least, thresholds.get(label, 1.0))
    return Shown(
        network, tuple(thresholds.get(label, spec.score_threshold) for label in network.classes), spec.max_regions
    )
