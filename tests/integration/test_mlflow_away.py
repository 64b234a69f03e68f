"""A real `yoloop serve` on a real MLflow server that goes away and comes back."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import requests
from support.bodies import UID, config, predict, setup, task
from support.mlflow_server import mlflow_server, silent_server
from support.ports import free_port
from support.processes import served
from support.shapes import LABELS
from support.tiny import SIZE
from support.waiting import wait_for

from backend.health.storage import tracking_server
from backend.labels.networks import Network
from backend.served_models.parts import Part, dump
from model_registry import Registry

SOON = 30.0
"""Seconds that the start of a process takes at most on a busy machine; MLflow's own tries took more than 100."""

pytestmark = pytest.mark.slow

Weights = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, empty_registry: Path) -> Path:
    """Of the MLflow server."""
    made = tmp_path / "server"
    made.mkdir()
    shutil.copyfile(empty_registry, made / "mlflow.db")
    return made


@contextmanager
def serving(home: Path, port: int, weights: Weights) -> Iterator[str]:
    (home / "models").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights(LABELS, {0: (0, 0.9)}), home / "models" / "tiny.pt")
    settings = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "YOLOOP_BASE_MODEL": "tiny.pt",
        "YOLOOP_ENGINE": "torch",
        "YOLOOP_DEVICE": "cpu",
        "YOLOOP_IMAGE_SIZE": str(SIZE),
    }
    with served(home, **settings) as (url, _):
        yield url


def promote(uri: str, home: Path, weights: Path) -> int:
    """Register a version, as a training of this home does, and put it in service."""
    registry = Registry(uri, home / "registry")
    made = registry.register(
        UID,
        f"training {time.monotonic_ns()}",
        {"weights.pt": weights},
        metrics={"fitness": 0.5},
        params={},
        tags={
            "classes": json.dumps(LABELS),
            "image_size": str(SIZE),
            "parts": dump([Part(Network("detect", "detect", LABELS), image_size=SIZE)]),
        },
    )
    registry.promote(UID, made.number, "better")
    return made.number


def version(url: str) -> str:
    return str(requests.post(f"{url}/setup", json=setup(), timeout=10).json()["model_version"])


def suggested(url: str) -> tuple[str, float]:
    """The version that answers, and what it scores its first object with."""
    (entry,) = requests.post(f"{url}/predict", json=predict([task(1)]), timeout=60).json()["results"]
    return "-".join(entry["model_version"].split("-")[:2]), round(entry["result"][0]["score"], 2)


def check(url: str, name: str) -> dict[str, Any]:
    checks = requests.get(f"{url}/ready", timeout=20).json()["checks"]
    return next(each for each in checks if each["name"] == name)


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "never answers"])
def test_what_served_before_serves_while_mlflow_is_away(
    tmp_path: Path, folder: Path, weights: Weights, silent: bool
) -> None:
    home, port = tmp_path / "home", free_port()
    with mlflow_server(folder, port) as uri, serving(home, port, weights) as url:
        assert version(url).startswith("yoloop-v0")
        promote(uri, home, weights(LABELS, {0: (0, 0.8)}))
        # What this home changes is seen at once, although a server is asked seldom.
        wait_for(lambda: suggested(url) == ("yoloop-v1", 0.8), 40, "v1 to serve")
    with ExitStack() as away:
        away.enter_context(silent_server(port) if silent else nullcontext())
        began = time.monotonic()
        url = away.enter_context(serving(home, port, weights))
        assert time.monotonic() - began < SOON
        assert version(url).startswith("yoloop-v1")
        assert suggested(url) == ("yoloop-v1", 0.8)
        assert time.monotonic() - began < 1.5 * SOON
        registry = check(url, "registry")
        assert not registry["ok"]
        assert "MLflow is away" in registry["told"]
        assert check(url, "models")["ok"]
        found = tracking_server("registry", f"http://127.0.0.1:{port}", timeout=1.0)
        assert not found.ok
        assert "does not answer" in found.told
        if silent:
            return
        # It comes back, with a version that was promoted meanwhile by another home.
        uri = away.enter_context(mlflow_server(folder, port))
        promote(uri, tmp_path / "other", weights(LABELS, {0: (0, 0.7)}))
        wait_for(lambda: suggested(url) == ("yoloop-v2", 0.7), 60, "v2 to serve")
        assert check(url, "registry")["ok"]


def test_a_project_that_is_new_gets_pretrained_suggestions_while_mlflow_is_away(
    tmp_path: Path, weights: Weights
) -> None:
    with serving(tmp_path / "home", free_port(), weights) as url:
        assert version(url).startswith("yoloop-v0")
        assert suggested(url) == ("yoloop-v0", 0.9)
        assert requests.post(f"{url}/validate", json={"config": config()}, timeout=10).ok
