from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

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
