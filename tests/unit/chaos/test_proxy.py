"""The proxy that stands before Label Studio on a bad day, with a web server in Label Studio's place."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import requests
from chaos import proxy as module
from chaos.proxy import Kind, Mode, Proxy
from flask import Flask, request
from werkzeug.serving import make_server


class Target:
    """Answers what it was asked; `calls` holds that."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bytes, str]] = []
        app = Flask("target")
        app.add_url_rule("/<path:path>", view_func=self._answer, methods=["GET", "POST", "DELETE"])
        self.server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _answer(self, path: str) -> dict[str, str]:
        asked = request.headers.get("Authorization", "")
        self.calls.append((request.method, request.full_path.rstrip("?"), request.get_data(), asked))
        return {"path": path}


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def proxy(target: Target) -> Iterator[Proxy]:
    made = Proxy(target.server.server_port)
    yield made
    made.close()


def post(proxy: Proxy) -> requests.Response:
    return requests.post(f"{proxy.url}/api/x?a=1", data=b"body", headers={"Authorization": "Token t"}, timeout=10)


def test_what_it_passes_on_is_the_same(proxy: Proxy, target: Target) -> None:
    assert post(proxy).json() == {"path": "api/x"}
    assert target.calls == [("POST", "/api/x?a=1", b"body", "Token t")]
    assert proxy.harmed == 0


@pytest.mark.parametrize(("kind", "status"), [("401", 401), ("429", 429), ("500", 500), ("html", 200)])
@pytest.mark.parametrize("done", [False, True])
def test_refusals_with_the_work_done_or_not(proxy: Proxy, target: Target, kind: Kind, status: int, done: bool) -> None:
    proxy.set(Mode(kind, done))
    found = post(proxy)
    assert found.status_code == status
    assert ("<html>" in found.text) == (kind == "html")
    assert len(target.calls) == done
    assert proxy.harmed == 1


def test_down_and_up_again(proxy: Proxy, target: Target) -> None:
    proxy.set(Mode("down"))
    with pytest.raises(requests.ConnectionError):
        post(proxy)
    proxy.set(Mode())
    assert post(proxy).ok
    assert len(target.calls) == 1


def test_an_answer_that_is_cut_off(proxy: Proxy, target: Target) -> None:
    proxy.set(Mode("cut"))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        post(proxy)
    assert len(target.calls) == 1


def test_a_slow_answer_comes(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW", 0.5)
    proxy.set(Mode("slow"))
    answer = post(proxy)
    assert answer.ok
    assert answer.elapsed.total_seconds() > 0.5
