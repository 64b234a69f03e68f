from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sources import make
from support.web import Server

from backend.images.loader import Images


@pytest.fixture
def studio() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def storage() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    made = make(tmp_path)
    yield made
    made.close()
