"""What is done to a yoloop: each fault begins, lasts for a while, and ends."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import psutil
from chaos.proxy import Kind, Mode
from chaos.world import World
from support.ports import free_port

DATABASES = ("yoloop.db", "mlflow.db", "dbos.db")
LOCKED = 10.0


class Fault:
    """One kind of harm.

    `lasts` are the fewest and most seconds between `inject` and `heal`. `moments` are the phases of the loop (see
    `World.phase`) of which one is waited for before; empty: any. `spoils_version`: the version in service cannot be
    read meanwhile, so that the one before it may answer. `stops`: nothing is promised to answer meanwhile.
    """

    name: ClassVar[str]
    lasts: ClassVar[tuple[float, float]] = (2.0, 8.0)
    moments: ClassVar[tuple[str, ...]] = ("idle", "reading", "training", "measuring", "promoting", "refreshing")
    spoils_version: ClassVar[bool] = False
    stops: ClassVar[bool] = False

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world, self.chance = world, chance

    def impossible(self) -> str:
        """Why it cannot be done here; empty when it can."""
        return ""

    def inject(self) -> str:
        """Do it. Returns in words what was done; raises LookupError when there is nothing to do it to just now."""
        raise NotImplementedError

    def heal(self) -> None:
        """End it, as the person or the machine would that it is the business of."""


class _Kill(Fault):
    lasts = (0.0, 1.0)

    def _kill(self, found: Sequence[psutil.Process], what: str) -> str:
        killed = 0
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                killed += 1
        if not killed:
            raise LookupError(f"no {what} runs")
        return f"{what} killed ({killed})"


class KillServer(_Kill):
    name = "kill -9 of the server"

    def inject(self) -> str:
        servers = sorted(self.world.yoloop.named("backend.cli.main", "serve"), key=lambda each: each.pid)
        which = self.chance.choice(["its arbiter", "its worker", "all of it"])
        chosen = {"its arbiter": servers[:1], "its worker": servers[1:], "all of it": servers}[which]
        return self._kill(chosen, f"server, {which}")


class KillWorker(_Kill):
    name = "kill -9 of the worker"

    def inject(self) -> str:
        return self._kill(self.world.yoloop.named("backend.cli.main", "worker"), "worker")


class KillTrainer(_Kill):
    name = "kill -9 of the trainer"
    moments = ("reading", "training", "measuring")

    def inject(self) -> str:
        return self._kill(self.world.yoloop.named("backend.fit.training.train"), "trainer")


class KillRefresh(_Kill):
    name = "kill -9 of the refresh"
    moments = ("refreshing",)

    def inject(self) -> str:
        return self._kill(self.world.yoloop.named("backend.suggestions.refresh"), "refresh")


class KillSupervisor(_Kill):
    name = "kill -9 of `yoloop up`"

    def inject(self) -> str:
        return self._kill([self.world.yoloop.supervisor()], "supervisor")

    def heal(self) -> None:
        self.world.yoloop.begin()


class PowerCut(_Kill):
    name = "kill -9 of everything at once"

    def inject(self) -> str:
        self.world.yoloop.kill_all()
        return "all processes killed"

    def heal(self) -> None:
        self.world.yoloop.begin()


class _LabelStudio(Fault):
    kinds: ClassVar[tuple[Kind, ...]]
    lasts = (5.0, 15.0)
    moments = ("idle", "reading", "refreshing", "training")

    def inject(self) -> str:
        mode = Mode(self.chance.choice(self.kinds), done=self.chance.random() < 0.5)
        self._before = self.world.proxy.harmed
        self.world.proxy.set(mode)
        return f"Label Studio {mode.kind}{', its work done' if mode.done else ''}"

    def heal(self) -> None:
        harmed = self.world.proxy.harmed - self._before
        self.world.proxy.set(Mode())
        if not harmed and "down" not in self.kinds:
            raise LookupError("nobody asked Label Studio meanwhile")


class LabelStudioDown(_LabelStudio):
    name, kinds = "Label Studio down", ("down",)


class LabelStudioSlow(_LabelStudio):
    name, kinds = "Label Studio slow (30 s)", ("slow",)
    lasts = (31.0, 40.0)


class LabelStudio401(_LabelStudio):
    name, kinds = "Label Studio answers 401", ("401",)


class LabelStudio429(_LabelStudio):
    name, kinds = "Label Studio answers 429", ("429",)


class LabelStudio500(_LabelStudio):
    name, kinds = "Label Studio answers 500", ("500",)


class LabelStudioHtml(_LabelStudio):
    name, kinds = "Label Studio answers HTML", ("html",)


class LabelStudioCut(_LabelStudio):
    name, kinds = "Label Studio's answers are cut off", ("cut",)


class DiskFull(Fault):
    name = "disk full"
    lasts = (5.0, 20.0)

    def impossible(self) -> str:
        return "" if self.world.mounted else "no file system may be mounted here"

    @property
    def _filler(self) -> Path:
        return self.world.home / "filler"

    def inject(self) -> str:
        left = self.chance.choice([0, 0, 8, 200]) * 1024
        size = os.statvfs(self.world.home)
        with self._filler.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, max(4096, size.f_bavail * size.f_frsize - left))
            if not left:
                with contextlib.suppress(OSError):
                    file.seek(0, os.SEEK_END)
                    while True:
                        file.write(bytes(4096))
        return f"{os.statvfs(self.world.home).f_bavail * size.f_frsize // 1024} KiB left"

    def heal(self) -> None:
        self._filler.unlink(missing_ok=True)


class ReadOnlyHome(Fault):
    name = "read-only home"
    lasts = (5.0, 20.0)

    def impossible(self) -> str:
        from chaos.tree import _unprivileged

        return "" if os.geteuid() != 0 or _unprivileged() else "root may write anywhere, and there is no setpriv"

    def inject(self) -> str:
        self._modes = {}
        home = self.world.home
        for path in (home, *home.rglob("*")):
            with contextlib.suppress(OSError):
                self._modes[path] = path.stat().st_mode & 0o777
        for path, mode in self._modes.items():
            with contextlib.suppress(OSError):
                path.chmod(mode & 0o555)
        restart = self.chance.random() < 0.3
        if restart:
            for process in self.world.yoloop.named("backend.cli.main", "worker"):
                process.kill()
        return "the rights to write were taken away" + (", and the worker was killed" if restart else "")

    def heal(self) -> None:
        for path, mode in self._modes.items():
            with contextlib.suppress(OSError):
                path.chmod(mode)


class DatabaseLocked(Fault):
    name = "database locked for 10 s"
    lasts = (0.0, 0.1)

    def inject(self) -> str:
        chosen = self.chance.sample(DATABASES, self.chance.randint(1, len(DATABASES)))
        held = []
        for name in chosen:
            connection = sqlite3.connect(self.world.home / name, timeout=20, isolation_level=None)
            connection.execute("BEGIN EXCLUSIVE")
            held.append(connection)
        time.sleep(LOCKED)
        for connection in held:
            connection.rollback()
            connection.close()
        return f"{', '.join(chosen)} locked"


class _Corrupt(Fault):
    endings: ClassVar[tuple[str, ...]]
    lasts = (8.0, 14.0)
    moments = ("idle", "training")

    def inject(self) -> str:
        world = self.world
        champion = world.registry.champion(world.uid)
        assert champion is not None
        places = [world.home / "registry" / "local" / world.uid / str(champion.number)]
        places += (world.home / "registry" / "artifacts").glob(f"{champion.run_id}/artifacts")
        self._whole = {
            path: path.read_bytes()
            for place in places
            for path in place.glob("*")
            if path.suffix in self.endings and path.is_file()
        }
        if not self._whole:
            raise LookupError(f"{champion.name} has no such file")
        how = self.chance.choice(["changed", "cut off", "removed"])
        for path, data in self._whole.items():
            _spoil(path, data, how, self.chance)
        for process in world.yoloop.named("backend.cli.main", "serve"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return f"{len(self._whole)} files of {champion.name} {how}, the server started anew"

    def heal(self) -> None:
        """As from a backup."""
        for path, data in self._whole.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


class CorruptCheckpoint(_Corrupt):
    name = "corrupt checkpoint and export"
    endings = (".pt", ".xml", ".bin")
    spoils_version = True


class CorruptExport(_Corrupt):
    name = "corrupt export"
    endings = (".xml", ".bin")


def _spoil(path: Path, data: bytes, how: str, chance: random.Random) -> None:
    if how == "removed":
        path.unlink()
    elif how == "cut off":
        path.write_bytes(data[: chance.randrange(len(data))])
    else:
        at = chance.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])


class ClockJump(Fault):
    name = "a clock that jumps"
    lasts = (5.0, 15.0)

    def impossible(self) -> str:
        return "" if self.world.yoloop.has_clock else "no C compiler is here to build the clock"

    def inject(self) -> str:
        hours = self.chance.choice([-1, 1]) * self.chance.choice([0.05, 1, 30, 400 * 24])
        self.world.yoloop.jump(3600 * hours)
        return f"the clock jumps by {hours:+g} hours, and back"

    def heal(self) -> None:
        self.world.yoloop.jump(0.0)


class TwoWorkers(Fault):
    name = "two workers on one home"
    lasts = (12.0, 20.0)

    def inject(self) -> str:
        words = self.chance.choice([("worker",), ("up",)])
        self._second = self.world.yoloop.second(*words, port=free_port())
        killed = self.chance.random() < 0.5
        if killed:  # whichever comes first may go on
            time.sleep(self.chance.uniform(0, 6))
            for process in self.world.yoloop.named("backend.cli.main", "worker"):
                if process.pid != self._second.pid and process.ppid() != self._second.pid:
                    process.kill()
        return f"a second `yoloop {words[0]}`" + (", and the first worker killed" if killed else "")

    def heal(self) -> None:
        if self._second.poll() is None:
            self._second.send_signal(signal.SIGTERM)
        try:
            self._second.wait(60)
        except subprocess.TimeoutExpired:
            raise AssertionError("the second one did not stop within 60 s") from None


class HalfWritten(Fault):
    name = "half-written cache files"
    lasts = (5.0, 10.0)
    moments = ("idle", "reading")

    def inject(self) -> str:
        files = [path for path in (self.world.home / "cache").rglob("*") if path.is_file()]
        chosen = [path for path in files if self.chance.random() < 0.7]
        if not chosen:
            raise LookupError("nothing is cached")
        for path in chosen:
            data = path.read_bytes()
            path.unlink()  # a hard link of it may be a part of a dataset, which is written anew
            path.write_bytes(data[: self.chance.randrange(len(data) + 1)])
            (path.parent / f"tmp{self.chance.randrange(10**6)}.part").write_bytes(data[:100])
        for process in self.world.yoloop.named("backend.cli.main", "serve"):
            if self.chance.random() < 0.5:  # what it holds in memory is no help then
                process.kill()
        return f"{len(chosen)} of {len(files)} cache files cut off"


ALL: dict[str, type[Fault]] = {
    "kill-server": KillServer,
    "kill-worker": KillWorker,
    "kill-trainer": KillTrainer,
    "kill-refresh": KillRefresh,
    "kill-up": KillSupervisor,
    "kill-all": PowerCut,
    "ls-down": LabelStudioDown,
    "ls-slow": LabelStudioSlow,
    "ls-401": LabelStudio401,
    "ls-429": LabelStudio429,
    "ls-500": LabelStudio500,
    "ls-html": LabelStudioHtml,
    "ls-cut": LabelStudioCut,
    "disk-full": DiskFull,
    "read-only": ReadOnlyHome,
    "db-locked": DatabaseLocked,
    "corrupt": CorruptCheckpoint,
    "corrupt-export": CorruptExport,
    "clock": ClockJump,
    "two-workers": TwoWorkers,
    "half-written": HalfWritten,
}
