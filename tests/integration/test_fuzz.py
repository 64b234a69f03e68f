"""Nonsense over HTTP against a serving process: `scripts/fuzz` asks for far more of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.group("fuzz", minutes=1)

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nonsense_is_answered_in_time_and_never_with_an_error_of_ours() -> None:
    ran = subprocess.run(
        [sys.executable, "scripts/fuzz.py", "--requests", "800", "--longest", "60", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    told = json.loads(ran.stdout[ran.stdout.index("{") :])
    assert told["wrong"] == []
    assert ran.returncode == 0
    assert told["count"] >= 800
    answered = {asked.rpartition(" ")[2] for asked in told["statuses"]}
    assert {"200", "201", "400", "404"} <= answered
    assert not any(status.startswith("5") and status not in ("502", "503") for status in answered)
