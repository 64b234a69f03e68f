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

from backend.observability.logs import inherited

SUPERVISED = "YOLOOP_SUPERVISED"
"""Set by `yoloop up`, to its process id, for what it starts: server and worker then share a session, in which niceness
counts."""

GRACE = 5.0
"""Seconds between asking a process to end and ending it."""

NICENESS = 19
"""Of a process in the server's session: it gets what the server leaves."""

SESSION_NICENESS = 10
"""Of a session of its own: beside any other work on the machine, not the server's alone, it gets about a tenth of a
core. With 19 it would get a seventieth, and seconds of work would take minutes."""


def start(
    module: str, arguments: Sequence[str], log: Path, stdin: int = subprocess.DEVNULL, *, of_server: bool = False
) -> subprocess.Popen[bytes]:
    """Run one of our modules in a process group of its own, its output added to `log`; it should call `stand_back`.

    It shares the session of the one that starts it where that is the server's, as `of_server` says, or that of `up`.
    """
    shared = of_server or SUPERVISED in os.environ
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", module, *arguments],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=not shared,
            process_group=0 if shared else None,
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
    """Lower our priority; exit when `parent` dies (0: never).

    Niceness counts only inside one session; in a session of its own the whole group is weighed down instead.
    """
    os.nice(NICENESS)
    if own_session:
        with contextlib.suppress(OSError):  # not every system groups processes by session
            Path("/proc/self/autogroup").write_text(str(SESSION_NICENESS))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(3)

    if parent:
        threading.Thread(target=watch, daemon=True).start()


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended. Until `end_group` takes note of that, no other process can get its id."""
    if process.returncode is not None or not hasattr(os, "waitid"):  # macOS has none
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def wait_for_end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until a process has ended, as `has_ended` says it, but not longer than that."""
    until = time.monotonic() + seconds
    while not has_ended(process) and (left := until - time.monotonic()) > 0:
        time.sleep(min(0.05, left))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started; does nothing when somebody took note of its end: its id may be another's.

    The signals come before its end is taken note of, so that they reach nobody else.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        wait_for_end(process, GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):  # what was never read goes with its reader
            process.stdin.close()
