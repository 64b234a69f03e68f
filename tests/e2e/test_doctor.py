"""`yoloop doctor` on a real Label Studio: each fault set up on purpose, found, and mended as the doctor says.

The tests leave the connection whole behind them; the last ones stop things.
"""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from support.labelstudio import ALLOW_LOCAL, LabelStudioServer
from support.ports import free_port
from support.tiny import SIZE, tiny_yolo
from support.waiting import wait_for
from support.web import PNG
from support.yoloop import Yoloop
from typer.testing import CliRunner

from backend.cli.main import app
from backend.health.check import Check
from backend.health.doctor import examine
from backend.labels.networks import Network
from backend.labelstudio.webhook import EVENTS, HEADER, webhook_secret
from backend.served_models.parts import Part, dump
from backend.settings import Settings
from model_registry import Registry

pytestmark = [pytest.mark.group("doctor", minutes=4), pytest.mark.random_order(disabled=True)]

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Car"/><Label value="Plane"/></RectangleLabels></View>'
)
LABELS = ("Car", "Plane")


@dataclass
class Place:
    """A Label Studio with one project of one picture, and a yoloop that it is connected to."""

    label_studio: LabelStudioServer
    yoloop: Yoloop
    models: Path
    number: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            "YOLOOP_HOME": str(self.yoloop.home),
            "YOLOOP_PORT": str(self.yoloop.port),
            "YOLOOP_MODELS": str(self.models),
            "YOLOOP_BASE_MODEL": "tiny.pt",
            "YOLOOP_IMAGE_SIZE": str(SIZE),
            "LABEL_STUDIO_URL": self.label_studio.url,
            "LABEL_STUDIO_API_KEY": self.label_studio.pat(),
        }

    def look(self, number: int | None = None, **settings: Any) -> dict[str, Check]:
        """What the doctor finds, by name; of this project without its number."""
        options = {
            "home": self.yoloop.home,
            "port": self.yoloop.port,
            "models": self.models,
            "base_model": "tiny.pt",
            "image_size": SIZE,
            "label_studio_url": self.label_studio.url,
            "label_studio_api_key": self.label_studio.pat(),
            **settings,
        }
        prefix = f"project {number or self.number} "
        return {check.name.removeprefix(prefix): check for check in examine(Settings(**options), number or self.number)}

    def ill(self, name: str, **settings: Any) -> Check:
        """The check, which finds something wrong."""
        found = self.look(**settings)[name]
        assert found.ok is False, found
        return found

    def do(self, mend: str, **environment: str) -> None:
        """Run the command that a check names."""
        command = next(each for each in re.findall(r"`([^`]+)`", mend) if "yoloop " in each)
        words = shlex.split(command)
        while "=" in words[0]:
            words.pop(0)  # the address and the token, which the environment has
        done = CliRunner().invoke(app, words[1:], env=self.environment | environment)
        assert done.exit_code == 0, done.output + str(done.exception)

    def mended(self, name: str, mend: str) -> None:
        self.do(mend)
        found = self.look()[name]
        assert found.ok, found

    @property
    def project(self) -> str:
        return self.yoloop.store.find(self.number).uid

    def hook(self) -> int:
        (found,) = self.label_studio.api("GET", f"/api/webhooks/?project={self.number}")
        return int(found["id"])

    def row(self) -> dict[str, Any]:
        (found,) = self.label_studio.api("GET", f"/api/ml?project={self.number}")
        return dict(found)

    def task(self, image: str) -> Callable[[], None]:
        """Let the only task name another image; the result puts the old one back."""
        (task,) = self.label_studio.api("GET", f"/api/tasks?project={self.number}&fields=all")["tasks"]
        path = f"/api/tasks/{task['id']}/"
        self.label_studio.api("PATCH", path, json={"data": {"image": image}})
        return lambda: self.label_studio.api("PATCH", path, json={"data": task["data"]})


