"""What annotations say, picture by picture, and which networks learn from it: pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from backend.fit.dataset.split import split_key
from backend.labels.convert import from_regions
from backend.labels.geometry import Detection, ImageSize
from backend.labels.networks import Network, plan
from backend.labels.rectangle import is_turned
from backend.labels.references import field_of, pages_of
from backend.labels.schema import Control, LabelSchema
from backend.store.ledger import Example

Plan = tuple[tuple[Network, tuple[Control, ...]], ...]
"""The networks of a labelling config, each with the controls that teach it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One annotated image of one task; `page` counts the images of one field."""

    example: Example
    data_key: str
    page: int
    reference: str

    @property
    def key(self) -> str:
        return split_key(self.reference)

    @property
    def stem(self) -> str:
        return f"{self.example.task_id}-{self.data_key}-{self.page}"


def pictures_of(examples: Sequence[Example], schema: LabelSchema) -> list[Picture]:
    """The images that the examples speak of, in the order of task ids."""
    keys = dict.fromkeys((control.data_key, control.pages) for control in schema.controls)
    return [
        Picture(example, key, page, reference)
        for example in sorted(examples, key=lambda example: example.task_id)
        for key, pages in keys
        for page, reference in enumerate(pages_of(field_of(example.data, key), pages))
    ]


def plan_of(schema: LabelSchema, examples: Sequence[Example], turned: Collection[str] = ()) -> Plan:
    """The networks that the config needs, as far as the annotations tell: one turned box makes its control obb.

    Args:
        turned: names of the controls that are known to hold a turned box elsewhere.
    """

    def rotated(control: Control) -> bool:
        return control.name in turned or any(is_turned(example.result, control) for example in examples)

    return plan(schema, rotated)


def objects_of(
    example: Example, controls: Iterable[Control], network: Network, size: ImageSize, page: int
) -> list[Detection]:
    """What an annotation shows on one of its images to one network, as objects of its classes."""
    return [
        found
        for control in controls
        for found in from_regions(example.result, control, network.classes, size, page_for(control, page))
    ]


def page_for(control: Control, page: int) -> int | None:
    """The `item_index` to look for; None where a control says something about all images of its field at once."""
    whole = control.kind in ("choices", "taxonomy") and not control.per_item
    return page if control.pages and not whole else None
