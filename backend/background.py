"""Processes that work behind the one that serves, and end with the one that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from backend.logs import inherited

SUPERVISED = "YOLOOP_SUPERVISED"
"""Set by `yoloop up`, to its process id, for what it starts: server and worker then share a session, in which niceness
counts."""

NICENESS = 19


def start(module: str, arguments: Sequence[str], log: Path, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Run one of our modules in a process group of its own, its output added to `log`.

    It gets a session of its own only where it cannot share that of the server; it should call `stand_back`.
    """
    supervised = SUPERVISED in os.environ
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", module, *arguments],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=not supervised,
            process_group=0 if supervised else None,
            env={**os.environ, **inherited()},
        )


def end_with_supervisor() -> None:
    """End in order when the `yoloop up` that started this process is gone; without one, live on.

    Killed, it could not say so, and its successor needs the port and the home.
    """
    supervisor = os.environ.get(SUPERVISED)
    if supervisor is None:
        return

    def watch() -> None:
        while str(os.getppid()) == supervisor:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def stand_back(parent: int, *, own_session: bool) -> None:
    """Give way to the process that serves, and end when `parent` is gone (0: live on).

    Niceness counts only inside one session; in a session of its own the whole group is weighed down instead.
    """
    os.nice(NICENESS)
    if own_session:
        with contextlib.suppress(OSError):  # not every system groups processes by session
            Path("/proc/self/autogroup").write_text(str(NICENESS))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(3)

    if parent:
        threading.Thread(target=watch, daemon=True).start()
