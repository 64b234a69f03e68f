"""Writes the README's tables of settings and of attributes from the code; with --check only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import SecretStr

from backend.labels.attributes import ATTRIBUTES
from backend.settings import Settings

README = Path(__file__).parents[1] / "README.md"


def settings() -> str:
    """One row per setting: its environment name, its default, its description."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = "" if default in ("", None) else f"`{default}`"
        rows.append(f"| `{Settings.variable(name)}` | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"


def attributes() -> str:
    """One row per attribute of the labelling config: its names, the tags that take it, its default, its meaning."""
    rows = ["| attribute | on | default | meaning |", "|---|---|---|---|"]
    for each in ATTRIBUTES:
        names = ", ".join(f"`{name}`" for name in each.names)
        rows.append(f"| {names} | {each.tags} | {each.default} | {each.meaning} |")
    return "\n".join(rows) + "\n"


TABLES = {"settings": settings, "attributes": attributes}


def written(text: str) -> str:
    """The README's text with the tables of now. Raises ValueError where the place of a table is not marked."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: written by `python scripts/readme_tables.py` -->\n", f"<!-- end of {name} -->"
        head, found, rest = text.partition(begin)
        _, ended, tail = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"The README has no place for the table of {name}: {begin}{end}")
        text = f"{head}{begin}{table()}{end}{tail}"
    return text


if __name__ == "__main__":
    before = README.read_text()
    after = written(before)
    if "--check" in sys.argv:
        if before != after:
            sys.exit("The README's tables are old: run `python scripts/readme_tables.py`.")
    else:
        README.write_text(after)
