"""A labelling config as XML: read with care, as anybody may have written it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from backend.errors import LabelConfigError

LARGEST = 4 * 2**20
"""Characters of a labelling config."""

DEEPEST = 100
"""Tags within tags."""

EXAMPLE = (
    "Add one to the labelling config, for example "
    '<Image name="image" value="$image"/> and '
    '<RectangleLabels name="label" toName="image"><Label value="Car"/></RectangleLabels>.'
)


class _Careful(ET.TreeBuilder):
    """Refuses a document type, without which there are no entities to expand, and tags within tags without end."""

    depth = 0

    def start(self, tag: Any, attrs: Any) -> ET.Element:
        self.depth += 1
        if self.depth > DEEPEST:
            raise LabelConfigError(f"The labelling config nests more than {DEEPEST} tags.", "Make it flatter.")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ET.Element:
        self.depth -= 1
        return super().end(tag)

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise LabelConfigError(
            "The labelling config declares a document type, which is not allowed.",
            "Remove <!DOCTYPE …> and every <!ENTITY …> from it.",
        )


def parse(xml: str) -> ET.Element:
    """The root of a labelling config. Raises LabelConfigError: not XML, or past all measure."""
    if len(xml) > LARGEST:
        raise LabelConfigError(f"The labelling config has {len(xml)} characters.", f"At most {LARGEST} are read.")
    try:
        return ET.fromstring(xml, ET.XMLParser(target=_Careful()))  # noqa: S314 - no entities, no depth
    except (ET.ParseError, ValueError, LookupError) as error:
        raise LabelConfigError(f"The labelling config is not XML: {error}.", EXAMPLE) from None
