"""Which model answers for which project, and the swap to a newly promoted one.

A thread looks for promotions. It loads and warms the new version beside the one in service and then puts it
in its place with one assignment: no request waits for a load, and one that holds the old version finishes
with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from backend.labels.schema import LabelSchema
from backend.predict.base_model import get_base_model
from backend.predict.engine.base import Detector
from backend.predict.engine.torch import TorchDetector, rehearse
from backend.settings import Settings
from model_registry import Registry, Version

log = logging.getLogger(__name__)

TRAINED = "trained"
"""What stands for the model in a trained version's fingerprint: its number is in its name already."""

RETRY_LOAD = 30.0
"""Seconds after a version that could not be loaded before the next try."""


@dataclass(frozen=True, slots=True)
class Served:
    """The model that answers for a project.

    `name` is `v0` or the version's; `model` and `names` are what a fingerprint is made of; `baseline` is the
    fingerprint that needs no mention (empty for v0: the project keeps its own). Without `detector`, `why`
    says the reason. `settled` is False while it is not known yet whether there is a base model.
    """

    name: str
    model: str
    names: Mapping[int, str]
    baseline: str = ""
    detector: Detector | None = None
    why: str = ""
    settled: bool = True

    def read(self, schema: LabelSchema) -> LabelSchema:
        """The labelling config as this model must take it: what it was trained on are the labels themselves."""
        return schema.own_labels() if self.model == TRAINED else schema


@dataclass(slots=True)
class _Slot:
    number: int | None
    served: Served
    loaded: threading.Event = field(default_factory=threading.Event)
    failed: int | None = None
    failed_at: float = 0.0


class Models:
    """The models in memory.

    Args:
        settings: where the home is, on which device to run, how often to look.
        registry: who says which version is champion.
        known: names the projects that were served before, to load their models at start.
    """

    def __init__(self, settings: Settings, registry: Registry, known: Callable[[], list[str]]) -> None:
        self._settings = settings
        self._registry = registry
        self._known = known
        self._base = Served("v0", "", {}, why="The base model is still being loaded.", settled=False)
        self._base_ready = threading.Event()
        self._slots: dict[str, _Slot] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True)
            for target in (self._load_base, self._watch)
        ]

    def start(self) -> None:
        """Begin to load; the base model apart, for a slow download must not keep trained versions waiting."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop looking; waits for a load that is under way, which the interpreter's end would crash into."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(30)

    def target(self, uid: str, wait: float = 2.0) -> Served:
        """What answers for a project, loaded or about to be. Waits only for the very first look at v0."""
        slot = self._slot(uid)
        if slot.number is None:
            self._base_ready.wait(wait)
            return self._base
        return slot.served

    def ready(self, uid: str, deadline: float) -> Served:
        """What answers for a project, loaded unless the deadline (`time.monotonic()`) came first."""
        slot = self._slot(uid)
        if slot.number is None:
            self._base_ready.wait(max(0.0, deadline - time.monotonic()))
            return self._base
        slot.loaded.wait(max(0.0, deadline - time.monotonic()))
        return slot.served

    def loaded(self) -> dict[str, str]:
        """Project → version that is in memory."""
        with self._lock:
            served = {uid: self._base if slot.number is None else slot.served for uid, slot in self._slots.items()}
        return {uid: each.name for uid, each in served.items() if each.detector is not None}

    def refresh(self) -> None:
        """Look once for promotions and load what is new."""
        for uid in {*self._known(), *self._slots}:
            slot = self._slot(uid)
            number = self._registry.champion_number(uid)
            if number == slot.number and (number is None or slot.served.detector is not None):
                continue
            if slot.failed_at and slot.failed == number and time.monotonic() - slot.failed_at < RETRY_LOAD:
                continue
            try:
                served = self._load(uid, number)
            except Exception:
                slot.failed, slot.failed_at = number, time.monotonic()
                log.exception("Project %s: version v%s could not be loaded", uid, number)
                if slot.served.detector is None:
                    slot.served = replace(slot.served, why=f"Version v{number} could not be loaded.")
            else:
                slot.failed_at = 0.0
                slot.served, slot.number = served, number
                log.info("Project %s: %s serves now", uid, served.name)
            slot.loaded.set()

    def _slot(self, uid: str) -> _Slot:
        with self._lock:
            slot = self._slots.get(uid)
        if slot is not None:
            return slot
        version = self._registry.champion(uid)
        made = _Slot(None, self._base) if version is None else _Slot(version.number, _target(version))
        with self._lock:
            return self._slots.setdefault(uid, made)

    def _load(self, uid: str, number: int | None) -> Served:
        if number is None:
            return self._base
        version = self._registry.version(uid, number)
        size = int(version.tags.get("image_size") or self._settings.image_size)
        return replace(_target(version), detector=self._detector(self._registry.fetch(version), size), why="")

    def _load_base(self) -> None:
        try:
            rehearse(self._settings.device)
        except Exception:
            log.exception("A model cannot be run here")
        found = get_base_model(self._settings)
        if found.path is None:
            self._base = Served("v0", "", {}, why=found.why)
            log.warning("%s", found.why)
        else:
            try:
                detector = self._detector(found.path, self._settings.image_size)
                self._base = Served("v0", found.path.name, detector.names, detector=detector)
            except Exception:
                log.exception("The base model %s could not be loaded", found.path.name)
                self._base = Served("v0", "", {}, why=f"The base model {found.path.name} could not be loaded.")
        self._base_ready.set()

    def _detector(self, weights: Path, image_size: int) -> Detector:
        detector = TorchDetector(
            weights,
            device=self._settings.device,
            image_size=image_size,
            max_regions=self._settings.max_regions,
            batch_size=self._settings.batch_size,
        )
        detector.warm()
        return detector

    def _watch(self) -> None:
        while True:
            try:
                self.refresh()
            except Exception:
                log.exception("Could not look for promoted versions; what is loaded serves on")
            if self._stop.wait(self._settings.refresh_interval):
                return


def _target(version: Version) -> Served:
    return Served(
        version.name,
        TRAINED,
        dict(enumerate(version.classes)),
        version.tags.get("fingerprint", ""),
        why=f"{version.name} is still being loaded.",
    )
