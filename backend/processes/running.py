"""Which yoloop runs where: one for each home, and a list of those of this machine, so that commands find them.

Each mark is a file that its process keeps locked; the lock ends with the process, however it ends. One lies in the
home, where it keeps a second `yoloop up` out; its twin lies in a folder of the user's on this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from backend.errors import YoloopError
from backend.settings import Settings

MARK = "up.lock"


@dataclass(frozen=True, slots=True)
class Running:
    """A yoloop that runs, or one that was killed: its home, where it listens, its process, and since when (epoch)."""

    home: str
    host: str
    port: int
    pid: int
    since: float

    @property
    def began(self) -> str:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))

    @classmethod
    def of(cls, settings: Settings, now: float) -> Running:
        return cls(str(settings.place.resolve()), settings.host, settings.port, os.getpid(), now)


class AlreadyRuns(YoloopError):
    pass


@contextlib.contextmanager
def alone(settings: Settings, now: float) -> Iterator[Running | None]:
    """Be the one `yoloop up` of the home.

    Gives the one before it when that was killed: what it started may still be ending. Raises AlreadyRuns.
    """
    me = Running.of(settings, now)
    descriptor = os.open(settings.root / MARK, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as mark:
        before = _read(mark.read())
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            told = f"since {before.began}, at http://{before.host}:{before.port}, " if before else ""
            raise AlreadyRuns(
                f"yoloop runs already: {told}home {settings.place}.",
                "Stop that one with Ctrl-C first, or give this one a home and a port of its own: "
                "`yoloop up --home FOLDER --port N`.",
            ) from None
        _write(mark.fileno(), json.dumps(asdict(me)))
        try:
            yield before
        finally:
            _write(mark.fileno(), "")


@contextlib.contextmanager
def listed(me: Running) -> Iterator[None]:
    """Be on the list of this machine meanwhile, so that commands find this yoloop.

    Where the list cannot be written, nothing is lost but that.
    """
    folder = _folder(make=True)
    if folder is None:
        yield
        return
    path = folder / f"{me.pid}.json"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            # Locked before it has its name: an unlocked one is taken for that of a dead process.
            file = stack.enter_context(tempfile.NamedTemporaryFile("w", dir=folder, prefix="new-", delete=False))
            fcntl.flock(file, fcntl.LOCK_EX)
            json.dump(asdict(me), file)
            file.flush()
            Path(file.name).replace(path)
            stack.callback(path.unlink, missing_ok=True)
        yield


def running() -> list[Running]:
    """The yoloops of this user that run on this machine, the newest first."""
    folder = _folder()
    found = []
    for path in folder.glob("*.json") if folder is not None else ():
        with contextlib.suppress(OSError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if (each := _read(file.read())) is not None:
                    found.append(each)
            else:
                path.unlink(missing_ok=True)
    return sorted(found, key=lambda each: -each.since)


def _folder(*, make: bool = False) -> Path | None:
    """The user's folder for the list; None where there is none that only this user may write to."""
    path = Path(tempfile.gettempdir()) / f"yoloop-{os.getuid()}"
    try:
        if make:
            path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return path if private else None


def _read(text: str) -> Running | None:
    try:
        told = json.loads(text)
        return Running(str(told["home"]), str(told["host"]), int(told["port"]), int(told["pid"]), float(told["since"]))
    except (ValueError, KeyError, TypeError):
        return None


def _write(descriptor: int, text: str) -> None:
    """Replace what the file holds; the lock stays."""
    with contextlib.suppress(OSError):  # a full disk: then it only says less
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
