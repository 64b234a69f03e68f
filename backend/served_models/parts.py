"""What a version in the registry is made of: one YOLO model for each YOLO task that its project needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from backend.labels.networks import Network
from backend.labels.schema import Keypoint
from model_registry import Version

TAG = "networks"


@dataclass(frozen=True, slots=True)
class Part:
    """One model of a version: what it is, its file among the version's artifacts, its input in pixels.

    `since` names the version that trained it, when this one took it over because nothing new taught it. `openvino` is
    the precision in which its export passed the check against torch; empty: there is none that may serve.
    `max_regions` is how many objects of one image it may find where its annotations hold more than the setting allows.
    `thresholds` are the least scores that save work (see `thresholds.Learned`).
    """

    network: Network
    file: str = "weights.pt"
    image_size: int = 640
    since: str = ""
    openvino: str = ""
    max_regions: int = 0
    thresholds: Mapping[str, float | None] = field(default_factory=dict, hash=False)

    @property
    def exported(self) -> tuple[str, str]:
        """The two files of the OpenVINO export: the network and its weights."""
        stem = self.file.removesuffix(".pt")
        return f"{stem}.xml", f"{stem}.bin"


def dump(parts: Iterable[Part]) -> str:
    """The parts as the version's tag `networks`."""
    return json.dumps([asdict(part) for part in parts])


def parts_of(version: Version, image_size: int = 640) -> tuple[Part, ...]:
    """The parts of a version; one without the tag is a single model for boxes.

    Args:
        image_size: of a version that does not say, in pixels.
    """
    text = version.tags.get(TAG)
    if not text:
        size = int(version.tags.get("image_size") or image_size)
        return (Part(Network("detect", "detect", tuple(version.classes)), image_size=size),)
    return tuple(Part(**{**each, "network": network_from(each["network"])}) for each in json.loads(text))


def network_from(fields: dict[str, Any]) -> Network:
    """A network from what `dataclasses.asdict` and JSON made of it."""
    points = tuple(Keypoint(each["label"], each["index"], tuple(each["classes"])) for each in fields["points"])
    return Network(
        **{**fields, "classes": tuple(fields["classes"]), "controls": tuple(fields["controls"]), "points": points}
    )
