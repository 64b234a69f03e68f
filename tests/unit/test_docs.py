"""The README tells of every setting, attribute and command, and the changelog of this version."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from backend import __version__
from backend.cli.main import app

ROOT = Path(__file__).parents[2]


def test_every_setting_and_attribute_stands_in_the_readme_as_the_code_has_it() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/readme_tables.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


README = (ROOT / "README.md").read_text()
written = runpy.run_path(str(ROOT / "scripts" / "readme_tables.py"))["written"]


@pytest.mark.parametrize("row", ["| `YOLOOP_PORT` |", "| `model_score_threshold`, `score_threshold` |"])
def test_a_row_that_is_missing_is_written_again(row: str) -> None:
    (lost,) = (line for line in README.splitlines(keepends=True) if line.startswith(row))
    assert written(README.replace(lost, "")) == README


@pytest.mark.parametrize("name", ["settings", "attributes"])
def test_a_table_without_a_place_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"no place for the table of {name}"):
        written(README.replace(f"<!-- end of {name} -->", ""))


def test_every_command_stands_in_the_readme() -> None:
    told = set(re.findall(r"`yoloop (\w+)", (ROOT / "README.md").read_text()))
    assert set(get_command(app).commands) == told  # type: ignore[attr-defined]


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first.group(1) == __version__
