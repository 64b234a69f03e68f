"""The engine that always works: ultralytics on torch, CPU or GPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import YoloopError
from backend.labels.geometry import Box, Detection
from backend.predict.engine.base import Image


class TorchDetector:
    """A YOLO checkpoint on torch.

    Args:
        weights: an ultralytics checkpoint of a detection model, or the name of a model's yaml.
        device: `auto`, `cpu`, `cuda`, `cuda:0` …
        image_size: longer side of the network's input, in pixels.
        max_regions: most objects of one image.
        batch_size: most images in one pass.
    """

    def __init__(
        self,
        weights: Path,
        *,
        device: str = "auto",
        image_size: int = 640,
        max_regions: int = 300,
        batch_size: int = 8,
    ) -> None:
        from ultralytics import YOLO

        self._model = YOLO(str(weights), task="detect")
        if self._model.task != "detect":
            raise YoloopError(f"{weights.name} is a model for {self._model.task}, not for boxes.")
        self._batch_size = batch_size
        self._image_size = image_size
        self._arguments: dict[str, Any] = {
            "imgsz": image_size,
            "device": choose_device(device),
            "max_det": max_regions,
            "verbose": False,
            "save": False,
        }
        self.names: Mapping[int, str] = {int(index): str(name) for index, name in self._model.names.items()}

    def detect(self, images: Sequence[Image], conf: float) -> list[list[Detection]]:
        """See `Detector.detect`. Images of one shape share a pass, which needs no padding between them."""
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            by_shape[image.shape].append(index)
        found: list[list[Detection]] = [[] for _ in images]
        for indexes in by_shape.values():
            for start in range(0, len(indexes), self._batch_size):
                batch = indexes[start : start + self._batch_size]
                results = self._model.predict([images[index] for index in batch], conf=conf, **self._arguments)
                for index, result in zip(batch, results, strict=True):
                    found[index] = _read(result.boxes)
        return found

    def warm(self) -> None:
        self.detect([np.zeros((self._image_size, self._image_size, 3), np.uint8)], conf=0.5)


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


def _read(boxes: Any) -> list[Detection]:
    rows = boxes.data.float().cpu().numpy()
    rows = rows[np.isfinite(rows).all(axis=1)]
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    return [
        Detection(cls=int(cls), score=min(1.0, max(0.0, float(score))), box=Box(*map(float, xyxy)))
        for *xyxy, score, cls in rows
    ]
