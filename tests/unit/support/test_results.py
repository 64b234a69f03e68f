from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from support import results
from support.results import begin_test, evidence, keep, slow


@pytest.fixture(autouse=True)
def nothing_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_watched", [])


def kept(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def of(test: str, results: Path) -> Path:
    """The folder of a test."""
    (found,) = (results / "failed").glob(f"{test}-*")
    return found


def test_a_failure_keeps_what_runs(tmp_path: Path) -> None:
    log = tmp_path / "home" / "a.log"
    log.parent.mkdir()
    log.write_text("said")

    def found(folder: Path) -> Iterable[Path]:
        (folder / "page.png").write_text("seen")
        return [log, tmp_path / "not there"]

    with evidence("server", found):
        keep(tmp_path / "kept", "tests/test_x.py::test_y[a b/c]", "E  assert 0")
    (folder,) = (tmp_path / "kept" / "failed").iterdir()
    assert folder.name.startswith("tests-test_x.py-test_y-a-b-c-")
    assert kept(folder) == {"report.txt": "E  assert 0\n", "0-server/home-a.log": "said", "0-server/page.png": "seen"}


def test_what_ended_with_the_test_is_kept_until_the_next_begins(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("said")
    with evidence("server", lambda _: [tmp_path / "a.log"]):
        pass
    keep(tmp_path / "kept", "one", "")
    begin_test()
    keep(tmp_path / "kept", "two", "")
    assert list(kept(of("one", tmp_path / "kept"))) == ["report.txt", f"0-server/{tmp_path.name}-a.log"]
    assert list(kept(of("two", tmp_path / "kept"))) == ["report.txt"]


def test_evidence_that_cannot_be_had_hides_no_failure(tmp_path: Path) -> None:
    def found(_: Path) -> Iterable[Path]:
        raise RuntimeError("the page is closed")

    with evidence("browser", found):
        keep(tmp_path, "one", "E  assert 0")
    assert kept(of("one", tmp_path)) == {
        "report.txt": "E  assert 0\n",
        "0-browser/not-kept.txt": "RuntimeError: the page is closed",
    }


def test_of_a_large_file_the_end_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "LARGEST", 4)
    (tmp_path / "a.log").write_text("0123456789")
    with evidence("server", lambda _: [tmp_path / "a.log"]):
        keep(tmp_path / "kept", "one", "")
    assert (of("one", tmp_path / "kept") / "0-server" / f"{tmp_path.name}-a.log").read_text() == "6789"


def test_slow_tests_are_named_with_their_time_slowest_first() -> None:
    assert slow({"quick": 19.9, "b": 30.0, "a": 20.0, "c": 125.0}) == [
        "  125.0 s  c",
        "   30.0 s  b",
        "   20.0 s  a",
    ]
