"""The weights that a training starts from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from backend.engine.weights import open_model
from backend.fit.dataset.yolo_format import class_names
from backend.fit.training.spec import NetworkSpec, Spec, labels_of
from backend.labels.networks import Network
from backend.served_models.parts import network_from

log = logging.getLogger(__name__)


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


def rename_classes(model: Any, todo: NetworkSpec, spec: Spec) -> None:
    """Give known classes their labels' names: ultralytics keeps the weights of classes whose names stay."""
    own = bool(todo.opponent_network) and bool(todo.opponent_network["own"])
    names = dict(enumerate(todo.opponent_network["classes"])) if own else dict(model.names)
    classes = network_from(todo.network).classes
    renamed = dict(zip(classes, class_names(classes), strict=True))
    labels = labels_of(names, todo, spec, own=own)
    model.model.names = {index: renamed.get(labels.get(index, ""), f"no label {index}") for index in names}
