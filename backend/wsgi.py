"""gunicorn's entry, and `yoloop serve`: one process that owns the models, with threads for the requests."""

from __future__ import annotations

from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from backend.app import create_app
from backend.logs import configure
from backend.settings import Settings


def application() -> Flask:
    """For other servers: `gunicorn --worker-class gthread --threads 16 'backend.wsgi:application()'`.

    One worker process only: each would load the models again.
    """
    return create_app(Settings())


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
            "worker_class": "gthread",
            "threads": settings.threads,
            "keepalive": 75,
            "timeout": 120,
            "graceful_timeout": 10,
            "proc_name": "yoloop",
            "loglevel": "warning",
            "control_socket_disable": True,
            "worker_exit": lambda _server, worker: _close(getattr(worker, "wsgi", None)),
            "post_fork": lambda _server, _worker: configure(settings.log_level, "serve"),
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        return create_app(self._settings)


def _close(app: Flask | None) -> None:
    """Let threads end that load models: the interpreter's end would crash into them."""
    if app is not None:
        app.extensions["yoloop"].close()
