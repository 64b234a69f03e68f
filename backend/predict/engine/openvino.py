"""The fast engine on a CPU: a network for boxes, exported from its checkpoint, with its own pre- and post-processing.

It needs neither torch nor ultralytics to run. What it finds is what ultralytics finds with the same weights, up to
the rounding of bfloat16 where the processor computes in it: `backend.fit.parity` measures that before it serves.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.labels.geometry import Detection
from backend.labels.networks import Task
from backend.predict.engine.base import Image
from backend.predict.engine.quiet import cores
from backend.predict.engine.read import objects
from backend.predict.engine.weights import open_model

INFO = "yoloop"
"""Where the exported file keeps what the network is."""

GREY = 114
"""What ultralytics pads with."""

IOU = 0.7
"""Overlap (IoU) above which the lower-scored of two boxes of one class goes: ultralytics' default for prediction."""

MOST_CANDIDATES = 30_000
"""Boxes that suppression looks at, as in ultralytics."""


def export(weights: Path, path: Path) -> None:
    """Write a checkpoint as OpenVINO's `.xml` and, beside it, `.bin`; inputs of any size that the stride divides.

    The input is (1, height, width, 3) of bytes, blue-green-red. The outputs are ultralytics' raw boxes and the pooled
    features of the layer before the head, which `Detector.embed` gives.

    Raises ValueError for a network that is not for boxes.
    """
    import openvino as ov
    import torch
    from openvino.preprocess import ColorFormat, PrePostProcessor

    model = open_model(weights)
    if model.task != "detect":
        raise ValueError(f"a network for {model.task} is not exported")
    network = model.model.float().eval().fuse(verbose=False)
    head = network.model[-1]
    head.export, head.dynamic, head.format = True, True, "openvino"

    class Both(torch.nn.Module):
        """The network, and what goes into its head."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.kept: Any = None
            network.model[-2].register_forward_hook(lambda _module, _given, made: setattr(self, "kept", made))

        def forward(self, image: Any) -> Any:
            found = self.network(image)
            return found, self.kept.mean((2, 3))

    example = torch.zeros(1, 3, 64, 96)
    both = Both().eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls tracing old; OpenVINO takes a network in no other way
        both(example)
        traced = torch.jit.trace(both, example, strict=False, check_trace=False)  # type: ignore[no-untyped-call]
    converted = ov.convert_model(traced, example_input=example)
    converted.reshape([1, 3, -1, -1])
    steps = PrePostProcessor(converted)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_color_format(ColorFormat.BGR)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).convert_color(ColorFormat.RGB).scale(255.0)
    finished = steps.build()
    about = {
        "names": {str(index): str(name) for index, name in model.names.items()},
        "stride": int(max(network.stride)),
        "end_to_end": bool(getattr(head, "end2end", False)),
    }
    finished.set_rt_info(json.dumps(about), INFO)
    ov.save_model(finished, path, compress_to_fp16=False)


class OpenVinoDetector:
    """An exported network for boxes, on the CPU: see `Detector`.

    Args:
        path: what `export` wrote, the `.xml`.
        names: class names by index; None: those of the checkpoint.
        precision: `f32`, or `auto`: what the processor is fastest at, bfloat16 where it can.
        threads: of the processor; 0: all.
        image_size: longer side of the network's input, in pixels.
        max_regions: most objects of one image.
    """

    task: Task = "detect"
    batch = 1

    def __init__(
        self,
        path: Path,
        *,
        names: Sequence[str] | None = None,
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
        self._request = core.compile_model(network, "CPU", options).create_infer_request()
        given = about["names"] if names is None else dict(enumerate(names))
        self.names: Mapping[int, str] = {int(index): str(name) for index, name in given.items()}
        self._stride, self._end_to_end = int(about["stride"]), bool(about["end_to_end"])
        self._image_size, self._most = image_size, max_regions

    def detect(self, images: Sequence[Image], conf: float) -> list[list[Detection]]:
        """See `Detector.detect`. One image after the other: on a CPU a batch is no faster and needs more memory."""
        return [objects(self._boxes(found, placed, conf)) for found, _, placed in self._run(images)]

    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """See `Detector.embed`."""
        found = np.nan_to_num(np.concatenate([features for _, features, _ in self._run(images)]))
        unit: NDArray[np.float32] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return unit

    def warm(self) -> None:
        self.detect([np.zeros((self._image_size, self._image_size, 3), np.uint8)], conf=0.5)

    def _run(self, images: Sequence[Image]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], Placed]]:
        """Raw boxes and features of each image, and where it stood in the input; the next one is prepared meanwhile."""
        prepared = letterbox(images[0], self._image_size, self._stride) if images else None
        for following in [*images[1:], None] if images else []:
            assert prepared is not None
            running, placed = prepared
            self._request.set_input_tensor(_tensor(running))
            self._request.start_async()
            try:
                prepared = None if following is None else letterbox(following, self._image_size, self._stride)
            finally:
                self._request.wait()
            boxes, features = (np.array(self._request.get_output_tensor(output).data) for output in (0, 1))
            yield boxes[0], features, placed

    def _boxes(self, found: NDArray[np.float32], placed: Placed, conf: float) -> NDArray[np.float64]:
        """(n, 6): left, top, right, bottom in pixels of the image, score, class; by descending score."""
        if self._end_to_end:
            chosen = found[np.isfinite(found).all(axis=1) & (found[:, 4] >= conf)]
            chosen = chosen[np.argsort(-chosen[:, 4], kind="stable")]
        else:
            chosen = suppress(found, conf)
        rows = chosen[: self._most].astype(np.float64)
        rows[:, [0, 2]] = ((rows[:, [0, 2]] - placed.left) / placed.across).clip(0, placed.width)
        rows[:, [1, 3]] = ((rows[:, [1, 3]] - placed.top) / placed.down).clip(0, placed.height)
        return rows


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an image of `width` × `height` pixels stands in the input: its corner, and pixels of the input for each
    of its own, across and down."""

    width: int
    height: int
    left: int
    top: int
    across: float
    down: float


