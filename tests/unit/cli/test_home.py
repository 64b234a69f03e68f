"""Which home a command works on, with real marks of yoloops that run."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.waiting import wait_for

from backend.cli.home import NoHome, locate
from backend.processes.running import running

RUNS = """
import sys, time
from pathlib import Path
from backend.processes.running import Running, listed
from backend.settings import Settings
with listed(Running.of(Settings(home=Path(sys.argv[1]), port=int(sys.argv[2])), time.time())):
    print("runs", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def yoloop(home: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A process that is marked as the `yoloop up` of a home that holds data."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "yoloop.db").touch()
    with subprocess.Popen(
        [sys.executable, "-c", RUNS, str(home), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "runs\n"
        yield process
        process.kill()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in: empty, and on a machine where nothing else runs."""
    monkeypatch.delenv("YOLOOP_HOME", raising=False)
    (tmp_path / "machine").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "machine"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_without_any_it_says_where_it_looked_and_makes_none(here: Path) -> None:
    with pytest.raises(NoHome, match=r"/here/\.yoloop, and no yoloop of yours runs on this machine.*`yoloop up`"):
        locate()
    assert list(here.iterdir()) == []
    assert locate(demand=False).place == here / ".yoloop"
    assert list(here.iterdir()) == []


def test_one_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOOP_HOME", str(tmp_path / "named"))
    with yoloop(tmp_path / "other", 9191), pytest.raises(NoHome, match=r"/named"):
        locate()
    assert not (tmp_path / "named").exists()
    assert locate(make=True).place == tmp_path / "named"


def test_the_one_that_runs_is_found_with_its_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with yoloop(tmp_path / "far", 9191):
        found = locate()
        assert (found.place, found.port, found.host) == (tmp_path / "far", 9191, "127.0.0.1")
    assert f"home: {tmp_path / 'far'}" in capsys.readouterr().err


def test_the_one_here_goes_before_one_that_runs_elsewhere_which_is_told(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / ".yoloop").mkdir()
    (here / ".yoloop" / "yoloop.db").touch()
    with yoloop(tmp_path / "far", 9191):
        assert locate().place == here / ".yoloop"
    assert f"one runs with the home {tmp_path / 'far'}" in capsys.readouterr().err


def test_the_port_of_the_one_here_is_known(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with yoloop(here / ".yoloop", 9191):
        assert locate().port == 9191
        monkeypatch.setenv("YOLOOP_PORT", "9292")
        assert locate().port == 9292


def test_of_several_the_one_at_the_port_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with yoloop(tmp_path / "one", 9191), yoloop(tmp_path / "two", 9292):
        with pytest.raises(NoHome, match=r"several yoloops run.*one \(port 9191\).*Set YOLOOP_HOME"):
            locate()
        monkeypatch.setenv("YOLOOP_PORT", "9292")
        assert locate().place == tmp_path / "two"


def test_one_that_was_killed_is_not_found(tmp_path: Path) -> None:
    with yoloop(tmp_path / "far", 9191) as process:
        assert [(each.home, each.port) for each in running()] == [(str(tmp_path / "far"), 9191)]
        process.kill()
        process.wait()
        wait_for(lambda: not running(), 10)
        with pytest.raises(NoHome):
            locate()


def test_a_list_that_others_could_write_is_not_read(tmp_path: Path) -> None:
    with yoloop(tmp_path / "far", 9191):
        (folder,) = (tmp_path / "machine").glob("yoloop-*")
        folder.chmod(0o777)
        assert running() == []
        folder.chmod(0o700)
        assert len(running()) == 1
