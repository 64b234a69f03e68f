from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.small_disk import alone

from backend.processes.room import is_full, missing_space, trouble

FILLED = """
import json, sys
from pathlib import Path
from support.small_disk import fill, free, mount
from backend.processes.room import is_full, trouble
home = Path(sys.argv[1])
mount(home, 64)
seen = [trouble(home), is_full(home)]
for left in (0, 2**20):
    fill(home, left)
    seen += [trouble(home), is_full(home)]
    free(home)
print(json.dumps([*seen, trouble(home), is_full(home)]))
"""


def test_a_disk_that_is_full_and_one_that_is_nearly_so(tmp_path: Path) -> None:
    command = [*alone(), sys.executable, "-c", FILLED, str(tmp_path / "home")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, check=True, capture_output=True)
    full = ["the disk is full", True]
    assert json.loads(done.stdout) == ["", False, *full, *full, "", False]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    assert trouble(tmp_path / "none") and is_full(tmp_path / "none")


def test_what_a_training_needs(tmp_path: Path) -> None:
    assert not missing_space(tmp_path, 0)
    assert missing_space(tmp_path, 1e9).endswith("GiB are free in YOLOOP_HOME, and a training needs 1e+09")
