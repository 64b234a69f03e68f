"""The Flask application: two blueprints and the error table, nothing else."""

from __future__ import annotations

import logging
import time

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from backend import api, auth, protocol
from backend.errors import Busy, LabelStudioError, Unauthorized, YoloopError
from backend.protocol import as_response
from backend.serving import Serving, make_serving
from backend.settings import Settings

log = logging.getLogger(__name__)

RETRY_AFTER = 3
"""Seconds after which a client that was sent away may ask again."""

LARGEST_BODY = 256 * 2**20
"""Bytes; a thousand tasks with all their annotations are a few MiB."""


def create_app(settings: Settings | None = None, serving: Serving | None = None) -> Flask:
    """The application.

    Args:
        settings: default: from the environment.
        serving: parts made elsewhere, which the caller closes.
    """
    made = serving or make_serving(settings or Settings())
    app = Flask("yoloop", static_folder=None)  # it would serve a folder of that name where yoloop is started
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.extensions["yoloop"] = made
    app.register_blueprint(protocol.blueprint)
    app.register_blueprint(api.blueprint)

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()
        auth.check(request, made.settings, made.secret)

    @app.after_request
    def count(response: Response) -> Response:
        endpoint = (request.endpoint or "unknown").rpartition(".")[2]
        made.engine.metrics.requests.labels(endpoint, response.status_code).inc()
        made.engine.metrics.seconds.labels(endpoint).observe(time.perf_counter() - g.began)
        return response

    @app.errorhandler(YoloopError)
    def known(error: YoloopError) -> Response:
        response = as_response(error.status, error.message, error.hint)
        if isinstance(error, Unauthorized):
            response.headers["WWW-Authenticate"] = 'Basic realm="yoloop"'
        if isinstance(error, Busy):
            response.headers["Retry-After"] = str(RETRY_AFTER)
        if isinstance(error, LabelStudioError):
            log.warning("%s", error)
        return response

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        return as_response(error.code or 500, error.name, "See the README for the addresses that yoloop answers.")

    @app.errorhandler(Exception)
    def unknown(error: Exception) -> Response:
        log.exception("A request failed")
        return as_response(500, "yoloop failed to answer.", "Its log says why.")

    return app
