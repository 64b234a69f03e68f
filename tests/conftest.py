"""Before anything else is imported: no downloads, no reports, nothing in the user's home or in `.yoloop`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Generator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support import groups, results

_FOLDER = Path(tempfile.mkdtemp(prefix="yoloop-tests-"))


def _prepare() -> None:
    # A developer's own settings are not the tests'.
    foreign = [
        name
        for name in os.environ
        if name.startswith(("YOLOOP_", "LABEL_STUDIO_", "MLFLOW_", "BASIC_AUTH_")) and "_TEST_" not in name
    ]
    for name in foreign:
        del os.environ[name]
    os.environ |= {
        "OMP_NUM_THREADS": "1",  # the cores are shared with other tests: more threads only get into each other's way
        "YOLOOP_OFFLINE": "1",
        "YOLOOP_HOME": str(_FOLDER / "home"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MPLCONFIGDIR": str(_FOLDER / "matplotlib"),
    }
    from backend.engine.environment import prepare

    prepare(_FOLDER)


_prepare()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", default="test-results", help="Folder for what failed tests leave behind.")

    parser.addoption("--fast", action="store_true", help="Leave out what is marked e2e, training or slow.")


def pytest_configure(config: pytest.Config) -> None:
    # Linux shares the cores out among sessions. Trainings have the lowest priority, which counts inside of one only: in
    # the same session as the other workers, or as other work on this machine, they would stand still.
    if hasattr(config, "workerinput") and hasattr(os, "setsid"):
        with suppress(PermissionError):
            os.setsid()
    for mark in groups.MARKS:
        config.addinivalue_line("markers", mark)
    # How long an example takes says how busy the machine is. Without a seed the examples are the same in each run.
    settings.register_profile(
        "yoloop",
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=config.getoption("--hypothesis-seed") is None,
    )
    settings.load_profile("yoloop")


def pytest_itemcollected(item: pytest.Item) -> None:
    groups.mark(item)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--fast"):
        left_out = [item for item in items if groups.takes_long(item)]
        items[:] = [item for item in items if not groups.takes_long(item)]
        config.hook.pytest_deselected(items=left_out)
    groups.arrange(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> groups.GroupScheduling:
    return groups.GroupScheduling(config, log)


def pytest_runtest_logstart() -> None:
    results.begin_test()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        said = "\n".join([report.longreprtext, *(f"--- {name}\n{text}" for name, text in report.sections)])
        results.keep(_results(item.config), groups.without_suffix(item.nodeid), said)
    return report


_seconds: dict[str, float] = defaultdict(float)
"""Of each test, its fixtures included. Where several workers run, the process that reads their reports keeps it."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[groups.without_suffix(report.nodeid)] += report.duration


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if slow := results.slow(_seconds):
        terminalreporter.section(f"slower than {results.SLOW:.0f} s")
        for line in slow:
            terminalreporter.write_line(line)


def _results(config: pytest.Config) -> Path:
    return config.rootpath / str(config.getoption("--results"))


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's schema in a file: making it takes seconds, copying it none."""
    from mlflow.store.db import utils

    from model_registry import Registry

    # For each database that it opens, MLflow reads its migrations anew, of which none comes while tests run.
    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)

    folder = tmp_path_factory.mktemp("mlflow")
    Registry(f"sqlite:///{folder / 'mlflow.db'}", folder / "registry").open()
    return folder / "mlflow.db"


def pytest_unconfigure() -> None:
    shutil.rmtree(_FOLDER, ignore_errors=True)
