"""`connect` against a real Label Studio: what it leaves there, and what it says when Label Studio refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.labelstudio import LabelStudioServer
from support.ports import free_port
from support.waiting import wait_for

from backend.errors import BadRequest, LabelConfigError, LabelStudioError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.connect import UNCERTAINTY, Report, connect
from backend.labelstudio.disconnect import disconnect
from backend.labelstudio.webhook import EVENTS, HEADER, START_TRAINING, SWITCH, by_switch, is_submit
from backend.store.database import Store

pytestmark = pytest.mark.group("label-studio", minutes=5)

SECRET = "a-secret-of-the-tests"
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Car"/></RectangleLabels></View>'
)


@pytest.fixture
def client(label_studio: LabelStudioServer) -> Iterator[LabelStudioClient]:
    with closing(LabelStudioClient(label_studio.url, label_studio.token)) as found:
        yield found


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request of this process that changes something, as "METHOD path"; renewing a token is none."""
    sent: list[str] = []
    send = httpx.Client.send

    def watch(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.method != "GET" and request.url.path != "/api/token/refresh/":
            sent.append(f"{request.method} {request.url.path}")
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", watch)
    return sent


def link(client: LabelStudioClient, project: int, url: str, **options: Any) -> Report:
    return connect(client, project, url, **{"secret": SECRET, "basic_auth": None, **options})


def changes(report: Report) -> list[str]:
    return [step.done for step in report.steps if step.changed]


def hook(server: LabelStudioServer, project: int, url: str, **fields: Any) -> int:
    return int(server.api("POST", "/api/webhooks/", json={"project": project, "url": url} | fields)["id"])


def row(server: LabelStudioServer, project: int, url: str, **fields: Any) -> int:
    return int(server.api("POST", "/api/ml/", json={"project": project, "url": url} | fields)["id"])


def assert_connected(client: LabelStudioClient, project: int, url: str) -> None:
    """One row, one narrowed and signed webhook, both at this address."""
    (backend,) = client.backends(project)
    (webhook,) = client.webhooks(project)
    assert (backend.url, backend.connected) == (url, True)
    assert (webhook.url, webhook.project, webhook.is_active) == (f"{url}/webhook", project, True)
    assert (webhook.actions, webhook.send_for_all_actions, webhook.send_payload) == (EVENTS, False, True)
    assert webhook.headers == {HEADER: SECRET}


def test_first_connect(label_studio, client, new_project, ml_backend):
    project = new_project()

    report = link(client, project, ml_backend.url + "/")

    assert_connected(client, project, ml_backend.url)
    assert report.changed and len(changes(report)) == 2
    assert report.project.uid == next(body["project"] for path, _, body in ml_backend.calls if path == "/setup")
    assert client.backends(project)[0].title == "yoloop" == client.project(project).model_version
    assert "Car, Plane" in report.steps[2].done and label_studio.email in report.steps[1].done


def test_events_arrive_with_the_secret_and_only_those_asked_for(label_studio, client, new_project, ml_backend):
    project = new_project()
    link(client, project, ml_backend.url)
    ml_backend.calls.clear()

    label_studio.api("POST", f"/api/projects/{project}/import", json=[{"data": {"image": "http://a/b.jpg"}}])
    (task,) = client.task_ids(project)
    label_studio.api("POST", f"/api/tasks/{task}/annotations/", json={"result": []})
    label_studio.api("PATCH", f"/api/projects/{project}", json={"title": "another title"})

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and ml_backend.paths().count("/webhook") < 3:
        time.sleep(0.05)
    events = [(body["action"], head.get(HEADER)) for path, head, body in ml_backend.calls if path == "/webhook"]
    wanted = ["TASKS_CREATED", "ANNOTATION_CREATED", "PROJECT_UPDATED"]
    assert [action for action, _ in events if action in wanted] == wanted
    assert {secret for _, secret in events} == {SECRET}


def test_second_connect_changes_nothing_and_sends_no_write(client, new_project, ml_backend, writes):
    project = new_project()
    first = link(client, project, ml_backend.url)
    assert writes
    writes.clear()

    second = link(client, project, ml_backend.url + "/")

    assert (writes, changes(second)) == ([], [])
    assert (second.backend_id, second.webhook_id) == (first.backend_id, first.webhook_id)


def test_changed_url_moves_the_row_and_the_webhook(client, new_project, ml_backends):
    project = new_project()
    old, new = ml_backends(), ml_backends()
    first = link(client, project, old.url)

    second = link(client, project, new.url)

    assert_connected(client, project, new.url)
    assert second.backend_id == first.backend_id and second.changed


def test_changed_url_is_followed_although_the_title_changed(client, new_project, ml_backends):
    project = new_project()
    old, new = ml_backends(), ml_backends()
    first = link(client, project, old.url)
    client.update_backend(first.backend_id, project, old.url, "v3")

    link(client, project, new.url)

    assert_connected(client, project, new.url)
    assert client.backends(project)[0].title == "v3" == client.project(project).model_version


def test_url_changed_in_label_studio_leaves_no_stale_webhook(label_studio, client, new_project, ml_backends):
    project = new_project()
    old, new = ml_backends(), ml_backends()
    report = link(client, project, old.url)
    client.update_backend(report.backend_id, project, new.url, "yoloop")
    assert [found.url for found in client.webhooks(project)] == [f"{old.url}/webhook"]

    link(client, project, new.url)

    assert_connected(client, project, new.url)


def test_twins_are_removed_and_live_predictions_stay_on(label_studio, client, new_project, ml_backends):
    project = new_project()
    backend, gone = ml_backends(), ml_backends()
    for url in (gone.url, backend.url, backend.url):
        row(label_studio, project, url, title="yoloop")
    hook(label_studio, project, f"{backend.url}/webhook/")
    assert (len(client.backends(project)), len(client.webhooks(project))) == (3, 3)

    report = link(client, project, backend.url)

    assert_connected(client, project, backend.url)
    assert client.project(project).model_version == "yoloop"
    assert changes(report) and not link(client, project, backend.url).changed


def test_others_are_untouched(label_studio, client, new_project, ml_backends):
    project, elsewhere = new_project(), new_project()
    ours, theirs = ml_backends(), ml_backends()
    row(label_studio, project, theirs.url, title="theirs")
    hook(label_studio, project, "http://127.0.0.1:9/their/hook", headers={"X-Theirs": "1"})
    hook(label_studio, elsewhere, f"{ours.url}/webhook")
    rows, hooks, far = client.backends(project), client.webhooks(project), client.webhooks(elsewhere)
    assert (len(rows), len(hooks), len(far)) == (1, 2, 1)

    link(client, project, ours.url)
    link(client, project, ours.url)

    assert [found for found in client.backends(project) if found.title == "theirs"] == rows
    assert [found for found in client.webhooks(project) if HEADER not in found.headers] == hooks
    assert client.webhooks(elsewhere) == far


def test_webhook_of_an_address_that_others_use_too_stays(label_studio, client, new_project, ml_backends):
    project = new_project()
    shared, ours = ml_backends(), ml_backends()
    row(label_studio, project, shared.url, title="theirs")
    row(label_studio, project, shared.url, title="yoloop")

    link(client, project, ours.url)

    assert {found.title: found.url for found in client.backends(project)} == {
        "theirs": shared.url,
        "yoloop": ours.url,
    }
    assert {found.url for found in client.webhooks(project)} == {
        f"{shared.url}/webhook",
        f"{ours.url}/webhook",
    }


def test_another_header_of_the_webhook_is_kept(label_studio, client, new_project, ml_backend):
    project = new_project()
    hook(label_studio, project, f"{ml_backend.url}/webhook", headers={"X-Proxy": "7", HEADER.lower(): "old"})

    link(client, project, ml_backend.url)

    (found,) = client.webhooks(project)
    assert found.headers == {"X-Proxy": "7", HEADER: SECRET}


@pytest.mark.parametrize("fields", [{"is_active": False}, {"send_payload": False}, {"headers": {HEADER: "old"}}])
def test_spoilt_webhook_is_repaired(label_studio, client, new_project, ml_backend, fields):
    project = new_project()
    report = link(client, project, ml_backend.url)
    actions = {"actions": sorted(EVENTS)}
    label_studio.api("PATCH", f"/api/webhooks/{report.webhook_id}/", json=fields | actions)

    assert len(changes(link(client, project, ml_backend.url))) == 1
    assert_connected(client, project, ml_backend.url)


def test_missing_webhook_is_created(client, new_project, ml_backend):
    project = new_project()
    report = link(client, project, ml_backend.url)
    client.delete_webhook(report.webhook_id)

    assert changes(link(client, project, ml_backend.url)) == ["The webhook is added."]
    assert_connected(client, project, ml_backend.url)


def test_basic_auth_reaches_the_backend(client, new_project, ml_backend):
    project = new_project()
    link(client, project, ml_backend.url)
    ml_backend.calls.clear()

    assert link(client, project, ml_backend.url, basic_auth=("user", "word")).changed
    assert ml_backend.calls[-1][1]["Authorization"] == "Basic dXNlcjp3b3Jk"
    assert not link(client, project, ml_backend.url, basic_auth=("user", "word")).changed


def test_backend_that_does_not_run(client, new_project, ml_backends):
    project = new_project()
    with pytest.raises(LabelStudioError) as caught:
        link(client, project, f"http://127.0.0.1:{free_port()}")
    assert "`yoloop up`" in caught.value.hint and "`--url`" in caught.value.hint
    assert "refused" in caught.value.reason and "<a" not in caught.value.reason and caught.value.code == 400
    assert (client.backends(project), client.webhooks(project)) == ([], [])

    backend = ml_backends()
    link(client, project, backend.url)
    with pytest.raises(LabelStudioError, match="cannot reach yoloop"):
        link(client, project, f"http://127.0.0.1:{free_port()}")
    assert_connected(client, project, backend.url)


def test_connected_backend_that_stopped_is_told(client, new_project, ml_backends):
    project = new_project()
    backend = ml_backends()
    link(client, project, backend.url)
    url = backend.url
    backend.stop()
    with pytest.raises(LabelStudioError, match="cannot reach yoloop"):
        link(client, project, url)


def test_host_without_a_dot_cannot_have_a_webhook(client, new_project):
    with pytest.raises(LabelStudioError, match="valid URL"):
        client.create_webhook(new_project(), "http://yoloop:9090/webhook", EVENTS, {})


def test_project_without_a_usable_control(client, new_project, ml_backend, writes):
    text = '<View><Text name="t" value="$t"/><Choices name="c" toName="t"><Choice value="A"/></Choices></View>'
    with pytest.raises(LabelConfigError):
        link(client, new_project(label_config=text), ml_backend.url)
    assert writes == []


def test_project_that_is_not_there(client, ml_backend):
    with pytest.raises(LabelStudioError, match="no project 987654") as caught:
        link(client, 987654, ml_backend.url)
    assert caught.value.code == 404 and caught.value.hint


@pytest.mark.parametrize("url", ["", "localhost:9090", "ftp://host", "http://", "http://host:port"])
def test_what_is_no_address(client, url):
    with pytest.raises(BadRequest):
        link(client, 1, url)


def test_wrong_token(label_studio, new_project, ml_backend):
    token = "f" * 40
    with pytest.raises(LabelStudioError) as caught:
        link(LabelStudioClient(label_studio.url, token), new_project(), ml_backend.url)
    error = caught.value
    assert (error.code, error.reason) == (401, "Invalid token.")
    assert "Personal Access Token" in error.hint and token not in f"{error}{error.reason}"


def test_no_token(label_studio, new_project, ml_backend):
    with pytest.raises(LabelStudioError, match="No token"):
        link(LabelStudioClient(label_studio.url, " "), new_project(), ml_backend.url)


def test_legacy_token_where_they_are_off(label_studio, client, new_project, ml_backend):
    project = new_project()
    label_studio.allow_legacy_tokens(False)
    try:
        with pytest.raises(LabelStudioError, match="legacy tokens are switched off") as caught:
            link(client, project, ml_backend.url)
        assert "Personal Access Token" in caught.value.hint and "disabled" in caught.value.reason
        link(LabelStudioClient(label_studio.url, label_studio.pat()), project, ml_backend.url)
    finally:
        label_studio.allow_legacy_tokens(True)
    assert_connected(client, project, ml_backend.url)


def test_personal_access_token(label_studio, new_project, ml_backend, writes):
    project = new_project()
    client = LabelStudioClient(label_studio.url + "/", f" {label_studio.pat()}\n")
    link(client, project, ml_backend.url)
    writes.clear()
    assert not link(client, project, ml_backend.url).changed and writes == []
    assert_connected(client, project, ml_backend.url)


def test_personal_access_token_that_is_not_accepted(label_studio, new_project, ml_backend):
    token = label_studio.pat()
    damaged = token[:-4] + ("aaaa" if not token.endswith("aaaa") else "bbbb")
    with pytest.raises(LabelStudioError, match="expired, revoked") as caught:
        link(LabelStudioClient(label_studio.url, damaged), new_project(), ml_backend.url)
    assert caught.value.code == 401 and damaged not in f"{caught.value}{caught.value.reason}"


def events(backend: Any) -> list[dict[str, Any]]:
    return [body for path, _, body in backend.calls if path == "/webhook"]


def test_what_the_switch_sends_can_be_told_from_the_button(label_studio, client, new_project, ml_backend):
    """Label Studio's "Start model training on annotation submission", as its page sets it."""
    project = new_project()
    report = link(client, project, ml_backend.url)
    label_studio.api("POST", f"/api/projects/{project}/import", json=[{"data": {"image": "http://a/b.jpg"}}])
    (task,) = client.task_ids(project)

    def sent_by(method: str, path: str, expected: int, **options: Any) -> list[dict[str, Any]]:
        ml_backend.calls.clear()
        label_studio.api(method, path, **options)
        wait_for(lambda: len(events(ml_backend)) >= expected, 10)
        return events(ml_backend)

    train = f"/api/ml/{report.backend_id}/train"
    (pressed,) = sent_by("POST", train, 1, json={})
    assert pressed["action"] == START_TRAINING and not by_switch(pressed["action"], pressed)

    sent_by("PATCH", f"/api/projects/{project}", 1, json={"start_training_on_annotation_update": True})
    made = sent_by("POST", f"/api/tasks/{task}/annotations/", 2, json={"result": []})
    assert [each["action"] for each in made] == [START_TRAINING, "ANNOTATION_CREATED"]
    assert by_switch(made[0]["action"], made[0]) and is_submit(made[1]["action"], made[1])
    number = made[1]["annotation"]["id"]
    changed = sent_by("PATCH", f"/api/annotations/{number}/", 2, json={"result": [], "was_cancelled": True})
    assert [each["action"] for each in changed] == [START_TRAINING, "ANNOTATION_UPDATED"]
    assert is_submit(changed[1]["action"], changed[1])
    (pressed,) = sent_by("POST", train, 1, json={})
    assert by_switch(pressed["action"], pressed)  # alone, without a submit


class TestDisconnect:
    def test_it_takes_out_what_connect_made_and_nothing_else(
        self, label_studio, client, new_project, ml_backends, writes
    ):
        project = new_project()
        ours, theirs = ml_backends(), ml_backends()
        row(label_studio, project, theirs.url, title="theirs")
        hook(label_studio, project, "http://127.0.0.1:9/their/hook", headers={"X-Theirs": "1"})
        rows, hooks = client.backends(project), client.webhooks(project)
        uid = link(client, project, ours.url, active_learning=True).project.uid
        assert client.project(project).sampling == UNCERTAINTY

        steps = disconnect(client, uid, ours.url, active_learning=True)

        assert len(steps) == 3 and all(step.changed for step in steps)
        assert (client.backends(project), client.webhooks(project)) == (rows, hooks)
        assert client.project(project).sampling == "Sequential sampling"
        writes.clear()
        (step,) = disconnect(client, uid, ours.url, active_learning=True)
        assert not step.changed and writes == []

    def test_one_at_an_old_address_with_another_title(self, client, new_project, ml_backends):
        project = new_project()
        old = ml_backends()
        report = link(client, project, old.url)
        client.update_backend(report.backend_id, project, old.url, "v3")
        disconnect(client, report.project.uid, "http://localhost:9090")
        assert (client.backends(project), client.webhooks(project)) == ([], [])

    def test_a_project_that_is_gone_or_another_by_now(self, label_studio, client, new_project, ml_backend):
        project = new_project()
        uid = link(client, project, ml_backend.url).project.uid
        (step,) = disconnect(client, f"{project}.1", ml_backend.url)
        assert "another one by now" in step.done and len(client.backends(project)) == 1
        label_studio.api("DELETE", f"/api/projects/{project}/")
        (step,) = disconnect(client, uid, ml_backend.url)
        assert f"no project {project} any more" in step.done


class TestAtTheTerminal:
    """The commands, as a person types them."""

    @pytest.fixture
    def home(self, tmp_path: Path, empty_registry: Path) -> Path:
        (tmp_path / "home").mkdir()
        shutil.copyfile(empty_registry, tmp_path / "home" / "mlflow.db")
        return tmp_path / "home"

    @pytest.fixture
    def run(self, home: Path) -> Callable[..., str]:
        def run(*words: str, fails: bool = False, **env: str) -> str:
            ours = ("YOLOOP", "LABEL_STUDIO", "BASIC_AUTH", "MLFLOW")
            done = subprocess.run(
                [sys.executable, "-m", "backend.cli.main", *words],
                env={name: value for name, value in os.environ.items() if not name.startswith(ours)}
                | {"YOLOOP_HOME": str(home)}
                | env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert (done.returncode != 0) is fails and "Traceback" not in done.stderr, done.stdout + done.stderr
            return done.stdout + done.stderr

        return run

    def test_one_token_for_all_projects_of_a_label_studio(
        self, label_studio, client, new_project, ml_backend, home, run
    ):
        first, second = new_project(title="the first"), new_project()
        told = run("connect", str(first), fails=True)
        assert "LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY must be set" in told and ".env" in told
        old = label_studio.pat()
        told = run("connect", fails=True, LABEL_STUDIO_URL=label_studio.url, LABEL_STUDIO_API_KEY=old)
        assert f'{first} "the first"' in told and "`yoloop connect 1`" in told

        told = run(
            "connect", str(first), "--url", ml_backend.url, LABEL_STUDIO_URL=label_studio.url, LABEL_STUDIO_API_KEY=old
        )
        assert SWITCH in told and "is not needed" in told
        assert client.project(first).sampling == UNCERTAINTY
        # Neither is asked for again, nor is yoloop's address, and another order stays as it was chosen.
        run("connect", str(second), "--url", ml_backend.url, "--no-active-learning")
        assert client.project(second).sampling != UNCERTAINTY
        assert "\n+ " not in run("connect", "--project", str(second))
        assert client.project(second).sampling != UNCERTAINTY
        assert client.backends(second)[0].url == ml_backend.url

        new = label_studio.new_pat()
        told = run("connect", str(second), fails=True)
        assert "expired, revoked" in told and "LABEL_STUDIO_API_KEY" in told
        run("connect", str(second), LABEL_STUDIO_API_KEY=new)
        store = Store(f"sqlite:///{home / 'yoloop.db'}")
        assert {each.api_key for each in store.projects()} == {new}
        assert {hint.uid for hint in store.hints()} == {each.uid for each in store.projects()}
        store.close()
        # An old one that is still set somewhere is told of, and does no harm.
        assert "the token that is kept is used" in run("connect", str(first), LABEL_STUDIO_API_KEY=old)
        run("connect", str(first), "--no-active-learning")
        assert client.project(first).sampling == "Sequential sampling"

    def test_disconnect_and_forget(self, label_studio, client, new_project, ml_backend, home, run):
        project = new_project(title="to forget")
        env = {"LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": label_studio.token}
        run("connect", str(project), "--url", ml_backend.url, **env)
        told = run("disconnect", str(project))
        assert "The webhook" in told and "The ML backend" in told and f"`yoloop connect {project}` goes on" in told
        assert (client.backends(project), client.webhooks(project)) == ([], [])
        assert "disconnected since 20" in run("status", str(project))

        run("connect", str(project), "--url", ml_backend.url)
        assert "disconnected" not in run("status", str(project))
        told = run("disconnect", str(project), "--forget", fails=True)  # nobody to ask
        assert "Nothing was changed" in told and len(client.backends(project)) == 1
        told = run("disconnect", str(project), "--forget", "--yes")
        assert "Forgotten: project" in told
        assert (client.backends(project), client.webhooks(project)) == ([], [])
        assert "No project is known yet" in run("status")
        store = Store(f"sqlite:///{home / 'yoloop.db'}")
        assert (store.projects(), store.label_studios(), store.hints()) == ([], {}, [])
        store.close()

    @pytest.mark.slow
    def test_a_label_studio_that_is_gone_can_be_forgotten(self, home, run):
        store = Store(f"sqlite:///{home / 'yoloop.db'}")
        store.save_project("3.1795453273", title="gone", url=f"http://127.0.0.1:{free_port()}", api_key="0" * 40)
        store.close()
        assert "cannot be reached" in run("disconnect", "3", fails=True)
        told = run("disconnect", "3", "--forget", "--yes")
        assert "cannot be reached" in told and "by hand" in told and "Forgotten" in told


@pytest.fixture(scope="module")
def guarded(
    label_studio_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., LabelStudioServer]]:
    """A Label Studio with its default guard against reserved addresses, restarted with other settings."""
    server = LabelStudioServer(tmp_path_factory.mktemp("guarded"), template=label_studio_template)

    def with_settings(**env: str) -> LabelStudioServer:
        server.restart({"ML_BLOCK_LOCAL_IP": "true", "SSRF_PROTECTION_ENABLED": "true"} | env)
        return server

    yield with_settings
    server.stop()


@pytest.mark.parametrize("env", [{}, {"ML_BLOCK_LOCAL_IP": "false"}, {"SSRF_PROTECTION_ENABLED": "false"}])
def test_reserved_address(guarded, ml_backend, env):
    server = guarded(**env)
    made = server.api("POST", "/api/projects/", json={"title": "guarded", "label_config": CONFIG})
    project = int(made["id"])
    client = LabelStudioClient(server.url, server.token)

    with pytest.raises(LabelStudioError, match="reserved network address") as caught:
        link(client, project, ml_backend.url)

    error = caught.value
    assert error.code == 403 and "URL resolves to a reserved network address" in error.reason
    assert "ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false" in error.hint
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in error.hint
    assert (client.backends(project), client.webhooks(project)) == ([], [])


def test_reserved_address_is_allowed_by_the_other_setting(guarded, ml_backend):
    server = guarded(USE_DEFAULT_BANNED_SUBNETS="false")
    made = server.api("POST", "/api/projects/", json={"title": "allowed", "label_config": CONFIG})
    client = LabelStudioClient(server.url, server.token)
    link(client, int(made["id"]), ml_backend.url)
    assert_connected(client, int(made["id"]), ml_backend.url)
