from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from support.web import Server, answer

from backend.health import machine
from backend.health.machine import GIB
from backend.labelstudio.webhook import webhook_secret
from backend.settings import Settings


@pytest.fixture
def studio() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def settings(home: Path, **options: object) -> Settings:
    return Settings(**{"home": home, "device": "cpu", **options})


def test_a_home_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = machine.home(settings(tmp_path / "home"))
    assert found.ok is False and "YOLOOP_HOME" in found.mend
    assert not (tmp_path / "home").exists()
    (tmp_path / "home").mkdir()
    assert machine.home(settings(tmp_path / "home")).ok


def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    assert machine.disk(settings(tmp_path, min_free_gb=0)).ok
    found = machine.disk(settings(tmp_path, cache_gb=7, min_free_gb=2**30))
    assert found.ok is False and "YOLOOP_CACHE_GB, which is 7" in found.mend


def system(folder: Path, available: int, most: str = "", taken: int = 0, cached: int = 0) -> Path:
    (folder / "proc").mkdir(parents=True)
    (folder / "proc" / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n")
    if most:
        group = folder / "sys" / "fs" / "cgroup"
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{most}\n")
        (group / "memory.current").write_text(f"{taken}\n")
        (group / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")
    return folder


def test_memory_is_the_machines_or_what_a_container_may_still_take(tmp_path: Path) -> None:
    assert "8.0 GiB" in machine.memory(system=system(tmp_path / "a", 8 * GIB)).told
    assert "8.0 GiB" in machine.memory(system=system(tmp_path / "b", 8 * GIB, "max", 5 * GIB)).told
    small = machine.memory(system=system(tmp_path / "c", 8 * GIB, str(2 * GIB), int(1.5 * GIB)))
    assert small.ok is False and "0.5 GiB" in small.told and "YOLOOP_MAX_MODELS" in small.mend
    # Cached files leave when a program needs their memory.
    assert machine.memory(system=system(tmp_path / "d", 8 * GIB, str(2 * GIB), int(1.5 * GIB), GIB)).ok
    assert machine.memory(system=tmp_path / "nowhere").ok is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine_has_memory() -> None:
    assert machine.memory(least=1).ok


def test_what_serves(tmp_path: Path) -> None:
    assert "openvino serves on the CPU" in machine.engine(settings(tmp_path)).told
    assert "torch serves on the CPU" in machine.engine(settings(tmp_path, engine="torch")).told


def test_a_gpu_that_is_asked_for_and_not_there(tmp_path: Path) -> None:
    import torch

    count = torch.cuda.device_count()
    found = machine.engine(settings(tmp_path, device=f"cuda:{count}"))
    assert found.ok is False and "YOLOOP_DEVICE=" in found.mend
    assert machine.engine(settings(tmp_path, device="cpu")).ok


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        ({"host": "0.0.0.0"}, "Set YOLOOP_BASIC_AUTH_USER and YOLOOP_BASIC_AUTH_PASS"),
        ({"basic_auth_user": "me"}, "Set both"),
        ({"basic_auth_pass": "word"}, "Set both"),
    ],
)
def test_who_may_come_in(tmp_path: Path, options: dict[str, object], mend: str) -> None:
    found = machine.access(settings(tmp_path, **options))
    assert found.ok is False and mend in found.mend
    assert machine.access(settings(tmp_path, host="0.0.0.0", basic_auth_user="me", basic_auth_pass="word")).ok


def test_a_secret_that_others_may_read(tmp_path: Path) -> None:
    webhook_secret(tmp_path)
    assert machine.access(settings(tmp_path)).ok
    (tmp_path / "webhook-secret").chmod(0o644)
    found = machine.access(settings(tmp_path))
    assert found.ok is False
    _, mode, path = found.mend.split()
    Path(path).chmod(int(mode, 8))
    assert machine.access(settings(tmp_path)).ok


def test_the_server(tmp_path: Path, studio: Server) -> None:
    here = settings(tmp_path, port=studio.port)
    assert "is not yoloop" in machine.server(here).told
    studio.routes["/health"] = answer(b"<html>")
    assert "is not yoloop" in machine.server(here).told
    studio.routes["/health"] = answer(b'{"status": "UP", "model_class": "YoloBackend"}')
    assert machine.server(here).ok
    assert machine.server(settings(tmp_path, host="0.0.0.0", port=studio.port)).ok
    studio.close()
    found = machine.server(here)
    assert found.ok is False and found.mend == "Start it with `yoloop up`."


def test_addresses_of_the_server(tmp_path: Path) -> None:
    assert machine.server_url(settings(tmp_path, host="::", port=1)) == "http://[::1]:1"
    assert machine.server_url(settings(tmp_path, host="10.0.0.5", port=2)) == "http://10.0.0.5:2"


def test_the_worker_holds_its_lock(tmp_path: Path) -> None:
    found = machine.worker(settings(tmp_path))
    assert found.ok is False and "`yoloop up`" in found.mend
    with FileLock(tmp_path / "worker.lock"):
        assert machine.worker(settings(tmp_path)).ok
