"""MLflow's client, with its own settings as a process of ours needs them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_CONFIGURE_LOGGING": "false",  # its warnings go where those of this process go
}

IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""A server that does not answer is given up after 20 s, one that refuses at once. MLflow's own: 7 tries, 120 s each."""

PATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Where a training's outcome is to be written: a server that is restarted has half a minute for it."""


def configure(*, patient: bool = False) -> None:
    """Say how MLflow is to behave in this process and its children. What the user has set stays."""
    for name, value in {**SETTINGS, **(PATIENT if patient else IMPATIENT)}.items():
        os.environ.setdefault(name, value)


def make_client(uri: str) -> MlflowClient:
    """Import MLflow, which takes a second, after its settings, which it reads then. It makes a file's schema."""
    configure()
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
