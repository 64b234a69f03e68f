from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from support.shapes import LABELS
from support.tiny import SIZE, tiny_yolo
from support.web import Server

from backend.app import create_app
from backend.server.process import Serving, make_serving
from backend.settings import Settings

FINDS = {0: (0, 0.9), 1: (1, 0.6), 2: (2, 0.1)}
"""The base model of these tests: many discs, some squares, and triangles below the usual threshold."""


Start = Callable[..., Serving]


Weights = Callable[[Sequence[str], Mapping[int, tuple[int, float]]], Path]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Makes a tiny checkpoint, each once."""
    folder = tmp_path_factory.mktemp("weights")

    def make(names: Sequence[str], finds: Mapping[int, tuple[int, float]]) -> Path:
        key = hashlib.sha256(repr((list(names), sorted(finds.items()))).encode()).hexdigest()
        path = folder / f"{key[:16]}.pt"
        return path if path.exists() else tiny_yolo(path, names, finds)

    return make


@pytest.fixture
def home(tmp_path: Path, empty_registry: Path) -> Path:
    """A home for processes of its own, whose registry has its tables already."""
    shutil.copyfile(empty_registry, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def start(tmp_path: Path, empty_registry: Path, weights: Weights) -> Iterator[Start]:
    """Starts the serving process' parts on a home below `tmp_path`, with a tiny base model."""
    yield from _starter(tmp_path, empty_registry, weights)


@pytest.fixture(scope="module")
def start_once(tmp_path_factory: pytest.TempPathFactory, empty_registry: Path, weights: Weights) -> Iterator[Start]:
    """As `start`, for what all tests of a module may share, as they leave nothing behind."""
    yield from _starter(tmp_path_factory.mktemp("once"), empty_registry, weights)


def _starter(folder: Path, empty_registry: Path, weights: Weights) -> Iterator[Start]:
    started: list[Serving] = []

    def start(
        names: Sequence[str] = LABELS, finds: Mapping[int, tuple[int, float]] = FINDS, **settings: Any
    ) -> Serving:
        home = folder / "home"
        home.mkdir(exist_ok=True)
        if not (home / "mlflow.db").exists():
            shutil.copyfile(empty_registry, home / "mlflow.db")
            (home / "models").mkdir()
        shutil.copyfile(weights(names, finds), home / "models" / "tiny.pt")
        options = {
            "home": home,
            "base_model": "tiny.pt",
            "offline": True,
            "device": "cpu",
            "engine": "torch",  # exporting the base model beside each test takes seconds
            "image_size": SIZE,
            "fetch_timeout": 5.0,
            "allowed_hosts": "127.0.0.1",
            "refresh_interval": 0.05,
            **settings,
        }
        started.append(make_serving(Settings(**options)))
        return started[-1]

    yield start
    for serving in started:
        serving.close()


@pytest.fixture
def serving(start: Start) -> Serving:
    return start()


@pytest.fixture
def client(serving: Serving) -> FlaskClient:
    return create_app(serving=serving).test_client()


@pytest.fixture
def studio() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()
