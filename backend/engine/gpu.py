"""What a GPU asks for: half precision where it gains, batches from pinned memory, a way on when its memory is full."""

from __future__ import annotations

import gc
import math
import re
from functools import cache
from typing import Any

import numpy as np

WITHOUT_TENSOR_CORES = re.compile(r"\b(1660|1650|1630|T400|T550|T600|T1000|T1200|T2000)\b", re.IGNORECASE)
"""NVIDIA's Turing chips whose half precision gives NaN: those that `ultralytics.utils.checks.check_amp` names."""

VOLTA = (7, 0)
"""The compute capability from which NVIDIA's chips have tensor cores; before, half precision is the slower one."""

FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How the messages of CUDA's libraries tell of it where torch raises a plain RuntimeError."""


def half_precision(device: str) -> bool:
    """Whether a torch device, such as `cpu` or `cuda:0`, computes faster in half precision, and rightly."""
    import torch

    if not device.startswith("cuda"):
        return False
    return gains_by_half(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))


def gains_by_half(name: str, capability: tuple[int, int]) -> bool:
    """The same of a GPU's name and compute capability."""
    return capability >= VOLTA and WITHOUT_TENSOR_CORES.search(name) is None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that the GPU's memory is full."""
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(each in str(error) for each in FULL)


def free_memory() -> None:
    """Give back what torch keeps of the GPU's memory for later.

    To be called after an `except`, not in it: the traceback holds the tensors of the pass that failed.
    """
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def network_shape(height: int, width: int, size: int, stride: int = 32) -> tuple[int, int]:
    """Height and width of the network's input for an image of that many pixels, as ultralytics pads it.

    Args:
        size: longer side of the input in pixels; ultralytics takes the next multiple of the stride.
        stride: pixels of the input to one cell of the network's coarsest grid.
    """
    stride = max(stride, 32)
    size = stride * math.ceil(size / stride)
    gain = min(size / height, size / width)
    fitted = max(round(height * gain), 1), max(round(width * gain), 1)
    return fitted[0] + (size - fitted[0]) % stride, fitted[1] + (size - fitted[1]) % stride


@cache
def batching(base: Any) -> type[Any]:
    """A task's predictor of ultralytics that takes all images whose `network_shape` is the same in one pass.

    ultralytics' own pads a batch of unlike images to a square, and copies it from memory that the GPU cannot read by
    itself. What comes out for an image does not depend on the others of its batch, and in single precision it is what
    ultralytics computes for it alone.
    """
    import torch
    from ultralytics.engine.predictor import BasePredictor

    class Batching(BasePredictor):  # type: ignore[misc]
        """Stands between a task's predictor, which may do more of its own, and the one that all have in common."""

        def setup_model(self, model: Any, verbose: bool = True) -> None:
            super().setup_model(model, verbose)
            if self.model.format == "pt" and self.model.fp16:
                decode_in_full(self.model.backend.model.model[-1])

        def pre_transform(self, im: Any) -> list[Any]:
            return [made for image in im for made in super(Batching, self).pre_transform([image])]

        def preprocess(self, im: Any) -> Any:
            if isinstance(im, torch.Tensor):
                return super().preprocess(im)
            made = self.pre_transform(im)
            # torch keeps pinned blocks for the next batch, and none before the copy out of it has ended.
            pinned = self.device.type == "cuda"
            host = torch.empty((len(made), *made[0].shape), dtype=torch.uint8, pin_memory=pinned)
            np.stack(made, out=host.numpy())
            batch = host.to(self.device, non_blocking=pinned).permute(0, 3, 1, 2).contiguous()
            if batch.shape[1] == 3:
                batch = batch.flip(1)  # ultralytics' networks take red first
            return (batch.half() if self.model.fp16 else batch.float()).div_(255)

    # Between the two, not in front: a classify predictor's `preprocess` calls the common one and normalises.
    return type(f"Batching{base.__name__}", (base, Batching), {})


def decode_in_full(head: Any) -> None:
    """Let the head of a half-precision network compute boxes, points and angles in single precision.

    In half precision a coordinate beyond 512 pixels of the input is a multiple of 0.5, beyond 1024 of 1.0, and an
    image that was shrunk for the network makes that error larger again.
    """
    if not hasattr(head, "dfl"):
        return  # a classify head has no places
    inner = head._inference

    def decoded(raw: dict[str, Any]) -> Any:
        return inner(raw | {name: raw[name].float() for name in ("boxes", "kpts", "angle") if name in raw})

    head.dfl.float()
    head._inference = decoded
