"""What one training is told: `spec.json` in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backend.labels.schema import parse_label_config
from backend.served_models.parts import network_from


@dataclass(frozen=True, slots=True)
class Opponent:
    """One more version to measure on the same images: its name, its checkpoint, what it is, its input in pixels, and
    whether it has thresholds of its own."""

    version: str
    weights: str
    network: dict[str, Any]
    image_size: int
    own_thresholds: bool = False


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """One YOLO model to train. Paths are absolute.

    `folder` is what `backend.fit.dataset.build` wrote; `architecture` the model's yaml; `initial` the checkpoint to
    start from (empty: random weights), of which only the layers that fit are taken when it is for another task.
    `opponent` is the checkpoint in service and `opponent_network` what it is (empty: none); `opponent_size` its
    input in pixels, `opponent_thresholds` whether it has thresholds of its own. `others` are measured as well. `note`
    is what people should know of its start.
    """

    network: dict[str, Any]
    folder: str
    architecture: str
    initial: str
    train_images: int
    image_size: int
    opponent: str = ""
    opponent_network: dict[str, Any] = field(default_factory=dict)
    opponent_size: int = 0
    opponent_thresholds: bool = False
    note: str = ""
    others: list[Opponent] = field(default_factory=list)

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> NetworkSpec:
        """What `asdict` gave."""
        return cls(**{**found, "others": [Opponent(**each) for each in found.get("others", ())]})


@dataclass(frozen=True, slots=True)
class Spec:
    """One training.

    `parent_version` names the version whose weights it starts from; empty for the base model or none. `in_service` is
    the number of the one that served then (None: none), where an earlier release does not leave that out (0).
    `minutes` are shared by the networks. `engine` is what will serve: `torch`, or `openvino` where an export passes its
    check. `score_threshold` is the least score of a suggestion where a control names none, in [0, 1], and
    `is_least` says whether a person has set it; with `own_thresholds` the version gets its own beside it, by
    `action_seconds`, what a person's actions take (see `settings.ActionSeconds`).
    """

    home: str
    label_config: str
    networks: list[NetworkSpec]
    parent_version: str
    minutes: float
    threads: int
    device: str
    max_regions: int
    engine: str = "torch"
    score_threshold: float = 0.25
    in_service: int | None = 0
    action_seconds: dict[str, float] = field(default_factory=dict)
    own_thresholds: bool = False
    is_least: bool = False

    @property
    def compared(self) -> int | None:
        """Number of the version in service that the new one is to be compared with; None: none served."""
        if self.in_service != 0:
            return self.in_service
        return int(self.parent_version[1:]) if self.parent_version else None

    def save(self, folder: Path) -> None:
        write_json(folder / "spec.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Spec:
        found = json.loads((folder / "spec.json").read_text())
        for name in ("parent", "own_session"):  # an earlier release wrote them
            found.pop(name, None)
        return cls(**{**found, "networks": [NetworkSpec.of(each) for each in found["networks"]]})


def write_json(path: Path, value: Any) -> None:
    """Write a file that is either whole or not there."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(value))
    part.replace(path)


def labels_of(names: Mapping[int, str], todo: NetworkSpec, spec: Spec, *, own: bool) -> dict[int, str]:
    """Class index → label, for all controls that the network is for."""
    from backend.labels.mapping import map_classes

    network = network_from(todo.network)
    controls = [each for each in parse_label_config(spec.label_config).controls if each.name in network.controls]
    found: dict[int, str] = {}
    for each in controls:
        for index, label in map_classes(names, each, own=own).items():
            if index not in found or label == names[index]:
                found[index] = label
    return found


def seconds_of(folder: Path) -> float:
    """Seconds that a network's training, and earlier tries of it, took so far."""
    for name in ("trained.json", "progress.json"):
        try:
            return float(json.loads((folder / name).read_text())["seconds"])
        except (OSError, ValueError, KeyError):
            continue
    return 0.0
