"""A candidate, the version in service and others, measured on the same held-out images, which are seen one by one."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.fit.training.spec import NetworkSpec, Spec, seconds_of
from backend.labels.networks import Network
from backend.labels.schema import parse_label_config
from backend.served_models.parts import network_from
from backend.settings import ActionSeconds

if TYPE_CHECKING:
    from backend.engine.detector import Image
    from backend.fit.evaluation.export_check import ExportCheck, Exported
    from backend.fit.evaluation.metrics import Measured, Tally
    from backend.labels.geometry import Detection

    Unlabelled = tuple[Image, Sequence[Detection] | None]
    """An image, and the objects on it if they are known."""

log = logging.getLogger(__name__)

FEWEST = 50
"""Images that are measured however slow it is: fewer would hardly allow a decision."""

PRETRAINED = "the pretrained model"

LEAST_SECONDS = 30.0
SHARE = 0.2
"""What measuring may take: that part of the training's minutes, and not less than those seconds."""

FIRST_PASS = 0.75
"""Part of that time after which no more images are seen, where an export may have to be looked at once more."""


def seconds_to_measure(spec: Spec) -> float:
    """How long measuring one of a training's networks may take."""
    return max(LEAST_SECONDS, SHARE * spec.minutes * 60) / len(spec.networks)


def measure(
    spec: Spec, todo: NetworkSpec, seconds: float | None = None, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """One candidate, the model in service and others on the same held-out images.

    At most `held_out.MOST` images judge, chosen by `held_out.rank`; where they take longer than they may, the first
    of these, but `FEWEST` at least.

    Args:
        seconds: how long it may take; None: `seconds_to_measure`.
        clock: seconds that only ever grow.

    Returns:
        `candidate` and `champion` (None without one): their metrics; `scored`: what the candidate does on all its
        labels, a `Scored`; `comparison`: with the champion on the labels that both know, a `Comparison` (None without
        a champion or a hold-out); `others`: version → its `metrics` and `comparison`; `objects`: label → its true
        objects; `thresholds`: label → its `thresholds.Threshold`; `holdout`: number of images that were measured;
        `seconds` and `epochs` of the training; `openvino`: the precision in which an export may serve, or '';
        `export`: why; `note`: what people should know of its start; `initial`: the checkpoint that it started from,
        or ''.
    """
    from backend.fit.evaluation.arena import Arena
    from backend.fit.evaluation.bootstrap import Draws
    from backend.fit.evaluation.contender import Contender
    from backend.fit.evaluation.export_check import ExportCheck, Exported
    from backend.fit.evaluation.held_out import HeldOut, seen, within

    end = clock() + (seconds_to_measure(spec) if seconds is None else seconds)
    network, folder = network_from(todo.network), Path(todo.folder)
    best = folder / "run" / "weights" / "best.pt"
    held_out = HeldOut(folder / "holdout.json")
    candidate = Contender(spec, todo, str(best), todo.image_size, network, learns=spec.own_thresholds)
    opponents = {
        name: Contender(spec, todo, weights, size, network_from(known), learns=spec.own_thresholds and own)
        for name, weights, size, known, own in (
            ("", todo.opponent, todo.opponent_size, todo.opponent_network, todo.opponent_thresholds),
            *((each.version, each.weights, each.image_size, each.network, each.own_thresholds) for each in todo.others),
        )
        if weights
    }
    own = todo.opponent_network.get("own", True)
    names = {
        "": spec.parent_version or "v0" if own else PRETRAINED,
        **{each.version: each.version for each in todo.others},
    }
    check = None
    if spec.engine == "openvino":
        check = ExportCheck(
            best,
            network,
            candidate.find,
            image_size=todo.image_size,
            max_regions=spec.max_regions,
            threads=spec.threads,
        )
    schema = parse_label_config(spec.label_config)
    until = end if check is None else end - (1 - FIRST_PASS) * (end - clock())
    groups: list[Hashable] = []
    for entry, image, truth in within(seen(held_out, schema, network), until, clock, FEWEST):
        found = candidate.look(image, truth)
        for each in opponents.values():
            each.look(image, truth)
        if check is not None:
            check.look(image, truth, found)
        groups.append(entry.get("group", entry["image"]))
    images = len(groups)
    if images < len(held_out):
        log.info("%s: %d of %d held-out images were measured in that time", network.key, images, len(held_out))
    measured = candidate.measured()
    export = Exported()
    if check is not None and images:
        again = partial(seen, held_out, schema, network)
        export = _judged(
            check,
            candidate.tally,
            lambda: ((image, truth) for _, image, truth in within(islice(again(), images), end, clock, FEWEST)),
        )
    elif check is not None:
        export = _judged(check, None, partial(_teaching, folder))
    for each in (candidate, *opponents.values()):
        each.settle(groups)
    arena = Arena(candidate.tally, network, Draws.of(groups))
    compared = {
        name: {"metrics": each.measured().metrics, "comparison": arena.against(names[name], each.tally)}
        for name, each in opponents.items()
    }
    champion = compared.pop("", {"metrics": None, "comparison": None})
    return {
        "candidate": measured.metrics,
        "champion": champion["metrics"],
        "scored": asdict(arena.scored()),
        "comparison": champion["comparison"],
        "others": compared,
        "thresholds": _thresholds(measured, network, spec, groups) if spec.own_thresholds else {},
        "objects": measured.objects,
        "holdout": images,
        "seconds": seconds_of(folder),
        "epochs": json.loads((folder / "progress.json").read_text())["epoch"],
        "openvino": export.precision,
        "export": export.note,
        "note": todo.note,
        "initial": todo.initial,
    }


def _thresholds(measured: Measured, network: Network, spec: Spec, groups: Sequence[Hashable]) -> dict[str, Any]:
    """Label → from which score on its suggestions save work. Where no object is held out nothing says that they do."""
    from backend.fit.evaluation.bootstrap import Objects
    from backend.fit.evaluation.thresholds import Threshold, thresholds

    evidence = measured.evidence
    if not isinstance(evidence, Objects):
        return {}
    if not len(evidence.truths):
        return {label: asdict(Threshold(None)) for label in network.classes}
    costs = ActionSeconds(**spec.action_seconds)
    found = thresholds(evidence, network.classes, network.task, costs, groups)
    return {label: asdict(each) for label, each in found.items()}


def _judged(check: ExportCheck, candidate: Tally | None, images: Callable[[], Iterator[Unlabelled]]) -> Exported:
    """In which precision the export may serve.

    Args:
        check: has looked at the held-out images, if there are any.
        candidate: what torch made of these.
        images: gives those to look at, with another precision once more.
    """
    looked = candidate is not None
    while check.trying:
        if not looked:
            for image, truth in images():
                if not check.promising:
                    break
                check.look(image, truth)
        if check.same(candidate):
            break
        looked = False
    return check.result


def _teaching(folder: Path) -> Iterator[Unlabelled]:
    """Where no image is held out, an export is compared on training images."""
    import cv2

    from backend.fit.evaluation.export_check import COMPARED

    for each in (folder / "train.txt").read_text().splitlines()[:COMPARED]:
        image: Any = cv2.imread(each)
        yield image, None
