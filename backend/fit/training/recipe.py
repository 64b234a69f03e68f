"""How to train: a pure function of the data and the machine, in ultralytics' own argument names.

Measured on two cores: with few images, small batches with `nbs` equal to them, one warm-up epoch and no
mosaic are what makes a short training learn; warm-started, a few seconds are enough.

Trained weights keep what they know only where the steps are small. ultralytics' own choice is a learning rate of 0.002
for one class, which first takes a good base model apart: after 72 steps on 48 photographs mAP50 was 0.24, and 0.47 with
a quarter of that rate after 120. From five photographs a quarter was better, too. In longer trainings of 20 or 28 the
two are alike, as far as a few runs can tell (`bench/README.md`).

Nothing is frozen, however slow the machine and few the images: of 50 generated images ten frozen layers cost 0.02 of
the mAP50, all but the head 0.2, and on photographs ten gained nothing; and the time is bounded anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backend.labels.networks import Task

Start = Literal["random", "base", "own"]
"""What the weights are at first: random, those of a pretrained model, or a version's that learned these labels."""

LEARNING_RATE_TRAINED = 0.0005
"""Of AdamW, for weights that find boxes, outlines or points already. Random ones, and choices, of which nothing else
was measured, get ultralytics' own choice."""

LEAST_BATCH_TRAINED = 4
"""A set of five images is repeated within a batch, so that as many steps see more of its changes."""

STEPS_FROM_SCRATCH = 240
STEPS_WARM = 120
"""Optimizer steps after which a small set is learned. Large sets get passes instead, within the minutes."""

PASSES = 12
"""Times that each image of a large set is seen."""

STEPS_AN_EPOCH = 24
"""A small set is repeated within an epoch: each one ends with a validation and two written checkpoints."""

STRIDE = 32

CACHED = 2**30
"""Bytes of decoded images that a training may keep in memory: room that even a container of 4 GB has."""

MOST_WORKERS = 8
"""Processes that decode and change images for a GPU; each takes a few hundred MB."""


def image_size(sizes: Sequence[tuple[int, int]], largest: int) -> int:
    """Network input, in pixels: the images' median longer side, a multiple of 32, at most `largest`."""
    sides = sorted(max(size) for size in sizes)
    median = sides[len(sides) // 2] if sides else largest
    wanted = STRIDE * math.ceil(median / STRIDE)
    return max(STRIDE, min(wanted, STRIDE * (largest // STRIDE)))


def most_regions(limit: int, most: int) -> int:
    """Objects of one image that a model may find: as many as the setting allows, and half as many again as the image
    with the most annotated objects shows."""
    return max(limit, math.ceil(1.5 * most))


@dataclass(frozen=True, slots=True)
class Machine:
    """What trains. `gpu`: whether one does the work, `half`: whether in half precision; `threads`: of the processor."""

    gpu: bool
    half: bool
    threads: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """How often an epoch repeats each image, and ultralytics' training arguments."""

    repeats: int
    arguments: dict[str, Any]


def recipe(
    train_images: int, *, start: Start, machine: Machine, task: Task = "detect", image_size: int = 640
) -> Recipe:
    """Choose how to train.

    Args:
        train_images: number of images that teach.
        start: what the weights are at first.
        machine: what trains.
        task: what the model learns.
        image_size: longer side of the network's input, in pixels.
    """
    small = train_images < 1000
    warm = start != "random"
    batch = max(LEAST_BATCH_TRAINED if warm else 2, min(16 if machine.gpu else 8, train_images // 2))
    once = math.ceil(train_images / batch)
    steps = max(STEPS_WARM if warm else STEPS_FROM_SCRATCH, PASSES * once)
    repeats = max(1, round(STEPS_AN_EPOCH / once))
    epochs = max(3, math.ceil(steps / math.ceil(train_images * repeats / batch)))
    arguments = {
        "epochs": epochs,
        "patience": max(8, epochs // 2),
        "batch": batch,
        "nbs": batch,
        "warmup_epochs": 1.0,
        "mosaic": 0.0 if small else 0.5,
        "close_mosaic": 0 if small else 2,
        "scale": 0.3,
        "hsv_h": 0.005,
        "amp": machine.half,
        # A GPU waits for its images unless others decode them meanwhile; a processor has nobody else.
        "workers": min(MOST_WORKERS, max(1, machine.threads - 1)) if machine.gpu else 0,
        "cache": "ram" if train_images * repeats * image_size**2 * 3 < CACHED else False,
    }
    return Recipe(repeats, arguments | _optimizer(start, task) | _CHANGES.get(task, {}))


def _optimizer(start: Start, task: Task) -> dict[str, Any]:
    if start == "random" or task == "classify":
        return {"optimizer": "auto"}
    return {
        "optimizer": "AdamW",
        "lr0": LEARNING_RATE_TRAINED,
        "momentum": 0.9,
        "warmup_bias_lr": 0.0,  # its default of 0.1 is for random weights and SGD
    }


_CHANGES: dict[Task, dict[str, Any]] = {
    # Turns teach the angles that the few annotations do not show; their corners are labels, so boxes stay exact.
    "obb": {"degrees": 180.0, "flipud": 0.5},
    "segment": {"overlap_mask": True},
    # Left and right are different points, and nobody tells which: a mirrored image would teach the wrong one.
    # Points count for more than by default: boxes are right long before points are.
    "pose": {"fliplr": 0.0, "pose": 30.0},
    # The choice may rest on a small part or on the colours of the image, which strong changes would take away.
    "classify": {"auto_augment": None, "erasing": 0.0, "scale": 0.3, "hsv_s": 0.3, "hsv_v": 0.2},
}
