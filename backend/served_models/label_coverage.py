"""How a model's classes and a control's labels meet, for people who wonder why something is not suggested."""

from __future__ import annotations

from dataclasses import dataclass

from backend.labels.mapping import unmapped
from backend.labels.schema import Control, LabelSchema
from backend.served_models.served import Served


@dataclass(frozen=True, slots=True)
class Mapping:
    """One control: the model that suggests for it (empty: none), class → label, and what is left over on both sides."""

    control: str
    kind: str
    model: str
    task: str
    classes: dict[str, str]
    unmapped_classes: list[str]
    unmapped_labels: list[str]

    def __str__(self) -> str:
        if not self.model:
            return f"{self.control} ({self.kind}): no model suggests for it."
        pairs = (name if name == label else f"{name} → {label}" for name, label in self.classes.items())
        said = f"{self.control} ({self.kind}) from {self.model}, {self.task}: {', '.join(pairs) or 'no class fits'}"
        if self.unmapped_classes:
            shown = ", ".join(self.unmapped_classes[:10])
            rest = len(self.unmapped_classes) - 10
            said += f"; classes without a label: {shown}{f' and {rest} more' if rest > 0 else ''}"
        if self.unmapped_labels:
            said += f"; labels that no class goes to: {', '.join(self.unmapped_labels)}"
        return f"{said}."

    @property
    def remedy(self) -> str:
        """What to do about labels that are never suggested; empty when there are none."""
        if not self.unmapped_labels:
            return ""
        return (
            "Label and submit some, and the next version knows them. If one is an old class by a new name, "
            'add predicted_values="<old name>" to its tag.'
        )


def mappings(schema: LabelSchema, served: Served) -> list[Mapping]:
    """One entry for each control, in the config's order."""
    suggesting = {_key(each.control): each for each in served.suggests}
    found = []
    for control in schema.controls:
        each = suggesting.get(_key(control))
        if each is None or not each.loaded.names:
            found.append(Mapping(control.name, control.kind, "", "", {}, [], list(control.labels)))
            continue
        names, network = each.loaded.names, each.loaded.network
        classes, labels = unmapped(names, control, own=network.own)
        mapped = {names[index]: label for index, label in each.labels.items()}
        model = served.name if network.own and control.pinned is None else each.loaded.model
        found.append(Mapping(control.name, control.kind, model, network.task, mapped, list(classes), list(labels)))
    return found


def _key(control: Control) -> tuple[str, str, str]:
    return control.name, control.from_name, control.to_name
