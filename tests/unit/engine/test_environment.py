from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from backend.engine.environment import prepare


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
