"""The contracts of `pyproject.toml` on who may import whom, kept by `scripts/check`: they break where they should."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("backend", "model_registry"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def broken(tree: Path) -> str:
    """What `lint-imports` says of a tree; empty when every contract is kept."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    env = {**os.environ, "PYTHONPATH": str(tree)}
    ran = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def test_the_contracts_are_kept(tree: Path) -> None:
    assert broken(tree) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "line", "says"),
    [
        ("fit/sync.py", "import backend.predict.batch", "backend.fit.sync -> backend.predict.batch"),
        (
            "predict/ranking.py",
            "from backend.fit.triggers import Rules",
            "backend.predict.ranking -> backend.fit.triggers",
        ),
        ("store/jobs.py", "from backend.services import Services", "backend.store.jobs -> backend.services"),
        ("labels/mapping.py", "import backend.settings", "backend.labels.mapping -> backend.settings"),
        ("predict/batch.py", "import flask", "backend.predict.batch -> flask"),
        ("feedback/record.py", "import sqlalchemy as sa", "backend.feedback.record -> sqlalchemy"),
        ("predict/batch.py", "from ultralytics import YOLO", "backend.predict.batch -> ultralytics"),
        ("fit/sync.py", "import label_studio_sdk", "backend.fit.sync -> label_studio_sdk"),
        ("worker.py", "import mlflow", "backend.worker -> mlflow"),
        ("fit/workflow.py", "import dbos", "backend.fit.workflow -> dbos"),
    ],
)
def test_a_violation_is_found(tree: Path, module: str, line: str, says: str) -> None:
    path = tree / "backend" / module
    path.write_text(path.read_text() + f"\n{line}\n")
    assert says in broken(tree)


def test_the_document_shows_every_layer_and_only_files_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    table = [
        re.findall(r"`(\w+)(?:/|\.py)`", line.rsplit("|", 2)[0]) for line in text.splitlines() if line[:3] == "| `"
    ]
    layers = [re.findall(r"\w+", layer) for layer in settings["contracts"][0]["layers"]]
    assert [row[: len(layer)] for row, layer in zip(table, layers, strict=True)] == layers
    files = {path.relative_to(ROOT / "backend").as_posix() for path in (ROOT / "backend").rglob("*.py")}
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    lost = {name for name in named if not any(file == name or file.endswith(f"/{name}") for file in files)}
    assert {name for name in lost if not (ROOT / name).exists()} == set()


def test_a_room_that_no_contract_knows_is_found(tree: Path) -> None:
    (tree / "backend" / "attic").mkdir()
    (tree / "backend" / "attic" / "__init__.py").write_text("")
    assert "attic" in broken(tree)
