"""The engine that always works: ultralytics on torch, CPU or GPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.labels.geometry import Detection
from backend.labels.networks import Task
from backend.predict.engine.base import Image
from backend.predict.engine.read import predictor, read
from backend.predict.engine.weights import open_model


class TorchDetector:
    """A YOLO checkpoint on torch, of any of the five tasks.

    Args:
        weights: an ultralytics checkpoint, or the name of a model's yaml.
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
        chosen = choose_device(device)
        # On a CPU a batch gains little, and a person would wait for all of it.
        self.batch = 1 if chosen == "cpu" else batch_size
        self._image_size = image_size
        self._whole = whole and self.task == "classify"
        self._predictor = predictor(self.task, multiple=multiple)
        self._arguments: dict[str, Any] = {
            "imgsz": image_size,
            "device": chosen,
            "max_det": max_regions,
            "verbose": False,
            "save": False,
            "embed": None,
        }
        given = self._model.names if names is None else dict(enumerate(names))
        self.names: Mapping[int, str] = {int(index): str(name) for index, name in given.items()}

    def detect(self, images: Sequence[Image], conf: float) -> list[list[Detection]]:
        """See `Detector.detect`. Images of one shape share a pass, which needs no padding between them."""
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            by_shape[image.shape].append(index)
        found: list[list[Detection]] = [[] for _ in images]
        for indexes in by_shape.values():
            for start in range(0, len(indexes), self.batch):
                batch = indexes[start : start + self.batch]
                inputs = [self._input(images[index]) for index in batch]
                results = self._model.predict(inputs, conf=conf, predictor=self._predictor, **self._arguments)
                for index, result in zip(batch, results, strict=True):
                    result.orig_shape = images[index].shape[:2]
                    found[index] = read(self.task, result)
        return found

    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """See `Detector.embed`: the pooled output of the layer before the head, as `YOLO.embed` gives it."""
        before_head = [len(self._model.model.model) - 2]
        arguments = self._arguments | {"embed": before_head}
        rows = [
            self._model.predict([self._input(image)], predictor=self._predictor, **arguments)[0].float().cpu().numpy()
            for image in images
        ]
        found = np.nan_to_num(np.stack(rows).astype(np.float32).reshape(len(images), -1))
        unit: NDArray[np.float32] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return unit

    def warm(self) -> None:
        self.detect([np.zeros((self._image_size, self._image_size, 3), np.uint8)], conf=0.5)

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


def choose_device(device: str) -> str:
    """The torch device that `auto` means here."""
    if device != "auto":
        return device
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
