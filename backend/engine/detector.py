"""What an engine is: a loaded model that finds objects in images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.labels.geometry import Detection
from backend.labels.networks import Task

Image = NDArray[np.uint8]
"""Upright pixels, (height, width, 3), blue-green-red, 0 to 255."""


class Detector(Protocol):
    """A model in memory. Used by one thread at a time: `pool.EnginePool` sees to that.

    `names` maps the model's class index to its class name; `task` is what it does; `batch` is the most images that it
    gains by taking in one pass, 1 where it gains nothing.
    """

    names: Mapping[int, str]
    task: Task
    batch: int

    def detect(self, images: Sequence[Image], conf: float, most: int | None = None) -> list[list[Detection]]:
        """Objects of each image, in the order of `images`, those of one by descending score.

        A classify model gives one Detection for each class, whose box is the image.

        Args:
            images: any number, of any sizes.
            conf: least score, in [0, 1].
            most: most objects of one image; None: as many as it was made for.
        """
        ...

    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """What the model makes of each image as a whole: (n, d), rows of length 1; like images are near each other."""
        ...

    def warm(self) -> None:
        """Run once, so that the first image does not pay for lazy set-up."""
        ...
