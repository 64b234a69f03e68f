"""An OpenVINO model compiled for dynamic shapes, plus fixed-shape copies for the most frequent ones.

With its shape known beforehand a network runs faster, and what runs between two images of other shapes does not slow
it: of yolo11n at 640 pixels on two cores an image takes 13.9 ms instead of 15.1, and instead of 17.5 where every other
image has another shape.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

FIXED = 2
"""Shapes that a network is compiled for: upright and lying pictures of one camera."""

RECENT = 32
"""Images that are looked back at."""

OFTEN = 8
"""How many of these have a shape that is worth the fifth of a second which compiling takes."""

LARGEST = 40 * 2**20
"""Bytes of weights up to which that is done: it takes the memory of the weights and more once again."""

Shape = tuple[int, ...]


class Shapes:
    """The ways to run one network. To be used by one thread at a time.

    Args:
        core: OpenVINO's.
        path: the network's `.xml`, whose input has no fixed height and width.
        options: to compile it with.
    """

    def __init__(self, core: Any, path: Path, options: Mapping[str, str]) -> None:
        self._core, self._path, self._options = core, path, dict(options)
        self._any = core.compile_model(path, "CPU", self._options).create_infer_request()
        self._once_more = path.with_suffix(".bin").stat().st_size <= LARGEST
        self._fixed: dict[Shape, Any] = {}
        self._recent: deque[Shape] = deque(maxlen=RECENT)

    def request(self, shape: Shape) -> Any:
        """The infer request for an input of that shape."""
        self._recent.append(shape)
        if self._once_more and shape not in self._fixed and Counter(self._recent)[shape] >= OFTEN:
            self._fix(shape)
        return self._fixed.get(shape, self._any)

    def _fix(self, shape: Shape) -> None:
        """Compile for a shape, in place of one that comes no more; while all of those come, it waits."""
        if len(self._fixed) >= FIXED:
            gone = next((each for each in self._fixed if each not in self._recent), None)
            if gone is None:
                return
            del self._fixed[gone]
        try:
            network = self._core.read_model(self._path)
            network.reshape(list(shape))
            self._fixed[shape] = self._core.compile_model(network, "CPU", self._options).create_infer_request()
        except RuntimeError:  # its files have gone with their version, or the memory does not suffice
            log.warning("A network could not be compiled once more; it serves on as it was", exc_info=True)
            self._once_more = False
