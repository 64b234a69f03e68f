"""Real networks with random weights that see something: what they find differs from place to place and image to image.

Their activations are normalised to noise, as those of a trained network are to its images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SPREAD = 0.06
"""Of the weights that make the scores: few of these are high, hardly two the same."""


def lively(path: Path, yaml: str, names: Mapping[int, str] | None = None, seed: int = 3) -> Path:
    """Write a checkpoint of one of ultralytics' architectures, such as `yolo11n-seg.yaml`."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(seed)
    model = YOLO(yaml)
    network = model.model
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    network.train()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # sums depend on it by a hair, and what such a network finds by far more
    with torch.no_grad():
        for _ in range(2):
            network(torch.rand(4, 3, 160, 160))
        torch.set_num_threads(threads)
        head = network.model[-1]
        if model.task == "classify":
            head.linear.weight.normal_(0, 0.3)
        for branch in ("cv3", "one2one_cv3"):
            for layers in getattr(head, branch, None) or ():
                layers[-1].bias.fill_(-3.0)
                layers[-1].weight.normal_(0, SPREAD)
    network.eval()
    if names is not None:
        network.names = dict(names)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(str(path))
    return path
