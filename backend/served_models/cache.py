"""Which models answer for which project, and the swap to a newly promoted version.

A thread looks for promotions. It loads and warms the new version beside the one in service and then puts it
in its place with one assignment: no request waits for a load, and one that holds the old version finishes
with it. Another thread loads pretrained models when a labelling config first needs them, and a third has them made
faster while they serve.

Of all that could answer, the `YOLOOP_MAX_MODELS` used last stay in memory; the others are loaded when next asked.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from backend.errors import YoloopError, unwritable
from backend.labels.networks import SERVES, Network, Task, first_drawn, task_of
from backend.labels.schema import Control, LabelSchema
from backend.processes.room import trouble
from backend.served_models.base_model import base_name, find_base_model, get_base_model
from backend.served_models.loading import load_faster, load_part, load_weights, serving_engine
from backend.served_models.parts import parts_of
from backend.served_models.served import Loaded, Served, Suggests, suggests, trained, unloaded
from backend.settings import Settings
from model_registry import Champions, RegistryError, Version
from model_registry.champions import FIRST

log = logging.getLogger(__name__)

RETRY_LOAD = 30.0
"""Seconds after a version that could not be loaded before the next try."""


CHECK_ROOM = 5.0
"""Seconds between two tries to write, where nothing could be written."""


MOST_UNTRAINED = 200
"""Projects without a version that are remembered; of another one the registry is asked again."""


@dataclass(frozen=True, slots=True)
class _State:
    """One version, in memory or about to be; `number` None: the pretrained models answer."""

    number: int | None = None
    name: str = "v0"
    baseline: str = ""
    models: tuple[Loaded, ...] = ()
    why: str = ""

    @property
    def whole(self) -> bool:
        return all(each.detector is not None for each in self.models)


@dataclass(slots=True)
class _Slot:
    """Where a project's version stands: replaced with one assignment."""

    state: _State
    loaded: threading.Event = field(default_factory=threading.Event)
    failed: int | None = None
    failed_at: float = 0.0
    used: float = 0.0
    asleep: bool = False

    @property
    def awake(self) -> bool:
        """Whether a trained version takes memory here."""
        return self.state.number is not None and self.state.whole and not self.asleep


@dataclass(slots=True)
class _Pretrained:
    """One file of pretrained weights, asked for once."""

    task: Task
    file: str
    named: bool
    loaded: Loaded
    path: Path | None = None
    missing: bool = False
    ready: threading.Event = field(default_factory=threading.Event)
    used: float = 0.0


