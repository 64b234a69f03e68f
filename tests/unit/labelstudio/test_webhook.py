from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backend.labelstudio.webhook import webhook_secret


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    first = webhook_secret(tmp_path)
    assert len(first) >= 32
    assert webhook_secret(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "webhook-secret").stat().st_mode) == 0o600


def test_every_installation_has_its_own(tmp_path: Path) -> None:
    homes = [tmp_path / name for name in "ab"]
    for home in homes:
        home.mkdir()
    assert webhook_secret(homes[0]) != webhook_secret(homes[1])


def test_a_file_left_empty_by_a_crash_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "webhook-secret").write_text("")
    secret = webhook_secret(tmp_path)
    assert secret
    assert webhook_secret(tmp_path) == secret


def test_a_secret_set_by_hand_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "webhook-secret"
    path.write_text("chosen\n")
    path.chmod(0o644)
    assert webhook_secret(tmp_path) == "chosen"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_those_who_come_first_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: webhook_secret(tmp_path), range(8)))) == 1
    other = tmp_path / "other"
    other.mkdir()
    code = (
        "import sys, pathlib; from backend.labelstudio.webhook import webhook_secret;"
        "print(webhook_secret(pathlib.Path(sys.argv[1])))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(other)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert {process.communicate(timeout=60)[0].strip() for process in started} == {webhook_secret(other)}
