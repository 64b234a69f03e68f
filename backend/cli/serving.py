"""The commands of `yoloop` that start it: up, serve, worker."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time

import typer

from backend.cli.options import HomeOption, HostOption, PortOption, settings_of
from backend.settings import Settings


def up(home: HomeOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Start the serving process and the worker; Ctrl-C stops both."""
    from backend.observability.logs import configure
    from backend.processes.listening import PATIENCE, check_worker, wait_for_port
    from backend.processes.running import Running, alone, listed
    from backend.processes.supervisor import Supervisor

    settings = settings_of(home, host, port)
    configure(settings.log_level, "up", settings.log_format)
    settings.root  # noqa: B018  made here, so that a home that cannot be written fails at once
    with alone(settings, time.time()) as before:
        if before is not None:
            typer.echo("The yoloop before this one was killed; what it started may still be ending.", err=True)
        patience = 0.0 if before is None else PATIENCE
        wait_for_port(settings, patience)
        check_worker(settings, patience)
        typer.echo(_welcome(settings))
        with listed(Running.of(settings, time.time())):
            Supervisor().run()


def serve(home: HomeOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Start the serving process alone."""
    from backend.observability.logs import configure
    from backend.processes.child import SUPERVISED, end_with_supervisor

    settings = settings_of(home, host, port)
    configure(settings.log_level, "serve", settings.log_format)
    if settings.exposed:
        logging.getLogger("backend").warning(
            "Anybody who reaches %s:%s may use yoloop, as no credentials are asked for: "
            "set YOLOOP_BASIC_AUTH_USER and YOLOOP_BASIC_AUTH_PASS",
            settings.host,
            settings.port,
        )
    end_with_supervisor()
    if SUPERVISED in os.environ:
        _serve(settings)
        return
    from backend.processes.listening import check_port
    from backend.processes.running import Running, listed

    check_port(settings)
    with listed(Running.of(settings, time.time())):
        _serve(settings)


def worker(home: HomeOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Start the worker alone: it reads Label Studio and trains."""
    from backend.observability.logs import configure
    from backend.processes.child import end_with_supervisor
    from backend.worker import run_worker

    settings = settings_of(home, host, port)
    configure(settings.log_level, "worker", settings.log_format)
    end_with_supervisor()
    run_worker(settings)


def _serve(settings: Settings) -> None:
    from backend.wsgi import Server

    Server(settings).run()


def program() -> str:
    """How a person starts `yoloop` from this folder."""
    below = os.path.relpath(sys.argv[0])
    return "yoloop" if shutil.which("yoloop") else sys.argv[0] if below.startswith("..") else below


def _welcome(settings: Settings) -> str:
    return (
        f"yoloop listens on http://{settings.host}:{settings.port} and keeps its data in {settings.place}.\n"
        "Connect a project of Label Studio from another terminal:\n"
        f"  LABEL_STUDIO_URL=http://localhost:8080 LABEL_STUDIO_API_KEY=<token> {program()} connect 1\n"
        "Ctrl-C stops."
    )
