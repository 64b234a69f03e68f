"""The engine that always works: ultralytics on torch, CPU or GPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.engine.detector import Image
from backend.engine.gpu import batching, free_memory, half_precision, is_out_of_memory, network_shape
from backend.engine.postprocess import predictor, read
from backend.engine.weights import open_model
from backend.errors import Busy
from backend.labels.geometry import Detection
from backend.labels.networks import Task


class TorchDetector:
    """A YOLO checkpoint on torch, of any of the five tasks; in half precision on a GPU that gains by it.

    Args:
        weights: an ultralytics checkpoint, or the name of a model's yaml.
        plan: what TensorRT made of these weights (`backend.engine.tensorrt`): it finds the objects then, and
            torch only embeds.
        names: class names by index; None: those of the checkpoint.
        multiple: of a classify model, whether each of its classes is scored for itself.
        whole: of a classify model, whether it learned from whole images squeezed into a square. ultralytics' own
            see the middle square.
        device: `auto`, `cpu`, `cuda`, `cuda:0` …
        image_size: longer side of the network's input, in pixels.
        max_regions: most objects of one image.
        batch_size: most images in one pass of a GPU; a CPU takes one after the other.
    """

    def __init__(
        self,
        weights: Path,
        *,
        plan: Path | None = None,
        names: Sequence[str] | None = None,
        multiple: bool = False,
        whole: bool = False,
        device: str = "auto",
        image_size: int = 640,
        max_regions: int = 300,
        batch_size: int = 8,
    ) -> None:
        self._model = open_model(weights)
        self.task: Task = self._model.task
        self._finder = self._model if plan is None else _planned(plan, self.task)
        chosen = choose_device(device)
        # On a CPU a batch gains little, and a person would wait for all of it.
        self.batch = 1 if chosen == "cpu" else batch_size
        self._image_size = image_size
        self._whole = whole and self.task == "classify"
        own: Any = predictor(self.task, multiple=multiple)
        self._predictor = own if chosen == "cpu" else batching(own or self._model._smart_load("predictor"))
        self._arguments: dict[str, Any] = {
            "imgsz": image_size,
            "device": chosen,
            "max_det": max_regions,
            "verbose": False,
            "save": False,
            "embed": None,
        }
        if half_precision(chosen):
            self._arguments["quantize"] = 16
        given = self._model.names if names is None else dict(enumerate(names))
        self.names: Mapping[int, str] = {int(index): str(name) for index, name in given.items()}

    def detect(self, images: Sequence[Image], conf: float, most: int | None = None) -> list[list[Detection]]:
        """See `Detector.detect`. Images that fill the same input of the network share a pass.

        Raises Busy when a GPU that others use, too, has no memory left even for one image.
        """
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        inputs = [self._input(image) for image in images]
        for index, image in enumerate(inputs):
            alike[self._shape(image)].append(index)
        found: list[list[Detection]] = [[] for _ in images]
        bound = {} if most is None else {"max_det": most}
        for indexes in alike.values():
            for start in range(0, len(indexes), self.batch):
                batch = indexes[start : start + self.batch]
                results = self._run(self._finder, [inputs[index] for index in batch], conf=conf, **bound)
                for index, result in zip(batch, results, strict=True):
                    result.orig_shape = images[index].shape[:2]
                    found[index] = read(self.task, result)
        return found

    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """See `Detector.embed`: the pooled output of the layer before the head, as `YOLO.embed` gives it."""
        before_head = [len(self._model.model.model) - 2]
        rows = [
            self._run(self._model, [self._input(image)], embed=before_head)[0].float().cpu().numpy() for image in images
        ]
        found = np.nan_to_num(np.stack(rows).astype(np.float32).reshape(len(images), -1))
        unit: NDArray[np.float32] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return unit

    def warm(self) -> None:
        self.detect([np.zeros((self._image_size, self._image_size, 3), np.uint8)], conf=0.5)

    def _run(self, model: Any, inputs: list[Image], **arguments: Any) -> list[Any]:
        """ultralytics' results; images for which the GPU's memory does not suffice together are run one by one."""
        try:
            return list(model.predict(inputs, predictor=self._predictor, **self._arguments | arguments))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        if model.predictor is not None and model.predictor.model is None:
            model.predictor = None  # not even the weights had room: ultralytics would not copy them again
        free_memory()
        if len(inputs) > 1:
            return [result for each in inputs for result in self._run(model, [each], **arguments)]
        raise Busy(
            "The GPU has no memory left for this image.",
            "It is tried again; if it stays so, lower YOLOOP_IMAGE_SIZE or stop what else uses the GPU.",
        )

    def _shape(self, image: Image) -> tuple[int, int]:
        if self.task == "classify":
            return self._image_size, self._image_size
        return network_shape(image.shape[0], image.shape[1], self._image_size, int(max(self._model.model.stride)))

    def _input(self, image: Image) -> Image:
        if not self._whole:
            return image
        square = cv2.resize(image, (self._image_size, self._image_size), interpolation=cv2.INTER_AREA)
        return np.asarray(square, np.uint8)


def rehearse(device: str) -> None:
    """Import and set up what the first model of a process pays for: seconds that no swap should take.

    Runs a network with random weights once; nobody sees what it finds.
    """
    TorchDetector(Path("yolo11n.yaml"), device=device, image_size=64).warm()


def _planned(plan: Path, task: Task) -> Any:
    """ultralytics' model that runs a plan: a file that this machine built, and no pickle."""
    from ultralytics import YOLO

    return YOLO(str(plan), task=task)


def choose_device(device: str) -> str:
    """The torch device that `auto` means here."""
    if device != "auto":
        return device
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
