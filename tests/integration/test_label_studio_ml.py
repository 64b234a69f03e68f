"""yoloop as a subclass of label-studio-ml's base class.

The installable release, 1.0.9, cannot share an environment with a supported Flask: it lies in a folder of its
own, which only the process below looks into. 2.x is in no package index, so its constructor and its `set()`
stand here as its documentation gives them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OLD_RELEASE = ROOT / ".venv-ml"
CONFIG = (ROOT / "label_config.xml").read_text()

SCRIPT = """
import json, sys
from label_studio_ml.model import LabelStudioMLBase
from backend.label_studio_ml import YoloModel

assert issubclass(YoloModel, LabelStudioMLBase)
config = sys.argv[1]
model = YoloModel(label_config=config)
entries = model.predict([{"id": 1, "data": {"image": "/data/upload/1/a.jpg"}}, {"id": 2, "data": {}}])
project = {"id": 1, "created_at": "2026-11-23T17:01:13.434899Z", "label_config": config, "title": "t"}
event = model.fit("ANNOTATION_CREATED", {"action": "ANNOTATION_CREATED", "project": project})
job = model.fit("START_TRAINING", {"action": "START_TRAINING", "project": project})
print(json.dumps([entries, event, job]))
"""


class Base2:
    """label-studio-ml 2.x's base class, as far as a backend touches it."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        self.label_config = label_config
        self.kept: dict[str, Any] = {}
        self.setup()

    def setup(self) -> None: ...

    def set(self, key: str, value: Any) -> None:
        self.kept[key] = value


@pytest.mark.slow
def test_the_installable_release_can_host_it(home: Path) -> None:
    assert OLD_RELEASE.is_dir(), "scripts/test puts label-studio-ml 1.0.9 there"
    entries, event, job = json.loads(_run(home, SCRIPT))
    assert len(entries) == 2
    assert all("result" not in entry and entry["model_version"] == "yoloop-v0" for entry in entries)
    assert event == {"status": "noted"}
    assert job["status"] == "queued"


@pytest.mark.slow
def test_a_base_class_of_2_gets_the_version_and_the_answers(home: Path) -> None:
    code = """
import json, sys
sys.path.insert(0, sys.argv[2])
from test_label_studio_ml import Base2
from backend.label_studio_ml import adapt

model = adapt(Base2)("1.1795453273", sys.argv[1])
entries = model.predict([{"id": 1, "data": {"image": "/data/upload/1/a.jpg"}}], context=None)
print(json.dumps([model.kept, entries, model.fit("START_TRAINING", {})]))
"""
    kept, entries, job = json.loads(_run(home, code, str(Path(__file__).parent)))
    assert kept == {"model_version": "yoloop-v0"}
    assert [entry["model_version"] for entry in entries] == ["yoloop-v0"]
    assert job["status"] == "queued"


def test_without_the_package_the_error_says_what_to_install(home: Path) -> None:
    code = "try:\n    from backend.label_studio_ml import YoloModel\nexcept ImportError as error:\n    print(error)"
    assert "label-studio-ml 2.x is not installed" in _run(home, code, old_release=False)


def _run(home: Path, code: str, *words: str, old_release: bool = True) -> str:
    """The program's output. It has a process of its own: the backend's models live as long as their process."""
    path = [str(ROOT), str(OLD_RELEASE)] if old_release else [str(ROOT)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "YOLOOP_HOME": str(home), "YOLOOP_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, CONFIG, *words], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_two_first_requests_load_the_models_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from backend import label_studio_ml

    made: list[object] = []

    def make(settings: object) -> object:
        time.sleep(0.2)
        made.append(settings)
        return made

    monkeypatch.setattr(label_studio_ml, "make_serving", make)
    label_studio_ml._opened.cache_clear()
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: label_studio_ml._serving(), range(4)))
    finally:
        label_studio_ml._opened.cache_clear()
    assert len(made) == 1
    assert all(each is made for each in found)
