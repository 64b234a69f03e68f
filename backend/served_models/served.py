"""The version that answers for a project: its models, and which of them suggests for which control."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from backend.engine.detector import Detector
from backend.labels.mapping import map_classes
from backend.labels.networks import Network, assign, at_serving
from backend.labels.schema import Control, LabelSchema
from backend.served_models.parts import Part
from backend.served_models.thresholds import Learned, ThresholdPolicy, Thresholds
from backend.served_models.version_string import Suggested

TRAINED = "trained"
"""What stands for the model in a trained version's fingerprint: its number is in its name already."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One model of a version. Without `detector`, `why` says the reason.

    `names` are its classes by index, `model` what a fingerprint calls it, `image_size` the longer side of its input in
    pixels, 0 where that is the setting's; `max_regions` the most objects of one image, where that is more than the
    setting's; `thresholds` what its held-out images said of scores.
    """

    network: Network
    names: Mapping[int, str]
    model: str
    detector: Detector | None = None
    why: str = ""
    image_size: int = 0
    max_regions: int = 0
    thresholds: Learned = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Suggests:
    """One control with the model that suggests for it, and that model's class index → the control's label."""

    control: Control
    loaded: Loaded
    labels: Mapping[int, str]

    def thresholds(self, policy: ThresholdPolicy) -> Thresholds:
        """From which score on this control's objects are suggested."""
        return policy.thresholds(self.control, self.loaded.names, self.loaded.thresholds)


@dataclass(frozen=True, slots=True)
class Served:
    """The models that answer for a project.

    `name` is `v0` or the version's; `baseline` is the fingerprint that needs no mention (empty for v0: the project
    keeps its own). Where nothing can be suggested, `why` says the reason. `settled` is False while models that
    would be a part of it are still being loaded for the first time; `whole` is True when all of a trained
    version is in memory, even if the labelling config has come to ask for nothing that it knows.
    """

    name: str
    suggests: tuple[Suggests, ...] = ()
    baseline: str = ""
    why: str = ""
    settled: bool = True
    whole: bool = False

    @property
    def ready(self) -> bool:
        """Whether there is something to answer with."""
        return self.whole or any(each.loaded.detector is not None for each in self.suggests)

    def fingerprinted(self) -> Iterator[Suggested]:
        """What `version_string.fingerprint` takes."""
        for each in self.suggests:
            if each.loaded.names:
                yield Suggested(
                    each.control,
                    each.loaded.names,
                    each.loaded.model,
                    each.loaded.network.own,
                    each.loaded.thresholds,
                )


def suggests(control: Control, loaded: Loaded) -> Suggests:
    """A control as its model must take it."""
    taken = at_serving(control, loaded.network)
    return Suggests(taken, loaded, map_classes(loaded.names, taken, own=loaded.network.own))


def trained(schema: LabelSchema, loaded: Iterable[Loaded]) -> tuple[Suggests, ...]:
    """Which of a trained version's models suggests for which control."""
    by_network = {each.network: each for each in loaded}
    return tuple(suggests(control, by_network[network]) for control, network in assign(schema, list(by_network)))


def unloaded(part: Part, why: str = "") -> Loaded:
    """A part of a trained version before its weights are in memory."""
    names = dict(enumerate(part.network.classes))
    return Loaded(
        part.network,
        names,
        TRAINED,
        why=why,
        image_size=part.image_size,
        max_regions=part.max_regions,
        thresholds=part.thresholds,
    )


def own_suggestions(
    schema: LabelSchema, parts: Iterable[Part], pinned: Callable[[int], Iterable[Part]] = lambda number: ()
) -> list[Suggested]:
    """What a trained version's fingerprint is made of.

    Args:
        pinned: the parts of the version that `model_path` names; none when there is no such version.
    """
    free = LabelSchema(tuple(control for control in schema.controls if control.pinned is None))
    made = trained(free, [unloaded(part) for part in parts])
    for control in schema.controls:
        if control.pinned is not None:
            named = [replace(unloaded(part), model=f"v{control.pinned}") for part in pinned(control.pinned)]
            made += trained(LabelSchema((control,)), named)
    return list(Served("", made).fingerprinted())
