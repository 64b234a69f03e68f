"""The fast engine on a CPU: a network of any task, exported from its checkpoint, with its own pre- and post-processing.

It needs neither torch nor ultralytics to run. What it finds is what ultralytics finds with the same weights, up to
the rounding of bfloat16 where the processor computes in it: `backend.engine.parity` measures that before it
serves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.engine.compiled_shapes import Shapes
from backend.engine.detector import Image
from backend.engine.environment import cores
from backend.engine.nms import best, suppress
from backend.engine.postprocess import boxed, choices, cutout, outlined, skeletons, turned
from backend.engine.preprocess import Placed, letterbox, middle, squeezed
from backend.labels.geometry import Detection
from backend.labels.networks import Task

INFO = "yoloop"
"""Where the exported file keeps what the network is."""

Outputs = Sequence[NDArray[np.float32]]


class OpenVinoDetector:
    """An exported network, on the CPU: see `Detector`.

    Args:
        path: what `export` wrote, the `.xml`.
        names: class names by index; None: those of the checkpoint.
        multiple: of a classify model, whether each of its classes is scored for itself.
        whole: of a classify model, whether it learned from whole images squeezed into a square. ultralytics' own
            see the middle square.
        precision: `f32`, or `auto`: what the processor is fastest at, bfloat16 where it can.
        threads: of the processor; 0: all.
        image_size: longer side of the network's input, in pixels.
        max_regions: most objects of one image.
    """

    batch = 1

    def __init__(
        self,
        path: Path,
        *,
        names: Sequence[str] | None = None,
        multiple: bool = False,
        whole: bool = False,
        precision: str = "auto",
        threads: int = 0,
        image_size: int = 640,
        max_regions: int = 300,
    ) -> None:
        import openvino as ov

        core = ov.Core()
        network = core.read_model(path)
        about = json.loads(network.get_rt_info(INFO).astype(str))
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(threads or cores())}
        if precision == "f32":
            options["INFERENCE_PRECISION_HINT"] = "f32"
        self._shapes = Shapes(core, path, options)
        self._outputs = len(network.outputs)
        given = about["names"] if names is None else dict(enumerate(names))
        self.names: Mapping[int, str] = {int(index): str(name) for index, name in given.items()}
        # An export of an earlier release says less: it was for boxes.
        self.task: Task = about.get("task", "detect")
        self._classes = int(about.get("classes", len(about["names"])))
        self._keypoints: list[int] = about.get("keypoints", [])
        self._stride, self._end_to_end = int(about["stride"]), bool(about["end_to_end"])
        self._multiple, self._whole = multiple, whole
        self._image_size, self._most = image_size, max_regions
        self._size = math.ceil(image_size / self._stride) * self._stride

    def detect(self, images: Sequence[Image], conf: float, most: int | None = None) -> list[list[Detection]]:
        """See `Detector.detect`. One image after the other: on a CPU a batch is no faster and needs more memory."""
        return [self._objects(outputs, placed, conf, most or self._most) for outputs, placed in self._run(images)]

    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """See `Detector.embed`."""
        found = np.nan_to_num(np.concatenate([outputs[1].copy() for outputs, _ in self._run(images)]))
        unit: NDArray[np.float32] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return unit

    def warm(self) -> None:
        self.detect([np.zeros((self._image_size, self._image_size, 3), np.uint8)], conf=0.5)

    def _run(self, images: Sequence[Image]) -> Iterator[tuple[Outputs, Placed]]:
        """What the network gives for each image, until the next is asked for; that one is prepared meanwhile."""
        prepared = self._input(images[0]) if images else None
        for following in [*images[1:], None] if images else []:
            assert prepared is not None
            running, placed = prepared
            request = self._shapes.request((1, *running.shape))
            request.set_input_tensor(_tensor(running))
            request.start_async()
            try:
                prepared = None if following is None else self._input(following)
            finally:
                request.wait()
            yield [request.get_output_tensor(output).data for output in range(self._outputs)], placed

    def _input(self, image: Image) -> tuple[Image, Placed]:
        if self.task != "classify":
            return letterbox(image, self._size, self._stride)
        height, width = image.shape[:2]
        seen = squeezed(image, self._image_size) if self._whole else image
        return middle(seen, self._size), Placed(width, height, (self._size, self._size))

    def _objects(self, outputs: Outputs, placed: Placed, conf: float, most: int) -> list[Detection]:
        """The objects of one image, by descending score."""
        found = outputs[0][0]
        if self.task == "classify":
            scores = (_sigmoid if self._multiple else _softmax)(found.astype(np.float64))
            return sorted(choices(scores, placed.height, placed.width), key=lambda each: -each.score)
        is_turned = self.task == "obb"
        rows = best(found, conf) if self._end_to_end else suppress(found, conf, self._classes, turned=is_turned)
        # In ultralytics' order and in its 32 bits, so that what is rounded later is rounded alike.
        rows, more = rows[:most, :6], rows[:most, 6:]
        if is_turned:
            rows[:, 0] = (rows[:, 0] - placed.left) / placed.across
            rows[:, 1] = (rows[:, 1] - placed.top) / placed.down
            rows[:, 2:4] /= np.array([placed.across, placed.down], np.float32)
            return turned(np.concatenate([rows[:, :4], more[:, -1:], rows[:, 4:]], axis=1).astype(np.float64))
        for corner in (rows[:, :2], rows[:, 2:4]):
            _onto_image(corner, placed)
        if self.task == "pose":
            points = more.reshape(-1, *self._keypoints)
            _onto_image(points, placed)
            return skeletons(rows.astype(np.float64), points.astype(np.float64))
        if self.task == "segment":
            _, depth, down, across = outputs[2].shape
            values = (more @ outputs[2].reshape(depth, -1)).reshape(-1, down, across)
            size = (placed.height, placed.width)
            masks = [cutout(value, box, size, placed.input) for value, box in zip(values, rows[:, :4], strict=True)]
            return outlined(rows.astype(np.float64), masks)
        return boxed(rows.astype(np.float64))


def _onto_image(points: NDArray[np.float32], placed: Placed) -> None:
    """Move points of the input, (…, 2 or more) with x and y first, to where they are on the image."""
    x, y = points[..., 0], points[..., 1]
    x[...] = ((x - placed.left) / placed.across).clip(0, placed.width)
    y[...] = ((y - placed.top) / placed.down).clip(0, placed.height)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    found: NDArray[np.float64] = powers / powers.sum()
    return found


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 0.5 * (1 + np.tanh(logits / 2))
    return found


def _tensor(image: Image) -> Any:
    import openvino as ov

    return ov.Tensor(image[None], shared_memory=True)
