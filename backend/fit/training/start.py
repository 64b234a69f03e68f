"""The weights that a training starts from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend.engine.weights import open_model
from backend.fit.dataset.yolo_format import class_names
from backend.fit.training.head import Firing, fired_on, lay_rows, rows_of, undecided
from backend.fit.training.recipe import Start
from backend.fit.training.spec import NetworkSpec, Spec, labels_of
from backend.labels.networks import Network
from backend.served_models.parts import network_from

log = logging.getLogger(__name__)


def begin(todo: NetworkSpec, network: Network, spec: Spec) -> tuple[Any, Start]:
    """The model to start from, its classes those that are to be learned, and what it knows."""
    model, warm = initial(todo, network)
    if not warm:
        return model, "random"
    take_over(model, todo, spec)
    return model, "own" if has_learned(todo) else "base"


def initial(todo: NetworkSpec, network: Network) -> tuple[Any, bool]:
    """The model to start from, and whether it has learned this task already."""
    from ultralytics import YOLO

    if todo.initial:
        model = open_model(Path(todo.initial))
        if model.task == network.task:
            return model, True
    model = YOLO(todo.architecture, task=network.task)
    if todo.initial:
        try:
            model.load(todo.initial)
        except Exception as error:  # any checkpoint may stand here; without it the training is only longer
            log.warning("Nothing could be taken over from %s: %s", Path(todo.initial).name, error)
    return model, False


def take_over(model: Any, todo: NetworkSpec, spec: Spec) -> None:
    """Give a trained model the labels for its classes, so that what it knows of them stays; see `head.rows_of`."""
    own = has_learned(todo)
    names = dict(enumerate(todo.opponent_network["classes"])) if own else dict(model.names)
    network = network_from(todo.network)
    labels = labels_of(names, todo, spec, own=own)
    if network.task != "classify":
        wanted = undecided(network.classes, labels)
        fired = _fired(todo, spec, wanted) if wanted else {}
        rows = rows_of(network.classes, labels, names, fired)
        if lay_rows(model.model, rows, class_names(network.classes)):
            for index in wanted:
                if (row := rows[index]) >= 0:
                    log.info("%s: '%s' starts from '%s'", network.key, network.classes[index], names[row])
            return
    # ultralytics, and the trainer of choices, keep the weights of classes whose names stay.
    renamed = dict(zip(network.classes, class_names(network.classes), strict=True))
    model.model.names = {index: renamed.get(labels.get(index, ""), f"no label {index}") for index in names}


def has_learned(todo: NetworkSpec) -> bool:
    """Whether it starts from weights that learned this project's labels already, and not from a pretrained model."""
    return bool(todo.initial) and bool(todo.opponent_network) and bool(todo.opponent_network["own"])


def _fired(todo: NetworkSpec, spec: Spec, classes: Sequence[int]) -> Firing:
    """What the model that it starts from makes of the objects that are to teach these classes."""
    from backend.engine.torch import TorchDetector

    images = (Path(todo.folder) / "train.txt").read_text().splitlines()
    detector = TorchDetector(
        Path(todo.initial), device=spec.device, image_size=todo.image_size, max_regions=spec.max_regions
    )
    try:
        return fired_on(detector, map(Path, images), classes)
    except Exception as error:  # any checkpoint may stand here; without this the training is only longer
        log.warning("What %s makes of the first annotations is not known: %s", Path(todo.initial).name, error)
        return {}
