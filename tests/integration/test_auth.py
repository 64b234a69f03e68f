"""Who is let in: basic auth for everything but /health, the secret header for events."""

from __future__ import annotations

import base64
import json
import socket
import stat
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from support.bodies import CREATED_AT, UID, config, event, setup
from support.processes import served
from support.web import Server, answer
from typer.testing import CliRunner
from werkzeug.serving import make_server

from backend.app import create_app
from backend.cli.main import app
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


class TestNamesOfYoloop:
    """DNS rebinding: a page whose name stands for yoloop's address reads and sends what it likes, but for the name."""

    def ask(self, client: FlaskClient, host: str, **headers: str) -> int:
        sent = {"Host": host, **headers}
        found = {
            client.get("/report", headers=sent).status_code,
            client.get("/metrics", headers=sent).status_code,
            client.post("/setup", json=setup(hostname="http://told"), headers=sent).status_code,
        }
        assert len(found) == 1
        assert client.get("/health", headers=sent).status_code == 200
        return found.pop()

    @pytest.fixture
    def open_to_all(self, start: Callable[..., Serving]) -> Serving:
        return start(base_model="", trusted_hosts="yoloop.lan, .Example.com")

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "evil.example:9090",
            "yoloop.internal:9090",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example.:9090",
            "notyoloop.lan",
            "a.yoloop.lan",
            "badexample.com",
            "example.com",
            "127.0.0.1@evil.example",
            "evil.example/127.0.0.1",
            "[::1",
            "0x7f000001.evil.example",
        ],
    )
    def test_a_strangers_is_refused(self, open_to_all: Serving, host: str) -> None:
        client = create_app(serving=open_to_all).test_client()
        assert self.ask(client, host) == 401
        answer = client.post("/webhook", json=event("ANNOTATION_CREATED"), headers={"Host": host})
        assert answer.status_code == 401 and "YOLOOP_TRUSTED_HOSTS" in answer.get_json()["hint"]
        assert open_to_all.services.store.projects() == []

    def test_those_that_need_no_setting(self, open_to_all: Serving) -> None:
        client = create_app(serving=open_to_all).test_client()
        own = socket.gethostname()
        for host in ("localhost", "LOCALHOST:9090", "a.localhost", "127.0.0.1:9090", "192.168.1.10", "[::1]:9090", own):
            assert self.ask(client, host) == 200, host
        assert self.ask(client, "yoloop.lan:1") == self.ask(client, "a.example.COM.") == 200

    def test_the_one_that_connect_was_given(self, open_to_all: Serving) -> None:
        client = create_app(serving=open_to_all).test_client()
        for host in ("yoloop.internal:9090", "host.docker.internal:9090"):
            assert self.ask(client, host) == 401
            open_to_all.services.store.save_project(f"{len(host)}.1", backend_url=f"http://me:word@{host}/below")
            assert self.ask(client, host) == 200
        assert self.ask(client, "internal:9090") == 401

    def test_credentials_need_no_name(self, open_to_all: Serving, start: Callable[..., Serving]) -> None:
        guarded = start(base_model="", basic_auth_user="me", basic_auth_pass="mine")
        client = create_app(serving=guarded).test_client()
        assert self.ask(client, "yoloop.internal:9090", **basic("me", "mine")) == 200
        assert self.ask(client, "yoloop.internal:9090") == 401
        client = create_app(serving=open_to_all).test_client()
        assert self.ask(client, "evil.example", **basic("any", "thing")) == 401
        sent = {"Host": "evil.example", HEADER: open_to_all.secret}
        assert client.post("/webhook", json=event("ANNOTATION_CREATED"), headers=sent).status_code == 201
        assert client.get("/report", headers=sent).status_code == 401


class Asking(Server):
    """Label Studio as far as `connect` needs it: before it takes an ML backend it asks it, by the name it was given."""

    def __init__(self, yoloop: str, backend: str) -> None:
        super().__init__()
        self._yoloop, self._backend = yoloop, backend
        self.status = 0
        project = {"id": 7, "title": "Shapes", "created_at": CREATED_AT, "label_config": config(), "model_version": ""}
        row = {"id": 3, "url": backend, "title": "yoloop", "project": 7, "state": "CO", "model_version": "v0"}
        hook = {"id": 4, "url": f"{backend}/webhook", "project": 7, "headers": {}, "actions": [], "is_active": True}
        hook |= {"send_payload": True, "send_for_all_actions": True, "organization": 1}
        self._say("/api/version/", {"release": "1.23.2", "edition": "Community"})
        self._say("/api/current-user/whoami", {"id": 1, "email": "me@example.com"})
        self._say("/api/projects/7/", project)
        self._say("/api/webhooks/", lambda: hook if self.method == "POST" else [])
        self.routes["/api/ml/"] = self._backends
        self._row = row

    def _say(self, path: str, found: Any) -> None:
        def route(handler: BaseHTTPRequestHandler) -> None:
            self.method = handler.command
            body = json.dumps(found() if callable(found) else found).encode()
            answer(body, Content_Type="application/json")(handler)

        self.routes[path] = route

    def _backends(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            return answer(b"[]", Content_Type="application/json")(handler)
        host = self._backend.removeprefix("http://")
        self.status = requests.post(
            f"{self._yoloop}/setup", json=setup(), headers={"Host": host}, timeout=20
        ).status_code
        if self.status != 200:
            body = json.dumps({"detail": "Can't connect to ML backend"}).encode()
            return answer(body, 400, Content_Type="application/json")(handler)
        return answer(json.dumps(self._row).encode(), 201, Content_Type="application/json")(handler)


@pytest.mark.parametrize("name", ["yoloop.internal:9090", "host.docker.internal:9090"])
def test_connect_makes_its_name_known_before_label_studio_asks(
    start: Callable[..., Serving], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    serving = start(base_model="")
    http = make_server("127.0.0.1", 0, create_app(serving=serving), threaded=True)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    studio = Asking(f"http://127.0.0.1:{http.server_port}", f"http://{name}")
    for variable, value in (
        ("YOLOOP_HOME", str(serving.settings.home)),
        ("LABEL_STUDIO_URL", f"http://me:hush@127.0.0.1:{studio.port}"),
        ("LABEL_STUDIO_API_KEY", "0" * 40),
    ):
        monkeypatch.setenv(variable, value)
    ran = CliRunner().invoke(app, ["connect", "7", "--no-active-learning", "--url", f"http://{name}"])
    http.shutdown()
    studio.close()
    assert ran.exit_code == 0, (ran.output, ran.exception, studio.paths)
    assert studio.status == 200
    known = serving.services.store.project(UID)
    assert known is not None and (known.url, known.backend_url) == (studio.url, f"http://{name}")
    assert "hush" not in ran.output and {*studio.credentials()} <= {None, f"Token {'0' * 40}"}
