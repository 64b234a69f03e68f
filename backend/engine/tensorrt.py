"""Plans of TensorRT, built from a checkpoint on the GPU that runs them: `YOLOOP_ENGINE=tensorrt`.

A plan is for one kind of GPU and one release of TensorRT, and building it takes minutes, so each is kept in the home
folder. `backend.engine.torch.TorchDetector` runs it. Needs the packages `tensorrt` and `onnx`, and from
TensorRT 11 on `nvidia-modelopt[onnx]` for half precision; yoloop installs none of them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tempfile
from importlib.metadata import packages_distributions, version
from pathlib import Path

from backend.engine.weights import open_model, sha256
from backend.errors import YoloopError

log = logging.getLogger(__name__)

KEPT = 32
"""Plans that stay on the disk, the last used ones; each is about as large as its checkpoint."""


def plan_for(
    weights: Path, home: Path, *, device: str, image_size: int, max_regions: int, batch_size: int, multiple: bool
) -> Path:
    """The plan of a checkpoint; built, unless it was before.

    Args:
        weights: an ultralytics checkpoint.
        home: the project's home folder.
        device: the torch device that will run it.
        image_size: longer side of the network's input, in pixels.
        max_regions: most objects of one image.
        batch_size: most images in one pass.
        multiple: whether it is a classify model that scores each class for itself.

    Raises YoloopError when this machine cannot build one, and whatever TensorRT and ultralytics raise.
    """
    if multiple:
        raise YoloopError("Exported choices that go together have lost the scores of each class for itself.")
    if not device.startswith("cuda"):
        raise YoloopError("TensorRT needs an NVIDIA GPU.", "YOLOOP_DEVICE says which one is used.")
    release = installed()
    if not release:
        raise YoloopError("The package tensorrt is not installed.", "Install tensorrt and onnx beside yoloop.")
    import torch

    from backend.engine.gpu import half_precision

    name, half = torch.cuda.get_device_name(device), half_precision(device)
    key = key_of(weights, name, release, str(image_size), str(max_regions), str(batch_size), str(half))
    plan = home / "tensorrt" / f"{key}.engine"
    if not plan.exists():
        plan.parent.mkdir(exist_ok=True)
        log.info("Building a TensorRT plan for %s takes minutes, once for these weights", name)
        with tempfile.TemporaryDirectory(dir=plan.parent) as folder:
            # ultralytics writes beside the checkpoint, which may lie in the registry.
            copy = Path(shutil.copyfile(weights, Path(folder) / "weights.pt"))
            _build(copy, device=device, image_size=image_size, max_regions=max_regions, batch=batch_size, half=half)
            copy.with_suffix(".engine").replace(plan)
    os.utime(plan)
    prune(plan.parent)
    return plan


def installed() -> str:
    """The release of TensorRT that can be imported, or ''. It is not imported: the export to ONNX must come before."""
    packages = packages_distributions().get("tensorrt", ())  # also those named after a release of CUDA
    return version(packages[0]) if packages else ""


def key_of(weights: Path, gpu: str, release: str, *options: str) -> str:
    """What a plan is kept under: it fits these weights, this kind of GPU, this TensorRT and these options only."""
    rest = hashlib.sha256("\n".join((sha256(weights), gpu, release, *options)).encode()).hexdigest()
    return f"{re.sub('[^A-Za-z0-9]+', '-', gpu)}-{rest[:32]}"


def prune(folder: Path, kept: int = KEPT) -> None:
    """Remove the plans that were not used for longest."""
    for path in sorted(folder.glob("*.engine"), key=lambda each: each.stat().st_mtime, reverse=True)[kept:]:
        path.unlink(missing_ok=True)


def _build(weights: Path, *, device: str, image_size: int, max_regions: int, batch: int, half: bool) -> None:
    """Write `weights.engine`. A dynamic one takes any input of up to `batch` images and twice `image_size`."""
    open_model(weights).export(
        format="engine",
        device=device,
        imgsz=image_size,
        batch=batch,
        dynamic=True,
        quantize=16 if half else None,
        simplify=False,  # TensorRT does that itself; here it would need two packages more
        max_det=max_regions,
        verbose=False,
    )
