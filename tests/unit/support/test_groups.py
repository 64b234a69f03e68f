"""A small project with this one's hooks, run by pytest as `scripts/test` runs it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from support.groups import without_suffix

pytest_plugins = ["pytester"]

HOOKS = (Path(__file__).parents[2] / "conftest.py").read_text()


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    tests = Path(__file__).parents[2]
    pytester.makeconftest(HOOKS)
    ours = tomllib.loads((tests.parent / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    options = " ".join(ours["addopts"].split())
    pytester.makeini(f"[pytest]\npythonpath = {tests} {tests.parent}\naddopts = {options}\n")
    pytester.makepyfile(
        test_short="def test_a(): pass\ndef test_b(): pass\n",
        test_long="import pytest\npytestmark = pytest.mark.group('long', minutes=5)\ndef test_c(): pass\n",
        test_split=(
            "import pytest\n@pytest.mark.group('left', minutes=1)\ndef test_d(): pass\n"
            "@pytest.mark.group('right', minutes=2)\ndef test_e(): pass\n"
        ),
        test_server=(
            "import pytest\n@pytest.fixture\ndef label_studio(): pass\ndef test_f(label_studio): pass\n"
            "@pytest.mark.random_order(disabled=True)\nclass TestLife:\n"
            "    def test_1(self): pass\n    def test_2(self): pass\n    def test_3(self): pass\n"
        ),
    )
    return pytester


def run(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    return project.runpytest_subprocess(*options, timeout=300)


def test_what_takes_long_comes_first(project: pytest.Pytester) -> None:
    lines = run(project, "--collect-only", "-q").outlines
    names = [line.rpartition("::")[2] for line in lines if "::" in line]
    assert names[:3] == ["test_c", "test_e", "test_d"]
    assert len(names) == 9


def test_a_real_label_studio_is_known_by_its_fixture(project: pytest.Pytester) -> None:
    found = run(project, "-m", "e2e", "-v")
    found.assert_outcomes(passed=1, deselected=8)
    found.stdout.fnmatch_lines(["*test_f PASSED*"])


@pytest.mark.slow
def test_a_group_and_a_module_run_in_one_worker_each(project: pytest.Pytester) -> None:
    found = run(project, "-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "-v")
    found.assert_outcomes(passed=9)
    ran = dict(re.findall(r"\[(gw\d)\].*PASSED \S+::(\w+)", found.stdout.str()))
    workers: dict[str, set[str]] = {}
    for worker, name in re.findall(r"\[(gw\d)\].*PASSED \S+::(\w+)", found.stdout.str()):
        workers.setdefault(name, set()).add(worker)
    assert set(ran) <= {"gw0", "gw1"}
    assert workers["test_a"] == workers["test_b"]
    assert workers["test_1"] == workers["test_2"] == workers["test_3"] == workers["test_f"]


def test_random_order_spares_tests_that_build_on_each_other(project: pytest.Pytester) -> None:
    orders = set()
    for seed in (1, 2):
        lines = run(project, "--collect-only", "-q", f"--random-order-seed={seed}").outlines
        names = [line.rpartition("::")[2] for line in lines if "::" in line]
        assert [name for name in names if name in ("test_1", "test_2", "test_3")] == ["test_1", "test_2", "test_3"]
        assert names[0] == "test_c"
        orders.add(tuple(names))
    assert len(orders) == 2


@pytest.mark.slow
def test_a_failure_leaves_its_report(project: pytest.Pytester) -> None:
    project.makepyfile(test_bad="def test_x(): assert 0, 'because'\n")
    run(project, "-n", "2", "--dist", "loadgroup", "--results", "here").assert_outcomes(passed=9, failed=1)
    (folder,) = (project.path / "here" / "failed").iterdir()
    assert "because" in (folder / "report.txt").read_text()


@pytest.mark.slow
def test_a_test_that_ends_its_worker_runs_once(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_dying="import os, pathlib\ndef test_x():\n    pathlib.Path('ran').open('a').write('x')\n    os._exit(3)\n"
        "def test_y(): pass\n"
    )
    found = run(project, "-n", "2", "--dist", "loadgroup")
    found.assert_outcomes(passed=10, failed=1)
    assert (project.path / "ran").read_text() == "x"


@pytest.mark.slow
def test_the_last_test_of_a_group_runs_after_the_one_before_ended_its_worker(project: pytest.Pytester) -> None:
    for file in project.path.glob("test_*.py"):
        file.unlink()
    project.makepyfile(
        test_first="def test_a(): pass\n",
        test_second="import os\ndef test_b(): pass\ndef test_c(): os._exit(3)\ndef test_d(): pass\n",
    )
    for workers in "12":
        run(project, "-n", workers, "--dist", "loadgroup").assert_outcomes(passed=3, failed=1)


@pytest.mark.parametrize(
    ("nodeid", "name"),
    [
        ("tests/a.py::test_b@group", "tests/a.py::test_b"),
        ("tests/a.py::test_b[x@y]", "tests/a.py::test_b[x@y]"),
        ("tests/a.py::test_b[x@y]@group", "tests/a.py::test_b[x@y]"),
        ("tests/a.py::test_b", "tests/a.py::test_b"),
    ],
)
def test_a_test_has_one_name_in_every_process(nodeid: str, name: str) -> None:
    assert without_suffix(nodeid) == name
