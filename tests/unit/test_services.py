from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.web import Server, answer

from backend.errors import LabelStudioError
from backend.services import Connection, Services, connection_of
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


def test_the_environments_token_goes_to_no_address_that_setup_named(project: Project, tmp_path: Path) -> None:
    """Whoever may call /setup, a user of this machine or one who has the password, would get it otherwise."""
    assert reached(project, label_studio_api_key="key") == ("http://told:8080", "legacy")
    bare = replace(project, access_token="")
    assert reached(bare, label_studio_api_key="key") is None
    own = {"label_studio_api_key": "key", "label_studio_url": "http://own/"}
    assert reached(bare, **own) == reached(project, **own) == ("http://own", "key")
    with (
        closing(Services(Settings(home=tmp_path, label_studio_api_key="key"))) as services,
        pytest.raises(LabelStudioError, match="LABEL_STUDIO_API_KEY is set without LABEL_STUDIO_URL"),
    ):
        services.client(bare)


def test_a_user_name_and_password_in_an_address_are_left_out(store: Store, project: Project) -> None:
    own = {"label_studio_api_key": "key", "label_studio_url": "http://me:hush@own/ls/"}
    assert reached(None, **own) == ("http://own/ls", "key")
    assert "hush" not in repr(Settings(**own))
    store.save_project("8.1", hostname="http://me:hush@told/", access_token="legacy")
    store.save_project("9.1", url="http://me:hush@connected/", api_key="pat")
    assert reached(store.project("8.1")) == ("http://told", "legacy")
    assert reached(store.project("9.1")) == ("http://connected", "pat")
    assert "hush" not in repr(Connection("http://me:hush@host", "key"))


def test_images_of_a_label_studio_that_anybody_may_name_are_not_fetched(project: Project, tmp_path: Path) -> None:
    with closing(Services(Settings(home=tmp_path, host="0.0.0.0"))) as services:
        assert services.source_of(project)("/a.png", 1).ls_url == ""
    with closing(Services(Settings(home=tmp_path))) as services:
        assert services.source_of(project)("/a.png", 1).ls_url == "http://told:8080"


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


class TestMlflowBehindAProxy:
    """Its own client reads the environment for itself, and a proxy would read its token."""

    @pytest.fixture
    def mlflow(self) -> Iterator[Server]:
        server = Server()
        server.otherwise = answer(b"{}")
        yield server
        server.close()

    @pytest.fixture(autouse=True)
    def environment(self, proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "")  # as it was before, after the test
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1"])
    @pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
    def test_none_is_asked_for_a_server_of_this_network(
        self, mlflow: Server, proxy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "example.invalid")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{host}:{mlflow.port}")
        for _ in range(2):
            with closing(Services(Settings(home=tmp_path))) as services:
                services.registry.champion_number("7.1")
        assert mlflow.credentials() and set(mlflow.credentials()) == {"Bearer hush"}
        assert proxy.asked == []
        assert os.environ[variable] == f"example.invalid,{host}"

    def test_it_is_asked_for_one_elsewhere(
        self, proxy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.com")
        with closing(Services(Settings(home=tmp_path))) as services, pytest.raises(Exception, match="503"):
            services.registry.champion_number("7.1")
        assert proxy.paths and proxy.paths[0].startswith("http://mlflow.example.com/api/2.0/mlflow/")
        assert os.environ["NO_PROXY"] == ""
