"""What annotations say, picture by picture, and which networks learn from it: pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from backend.images.addresses import without_query
from backend.labels.networks import Network, plan
from backend.labels.reading import Reading
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
    def shown(self) -> str:
        """Its address as it may be told."""
        return without_query(self.reference)

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


def plan_of(schema: LabelSchema, readings: Iterable[Reading], turned: Collection[str] = ()) -> Plan:
    """The networks that the config needs, as far as the annotations tell: one turned box makes its control obb.

    Args:
        turned: names of the controls that are known to hold a turned box elsewhere.
    """
    names = {name for reading in readings for name in reading.turned}.union(turned)
    return plan(schema, lambda control: control.name in names)
