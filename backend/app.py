"""The Flask application: two blueprints and the error table, nothing else."""

from __future__ import annotations

import logging
import time

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from backend import protocol
from backend.api import auth, routes
from backend.api.requests import RETRY_AFTER, as_response, release
from backend.errors import (
    FULL,
    LOCKED,
    BadRequest,
    Busy,
    LabelStudioError,
    NoRoom,
    NotFound,
    TooLarge,
    Unauthorized,
    YoloopError,
    unwritable,
)
from backend.observability import logs
from backend.server.process import Serving, make_serving
from backend.settings import Settings

log = logging.getLogger(__name__)
access = logging.getLogger("backend.access")

ID = "X-Request-ID"
"""The header of a request's id: taken over from who asks where it is short and plain, told with every answer."""

UNLOGGED = frozenset({"/health", "/ready", "/metrics"})
"""What machines ask all the time."""


def create_app(settings: Settings | None = None, serving: Serving | None = None) -> Flask:
    """The application.

    Args:
        settings: default: from the environment.
        serving: parts made elsewhere, which the caller closes.
    """
    made = serving or make_serving(settings or Settings())
    app = Flask("yoloop", static_folder=None)  # it would serve a folder of that name where yoloop is started
    app.extensions["yoloop"] = made
    app.register_blueprint(protocol.blueprint)
    app.register_blueprint(routes.blueprint)

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()
        g.request_id = logs.request_id(request.headers.get(ID))
        g.named = logs.enter(request_id=g.request_id)
        auth.check(request, made.settings, made.secret, made.services.store)

    @app.after_request
    def count(response: Response) -> Response:
        endpoint = (request.endpoint or "unknown").rpartition(".")[2]
        made.engine.metrics.requests.labels(endpoint, response.status_code).inc()
        took = time.perf_counter() - g.began
        made.engine.metrics.seconds.labels(endpoint).observe(took)
        response.headers[ID] = g.request_id
        if request.path not in UNLOGGED:
            path = "".join(each if each.isprintable() else "�" for each in request.path[:200])
            access.info("%s %s %d %.0f ms", request.method, path, response.status_code, 1000 * took)
        return response

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        release()
        if (named := g.pop("named", None)) is not None:
            logs.leave(named)

    @app.errorhandler(YoloopError)
    def known(error: YoloopError) -> Response:
        response = as_response(error.status, error.message, error.hint)
        if isinstance(error, Unauthorized):
            response.headers["WWW-Authenticate"] = 'Basic realm="yoloop"'
        made.engine.metrics.failed(error)
        if isinstance(error, Busy):
            made.engine.metrics.refused.inc()
            response.headers["Retry-After"] = str(RETRY_AFTER)
        if isinstance(error, LabelStudioError):
            log.warning("%s", error)
        return response

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        if error.code == 413:
            return known(TooLarge("The body is too large.", "Send less at a time."))
        made.engine.metrics.failed(NotFound(error.name) if error.code == 404 else BadRequest(error.name))
        return as_response(error.code or 500, error.name, "See the README for the addresses that yoloop answers.")

    @app.errorhandler(Exception)
    def unknown(error: Exception) -> Response:
        why = unwritable(error)
        if why == LOCKED:
            log.info("A request was refused, as the database is locked")
            return known(Busy("Somebody else writes to yoloop's database just now.", "Ask again in a few seconds."))
        log.exception("A request failed")
        if why == FULL:
            return known(NoRoom(f"yoloop can write nothing just now: {FULL}.", "Free some room on its disk."))
        made.engine.metrics.failed(error)
        return as_response(500, "yoloop failed to answer.", "Its log says why.")

    return app
