"""A candidate and the version in service, measured on the same held-out images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.fit.training.spec import NetworkSpec, Spec, labels_of, seconds_of
from backend.labels.networks import Network
from backend.labels.schema import parse_label_config
from backend.served_models.parts import network_from

if TYPE_CHECKING:
    from backend.fit.evaluation.export_check import Exported
    from backend.fit.evaluation.metrics import Measured


def measure(spec: Spec, todo: NetworkSpec) -> dict[str, Any]:
    """One candidate and the model in service on the hold-out.

    Returns:
        `candidate` and `champion` (None without one): their metrics; `difference`: between them, as an interval (None
        without a champion or a hold-out); `objects`: label → its true objects; `holdout`: number of images; `seconds`
        and `epochs` of the training; `openvino`: the precision in which an export may serve, or ''; `export`: why;
        `note`: what people should know of its start; `initial`: the checkpoint that it started from, or ''.
    """
    import cv2

    from backend.engine.torch import TorchDetector
    from backend.fit.dataset.lesson import lesson_of, reader_of
    from backend.fit.evaluation.bootstrap import difference
    from backend.fit.evaluation.export_check import Keeping
    from backend.fit.evaluation.metrics import measured
    from backend.labels.geometry import ImageSize

    network, folder = network_from(todo.network), Path(todo.folder)
    schema = parse_label_config(spec.label_config)
    controls = [each for each in schema.controls if each.name in network.controls]
    held_out = json.loads((folder / "holdout.json").read_text())
    images: list[Any] = [cv2.imread(each["image"]) for each in held_out]
    truths = []
    for each, image in zip(held_out, images, strict=True):
        size = ImageSize(width=image.shape[1], height=image.shape[0])
        reading = reader_of(schema).read(each["result"])
        lesson = lesson_of(reading, schema, network, controls, each["data_key"], size, each["page"])
        truths.append(list(lesson.objects) if lesson is not None else [])
    index = {label: position for position, label in enumerate(network.classes)}
    kept: dict[str, Keeping] = {}

    def score(weights: str, size: int, known: Network) -> Measured:
        torch = TorchDetector(
            Path(weights),
            names=known.classes if known.own else None,
            multiple=known.multiple,
            whole=known.own,
            device=spec.device,
            image_size=size,
            max_regions=spec.max_regions,
        )
        detector = kept[weights] = Keeping(torch)
        if detector.task != network.task and (network.task not in ("detect", "obb") or detector.task == "classify"):
            return measured(None, {}, images, truths, network)
        found = labels_of(detector.names, todo, spec, own=known.own)
        labels = {cls: index[label] for cls, label in found.items()}
        points = None
        if known.own and known.points:
            theirs = {point.label: point.index for point in known.points}
            points = {point.index: theirs[point.label] for point in network.points if point.label in theirs}
        return measured(detector if labels else None, labels, images, truths, network, points)

    best = str(folder / "run" / "weights" / "best.pt")
    opponent = network_from(todo.opponent_network) if todo.opponent else None
    progress = json.loads((folder / "progress.json").read_text())
    candidate = score(best, todo.image_size, network)
    export = _exported(spec, todo, Path(best), images, truths, candidate, kept[best].found)
    champion = None if opponent is None else score(todo.opponent, todo.opponent_size, opponent)
    interval = difference(candidate.evidence, champion.evidence, seed=0) if champion is not None and images else None
    return {
        "candidate": candidate.metrics,
        "champion": None if champion is None else champion.metrics,
        "difference": None if interval is None else asdict(interval),
        "objects": candidate.objects,
        "holdout": len(held_out),
        "seconds": seconds_of(folder),
        "epochs": progress["epoch"],
        "openvino": export.precision,
        "export": export.note,
        "note": todo.note,
        "initial": todo.initial,
    }


def _exported(
    spec: Spec,
    todo: NetworkSpec,
    best: Path,
    images: Sequence[Any],
    truths: Sequence[Any],
    candidate: Measured,
    seen: Sequence[Any],
) -> Exported:
    """Make the network ready for the engine that will serve it; without held-out images, judged on those that teach."""
    import cv2

    from backend.fit.evaluation.export_check import COMPARED, Exported, exported

    network = network_from(todo.network)
    if spec.engine != "openvino":
        return Exported()
    held_out = bool(images)
    if not held_out:
        teaching = (Path(todo.folder) / "train.txt").read_text().splitlines()
        images = [cv2.imread(each) for each in teaching[:COMPARED]]
    return exported(
        best,
        network,
        images,
        truths if held_out else [],
        candidate if held_out else None,
        seen if held_out else None,
        image_size=todo.image_size,
        max_regions=spec.max_regions,
        threads=spec.threads,
    )
