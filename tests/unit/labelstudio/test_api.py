"""Where Label Studio's token goes, seen at real servers: its own, and a proxy that writes down what it is asked."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from support.web import Server, answer, redirect

from backend.errors import LabelStudioError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.probe import greet

LEGACY = "0123456789abcdef" * 2 + "01234567"
FAR = "http://labels.example.com"


def personal(kind: str) -> str:
    """A token as Label Studio makes them, of the kind `refresh` (the personal one) or `access`."""
    now = int(time.time())
    parts = ({"alg": "HS256", "typ": "JWT"}, {"token_type": kind, "exp": now + 3600, "iat": now})
    text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return f"{text}.{base64.urlsafe_b64encode(b'signed').decode()}"


@pytest.fixture
def studio() -> Iterator[Server]:
    server = Server()
    server.routes["/api/token/refresh/"] = answer(
        json.dumps({"access": personal("access")}).encode(), Content_Type="application/json"
    )
    project = {
        "id": 7,
        "title": "t",
        "created_at": "2026-01-01T00:00:00Z",
        "label_config": "<View/>",
        "model_version": "",
    }
    server.routes["/api/projects/7/"] = answer(json.dumps(project).encode(), Content_Type="application/json")
    server.routes["/ls/api/projects/7/"] = server.routes["/api/projects/7/"]
    yield server
    server.close()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_near_label_studio_is_asked_without_a_proxy(
    studio: Server, proxy: Server, variable: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"http://me:hush@127.0.0.1:{proxy.port}")
    for key in (LEGACY, personal("refresh")):
        with closing(LabelStudioClient(f"http://{host}:{studio.port}", key)) as client:
            assert client.project(7).title == "t"
            assert client.auth_headers()["Authorization"]
    assert "/api/token/refresh/" in studio.paths
    with pytest.raises(LabelStudioError, match="does not answer like Label Studio"):
        greet(f"http://{host}:{studio.port}")  # it has no release
    assert proxy.asked == []


def test_trouble_by_the_proxy_names_its_variable(proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:hush@127.0.0.1:{proxy.port}")
    for key in (LEGACY, personal("refresh")):
        with closing(LabelStudioClient(FAR, key)) as client, pytest.raises(LabelStudioError) as error:
            client.project(7)
        assert "HTTP_PROXY" in error.value.hint and "labels.example.com to NO_PROXY" in error.value.hint
        assert "hush" not in f"{error.value} {error.value.reason}"
    with pytest.raises(LabelStudioError, match="the proxy that HTTP_PROXY names"):
        greet(FAR)
    proxy.close()
    with closing(LabelStudioClient(FAR, LEGACY)) as client, pytest.raises(LabelStudioError, match="HTTP_PROXY names"):
        client.project(7)
    with pytest.raises(LabelStudioError, match="HTTP_PROXY names"):
        greet(FAR)


def test_a_proxy_that_cannot_be_used_is_named(proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://me:hush@127.0.0.1:1")
    with closing(LabelStudioClient(FAR, LEGACY)) as client, pytest.raises(LabelStudioError) as error:
        client.project(7)
    assert "ALL_PROXY names is of a kind that cannot be used" in error.value.message
    assert "hush" not in str(error.value)
    with pytest.raises(LabelStudioError, match="ALL_PROXY names"):
        greet(FAR)


def test_a_user_name_and_password_do_not_take_the_tokens_place(studio: Server) -> None:
    with closing(LabelStudioClient(f"http://me:hush@127.0.0.1:{studio.port}/ls/", LEGACY)) as client:
        assert client.project(7).title == "t"
    assert studio.credentials() == [f"Token {LEGACY}"]
    assert studio.paths[0].startswith("/ls/api/projects/7/")


def test_a_redirect_does_not_take_the_token_along(studio: Server) -> None:
    elsewhere = Server()
    studio.routes["/api/projects/7/"] = redirect(f"{elsewhere.url}/api/projects/7/")
    studio.routes["/api/token/refresh/"] = redirect(f"{elsewhere.url}/api/token/refresh/")
    for key in (LEGACY, personal("refresh")):
        with closing(LabelStudioClient(studio.url, key)) as client, pytest.raises(LabelStudioError):
            client.project(7)
    assert elsewhere.asked == [] and elsewhere.bodies == []
    elsewhere.close()


def test_a_server_before_label_studio_that_wants_a_password_is_told_from_a_wrong_token(studio: Server) -> None:
    studio.routes["/api/projects/7/"] = answer(b"no", 401, WWW_Authenticate='Basic realm="gate"')
    with (
        closing(LabelStudioClient(studio.url, LEGACY)) as client,
        pytest.raises(LabelStudioError, match="asks for a user"),
    ):
        client.project(7)
    studio.routes["/api/projects/7/"] = answer(b"{}", 401, Content_Type="application/json")
    with (
        closing(LabelStudioClient(studio.url, LEGACY)) as client,
        pytest.raises(LabelStudioError, match="know this token"),
    ):
        client.project(7)
