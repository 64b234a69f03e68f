"""The README tells of every setting and every command, and the changelog of this version."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from backend import __version__
from backend.cli import app

ROOT = Path(__file__).parents[2]


def test_every_setting_stands_in_the_readme_as_the_code_has_it() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/settings_table.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_command_stands_in_the_readme() -> None:
    told = set(re.findall(r"`yoloop (\w+)", (ROOT / "README.md").read_text()))
    assert set(get_command(app).commands) == told  # type: ignore[attr-defined]


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first.group(1) == __version__