class Models:
    """The models in memory.

    Args:
        settings: where the home is, on which device to run, how often to look.
        champions: who says which version is in service.
        known: names the projects that were served before, to load their models at start.
    """

    def __init__(self, settings: Settings, champions: Champions, known: Callable[[], list[str]]) -> None:
        self._settings = settings
        self._champions = champions
        self._known = known
        self._pretrained: dict[tuple[str, bool], _Pretrained] = {}
        self._wanted: queue.Queue[_Pretrained | None] = queue.Queue()
        self._slow: queue.Queue[_Pretrained | None] = queue.Queue()
        self._slots: dict[str, _Slot] = {}
        self._pinned: dict[tuple[str, int], _Slot] = {}
        self._lock = threading.Lock()
        self._looked = self._settled = False
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True)
            for target in (self._load_pretrained, self._hasten, self._watch)
        ]

    def start(self) -> None:
        """Begin to load; pretrained models apart, for a slow download must not keep trained versions waiting.

        Where every known project has a trained version, pretrained models wait until a config asks for them.
        """
        known = self._known()
        if not known or any(self._champions.number(uid, wait=0.0) is None for uid in known):
            self._ask("detect", base_name(self._settings, "detect"), named=False)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop looking; waits for a load that is under way, which the interpreter's end would crash into."""
        self._stop.set()
        self._wake.set()
        self._wanted.put(None)
        self._slow.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(30)

    def target(self, uid: str, schema: LabelSchema, wait: float = 2.0) -> Served:
        """What answers for a project, loaded or about to be. Waits only for a first look at pretrained models."""
        return self._served(uid, schema, time.monotonic() + wait, wait_for_version=False)

    def ready(self, uid: str, schema: LabelSchema, deadline: float) -> Served:
        """What answers for a project, loaded unless the deadline (`time.monotonic()`) came first."""
        return self._served(uid, schema, deadline, wait_for_version=True)

    def loaded(self) -> dict[str, str]:
        """Project → version that is in memory, or was and comes back when it is asked for."""
        with self._lock:
            slots = list(self._slots.items())
            base = any(each.loaded.detector is not None for each in self._pretrained.values())
        states = [(uid, slot.state) for uid, slot in slots]
        asleep = {uid for uid, slot in slots if slot.asleep}
        return {
            uid: state.name for uid, state in states if uid in asleep or (base if state.number is None else state.whole)
        }

    @property
    def settled(self) -> bool:
        """Whether all that served before the start is in memory, or cannot be: once true, it stays so."""
        if not self._settled and self._looked:  # a look loads what it finds
            with self._lock:
                files = list(self._pretrained.values())
            self._settled = all(each.ready.is_set() for each in files)
        return self._settled

    def unloadable(self) -> dict[str, str]:
        """Project → version in service that could not be loaded; the next try comes by itself."""
        with self._lock:
            return {uid: f"v{slot.failed}" for uid, slot in self._slots.items() if slot.failed_at}

    def refresh(self) -> None:
        """Look once for promotions and load what is new."""
        self._champions.numbers()
        for uid in dict.fromkeys((*self._slots, *self._known())):
            try:
                self._renew(uid)
            except RegistryError as error:  # the other projects go on
                log.warning("Project %s: %s", uid, error)
        for (uid, number), slot in list(self._pinned.items()):
            if not slot.state.whole and not slot.asleep and (not slot.failed_at or self._again(slot)):
                self._fill(uid, slot, number)
        self._make_room()

    def _renew(self, uid: str) -> None:
        slot = self._slot(uid, wait=0.0)
        number = self._champions.number(uid, wait=0.0)
        self._champions.remember(uid)
        if number == slot.state.number and (slot.state.whole or slot.asleep):
            return
        if slot.failed_at and slot.failed == number and not self._again(slot):
            return
        if not slot.used and self._full():
            slot.asleep = True
            return
        self._fill(uid, slot, number)

    def _again(self, slot: _Slot) -> bool:
        """Whether what could not be loaded may be tried again: it waited, or the registry is back."""
        return time.monotonic() - slot.failed_at >= RETRY_LOAD or slot.failed_at < self._champions.back_at

    def _served(self, uid: str, schema: LabelSchema, deadline: float, *, wait_for_version: bool) -> Served:
        slot = self._slot(uid)
        free = LabelSchema(tuple(each for each in schema.controls if each.pinned is None))
        pinned = [
            self._pin(uid, each, deadline if wait_for_version else 0.0)
            for each in schema.controls
            if each.pinned is not None
        ]
        self._touch(slot)
        if wait_for_version and slot.state.number is not None:
            slot.loaded.wait(max(0.0, deadline - time.monotonic()))
        state = slot.state
        if state.number is None:
            found = [self._base(control) for control in first_drawn(free)]
            for each in found:
                each.ready.wait(max(0.0, deadline - time.monotonic()))
            made = [suggests(control, each.loaded) for control, each in zip(first_drawn(free), found, strict=True)]
            # A model of the right family for another task (boxes for a polygon) cannot help its control.
            made = [each for each in made if _helps(each)]
            why = next((each.loaded.why for each in found if each.loaded.why), "")
            settled = all(each.ready.is_set() for each in found)
            served = Served("v0", tuple(made), why=why, settled=settled)
        else:
            settled = state.whole or not free.controls
            # What is promised under this name is all of it: Label Studio keeps the first answer for good.
            served = Served(
                state.name, trained(free, state.models), state.baseline, state.why, settled, whole=state.whole
            )
        return replace(
            served,
            suggests=(*served.suggests, *(each for suggested, _ in pinned for each in suggested)),
            settled=served.settled and all(loaded for _, loaded in pinned),
        )

    def _slot(self, uid: str, wait: float = FIRST) -> _Slot:
        with self._lock:
            slot = self._slots.get(uid)
        if slot is not None:
            return slot
        number = self._champions.number(uid, wait)
        made = _Slot(_State() if number is None else self._described(self._champions.version(uid, number)))
        with self._lock:
            untrained = [key for key, each in self._slots.items() if each.state.number is None and not each.asleep]
            for key in untrained[: max(0, len(untrained) - MOST_UNTRAINED)]:
                del self._slots[key]
            return self._slots.setdefault(uid, made)

    def _touch(self, slot: _Slot) -> None:
        """Note that a slot is in use; what was put to sleep is loaded at once."""
        with self._lock:
            slot.used = time.monotonic()
            if not slot.asleep:
                return
            slot.asleep = False
            slot.loaded.clear()
        self._wake.set()

    def _full(self) -> bool:
        with self._lock:
            slots = [slot for slot in (*self._slots.values(), *self._pinned.values()) if slot.awake]
            return len(slots) >= self._settings.max_models

    def _make_room(self) -> None:
        """Unload what was used least recently. A request that still holds it finishes with it."""
        with self._lock:
            slots = [slot for slot in (*self._slots.values(), *self._pinned.values()) if slot.awake]
            files = [key for key, each in self._pretrained.items() if each.loaded.detector is not None]
            uses = [(slot.used, index) for index, slot in enumerate(slots)]
            uses += [(self._pretrained[key].used, len(slots) + index) for index, key in enumerate(files)]
            for _, index in sorted(uses)[: max(0, len(uses) - self._settings.max_models)]:
                if index >= len(slots):
                    del self._pretrained[files[index - len(slots)]]
                    continue
                slot = slots[index]
                why = f"{slot.state.name} is being loaded again."
                resting = tuple(replace(each, detector=None, why=why) for each in slot.state.models)
                slot.state, slot.asleep = replace(slot.state, models=resting, why=why), True
                log.info("%s was unloaded to make room (YOLOOP_MAX_MODELS)", slot.state.name)

    def _described(self, version: Version) -> _State:
        """A version before its weights are in memory."""
        parts = parts_of(version, self._settings.image_size)
        why = f"{version.name} is still being loaded."
        models = tuple(unloaded(part, why) for part in parts)
        return _State(version.number, version.name, version.tags.get("fingerprint", ""), models, why)

    def _fill(self, uid: str, slot: _Slot, number: int | None) -> None:
        try:
            state = _State() if number is None else self._load(uid, number)
        except Exception:
            slot.failed, slot.failed_at = number, time.monotonic()
            log.exception("Project %s: version v%s could not be loaded", uid, number)
            if not slot.state.whole:
                why = f"Version v{number} could not be loaded."
                slot.state = self._last_good(uid, number) or replace(slot.state, why=why)
        else:
            slot.failed_at = 0.0
            slot.state, slot.asleep, slot.used = state, False, time.monotonic()
            self._make_room()
            log.info("Project %s: %s serves now", uid, state.name)
        slot.loaded.set()

    def _last_good(self, uid: str, number: int | None) -> _State | None:
        """What served before a version that cannot be loaded. It answers under its own name until that one can be."""
        for earlier in self._champions.served_before(uid):
            if earlier == number:
                continue
            try:
                state = self._load(uid, earlier)
            except Exception:
                log.exception("Project %s: version v%s could not be loaded either", uid, earlier)
            else:
                log.warning("Project %s: %s serves in its place", uid, state.name)
                return state
        return None

    def _load(self, uid: str, number: int) -> _State:
        version = self._champions.version(uid, number)
        models = [
            replace(unloaded(part), detector=load_part(self._settings, self._champions, version, part))
            for part in parts_of(version, self._settings.image_size)
        ]
        return replace(self._described(version), models=tuple(models), why="")

    def _pin(self, uid: str, control: Control, deadline: float) -> tuple[tuple[Suggests, ...], bool]:
        """What the version that `model_path` names suggests for a control, and whether it is in memory.

        A version that does not exist, or cannot be loaded, suggests nothing: the other controls are not to wait.
        """
        number = control.pinned or 0
        with self._lock:
            slot = self._pinned.get((uid, number))
        if slot is None:
            try:
                made = _Slot(self._described(self._champions.version(uid, number)))
            except RegistryError:
                return (), True
            with self._lock:
                slot = self._pinned.setdefault((uid, number), made)
        self._touch(slot)
        slot.loaded.wait(max(0.0, deadline - time.monotonic()))
        named = tuple(replace(each, model=f"v{number}") for each in slot.state.models)
        return trained(LabelSchema((control,)), named), slot.loaded.is_set()

    def _base(self, control: Control) -> _Pretrained:
        task = task_of(control)
        return self._ask(task, control.model_path or base_name(self._settings, task), named=bool(control.model_path))

    def _ask(self, task: Task, file: str, *, named: bool) -> _Pretrained:
        with self._lock:
            found = self._pretrained.get((file, named))
            if found is None or self._arrived(found):
                loaded = Loaded(Network(file, task, (), own=False), {}, file, why="It is still being loaded.")
                found = _Pretrained(task, file, named, loaded)
                here = find_base_model(self._settings, task, file) if named else None
                if here is not None and here.path is None:
                    # A config can name anything, and only what is there is worth remembering.
                    found.loaded, found.missing = replace(loaded, why=here.why), True
                    found.ready.set()
                    return found
                self._pretrained[file, named] = found
                self._wanted.put(found)
            found.used = time.monotonic()
        return found

    def _arrived(self, wanted: _Pretrained) -> bool:
        """Whether a file that was missing has been put into its place meanwhile."""
        if not wanted.ready.is_set() or wanted.loaded.detector is not None or not wanted.missing:
            return False
        return find_base_model(self._settings, wanted.task, wanted.file if wanted.named else "").path is not None

    def _load_pretrained(self) -> None:
        if serving_engine(self._settings.engine, self._settings.device) != "openvino":
            self._rehearse()
        while (wanted := self._wanted.get()) is not None:
            wanted.loaded = self._read(wanted)
            wanted.ready.set()
            self._make_room()
            self._slow.put(wanted)

    def _hasten(self) -> None:
        """Put faster engines into the places of those that serve pretrained models, one after the other."""
        while (slow := self._slow.get()) is not None:
            serving = slow.loaded
            if slow.path is None or serving.detector is None or self._stop.is_set():
                continue
            if not self._wait_for_room():
                return
            try:
                faster = load_faster(self._settings, slow.path, serving.detector, self._stop)
            except Exception as error:
                log.exception("%s could not be made faster; what is loaded serves on", slow.path.name)
                if unwritable(error):
                    self._slow.put(slow)
            else:
                # What was unloaded meanwhile stays so; loaded again, it comes here again.
                if faster is not None and slow.loaded is serving:
                    slow.loaded = replace(serving, detector=faster)

    def _wait_for_room(self) -> bool:
        """Wait until something can be written, for what is written is kept; False when told to stop before."""
        while trouble(self._settings.root):
            if self._stop.wait(CHECK_ROOM):
                return False
        return True

    def _rehearse(self) -> None:
        from backend.engine.torch import rehearse

        try:
            rehearse(self._settings.device)
        except Exception:
            log.exception("A model cannot be run here")

    def _read(self, wanted: _Pretrained) -> Loaded:
        found = get_base_model(self._settings, wanted.task, wanted.file if wanted.named else "")
        if found.path is None:
            log.warning("%s", found.why)
            wanted.missing = True
            return replace(wanted.loaded, why=found.why)
        try:
            detector = load_weights(self._settings, found.path)
        except YoloopError as error:
            log.warning("%s", error)
            return replace(wanted.loaded, why=str(error))
        except Exception:
            log.exception("The base model %s could not be loaded", found.path.name)
            return replace(wanted.loaded, why=f"The base model {found.path.name} could not be loaded.")
        wanted.path = found.path
        network = replace(wanted.loaded.network, task=detector.task)
        return Loaded(network, detector.names, found.path.name, detector)

    def _watch(self) -> None:
        while True:
            self._wake.clear()
            try:
                self.refresh()
                self._looked = True
            except Exception:
                log.exception("Could not look for promoted versions; what is loaded serves on")
            self._wake.wait(self._settings.refresh_interval)
            if self._stop.is_set():
                return


def _helps(each: Suggests) -> bool:
    return each.loaded.detector is None or each.loaded.network.task in SERVES[each.control.kind]
