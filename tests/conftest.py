"""Before anything else is imported: no downloads, no reports, nothing in the user's home or in `.yoloop`."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

_FOLDER = Path(tempfile.mkdtemp(prefix="yoloop-tests-"))


def _prepare() -> None:
    # A developer's own settings are not the tests'.
    foreign = [
        name
        for name in os.environ
        if name.startswith(("YOLOOP_", "LABEL_STUDIO_", "MLFLOW_", "BASIC_AUTH_")) and "_TEST_" not in name
    ]
    for name in foreign:
        del os.environ[name]
    os.environ |= {
        "YOLOOP_OFFLINE": "1",
        "YOLOOP_HOME": str(_FOLDER / "home"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MPLCONFIGDIR": str(_FOLDER / "matplotlib"),
    }
    from backend.predict.engine.quiet import prepare

    prepare(_FOLDER)


_prepare()


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's schema in a file: making it takes seconds, copying it none."""
    from model_registry import Registry

    folder = tmp_path_factory.mktemp("mlflow")
    Registry(f"sqlite:///{folder / 'mlflow.db'}", folder / "registry").open()
    return folder / "mlflow.db"


def pytest_unconfigure() -> None:
    shutil.rmtree(_FOLDER, ignore_errors=True)
