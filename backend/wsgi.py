"""gunicorn's entry, and `yoloop serve`: one process that owns the models, with threads for the requests."""

from __future__ import annotations

from typing import Any

from flask import Flask, Request
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger as GunicornLogger

from backend.api import auth
from backend.api.requests import largest_body
from backend.app import create_app
from backend.errors import Unauthorized
from backend.observability.logs import adopt, configure
from backend.server.gunicorn_worker import BufferingWorker
from backend.settings import Settings


def application() -> Flask:
    """For gunicorn's own command: `gunicorn -k backend.wsgi.Worker --threads 32 'backend.wsgi:application()'`.

    One worker process only: each would load the models again.
    """
    return create_app(Settings())


class Worker(BufferingWorker):
    """The worker that knows who may send yoloop how much."""

    def admits(self, environ: dict[str, Any]) -> bool:
        made = self.wsgi.extensions["yoloop"]
        try:
            auth.check(Request(environ), made.settings, made.secret, made.services.store)
        except Unauthorized:
            return False
        return True

    def limit(self, path: str) -> int:
        return largest_body(path)


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with the settings' address and threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        options: dict[str, Any] = {
            "bind": f"[{settings.host}]:{settings.port}"
            if ":" in settings.host
            else f"{settings.host}:{settings.port}",
            "workers": 1,
            "worker_class": Worker,
            "threads": settings.threads,
            "keepalive": 75,
            "timeout": 120,
            "graceful_timeout": 10,
            "proc_name": "yoloop",
            "loglevel": "warning",
            "control_socket_disable": True,
            "worker_exit": lambda _server, worker: _close(getattr(worker, "wsgi", None)),
            "logger_class": Logs,
            "post_fork": lambda _server, _worker: configure(settings.log_level, "serve", settings.log_format),
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        return create_app(self._settings)


class Logs(GunicornLogger):  # type: ignore[misc]
    """gunicorn's own lines, written as all others are."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for name in ("gunicorn.error", "gunicorn.access"):
            adopt(name)


def _close(app: Flask | None) -> None:
    """Let threads end that load models: the interpreter's end would crash into them."""
    if app is not None:
        app.extensions["yoloop"].close()