@pytest.fixture(scope="module")
def place(label_studio_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "files" / "pictures").mkdir(parents=True)
    (folder / "files" / "pictures" / "one.png").write_bytes(PNG)
    tiny_yolo(folder / "models" / "tiny.pt", LABELS, {0: (0, 0.9), 1: (1, 0.6)})
    settings = {
        "YOLOOP_MODELS": str(folder / "models"),
        "YOLOOP_BASE_MODEL": "tiny.pt",
        "YOLOOP_IMAGE_SIZE": str(SIZE),
        "YOLOOP_DEVICE": "cpu",
        "YOLOOP_SYNC_INTERVAL": "5",
        "YOLOOP_DEBOUNCE": "0.5",
    }
    with (
        LabelStudioServer(folder / "ls", template=label_studio_template, local_files=folder / "files") as label_studio,
        Yoloop(folder / "home", label_studio, **settings) as yoloop,
    ):
        number = new_project(label_studio)
        upload = {"file": ("one.png", PNG, "image/png")}
        label_studio.api("POST", f"/api/projects/{number}/import", files=upload)
        made = Place(label_studio, yoloop, folder / "models", number)
        made.do(f"`yoloop connect --project {number} --url {yoloop.url}`")
        wait_for(lambda: yoloop.store.find(number).synced_at, 60, "the first sync")
        wait_for(lambda: made.look()["prediction"].ok, 60, "the base model to suggest")
        yield made


@pytest.fixture(autouse=True)
def known(place: Place) -> None:
    """Each test begins with the right address and token, whatever became of the one before."""
    place.yoloop.store.save_project(
        place.project, url=place.label_studio.url, api_key=place.label_studio.pat(), sync_error=""
    )


def new_project(label_studio: LabelStudioServer) -> int:
    body = {"title": "doctor", "label_config": CONFIG}
    return int(label_studio.api("POST", "/api/projects/", json=body)["id"])


def test_all_is_well(place: Place) -> None:
    found = place.look()
    assert not [check for check in found.values() if check.ok is False]
    assert [check.name for check in found.values() if check.ok is None] == [f"project {place.number} suggestions"]
    assert found["token"].told.startswith(f"A personal access token of {place.label_studio.email}")
    assert "1.23" in found["Label Studio"].told
    assert "8 × 6 pixels" in found["image"].told
    assert re.search(r"got \d+ suggestions of yoloop-v0", found["prediction"].told), found["prediction"]
    assert "Car, Plane" in found["labels of label"].told
    assert "0 of 10" in found["training"].told or "no submitted annotation" in found["training"].told


def test_the_command_prints_lines_or_json_and_tells_by_its_exit_code(place: Place) -> None:
    secrets = [place.label_studio.pat(), webhook_secret(place.yoloop.home), place.label_studio.token]
    said = place.yoloop.run("doctor")
    assert said.splitlines()[0].startswith("✓ home: ")
    assert re.fullmatch(r"\d+ well, 0 to mend, 1 left out\.", said.splitlines()[-1])
    as_json = subprocess.run(
        [sys.executable, "-m", "backend.cli.main", "doctor", "--json", "--project", str(place.number + 99)],
        env={**place.yoloop._env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = {each["name"]: each for each in json.loads(as_json.stdout)}
    assert as_json.returncode == 1 and as_json.stderr == ""
    assert found["projects"]["ok"] is False
    assert found["projects"]["mend"].startswith(f"`yoloop connect --project {place.number + 99}`")
    assert found["token"]["ok"] is True
    assert not [secret for secret in secrets if secret in said + as_json.stdout]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"is_active": False}, "It is switched off."),
        ({"headers": {}}, "It carries no secret."),
        ({"headers": {HEADER: "another"}}, "It carries another secret."),
        ({"send_payload": False}, "It sends no payload."),
        (
            {"actions": sorted(EVENTS - {"ANNOTATION_CREATED", "TASKS_DELETED"})},
            "It does not tell of ANNOTATION_CREATED, TASKS_DELETED.",
        ),
    ],
)
def test_spoilt_webhook(place: Place, fields: dict[str, Any], words: str) -> None:
    body = {"actions": sorted(EVENTS), **fields}
    place.label_studio.api("PATCH", f"/api/webhooks/{place.hook()}/", json=body)
    found = place.ill("webhook")
    assert found.told == words
    place.mended("webhook", found.mend)


