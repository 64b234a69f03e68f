"""What docker/Dockerfile installs, step by step, and yoloop started from it.

`scripts/image` builds the image itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.dockerfile import ROOT, Instruction, Stage, instructions
from support.ports import free_port
from support.users import as_unknown
from support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.group("image", minutes=0.6)]

STEPS = instructions((ROOT / "docker" / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    stage = Stage(tmp_path_factory.mktemp("image"))
    for step in STEPS:
        stage.carry_out(step)
    return stage


@pytest.mark.parametrize("package", ["backend", "model_registry"])
def test_every_file_of_the_tree_is_installed_as_it_is(image: Stage, package: str) -> None:
    """Not an older or an empty one of the same name."""
    there = {path.relative_to(ROOT / package): path.read_bytes() for path in _files(ROOT / package)}
    installed = {
        path.relative_to(image.installed(package)): path.read_bytes() for path in _files(image.installed(package))
    }
    assert len(there) > 3
    assert installed == there


def test_nothing_is_imported_from_anywhere_else(image: Stage) -> None:
    for package in ("backend", "model_registry"):
        found = image.run(["python", "-c", f"import {package}; print({package}.__file__)"])
        assert Path(found.strip()).parent == image.installed(package)


def test_anybody_of_group_0_can_write_the_home(image: Stage) -> None:
    home = Path(image.env["YOLOOP_HOME"])
    assert home == image.root / "data"
    if os.geteuid() == 0:
        assert home.stat().st_gid == 0
        assert home.stat().st_mode & 0o777 == 0o770
        assert home.stat().st_uid == int(image.said["USER"])


def test_it_starts_is_healthy_and_stops_in_order(image: Stage) -> None:
    """As a user whom the system does not know, without HOME."""
    image.env |= {"YOLOOP_PORT": str(free_port()), "YOLOOP_HOST": "127.0.0.1", "YOLOOP_OFFLINE": "1"}
    log = image.root / "up.log"
    with _started(image, log) as process:
        wait_for(lambda: _healthy(image), 120, "the image's own health check")
        wait_for(lambda: "Worker is up" in log.read_text(), 60, "the worker")
        # No project is connected: nothing else is missing.
        assert {each["name"] for each in _doctor(image) if each["ok"] is False} == {"projects"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    said = log.read_text()
    assert "Traceback" not in said
    assert "it starts again" not in said


def test_another_build_of_torch_takes_the_place_of_the_locked_one(tmp_path: Path) -> None:
    """Its libraries too: what is locked for them fits the locked build only."""
    context = tmp_path / "context"
    context.mkdir()
    for name in (".dockerignore", "pyproject.toml", "requirements.lock", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, context)
    lock = (ROOT / "requirements.lock").read_text()
    other = re.sub(r"(?m)^(torch|torchvision|triton|nvidia-cublas|cuda-bindings)==.*$", r"\1==1.0", lock)
    (context / "requirements.lock").write_text(other)
    assert other.count("==1.0\n") == 5
    stage = Stage(tmp_path / "image", context, {"TORCH": "torch torchvision"})
    for step in _before_the_code():
        stage.carry_out(step)
    locked = (stage.workdir / "requirements.lock").read_text().splitlines()
    assert [line for line in locked if line.startswith("torch")] == re.findall(r"(?m)^torch.*==.*$", lock)


def _before_the_code() -> Iterator[Instruction]:
    for step in STEPS:
        if step == Instruction("COPY", "backend backend"):
            return
        yield step


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


@contextmanager
def _started(image: Stage, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """What the image starts with."""
    command = as_unknown(json.loads(image.said["CMD"]))
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=image.workdir, env=image.env, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _healthy(image: Stage) -> bool:
    command = json.loads(image.said["HEALTHCHECK"].partition("CMD ")[2])
    return subprocess.run(as_unknown(command), env=image.env, capture_output=True, timeout=30).returncode == 0


def _doctor(image: Stage) -> list[dict[str, Any]]:
    command = as_unknown(["yoloop", "doctor", "--json"])
    done = subprocess.run(command, cwd=image.workdir, env=image.env, capture_output=True, text=True, timeout=120)
    assert not done.stderr, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
