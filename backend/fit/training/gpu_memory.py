"""Training on a GPU that others use, too: a share of its memory, and smaller batches when even that is full.

ultralytics halves the batch by itself, but only in the first epoch and only where the network computes. What comes
later, and what comes of a validation, ends its training: here it goes on from the last epoch with half the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from backend.engine.gpu import free_memory, half_precision
from backend.errors import TrainingError

log = logging.getLogger(__name__)

SHARE = 0.8
"""Part of the GPU's memory that a training may take; the rest stays for the process that serves. A training without
room for its batches takes smaller ones, a person without suggestions waits."""

SMALLEST = 2
"""Least images of a batch: the statistics that batch normalisation takes from a single one are worth little."""


def prepare_gpu(device: str) -> bool:
    """Make this process a training's on that torch device; whether it may train in half precision.

    ultralytics asks for that by comparing what a network finds in both precisions, whose weights it would download.
    It is left to know the chips instead, of which it has a list as well.
    """
    if not device.startswith("cuda"):
        return False
    import torch
    from ultralytics.engine import trainer

    torch.cuda.set_per_process_memory_fraction(SHARE, torch.device(device))
    half = half_precision(device)
    trainer.check_amp = lambda _model: half
    return half


def back_off(run: Callable[[int | None], int]) -> None:
    """Train with ever smaller batches until one fits.

    Args:
        run: trains with that many images in a batch (None: as many as it was to be), going on where it was; returns
            0, or the size of the batch for which the memory did not suffice.

    Raises TrainingError when not even the smallest fits.
    """
    batch = None
    while full := run(batch):
        free_memory()
        if full <= SMALLEST:
            raise TrainingError(
                f"The GPU has not enough memory for batches of {full} images.",
                "Lower YOLOOP_IMAGE_SIZE, stop what else uses the GPU, or train with YOLOOP_DEVICE=cpu.",
            )
        batch = max(SMALLEST, full // 2)
        log.warning("The GPU's memory is full with batches of %d images; going on with %d", full, batch)
