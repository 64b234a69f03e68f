"""Which engine serves a model."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

from backend.engine.detector import Detector
from backend.engine.weights import check_hash
from backend.errors import YoloopError, unwritable
from backend.served_models.parts import Part
from backend.settings import Settings
from model_registry import Champions, Registry, Version

log = logging.getLogger(__name__)

GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/kfd")


def serving_engine(engine: str, device: str) -> str:
    """What `YOLOOP_ENGINE` means here: `openvino`, `torch` or `tensorrt`, for which torch stands in."""
    if engine != "auto":
        return engine
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "openvino"  # without asking torch, whose import takes 500 MB of the serving process
    from backend.engine.torch import choose_device

    return "openvino" if choose_device(device) == "cpu" else "torch"


def _may_have_gpu() -> bool:
    """Whether a driver that torch could use shows itself: NVIDIA's, also under WSL and on Jetson, or AMD's."""
    return not sys.platform.startswith("linux") or any(Path(path).exists() for path in GPU_DEVICES)


def load_part(settings: Settings, registry: Registry | Champions, version: Version, part: Part) -> Detector:
    """One of a version's models, ready to run: its export where it may serve, else its checkpoint on torch."""
    if part.openvino and serving_engine(settings.engine, settings.device) == "openvino":
        try:
            return _exported(settings, registry, version, part)
        except Exception as error:
            if unwritable(error):
                raise  # torch would serve it for good
            log.exception("%s: its export could not be loaded; torch serves it", version.name)
    return on_torch(settings, registry.fetch(version, part.file), part)


def load_weights(settings: Settings, weights: Path) -> Detector:
    """A checkpoint that was not trained here, ready to run: its export if one is kept that may serve, else on torch."""
    check_hash(weights)  # an export that is kept would do without opening them
    if serving_engine(settings.engine, settings.device) == "openvino":
        from backend.served_models.pretrained_export import kept

        try:
            if (export := kept(settings, weights)) is not None and export.precision:
                return _on_openvino(settings, export.path, None, export.precision)
        except Exception:
            log.exception("%s: its export could not be loaded; torch serves it", weights.name)
    return on_torch(settings, weights, None)


def load_faster(settings: Settings, weights: Path, serving: Detector, stop: threading.Event) -> Detector | None:
    """The export of what `load_weights` gave, ready to run in its place; None: nothing serves it faster.

    The first time it is made, and compared with torch, which takes seconds. `stop` ends that.
    """
    from backend.engine.openvino import OpenVinoDetector
    from backend.served_models.pretrained_export import exported

    if isinstance(serving, OpenVinoDetector) or serving_engine(settings.engine, settings.device) != "openvino":
        return None
    export = exported(settings, weights, stop)
    if export is None or not export.precision:
        return None
    return _on_openvino(settings, export.path, None, export.precision)


MOST_FOUND = 1000
"""Objects of one image that any model may find: classes without a label take no place from those with one."""


def most_found(limit: int, part: Part | None) -> int:
    """Objects of one image that a model is asked for, before those that no control has a label for are left out."""
    return max(MOST_FOUND, limit, part.max_regions if part else 0)


def on_torch(settings: Settings, weights: Path, part: Part | None) -> Detector:
    """A checkpoint on torch, or on TensorRT where it was asked for; `part` None: one that was not trained here."""
    from backend.engine.torch import TorchDetector, choose_device

    network = part.network if part else None
    multiple = bool(network and network.multiple)
    size = part.image_size if part else settings.image_size
    device = choose_device(settings.device)

    def load(plan: Path | None) -> Detector:
        detector = TorchDetector(
            weights,
            plan=plan,
            names=network.classes if network else None,
            multiple=multiple,
            whole=network is not None,
            device=device,
            image_size=size,
            max_regions=most_found(settings.max_regions, part),
            batch_size=settings.batch_size,
        )
        detector.warm()
        return detector

    if settings.engine == "tensorrt":
        from backend.engine.tensorrt import plan_for

        try:
            plan = plan_for(
                weights,
                settings.root,
                device=device,
                image_size=size,
                max_regions=most_found(settings.max_regions, part),
                batch_size=settings.batch_size,
                multiple=multiple,
            )
            return load(plan)
        except YoloopError as error:
            log.warning("%s: torch serves it instead of TensorRT: %s", weights.name, error)
        except Exception:
            log.exception("%s: TensorRT failed; torch serves it", weights.name)
    return load(None)


def _exported(settings: Settings, registry: Registry | Champions, version: Version, part: Part) -> Detector:
    network, _ = (registry.fetch(version, name) for name in part.exported)
    return _on_openvino(settings, network, part, part.openvino)


def _on_openvino(settings: Settings, path: Path, part: Part | None, precision: str) -> Detector:
    """An export; `part` None: of a checkpoint that was not trained here."""
    from backend.engine.openvino import OpenVinoDetector

    network = part.network if part else None
    detector = OpenVinoDetector(
        path,
        names=network.classes if network else None,
        multiple=bool(network and network.multiple),
        whole=network is not None,
        precision=precision,
        image_size=part.image_size if part else settings.image_size,
        max_regions=most_found(settings.max_regions, part),
    )
    detector.warm()
    return detector