def test_missing_twin_and_stale_webhooks(place: Place) -> None:
    place.label_studio.api("DELETE", f"/api/webhooks/{place.hook()}/")
    missing = place.ill("webhook")
    assert "There is none" in missing.told
    place.mended("webhook", missing.mend)

    secret = webhook_secret(place.yoloop.home)
    for url in (f"{place.yoloop.url}/webhook", "http://127.0.0.1:9/webhook"):
        body = {"project": place.number, "url": url, "headers": {HEADER: secret}}
        place.label_studio.api("POST", "/api/webhooks/", json=body)
    found = place.look()
    assert "There are 2" in found["webhook"].told
    assert "127.0.0.1:9/webhook" in found["stale webhooks"].told and found["stale webhooks"].ok is False
    place.mended("stale webhooks", found["stale webhooks"].mend)
    assert place.look()["webhook"].ok


def test_backend_that_is_missing_twice_or_elsewhere(place: Place, ml_backend: Any) -> None:
    place.label_studio.api("DELETE", f"/api/ml/{place.row()['id']}")
    missing = place.ill("backend")
    assert "no ML backend of yoloop" in missing.told
    place.mended("backend", missing.mend)

    twin = {"project": place.number, "url": place.yoloop.url, "title": "yoloop"}
    place.label_studio.api("POST", "/api/ml/", json=twin)
    twice = place.ill("backend")
    assert "2 times" in twice.told
    place.mended("backend", twice.mend)

    moved = {"project": place.number, "url": ml_backend.url, "title": "yoloop"}
    place.label_studio.api("PATCH", f"/api/ml/{place.row()['id']}", json=moved)
    elsewhere = place.ill("backend")
    assert ml_backend.url in elsewhere.told and place.yoloop.url in elsewhere.told
    place.mended("backend", elsewhere.mend)


def test_backend_without_the_user_name_that_is_asked_for(place: Place) -> None:
    asked = {"basic_auth_user": "annotators", "basic_auth_pass": "open-sesame"}
    found = place.ill("backend", **asked)
    assert "no user name" in found.told
    place.do(found.mend, YOLOOP_BASIC_AUTH_USER="annotators", YOLOOP_BASIC_AUTH_PASS="open-sesame")
    after = place.look(**asked)
    assert after["backend"].ok and after["prediction"].ok
    assert not [check for check in after.values() if "open-sesame" in str(check)]
    without = place.ill("backend")
    assert "the user name annotators" in without.told
    place.label_studio.api("DELETE", f"/api/ml/{place.row()['id']}")
    place.do(without.mend)


def test_order_that_does_not_follow_the_version(place: Place) -> None:
    place.do(f"`yoloop connect --project {place.number} --url {place.yoloop.url} --active-learning`")
    assert place.look()["order"].ok

    titled = {"project": place.number, "url": place.yoloop.url, "title": "v9"}
    place.label_studio.api("PATCH", f"/api/ml/{place.row()['id']}", json=titled)
    found = place.ill("order")
    assert "orders by v9" in found.told and "v0 serves" in found.told
    place.mended("order", found.mend)

    place.label_studio.api("PATCH", f"/api/projects/{place.number}/", json={"sampling": "Sequential sampling"})
    found = place.ill("order")
    assert "sequential sampling" in found.told
    place.mended("order", found.mend)


def test_project_of_somebody_else(place: Place) -> None:
    database = place.label_studio.folder / "data" / "label_studio.sqlite3"
    change = "UPDATE project SET organization_id = ? WHERE id = ?"
    with closing(sqlite3.connect(database, timeout=10)) as db:
        ((organization,),) = db.execute("SELECT organization_id FROM project WHERE id = ?", [place.number])
        db.execute(change, [None, place.number])
        db.commit()
        found = place.look()
        db.execute(change, [organization, place.number])
        db.commit()
    assert found[f"project {place.number}"].ok is False, found
    assert "a token of a member" in found[f"project {place.number}"].mend
    assert found["prediction"].ok is None and "backend" not in found
    assert place.look()[f"project {place.number}"].ok


def test_tokens_that_are_not_accepted(place: Place) -> None:
    pat, store = place.label_studio.pat(), place.yoloop.store
    damaged = pat[:-4] + ("aaaa" if not pat.endswith("aaaa") else "bbbb")
    place.label_studio.allow_legacy_tokens(False)
    try:
        for token, words in (
            (place.label_studio.token, "legacy tokens are switched off"),
            (damaged, "expired, revoked"),
            ("f" * 40, "does not know this token"),
        ):
            store.save_project(place.project, api_key=token)
            found = place.look()
            assert found["token"].ok is False and words in found["token"].told
            assert token not in "".join(map(str, found.values()))
            assert found[f"project {place.number}"].ok is None and found["prediction"].ok is None
            assert "backend" not in found
    finally:
        place.label_studio.allow_legacy_tokens(True)
    place.mended("token", found["token"].mend)
    store.save_project(place.project, api_key=place.label_studio.token)
    assert "A legacy token of" in place.look()["token"].told
    store.save_project(place.project, api_key=pat)


