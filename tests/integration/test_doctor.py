"""The doctor on a home of its own, with real faults: files, locks, servers that answer wrongly."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from support.bodies import UID, config
from support.shapes import LABELS
from support.tiny import SIZE
from support.web import PNG, Route, Server, answer, drip, redirect
from werkzeug.serving import make_server

from backend.app import create_app
from backend.errors import LabelStudioError
from backend.health import suggestion_check
from backend.health.check import Check
from backend.health.doctor import examine
from backend.health.label_studio import reachable
from backend.labels.networks import Network
from backend.labelstudio.probe import Probe, greet
from backend.served_models.parts import Part, dump
from backend.server.process import Serving
from backend.services import Connection
from backend.settings import Settings
from backend.store.database import Store

Start = Callable[..., Serving]
Weights = Callable[..., Path]

VERSION = json.dumps({"release": "1.23.2", "edition": "Community"}).encode()
TOKEN = "0123456789abcdef" * 2


def look(settings: Settings, named: str | int | None = None) -> dict[str, Check]:
    return {check.name.removeprefix("project 7 "): check for check in examine(settings, named)}


@pytest.fixture
def connected(serving: Serving, studio: Server) -> Serving:
    """A home with a project of a Label Studio that answers nothing but its release."""
    studio.routes["/api/version"] = answer(VERSION)
    serving.services.store.save_project(
        UID, title="Shapes", url=studio.url, api_key=TOKEN, label_config=config(), synced_at=time.time()
    )
    return serving


def dated(seconds: float) -> Route:
    """A release from a machine whose clock says so many epoch seconds."""

    def route(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response_only(200)
        handler.send_header("Date", formatdate(seconds, usegmt=True))
        handler.send_header("Content-Length", str(len(VERSION)))
        handler.end_headers()
        handler.wfile.write(VERSION)

    return route


class TestGreeting:
    def test_release_and_clock(self, studio: Server) -> None:
        studio.routes["/api/version"] = dated(time.time() + 90)
        found = greet(studio.url)
        assert found.release == "1.23.2"
        assert found.ahead is not None and 60 < found.ahead < 93

    def test_clocks_that_differ_are_found(self, connected: Serving, studio: Server) -> None:
        studio.routes["/api/version"] = dated(time.time() - 3600)
        assert re.search(r"36\d\d s behind", look(connected.settings)["clock"].told)
        studio.routes["/api/version"] = dated(time.time())
        assert look(connected.settings)["clock"].ok

    def test_the_token_is_not_sent(self, studio: Server) -> None:
        studio.routes["/api/version"] = answer(VERSION)
        greet(studio.url)
        assert studio.credentials() == [None]

    @pytest.mark.parametrize(
        ("route", "told"),
        [
            (answer(b"<html>Welcome</html>"), "does not answer like Label Studio"),
            (answer(b"[1]"), "does not answer like Label Studio"),
            (answer(b"{}", 404), "does not answer like Label Studio"),
            (answer(b"x" * 3_000_000), "does not answer like Label Studio"),
            (answer(b"", 401), "lets nobody in (HTTP 401)"),
            (answer(b"", 403), "lets nobody in (HTTP 403)"),
            (answer(b"", 429), "answers HTTP 429"),
            (answer(b"", 500), "answers HTTP 500"),
            (redirect("https://me:word@ls.example.com/?next=1"), "sends its callers on to https://ls.example.com/"),
            (drip, "does not answer within"),
        ],
    )
    def test_what_is_no_label_studio(self, studio: Server, route: Any, told: str) -> None:
        studio.routes["/api/version"] = route
        check, greeting = reachable(Connection(studio.url, TOKEN), "yoloop connect --project 7", timeout=0.5)
        assert greeting is None
        assert check.ok is False and told in check.told and "yoloop connect --project 7" in check.mend
        assert "word" not in str(check)
        studio.routes["/api/version"] = answer(VERSION)
        assert reachable(Connection(studio.url, TOKEN), "")[0].ok

    def test_nobody_and_nowhere(self, studio: Server) -> None:
        studio.close()
        with pytest.raises(LabelStudioError, match="nothing listens there"):
            greet(studio.url)
        with pytest.raises(LabelStudioError, match="its host is not known"):
            greet("http://no-such-host.invalid")
        with pytest.raises(LabelStudioError, match="cannot be reached"):
            greet("no address")


class TestHome:
    def test_none_at_all(self, tmp_path: Path) -> None:
        found = look(Settings(home=tmp_path / "home", device="cpu"))
        assert found["home"].ok is False and found["projects"].ok is None
        assert not (tmp_path / "home").exists()

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can write")
    def test_one_that_cannot_be_written(self) -> None:
        found = look(Settings(home=Path("/proc"), device="cpu"))
        assert found["home"].ok is False and "cannot be written" in found["home"].told
        assert found["projects"].ok is None

    def test_nothing_is_connected(self, serving: Serving) -> None:
        found = look(serving.settings, 3)
        assert found["projects"].told == "Project 3 is not connected."
        assert "`yoloop connect --project 3`" in found["projects"].mend

    def test_label_studio_is_looked_at_without_a_home_too(self, tmp_path: Path, studio: Server) -> None:
        studio.routes["/api/version"] = answer(VERSION)
        settings = Settings(home=tmp_path / "no", label_studio_url=studio.url, label_studio_api_key=TOKEN)
        found = look(settings)
        assert found["Label Studio"].ok and found["token"].ok is False


class TestDatabase:
    def test_a_lock(self, connected: Serving) -> None:
        path = connected.settings.root / "yoloop.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            found = look(connected.settings)
            assert found["database"].ok is False and "locked" in found["database"].told
            assert found["projects"].ok is None
        assert look(connected.settings)["database"].ok

    def test_damage(self, connected: Serving) -> None:
        path = connected.settings.root / "yoloop.db"
        connected.services.close()
        path.with_name("yoloop.db-wal").unlink(missing_ok=True)
        path.write_bytes(b"This was a database." * 1000)
        found = look(connected.settings)
        assert found["database"].ok is False and "is damaged" in found["database"].told


class TestRegistry:
    def register(self, serving: Serving, weights: Path) -> str:
        registry = serving.services.registry
        tags = {
            "classes": json.dumps(LABELS),
            "networks": dump([Part(Network("detect", "detect", LABELS, ("label",)), image_size=SIZE)]),
        }
        key = str(time.monotonic_ns())
        made = registry.register(UID, key, {"weights.pt": weights}, metrics={}, params={}, tags=tags)
        registry.promote(UID, made.number, "Better.")
        return made.run_id

    def test_damaged_and_lost_weights_and_the_way_back(self, connected: Serving, weights: Weights) -> None:
        registry, good = connected.services.registry, weights(LABELS, {0: (0, 0.9)})
        runs = [self.register(connected, good) for _ in range(2)]
        assert look(connected.settings)["model"].told == "v2 serves, its 1 files are whole. Better."
        (stored,) = (connected.settings.root / "registry" / "artifacts" / runs[1]).rglob("weights.pt")
        stored.write_bytes(stored.read_bytes()[:-7])
        damaged = look(connected.settings)["model"]
        assert damaged.ok is False and "weights.pt of v2 is not the one that was registered" in damaged.told
        assert "`yoloop rollback --project 7`" in damaged.mend
        registry.rollback(UID)
        assert look(connected.settings)["model"].told.startswith("v1 serves")
        (stored,) = (connected.settings.root / "registry" / "artifacts" / runs[0]).rglob("weights.pt")
        stored.unlink()
        lost = look(connected.settings)["model"]
        assert lost.ok is False and "cannot be read" in lost.told
        registry.rollback(UID)
        assert "Nothing is trained yet; tiny.pt" in look(connected.settings)["model"].told

    def test_a_tracking_server_that_is_not_there(
        self, connected: Serving, studio: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:open-sesame@127.0.0.1:1")
        began = time.monotonic()
        found = look(Settings(**connected.settings.model_dump()))
        assert found["registry"].ok is False and "MLFLOW_TRACKING_URI" in found["registry"].mend
        assert found["model"].ok is None and found["prediction"].ok is None
        assert "open-sesame" not in "".join(map(str, found.values()))
        assert time.monotonic() - began < 60  # MLflow itself would try again for minutes

    def test_no_weights_at_all(self, connected: Serving, weights: Weights) -> None:
        (connected.settings.models_dir / "tiny.pt").unlink()
        found = look(connected.settings)["model"]
        assert found.ok is False and "tiny.pt" in found.told and "Put the file there" in found.mend
        (connected.settings.models_dir / "tiny.pt").write_bytes(weights(LABELS, {0: (0, 0.9)}).read_bytes())
        assert look(connected.settings)["model"].ok


class TestWork:
    def test_events_wait_because_no_worker_runs(self, connected: Serving) -> None:
        connected.services.store.hint(UID, time.time() - 3600)
        found = look(connected.settings)
        assert found["worker"].ok is False and found["queue"].ok is False
        assert found["queue"].mend == "Start it with `yoloop up`."
        with FileLock(connected.settings.root / "worker.lock"):
            assert look(connected.settings)["worker"].ok

    def test_a_training_that_failed_and_one_that_did_not(self, connected: Serving) -> None:
        jobs, now = connected.services.jobs, time.time()
        for status, message in (("failed", "There are too few images."), ("done", "v1 promoted: better.")):
            job, _ = jobs.request(UID, "asked for at the command line", now)
            jobs.finish(job.id, status, message, now)
            found = look(connected.settings)["training"]
            assert found.ok is (status == "done") and message in found.told
            now += 1

    def test_labels_and_where_images_go_are_left_out_without_label_studio(
        self, connected: Serving, studio: Server
    ) -> None:
        studio.close()
        found = look(connected.settings)
        assert found["Label Studio"].ok is False
        assert found["labels"].ok and found["image"].ok is None and found["sync"].ok
        assert TOKEN not in "".join(map(str, found.values()))


@pytest.fixture
def port(start: Start) -> Iterator[int]:
    """A server that asks for a user name and a password."""
    serving = start(basic_auth_user="me", basic_auth_pass="open-sesame")
    server = make_server("127.0.0.1", 0, create_app(serving=serving), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_server_that_lets_nobody_in(port: int, start: Start, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", port=port)
    task = suggestion_check.Task(1, {"image": "data:,"}, "data:,")
    found = suggestion_check.prediction("prediction", task, UID, config(), "v0", settings)
    assert found.ok is False and "YOLOOP_BASIC_AUTH_USER" in found.mend
    right = Settings(home=tmp_path / "home", port=port, basic_auth_user="me", basic_auth_pass="open-sesame")
    found = suggestion_check.prediction("prediction", task, UID, config(), "v0", right)
    assert found.ok is False and "malformed" in found.told  # let in, and no image


def test_the_command_never_shows_a_traceback(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    Store(f"sqlite:///{home / 'yoloop.db'}").save_project(UID, url="http://127.0.0.1:1", api_key=TOKEN)
    (home / "mlflow.db").write_bytes(b"This was a database." * 1000)
    done = subprocess.run(
        [sys.executable, "-m", "backend.cli.main", "doctor", "--json"],
        env={"PATH": "/usr/bin:/bin", "YOLOOP_HOME": str(home), "YOLOOP_PORT": "1", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert (done.returncode, done.stderr) == (1, "")
    assert found["registry"]["ok"] is False and found["project 7 model"]["ok"] is None
    assert all(each["mend"] for each in found.values() if each["ok"] is False)
    assert TOKEN not in done.stdout


class TestProxies:
    """The environment names a proxy that does not answer as who stands behind it would."""

    @pytest.fixture(autouse=True)
    def proxy(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "NO_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        server = Server()
        server.otherwise = answer(b"<html>Out of order", 503)
        monkeypatch.setenv("HTTP_PROXY", f"http://me:hush@127.0.0.1:{server.port}")
        yield server
        server.close()

    def test_what_is_near_is_not_asked_of_it(self, connected: Serving, proxy: Server, port: int) -> None:
        found = look(connected.settings.model_copy(update={"port": port}))
        assert found["server"].ok and found["Label Studio"].ok
        assert proxy.asked == []

    def test_its_variable_is_named_where_it_is_asked(self, connected: Serving, proxy: Server) -> None:
        connected.services.store.save_project(UID, url="http://labels.example.com")
        found = look(connected.settings)["Label Studio"]
        assert found.ok is False and "the proxy that HTTP_PROXY names" in found.mend
        assert "NO_PROXY" in found.mend and "hush" not in str(found)
        assert TOKEN not in str(proxy.asked) + str(proxy.bodies)

    def test_and_where_mlflow_asks_it(self, connected: Serving, proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.com")
        found = look(connected.settings)["registry"]
        assert found.ok is False and "the proxy that HTTP_PROXY names" in found.mend


class TestAnImage:
    """Fetched for the check as it is for suggestions."""

    @pytest.mark.parametrize(("allowed", "ok"), [("127.0.0.1", True), ("", False)])
    def test_hosts_at_reserved_addresses(self, studio: Server, tmp_path: Path, allowed: str, ok: bool) -> None:
        pictures = Server()
        pictures.otherwise = answer(PNG)
        settings = Settings(home=tmp_path, allowed_hosts=allowed)
        task = suggestion_check.Task(1, {}, f"{pictures.url}/a.png")
        with closing(Probe(studio.url, TOKEN)) as probe:
            found = suggestion_check.image("image", probe, task, settings)
        pictures.close()
        assert found.ok is ok, found
        assert pictures.credentials() == [None] * ok


def test_projects_of_one_number_in_two_label_studios_are_both_looked_at(connected: Serving) -> None:
    other = Server()
    connected.services.store.save_project(f"{UID}1", url=other.url, api_key=TOKEN, label_config=config())
    told = [str(check) for check in examine(connected.settings, 7) if check.name == "Label Studio"]
    assert len(told) == 2 and any(other.url in each for each in told)
    told = [str(check) for check in examine(connected.settings, UID) if check.name == "Label Studio"]
    assert len(told) == 1 and other.url not in told[0]
    assert look(connected.settings, "7.1")["projects"].told == "Project 7.1 is not connected."
    other.close()
