"""Weights as an ONNX file."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path

from backend.errors import YoloopError


def write_onnx(weights: Path, image_size: int, out: Path) -> None:
    """Write weights as ONNX, for inputs of `image_size` pixels. Raises YoloopError where `onnx` is not installed."""
    if importlib.util.find_spec("onnx") is None:
        raise YoloopError("The package onnx is not installed.", "Install onnx beside yoloop, or say --format pt.")
    from ultralytics import YOLO

    with tempfile.TemporaryDirectory() as folder:  # the export is written beside the weights
        copy = Path(folder) / "weights.pt"
        shutil.copyfile(weights, copy)
        made = YOLO(copy).export(format="onnx", imgsz=image_size, simplify=False, verbose=False)
        shutil.copyfile(made, out)
