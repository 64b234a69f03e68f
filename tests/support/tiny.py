"""A real YOLO of a hundred thousand weights whose answers are known: it needs neither a download nor a training.

The last layers of its head are set by hand: whatever the image, every cell of one of the three grids finds
its class with its score, in a box of known size around the cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

YAML = """
nc: {nc}
scales:
  t: [0.33, 0.0625, 128]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 1, Conv, [1024, 3, 2]]
head:
  - [[2, 3, 4], 1, Detect, [nc]]
"""
SIZE = 64
"""Pixels of the network's input: grids of 8 × 8, 4 × 4 and 2 × 2 cells."""

CELLS = (64, 16, 4)
STRIDES = (8, 16, 32)


def tiny_yolo(path: Path, names: Sequence[str], finds: Mapping[int, tuple[int, float]]) -> Path:
    """Write a checkpoint.

    Args:
        names: the classes' names by index.
        finds: grid (0 finest … 2) → the class that each of its cells finds, and with which score in (0, 1).
            A box reaches one stride from its cell's centre to every side.
    """
    import torch
    from ultralytics import YOLO

    path.parent.mkdir(parents=True, exist_ok=True)
    yaml = path.with_suffix(".yaml")
    yaml.write_text(YAML.format(nc=len(names)))
    model = YOLO(str(yaml), task="detect")
    head = model.model.model[-1]
    with torch.no_grad():
        for grid in range(3):
            distances, scores = head.cv2[grid][-1], head.cv3[grid][-1]
            distances.weight.zero_()
            distances.bias.fill_(-20.0)
            distances.bias.view(4, -1)[:, 1] = 20.0
            scores.weight.zero_()
            scores.bias.fill_(-20.0)
            if grid in finds:
                cls, score = finds[grid]
                scores.bias[cls] = math.log(score / (1 - score))
    model.model.names = dict(enumerate(names))
    model.save(str(path))
    yaml.unlink()
    return path