def test_token_of_somebody_who_left(place: Place) -> None:
    token = _stranger(place.label_studio)
    place.yoloop.store.save_project(place.project, api_key=token)
    found = place.look()
    wrong = [check for check in found.values() if check.ok is False]
    assert [check.name for check in wrong] == ["token"] and "has left the organization" in wrong[0].mend
    assert token not in "".join(map(str, found.values()))
    place.mended(wrong[0].name, wrong[0].mend)


def test_label_studio_that_is_not_there(place: Place) -> None:
    place.yoloop.store.save_project(place.project, url=f"http://127.0.0.1:{free_port()}")
    found = place.look()
    assert found["Label Studio"].ok is False and "nothing listens there" in found["Label Studio"].told
    assert found["token"].ok is None
    place.mended("Label Studio", found["Label Studio"].mend)


def test_sync_that_failed(place: Place) -> None:
    """The worker meets an address where nobody is, and says so; connecting makes it read at once."""
    uid, store = place.project, place.yoloop.store
    place.yoloop.store.save_project(uid, url=f"http://127.0.0.1:{free_port()}")
    wait_for(lambda: store.find(place.number).sync_error, 60, "the worker to fail")
    found = place.ill("sync")
    assert "cannot be reached" in found.told
    began = time.time()
    place.do(found.mend)
    wait_for(lambda: (store.find(place.number).synced_at or 0.0) > began, 60, "a sync")
    assert place.look()["sync"].ok


def test_image_whose_file_is_gone(place: Place) -> None:
    (file,) = (place.label_studio.folder / "data" / "media" / "upload").glob(f"{place.number}/*.png")
    gone = file.rename(file.with_suffix(".gone"))
    found = place.look()
    assert found["image"].ok is False and re.search("HTTP (404|500)", found["image"].told)
    assert "has lost its file" in found["image"].mend and found["prediction"].ok is None
    gone.rename(file)
    assert place.look()["image"].ok


def test_local_files_without_a_storage(place: Place) -> None:
    back = place.task("/data/local-files/?d=pictures/one.png")
    found = place.ill("image")
    assert "HTTP 404" in found.told and "Local Files storage" in found.mend
    folder = place.models.parent / "files" / "pictures"
    storage = {"project": place.number, "path": str(folder), "use_blob_urls": True}
    place.label_studio.api("POST", "/api/storages/localfiles", json=storage)
    assert place.look()["image"].ok
    back()


def test_config_that_cannot_be_used_and_labels_without_a_class(place: Place) -> None:
    path = f"/api/projects/{place.number}/"
    text = '<View><Text name="t" value="$image"/><Choices name="c" toName="t"><Choice value="A"/></Choices></View>'
    place.label_studio.api("PATCH", path, json={"label_config": text})
    found = place.look()
    assert found["labels"].ok is False and found["prediction"].ok is None
    place.label_studio.api("PATCH", path, json={"label_config": CONFIG})

    registry = Registry(f"sqlite:///{place.yoloop.home / 'mlflow.db'}", place.yoloop.home / "registry")
    tags = {
        "classes": json.dumps(LABELS),
        "image_size": str(SIZE),
        "networks": dump([Part(Network("detect", "detect", LABELS, ("label",)), image_size=SIZE)]),
    }
    weights = {"weights.pt": place.models / "tiny.pt"}
    made = registry.register(place.project, "by the test", weights, metrics={}, params={}, tags=tags)
    registry.promote(place.project, made.number, "Promoted by the test.")
    wait_for(lambda: place.look()["prediction"].ok, 60, "v1 to serve")
    assert "v1 serves, its 1 files are whole." in place.look()["model"].told

    renamed = CONFIG.replace('<Label value="Plane"/>', '<Label value="Jet"/>')
    place.label_studio.api("PATCH", path, json={"label_config": renamed})
    found = place.look()
    assert found["labels of label"].ok is False and "Jet" in found["labels of label"].told
    assert 'predicted_values="<old name>"' in found["labels of label"].mend
    mended = CONFIG.replace('<Label value="Plane"/>', '<Label value="Jet" predicted_values="Plane"/>')
    place.label_studio.api("PATCH", path, json={"label_config": mended})
    assert place.look()["labels of label"].ok
    place.label_studio.api("PATCH", path, json={"label_config": CONFIG})
    registry.rollback(place.project)


