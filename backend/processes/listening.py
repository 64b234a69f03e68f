"""Whether a port can be listened on, before the serving process tries, and words for what stands in the way."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable

from filelock import FileLock, Timeout

from backend.errors import YoloopError
from backend.processes.running import running
from backend.settings import Settings

PATIENCE = 30.0
"""Seconds that the processes of a `yoloop up` which was killed get to end."""

PROBED = 1.0
"""Seconds for which somebody may hold the worker's lock just to see whether it is held."""


class PortTaken(YoloopError):
    pass


def check_port(settings: Settings) -> None:
    """Raise PortTaken when somebody listens there, and YoloopError when nobody could, such as at a wrong host."""
    host, port = settings.host.strip("[]"), settings.port
    change = "Set YOLOOP_HOST, or say `--host 127.0.0.1`."
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise YoloopError(f"{host!r} is no host that can be listened on.", change) from None
    try:
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
            probe.bind(address)
            probe.listen(1)  # two may be bound to one port, and only one of them listens
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(f"Port {port} is taken{_by_whom(port)}.", _another(port)) from None
        if error.errno == errno.EACCES:
            raise YoloopError(f"This user may not listen on port {port}.", _another(9089)) from None
        raise YoloopError(f"{host!r} is no address of this machine.", change) from None


def check_worker(settings: Settings, patience: float = PROBED) -> None:
    """Raise YoloopError while a worker works on the home.

    Args:
        patience: seconds to wait for its end.
    """
    try:
        with FileLock(settings.root / "worker.lock", timeout=max(patience, PROBED)):
            pass
    except Timeout:
        raise YoloopError(
            f"A worker works on this home already: {settings.place}.",
            "Stop it, or give this yoloop a home of its own: `yoloop up --home FOLDER`.",
        ) from None


def wait_for_port(settings: Settings, patience: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """As `check_port`, but a port that is taken may become free for `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            check_port(settings)
            return
        except PortTaken:
            if time.monotonic() >= until:
                raise
        sleep(0.2)


def _by_whom(port: int) -> str:
    found = next((each for each in running() if each.port == port), None)
    return f" by the yoloop with the home {found.home}, which runs since {found.began}" if found else ""


def _another(port: int) -> str:
    other = port + 1 if port < 65535 else 9090
    return f"Set YOLOOP_PORT to another, or say `yoloop up --port {other}`."
