"""A real MLflow server, of the application that mlflow-skinny brings; and what stands in its place when it is away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from support.waiting import wait_for

# flask-cors lets browsers of other origins in, which no test needs; mlflow-skinny does not bring it.
PROGRAM = """
import sys, types
sys.modules["flask_cors"] = types.SimpleNamespace(CORS=lambda *args, **options: None)
from mlflow.server import app
app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
"""


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """Its address.

    Args:
        folder: where it keeps its database `mlflow.db`, which may be there, and its artifacts.
    """
    url = f"http://127.0.0.1:{port}"
    env = {
        **os.environ,
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder / 'mlflow.db'}",
        "_MLFLOW_SERVER_REGISTRY_STORE": f"sqlite:///{folder / 'mlflow.db'}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }
    log = folder / "mlflow.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(port)], env=env, stdout=output, stderr=subprocess.STDOUT
        )

    def answers() -> bool:
        assert server.poll() is None, log.read_text()
        try:
            return requests.get(f"{url}/health", timeout=5).ok
        except requests.RequestException:
            return False

    try:
        wait_for(answers, what="MLflow to answer")
        yield url
    finally:
        server.kill()
        server.wait(30)


@contextmanager
def silent_server(port: int) -> Iterator[None]:
    """What takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", port), backlog=100):
        yield
