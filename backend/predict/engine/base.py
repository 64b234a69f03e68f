"""What an engine is: a loaded model that finds objects in images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.labels.geometry import Detection

Image = NDArray[np.uint8]
"""Upright pixels, (height, width, 3), blue-green-red, 0 to 255."""


class Detector(Protocol):
    """A model in memory. Used by one thread at a time: `pool.EnginePool` sees to that.

    `names` maps the model's class index to its class name.
    """

    names: Mapping[int, str]

    def detect(self, images: Sequence[Image], conf: float) -> list[list[Detection]]:
        """Objects of each image, in the order of `images`, those of one by descending score.

        Args:
            images: any number, of any sizes.
            conf: least score, in [0, 1].
        """
        ...

    def warm(self) -> None:
        """Run once, so that the first image does not pay for lazy set-up."""
        ...
