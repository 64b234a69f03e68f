from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.services import connection_of
from backend.settings import Settings
from backend.store.database import Project, Store


@pytest.fixture
def project(store: Store) -> Iterator[Project]:
    """Known from /setup alone."""
    store.save_project("7.1", hostname="http://told:8080/", access_token="legacy")
    found = store.project("7.1")
    assert found is not None
    yield found


def reached(project: Project | None, **settings: Any) -> tuple[str, str] | None:
    found = connection_of(project, Settings(**settings))
    return None if found is None else (found.url, found.api_key)


def test_what_setup_said_counts_where_callers_are_known(project: Project) -> None:
    assert reached(project) == ("http://told:8080", "legacy")
    assert reached(project, host="0.0.0.0", basic_auth_user="me") == ("http://told:8080", "legacy")
    assert reached(project, label_studio_api_key="key") == ("http://told:8080", "key")


def test_where_anybody_may_call_setup_its_host_gets_nothing(project: Project) -> None:
    """Whoever sends a made-up /setup would get the token otherwise, or have private addresses asked."""
    assert reached(project, host="0.0.0.0") is None
    assert reached(project, host="0.0.0.0", label_studio_api_key="key") is None
    own = {"label_studio_api_key": "key", "label_studio_url": "http://own/"}
    assert reached(project, host="0.0.0.0", **own) == ("http://own", "key")


def test_what_connect_was_told_wins(store: Store, project: Project) -> None:
    store.save_project(project.uid, url="http://connected", api_key="pat")
    own = {"label_studio_api_key": "key", "label_studio_url": "http://own/"}
    assert reached(store.project(project.uid), host="0.0.0.0", **own) == ("http://connected", "pat")


def test_nothing_is_known() -> None:
    assert reached(None) is None
    assert reached(None, label_studio_api_key="key") is None


def test_a_connection_shows_no_token(project: Project) -> None:
    found = connection_of(project, Settings())
    assert "legacy" not in f"{found!r} {found} {project!r}"


def test_files_of_the_database_are_their_owners(tmp_path: Path) -> None:
    made = Store(f"sqlite:///{tmp_path / 'yoloop.db'}")
    made.save_project("7.1", api_key="pat")
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.glob("yoloop.db*")}
    made.close()
    assert modes == dict.fromkeys(("yoloop.db", "yoloop.db-wal", "yoloop.db-shm"), "0o600")
