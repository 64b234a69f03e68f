"""Fixtures of the end-to-end tests: one real Label Studio for the whole session."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from support.labelstudio import LabelStudioServer, executable, make_template
from werkzeug.serving import make_server

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Car"/><Label value="Plane"/></RectangleLabels></View>'
)


@pytest.fixture(scope="session")
def label_studio_template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty database; kept in pytest's cache for as long as Label Studio is the same."""
    program = executable()
    if program is None:
        pytest.fail("needs Label Studio in .venv-ls, or YOLOOP_TEST_LABEL_STUDIO")
    cache = request.config.cache
    if cache is None:
        return make_template(tmp_path_factory.mktemp("label-studio-template"))
    return make_template(cache.mkdir(f"label-studio-{program.stat().st_mtime_ns}"))


@pytest.fixture(scope="session")
def label_studio(label_studio_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """One Label Studio for the session: legacy tokens and personal access tokens both work."""
    folder = tmp_path_factory.mktemp("label-studio")
    with LabelStudioServer(folder, template=label_studio_template) as server:
        yield server


@pytest.fixture
def new_project(label_studio: LabelStudioServer) -> Callable[..., int]:
    """Makes a project and gives its id; keyword arguments are fields of Label Studio's project."""
    numbers = itertools.count(1)

    def make(**fields: Any) -> int:
        body = {"title": f"project {next(numbers)}", "label_config": CONFIG} | fields
        return int(label_studio.api("POST", "/api/projects/", json=body)["id"])

    return make


class MlBackend:
    """A server that Label Studio accepts as an ML backend; `calls` holds (path, headers, body) in order."""

    def __init__(self) -> None:
        app = Flask("ml-backend")
        self.calls: list[tuple[str, dict[str, str], Any]] = []
        app.add_url_rule("/<path:path>", view_func=self._answer, methods=["GET", "POST"])
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.calls]

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path: str) -> dict[str, Any]:
        self.calls.append((f"/{path}", dict(request.headers), request.get_json(silent=True)))
        if path == "health":
            return {"status": "UP"}
        if path == "predict":
            tasks = request.get_json()["tasks"]
            return {"results": [{"result": [], "score": 0.5, "model_version": "v0"} for _ in tasks]}
        return {"model_version": "v0"}


@pytest.fixture
def ml_backends() -> Iterator[Callable[[], MlBackend]]:
    """Makes ML backends, each at an address of its own; all are stopped after the test."""
    made: list[MlBackend] = []

    def make() -> MlBackend:
        made.append(MlBackend())
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def ml_backend(ml_backends: Callable[[], MlBackend]) -> MlBackend:
    return ml_backends()
