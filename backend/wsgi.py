"""gunicorn's entry, and `yoloop serve`: one process that owns the models, with threads for the requests."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger as GunicornLogger

from backend.app import create_app
from backend.observability.logs import adopt, configure
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
            "when_ready": lambda arbiter: _lose_patience(listener.sock for listener in arbiter.LISTENERS),
            "worker_exit": lambda _server, worker: _close(getattr(worker, "wsgi", None)),
            "logger_class": Logs,
            "post_fork": lambda _server, _worker: _configure_logs(settings),
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        return create_app(self._settings)


SILENCE = 10
"""Seconds for which a client may fall silent within a request, or take nothing of its answer."""


def _lose_patience(listeners: Iterable[socket.socket]) -> None:
    """Give up on clients that stop half-way: each holds a thread, and a few dozen of them would hold all.

    Connections inherit this from the socket that accepts them; gunicorn itself has no such limit.
    """
    limit = struct.pack("@ll", SILENCE, 0)
    for listener in listeners:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


class Logs(GunicornLogger):  # type: ignore[misc]
    """gunicorn's own lines, written as all others are."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for name in ("gunicorn.error", "gunicorn.access"):
            adopt(name)


def _configure_logs(settings: Settings) -> None:
    configure(settings.log_level, "serve", settings.log_format)
    # A client that fell silent is its own fault, and nothing to write a traceback for.
    logging.getLogger("gunicorn.error").addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], BlockingIOError))
    )


def _close(app: Flask | None) -> None:
    """Let threads end that load models: the interpreter's end would crash into them."""
    if app is not None:
        app.extensions["yoloop"].close()