@pytest.mark.parametrize(
    ("guard", "words", "setting"),
    [
        ({}, "does not talk to", "ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false"),
        ({"ML_BLOCK_LOCAL_IP": "false"}, "sends no events to", "SSRF_PROTECTION_ENABLED=false too"),
    ],
)
def test_reserved_addresses(place: Place, guard: dict[str, str], words: str, setting: str) -> None:
    back = place.task("/data/local-files/?d=pictures/one.png")
    closed = {"ML_BLOCK_LOCAL_IP": "true", "SSRF_PROTECTION_ENABLED": "true", **guard}
    place.label_studio.restart(closed | {"LOCAL_FILES_SERVING_ENABLED": "false"})
    found = place.look()
    assert found["address"].ok is False
    assert words in found["address"].told and setting in found["address"].mend
    assert found["image"].ok is False and "LOCAL_FILES_SERVING_ENABLED=true" in found["image"].mend
    rows = (len(place.label_studio.api("GET", f"/api/ml?project={place.number}")), place.hook() > 0)
    assert rows == (1, True)  # asking made nothing

    place.label_studio.restart(ALLOW_LOCAL)
    place.do(found["address"].mend)
    after = place.look()
    assert after["address"].ok and after["backend"].ok and after["image"].ok
    back()


def test_nothing_runs(place: Place) -> None:
    place.yoloop.__exit__(None, None, None)
    found = place.look()
    for name in ("server", "worker", "backend"):
        assert found[name].ok is False and "`yoloop up`" in found[name].mend, found[name]
    assert found["prediction"].ok is None and found["image"].ok
    assert requests.get(f"{place.label_studio.url}/health", timeout=5).ok
    place.yoloop.__enter__()
    after = place.look()
    assert all(after[name].ok for name in ("server", "worker", "backend", "prediction")), after


def test_label_studio_that_was_stopped(place: Place) -> None:
    place.label_studio.stop()
    said = subprocess.run(
        [sys.executable, "-m", "backend.cli.main", "doctor"],
        env=place.yoloop._env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 1 and said.stderr == ""
    assert f"✗ Label Studio: Label Studio at {place.label_studio.url} cannot be reached" in said.stdout
    assert "  → Start Label Studio." in said.stdout
    place.label_studio.start()
    assert place.look()["Label Studio"].ok


def test_label_studio_that_was_reset(place: Place, label_studio_template: Path, tmp_path: Path) -> None:
    """The number is handed out again, to a project that was made at another time."""
    token = place.label_studio.token
    place.yoloop.store.save_project(place.project, api_key=token)
    place.label_studio.stop()
    with LabelStudioServer(tmp_path, place.label_studio.port, template=label_studio_template) as reset:
        assert new_project(reset) == place.number
        found = place.look()["identity"]
        assert found.ok is False and "made anew" in found.told
        place.do(found.mend, LABEL_STUDIO_API_KEY=token)
        after = place.look()
        assert "identity" not in after and after["backend"].ok and after["webhook"].ok
        assert after["image"].ok is None and after["prediction"].ok is None


def _stranger(label_studio: LabelStudioServer) -> str:
    """A personal access token of somebody who has left the organization."""
    email = "stranger@example.com"
    address = f"{label_studio.url}/user/signup/"
    with requests.Session() as session:
        page = session.get(address, timeout=30)
        field = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        form = {
            "email": email,
            "password": label_studio.password,
            "csrfmiddlewaretoken": field[1] if field else "-",
            "allow_newsletters": "false",
        }
        session.post(address, data=form, headers={"Referer": address}, timeout=30)
        head = {"X-CSRFToken": session.cookies["csrftoken"], "Referer": label_studio.url}
        token = str(session.post(f"{label_studio.url}/api/token/", json={}, headers=head, timeout=30).json()["token"])
    (user,) = [each for each in label_studio.api("GET", "/api/users/") if each["email"] == email]
    label_studio.api("DELETE", f"/api/organizations/1/memberships/{user['id']}/")
    return token
