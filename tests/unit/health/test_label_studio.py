from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.health.label_studio import clock, connect_command, token_end
from backend.labelstudio.probe import Greeting
from backend.settings import Settings
from backend.store.database import Project, Store


@pytest.fixture
def project(store: Store) -> Project:
    store.save_project("7.5", title="Shapes")
    return store.find(7)


@pytest.mark.parametrize("ahead", [-4.9, 0.0, 4.9])
def test_clocks_that_agree(ahead: float) -> None:
    assert clock(Greeting("1.23.2", ahead)).ok


@pytest.mark.parametrize(("ahead", "told"), [(61.0, "61 s ahead of this one"), (-7200.4, "7200 s behind this one")])
def test_clocks_that_differ(ahead: float, told: str) -> None:
    found = clock(Greeting("1.23.2", ahead))
    assert found.ok is False and told in found.told and "timedatectl" in found.mend


def test_a_clock_that_is_not_told() -> None:
    assert clock(Greeting("1.23.2", None)).ok is None


def test_the_command_that_connects_has_the_options_of_last_time(project: Project, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, port=9191)
    assert connect_command(settings, 7) == "yoloop connect --project 7"
    assert connect_command(settings, 7, project) == "yoloop connect --project 7"
    usual = replace(project, backend_url="http://localhost:9191")
    assert connect_command(settings, 7, usual) == "yoloop connect --project 7"
    moved = replace(project, backend_url="http://yoloop.lan:9090", active_learning=True)
    expected = "yoloop connect --project 7 --url http://yoloop.lan:9090 --active-learning"
    assert connect_command(settings, 7, moved) == expected


def jwt(body: Any) -> str:
    return f"eyJh.{base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip('=')}.c2ln"


def test_the_end_of_a_token() -> None:
    assert token_end(jwt({"exp": 1795453273, "token_type": "refresh"})) == 1795453273.0


@pytest.mark.parametrize("key", ["0" * 40, "", "a.b", "a.b.c", "a.####.c", jwt({}), jwt([]), jwt({"exp": None})])
def test_a_token_that_does_not_tell_its_end(key: str) -> None:
    assert token_end(key) is None
