from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.web import Server, answer

from backend.store.database import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path / 'yoloop.db'}")
    yield made
    made.close()


@pytest.fixture
def own_logging() -> Iterator[None]:
    """What `configure` changes is as before after the test."""
    loggers = [logging.getLogger(name) for name in (None, "backend", "model_registry")]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    hooks = sys.excepthook, threading.excepthook
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A proxy that answers 503 to everything; no variable names it yet, nor any other."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = Server()
    server.otherwise = answer(b"<html>The proxy does not want to", 503, Content_Type="text/html")
    yield server
    server.close()
