"""Who is let in: basic auth for everything but /health, the secret header for events."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from support.bodies import event, setup
from support.processes import served

from backend.app import create_app
from backend.labelstudio.webhook import HEADER
from backend.server.process import Serving

PATHS = [
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
    ("POST", "/train"),
    ("POST", "/validate"),
    ("POST", "/delete"),
    ("POST", "/duplicate_model"),
    ("GET", "/versions"),
    ("GET", "/job_status"),
    ("GET", "/metrics"),
    ("GET", "/ready"),
    ("GET", "/"),
    ("GET", "/nowhere"),
]


@pytest.fixture
def guarded(start: Callable[..., Serving]) -> Serving:
    return start(basic_auth_user="mluser", basic_auth_pass="mlpäss", base_model="")


@pytest.fixture(scope="module")
def refusing(start_once: Callable[..., Serving]) -> FlaskClient:
    """For requests that are all refused, and so leave nothing behind."""
    serving = start_once(basic_auth_user="mluser", basic_auth_pass="mlpäss", base_model="")
    return create_app(serving=serving).test_client()


@pytest.fixture
def client(guarded: Serving) -> FlaskClient:
    return create_app(serving=guarded).test_client()


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_nothing_else_is_open(refusing: FlaskClient, method: str, path: str) -> None:
    response = refusing.open(path, method=method, json={})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert set(response.get_json()) == {"error", "hint"}


def test_health_is_open(client: FlaskClient) -> None:
    assert client.get("/health").get_json()["status"] == "UP"


def test_the_right_credentials(client: FlaskClient) -> None:
    assert client.post("/setup", json=setup(), headers=basic("mluser", "mlpäss")).status_code == 200
    assert client.post("/webhook", json=event("START_TRAINING"), headers=basic("mluser", "mlpäss")).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        basic("mluser", ""),
        basic("", "mlpäss"),
        basic("mluser", "mlpass"),
        basic("mluser ", "mlpäss"),
        basic("mluser", "mlpäss "),
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(b"mluser").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode()},
        {"Authorization": "Bearer mlpass"},
        {"Authorization": "Token " + "0" * 40},
        {"Authorization": "Digest username=mluser"},
    ],
)
def test_wrong_credentials(refusing: FlaskClient, headers: dict[str, str]) -> None:
    response = refusing.post("/setup", json=setup(), headers=headers)
    assert response.status_code == 401
    assert "mlpäss" not in response.text
    assert "mluser" not in response.text


def test_the_secret_lets_events_in_and_nothing_else(client: FlaskClient, guarded: Serving) -> None:
    headers = {HEADER: guarded.secret}
    assert client.post("/webhook", json=event("ANNOTATION_CREATED"), headers=headers).status_code == 201
    for method, path in PATHS:
        if path != "/webhook":
            assert client.open(path, method=method, json={}, headers=headers).status_code == 401


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9090", ""])
def test_a_web_page_is_not_let_in(start: Callable[..., Serving], origin: str) -> None:
    """A browser sends such a body without asking first, and the credentials that it knows along."""
    serving = start(base_model="", basic_auth_user="me", basic_auth_pass="mine")
    client = create_app(serving=serving).test_client()
    told = setup(hostname="http://evil.example")
    for headers in ({}, basic("me", "mine"), {HEADER: serving.secret}):
        sent = {**headers, "Origin": origin, "Content-Type": "text/plain"}
        assert client.post("/setup", data=json.dumps(told), headers=sent).status_code == 401
        assert client.post("/webhook", data=json.dumps(event("X")), headers=sent).status_code == 401
    assert serving.services.store.projects() == []
    assert client.get("/health", headers={"Origin": origin}).status_code == 200


@pytest.mark.parametrize("wrong", ["", "x", "ä", "s" * 10_000])
def test_a_wrong_secret_is_refused_even_beside_right_credentials(
    client: FlaskClient, guarded: Serving, wrong: str
) -> None:
    headers: dict[str, Any] = {HEADER: wrong.encode().decode("latin-1"), **basic("mluser", "mlpäss")}
    response = client.post("/webhook", json=event("ANNOTATION_CREATED"), headers=headers)
    assert response.status_code == 401
    assert guarded.secret not in response.text
    assert guarded.services.store.hints() == []


def test_without_basic_auth_a_wrong_secret_is_still_refused(start: Callable[..., Serving]) -> None:
    serving = start(base_model="")
    client = create_app(serving=serving).test_client()
    assert client.post("/webhook", json=event("A"), headers={HEADER: "wrong"}).status_code == 401
    assert client.post("/webhook", json=event("A"), headers={HEADER: serving.secret}).status_code == 201
    assert client.post("/webhook", json=event("A")).status_code == 201


def test_the_secret_is_its_owners_and_stays(guarded: Serving) -> None:
    path = guarded.settings.root / "webhook-secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == guarded.secret
    assert len(guarded.secret) >= 32


def test_no_refusal_quotes_a_token(client: FlaskClient) -> None:
    token = "0123456789abcdef" * 2 + "01234567"
    headers = basic("mluser", "mlpäss")
    for text in (token, f"http://me:{token[:9]}@host/", f"Token {token}"):
        for body in ({"project": f"Authorization: {text}"}, {**setup(f"<{text}"), "project": text}):
            answer = client.post("/setup", json=body, headers=headers)
            assert answer.status_code == 400
            assert token[:9] not in answer.text + answer.status


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"YOLOOP_HOST": "0.0.0.0"}, True),
        ({"YOLOOP_HOST": "0.0.0.0", "BASIC_AUTH_USER": "me", "BASIC_AUTH_PASS": "hush"}, False),
    ],
)
def test_an_open_door_is_told_at_the_start(home: Path, settings: dict[str, str], told: bool) -> None:
    with served(home, **settings) as (url, log):
        assert requests.get(f"{url}/", timeout=30).status_code == (200 if told else 401)
    said = log.read_text()
    assert ("as no credentials are asked for" in said) is told
    assert "hush" not in said
