"""The machine: the home folder, disk and memory, what models run on, and whether yoloop runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import requests

from backend.engine.environment import cores
from backend.health.check import Check, ill, left_out, well
from backend.network.proxies import DIRECT
from backend.processes.liveness import worker_lives
from backend.processes.room import GIB, missing_space
from backend.served_models.loading import GPU_DEVICES, serving_engine
from backend.settings import Settings

LEAST_MEMORY = GIB
LEAST_GPU_MEMORY = GIB
"""Bytes that must be free: what a training takes beside the server."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is compared with
_PRIVATE = ("yoloop.db", "webhook-secret")


def home(settings: Settings) -> Check:
    """Whether there is a home that can be written. Makes none: this may be the wrong folder."""
    if not settings.home.expanduser().exists():
        return ill(
            "home",
            f"There is no {settings.home} here.",
            "Run `yoloop up` in this folder, or set YOLOOP_HOME to the folder that it uses.",
        )
    settings.root  # noqa: B018  says in its own words what is wrong
    return well("home", f"{settings.home} can be written.")


def disk(settings: Settings) -> Check:
    """Whether a training finds the room that it waits for."""
    free = shutil.disk_usage(settings.root).free
    told = f"{free / GIB:.1f} GiB are free."
    if not missing_space(settings.root, settings.min_free_gb):
        return well("disk", told)
    return ill(
        "disk",
        f"{told} A training needs {settings.min_free_gb:g}, and waits until there are as many.",
        f"Free some, or lower YOLOOP_CACHE_GB, which is {settings.cache_gb:g}, and restart yoloop.",
    )


def memory(least: int = LEAST_MEMORY, system: Path = Path("/")) -> Check:
    """Memory that is left, to this container where there is one.

    Args:
        system: where `proc` and `sys` are.
    """
    free = _free_memory(system)
    if free is None:
        return left_out("memory", "this system does not tell")
    told = f"{free / GIB:.1f} GiB are free."
    if free >= least:
        return well("memory", told)
    return ill(
        "memory",
        f"{told} A training needs {least / GIB:.0f} beside what runs.",
        "Set YOLOOP_MAX_MODELS to less, or end other programs.",
    )


def engine(settings: Settings) -> Check:
    """What serves trained models here."""
    wanted = settings.device
    shown = any(Path(path).exists() for path in GPU_DEVICES)
    if not wanted.startswith("cuda") and (wanted != "auto" or not shown):
        chosen = serving_engine(settings.engine, wanted)
        where = "mps" if wanted == "mps" else f"the CPU, {cores()} cores"
        return well("engine", f"{chosen} serves on {where}.")
    import torch

    if not torch.cuda.is_available():
        return ill("engine", "There is no GPU that torch can use.", "Set YOLOOP_DEVICE=cpu, or mend its driver.")
    index = int(wanted.partition(":")[2] or 0)
    if index >= (count := torch.cuda.device_count()):
        return ill("engine", f"There is no {wanted}: torch sees {count}.", "Set YOLOOP_DEVICE=cuda:0.")
    free, total = torch.cuda.mem_get_info(index)
    told = (
        f"{serving_engine(settings.engine, wanted)} serves on {torch.cuda.get_device_name(index)}, "
        f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free."
    )
    if free >= LEAST_GPU_MEMORY:
        return well("engine", told)
    return ill("engine", told, "End what holds the GPU (`nvidia-smi` names it), or set YOLOOP_DEVICE=cpu.")


def access(settings: Settings) -> Check:
    """Whether somebody could come in who should not, or read a secret."""
    user, password = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
    if bool(user) != bool(password):
        return ill(
            "access", "Half of basic auth is set.", "Set both YOLOOP_BASIC_AUTH_USER and YOLOOP_BASIC_AUTH_PASS."
        )
    if settings.exposed:
        return ill(
            "access",
            f"Anybody who reaches {settings.host}:{settings.port} may use yoloop.",
            "Set YOLOOP_BASIC_AUTH_USER and YOLOOP_BASIC_AUTH_PASS, restart yoloop and connect again.",
        )
    shown = [name for name in _PRIVATE if _readable_by_others(settings.root / name)]
    if shown:
        where = " ".join(str(settings.home / name) for name in shown)
        return ill("access", f"Others may read {' and '.join(shown)}.", f"chmod 600 {where}")
    asked = "a user name and password are asked for" if user else "only this machine reaches it"
    return well("access", f"{settings.host}:{settings.port}, {asked}.")


def server(settings: Settings) -> Check:
    url = server_url(settings)
    try:
        answer = requests.get(f"{url}/health", timeout=3, allow_redirects=False, proxies=DIRECT)
        ours = answer.ok and answer.json().get("model_class") == "YoloBackend"
    except requests.Timeout:
        return ill("server", f"{url} does not answer within 3 s.", "Restart `yoloop up`; its log may say why.")
    except requests.ConnectionError:
        return ill("server", f"yoloop does not run at {url}.", "Start it with `yoloop up`.")
    except (ValueError, AttributeError, requests.RequestException):
        ours = False
    if ours:
        return well("server", f"yoloop answers at {url}.")
    return ill("server", f"What answers at {url} is not yoloop.", "Set YOLOOP_PORT to a free port and run `yoloop up`.")


def worker(settings: Settings) -> Check:
    """Whether one holds the worker's lock on this home."""
    if worker_lives(settings.root):
        return well("worker", "It runs.")
    return ill("worker", "No worker runs, so nothing is learned.", "Start it with `yoloop up`.")


def server_url(settings: Settings) -> str:
    """Where the serving process is reached from its own machine."""
    host = _EVERYWHERE.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _readable_by_others(path: Path) -> bool:
    return os.name == "posix" and path.exists() and bool(path.stat().st_mode & 0o077)


def _free_memory(system: Path) -> int | None:
    """Bytes: what the machine has left, and no more than what its control group may still take."""
    found = []
    try:
        lines = (system / "proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        group = system / "sys/fs/cgroup"
        most = (group / "memory.max").read_text().strip()
        if most.isdecimal():
            taken = int((group / "memory.current").read_text())
            statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            found.append(int(most) - taken + int(statistics["inactive_file"]))  # a cache of files goes when needed
    except (OSError, ValueError, LookupError):
        pass  # another system, or no such groups
    return min(found, default=None)