def letterbox(image: Image, size: int, stride: int) -> tuple[Image, Placed]:
    """The image scaled to `size` on its longer side and padded on both sides to a multiple of `stride`.

    As ultralytics' `LetterBox` with `auto=True`.
    """
    height, width = image.shape[:2]
    gain = min(size / height, size / width)
    wide, high = max(1, round(width * gain)), max(1, round(height * gain))
    if (wide, high) != (width, height):
        image = np.asarray(cv2.resize(image, (wide, high), interpolation=cv2.INTER_LINEAR), np.uint8)
    across, down = ((size - wide) % stride) / 2, ((size - high) % stride) / 2
    left, top = round(across - 0.1), round(down - 0.1)
    placed = Placed(width, height, left, top, wide / width, high / height)
    right, bottom = round(across + 0.1), round(down + 0.1)
    if any((left, right, top, bottom)):
        grey = (GREY, GREY, GREY)
        image = np.asarray(cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=grey))
    return np.ascontiguousarray(image), placed


def suppress(found: NDArray[np.float32], conf: float) -> NDArray[np.float32]:
    """(n, 6) from (4 + classes, candidates): the best class of each box, without what overlaps a better one of it."""
    scores = found[4:].max(axis=0)
    kept = np.flatnonzero((scores >= conf) & np.isfinite(found).all(axis=0))
    if len(kept) > MOST_CANDIDATES:
        kept = kept[np.argsort(-scores[kept], kind="stable")[:MOST_CANDIDATES]]
    if not len(kept):
        return np.zeros((0, 6), np.float32)
    scores, classes, (cx, cy, width, height) = scores[kept], found[4:, kept].argmax(axis=0), found[:4, kept]
    boxes = np.stack([cx - width / 2, cy - height / 2, width, height], axis=1)
    chosen = np.asarray(cv2.dnn.NMSBoxesBatched(boxes.tolist(), scores.tolist(), classes.tolist(), 0.0, IOU), np.intp)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    left, top, across, down = boxes[chosen].T
    return np.stack([left, top, left + across, top + down, scores[chosen], classes[chosen]], axis=1)


def _tensor(image: Image) -> Any:
    import openvino as ov

    return ov.Tensor(image[None], shared_memory=True)
