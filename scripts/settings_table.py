"""Writes the README's table of settings from `backend.settings`; with --check only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import SecretStr

from backend.settings import Settings

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- settings: written by `python scripts/settings_table.py` -->\n", "<!-- end of settings -->"


def table() -> str:
    """One row per setting: its environment name, its default, its description."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = "" if default in ("", None) else f"`{default}`"
        rows.append(f"| `{Settings.variable(name)}` | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"


def written(text: str) -> str:
    """The README's text with the table of now."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{table()}{END}{tail}"


if __name__ == "__main__":
    before = README.read_text()
    after = written(before)
    if "--check" in sys.argv and before != after:
        sys.exit("The README's table of settings is old: run `python scripts/settings_table.py`.")
    README.write_text(after)
