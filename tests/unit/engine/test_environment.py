from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.users import UNKNOWN, as_unknown

from backend.engine.environment import prepare, provide_user

ROOT = Path(__file__).parents[3]


def test_nothing_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_OFFLINE", "0")
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    prepare(tmp_path)
    assert os.environ["YOLO_OFFLINE"] == "1"
    with pytest.raises(ImportError):  # OpenVINO takes its own stand-in then
        importlib.import_module("openvino_telemetry")


def test_a_font_lies_where_ultralytics_looks(tmp_path: Path) -> None:
    prepare(tmp_path)
    prepare(tmp_path)
    found = {path.name for path in (tmp_path / "ultralytics" / "Ultralytics").iterdir()}
    assert found == {"Arial.ttf", "Arial.Unicode.ttf"}


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "", "/nonexistent", "/root", "elsewhere"])
def test_a_user_whom_the_system_does_not_know_gets_a_home_and_a_name(home: str | None) -> None:
    """Whatever HOME says, the libraries that ask for either as they are imported find one that can be entered."""
    code = """
import getpass, os, pathlib, sys
from backend.engine.environment import provide_user
provide_user(pathlib.Path("/srv"))
provide_user(pathlib.Path("/tmp"))  # repeated
import label_studio_sdk.converter.brush, mlflow
print(os.geteuid(), pathlib.Path.home(), os.listdir(pathlib.Path.home()) is not None, getpass.getuser())
"""
    command = as_unknown([sys.executable, "-c", code])
    given = [] if home is None else [f"HOME={home}"]
    place = command.index(sys.executable)
    done = subprocess.run(
        [*command[:place], *given, *command[place:]], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    user, found, entered, _ = done.stdout.split()
    assert entered == "True"
    if os.geteuid() == 0:
        assert (int(user), found) == (UNKNOWN, "/" if home == "" else "/srv")


def test_a_known_user_keeps_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "somebody")
    provide_user(tmp_path / "other")
    assert (os.environ["HOME"], os.environ["USER"]) == (str(tmp_path), "somebody")
