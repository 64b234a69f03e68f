"""The requests of Label Studio 1.23.2 as they were recorded, and those that it would never send."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from label_studio_sdk.label_interface import LabelInterface
from prometheus_client.parser import text_string_to_metric_families
from support.bodies import CREATED_AT, UID, config, event, picture, predict, setup, task
from support.hostile import ACCEPTED, REFUSED
from support.web import PNG, Server, answer

from backend.app import create_app
from backend.processes.liveness import training
from backend.server.process import Serving, make_serving
from backend.settings import Settings

TESTS = Path(__file__).parents[1]
RECORDED = TESTS / "label_studio_1.23.2"


def recorded() -> list[Any]:
    """Every request of every file; other files hold what Label Studio answers to its own callers."""
    found = []
    for path in sorted(RECORDED.glob("*.json")):
        entries = json.loads(path.read_text())
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            if isinstance(entry, dict) and "method" in entry:
                found.append(pytest.param(entry, id=f"{path.stem}-{number}"))
    return found


def send(client: FlaskClient, entry: dict[str, Any]) -> Any:
    """The recorded request once more, under its own headers."""
    names = {"content-length", "host", "accept-encoding", "connection"}
    headers = [(name, value) for name, value in entry["headers"] if name.lower() not in names]
    body = None if entry["body"] is None else json.dumps(entry["body"])
    return client.open(entry["path"], method=entry["method"], headers=headers, data=body)


def test_the_recordings_are_there() -> None:
    paths = [param.values[0]["path"] for param in recorded()]
    assert {path: paths.count(path) for path in sorted(set(paths))} == {
        "/health": 3,
        "/predict": 8,
        "/setup": 3,
        "/versions": 1,
        "/webhook": 19,
    }


@pytest.fixture(scope="module")
def shared(start_once: Callable[..., Serving]) -> FlaskClient:
    """Of one process, for requests that say all that their answers depend on."""
    return create_app(serving=start_once()).test_client()


@pytest.mark.parametrize("entry", recorded())
def test_recorded_requests(
    request: pytest.FixtureRequest, shared: FlaskClient, studio: Server, entry: dict[str, Any]
) -> None:
    trains = entry["body"] is not None and entry["body"].get("action") == "START_TRAINING"
    client = request.getfixturevalue("client") if trains else shared
    for path in ("/data/upload/1/7bb8c223-up_1.jpg", "/data/local-files/"):
        studio.routes[path] = answer(PNG)
    if entry["path"] == "/predict":
        first = setup(entry["body"]["label_config"], entry["body"]["project"], studio.url)
        assert client.post("/setup", json=first).status_code == 200
    response = send(client, entry)
    assert response.status_code in (200, 201), response.text
    said = response.get_json()
    if entry["path"] == "/health":
        assert said["status"] == "UP"
    elif entry["path"] == "/setup":
        assert re.fullmatch(r"yoloop-v0(-[0-9a-f]{6})?", said["model_version"])
    elif entry["path"] == "/versions":
        assert said["versions"] == []
    elif entry["path"] == "/predict":
        tasks = entry["body"]["tasks"]
        assert len(said["results"]) == len(tasks)
        for sent, got in zip(tasks, said["results"], strict=True):
            assert got["model_version"] == "yoloop-v0"
            # What lies in Label Studio is served here; the other hosts of the recording are gone.
            assert ("result" in got) is sent["data"]["image"].startswith("/data/")
            assert ("error" in got) is not ("result" in got)
    elif entry["body"]["action"] == "START_TRAINING":
        assert said["status"] == "queued"
        assert said["job"]
    else:
        assert said == {"status": "noted"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, empty_registry: Path) -> Iterator[Serving]:
    """A serving process without a model, for the requests that leave nothing behind."""
    home = tmp_path_factory.mktemp("home")
    shutil.copyfile(empty_registry, home / "mlflow.db")
    serving = make_serving(Settings(home=home, base_model="", offline=True))
    yield serving
    serving.close()


@pytest.fixture
def refusing(bare: Serving) -> FlaskClient:
    return create_app(serving=bare).test_client()


def nested(depth: int) -> bytes:
    return b'{"project": ' + b"[" * depth + b"]" * depth + b"}"


NOT_AN_OBJECT = {
    "empty": b"",
    "text": b"hello",
    "cut": b'{"project": "1.2", ',
    "list": b"[]",
    "number": b"12",
    "null": b"null",
    "string": b'"1.2"',
    "invalid UTF-8": b'{"project": "\xff\xfe"}',
    "deep": nested(100_000),
}


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook", "/validate"])
@pytest.mark.parametrize("body", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT)
def test_bodies_that_are_no_object(refusing: FlaskClient, path: str, body: bytes) -> None:
    refused(refusing.post(path, data=body, content_type="application/json"), 400)


@pytest.mark.parametrize("path", ["/train", "/job_status", "/versions", "/delete", "/duplicate_model"])
@pytest.mark.parametrize("body", [NOT_AN_OBJECT["text"], NOT_AN_OBJECT["list"], NOT_AN_OBJECT["invalid UTF-8"]])
def test_bodies_that_may_be_empty_but_not_wrong(refusing: FlaskClient, path: str, body: bytes) -> None:
    refused(refusing.post(path, data=body, content_type="application/json"), 400)


HUGE = 10**400
PROJECTS = [
    5,
    True,
    1.5,
    [],
    {},
    {"id": 1},
    {"created_at": "2026-11-23T17:01:13Z"},
    {"id": "x", "created_at": "2026-11-23T17:01:13Z"},
    {"id": None, "created_at": "2026-11-23T17:01:13Z"},
    {"id": 1, "created_at": 5},
    {"id": 1, "created_at": "yesterday"},
    {"id": float("nan"), "created_at": "2026-11-23T17:01:13Z"},
    {"id": float("inf"), "created_at": "2026-11-23T17:01:13Z"},
    {"id": HUGE, "created_at": "2026-11-23T17:01:13Z"},
    {"id": -4, "created_at": "2026-11-23T17:01:13Z"},
    "1.2.3",
    "x",
    "-1.2",
    "1." + "2" * 100,
    "1.2\n",
    "'; DROP TABLE projects; --",
    "../../etc/passwd",
    "٣.٤",
]


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: repr(project)[:40])
@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook", "/train", "/versions"])
def test_projects_that_are_none(refusing: FlaskClient, bare: Serving, path: str, project: Any) -> None:
    body = {**predict([]), **setup(), "action": "START_TRAINING", "project": project}
    refused(refusing.post(path, data=json.dumps(body)), 400)
    assert bare.services.store.projects() == []
    assert bare.services.jobs.unfinished() == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/setup", {**setup(), "project": None}),
        ("/setup", {**setup(), "schema": 5}),
        ("/setup", {**setup(), "schema": ["<View/>"]}),
        ("/setup", {**setup(), "hostname": {"a": 1}}),
        ("/setup", {**setup(), "access_token": 5}),
        ("/setup", setup("")),
        ("/setup", setup("not XML")),
        ("/setup", setup(config('model_score_threshold="2"'))),
        ("/setup", setup("<View>" * 100_000)),
        ("/setup", setup("\x00")),
        ("/predict", {**predict([]), "tasks": None}),
        ("/predict", {**predict([]), "tasks": {}}),
        ("/predict", {**predict([]), "tasks": "all"}),
        ("/predict", {**predict([]), "label_config": 5}),
        ("/predict", predict([task(1)], "<View>")),
        ("/webhook", {}),
        ("/webhook", {"action": ""}),
        ("/webhook", {"action": 5}),
        ("/webhook", {"action": ["ANNOTATION_CREATED"]}),
        ("/webhook", {"action": "START_TRAINING"}),
        ("/train", {}),
        ("/validate", {}),
        ("/validate", {"config": 5}),
        ("/validate", {"config": "<View/>"}),
        ("/job_status", {}),
        ("/job_status", {"job": 5}),
    ],
)
def test_fields_that_cannot_be_used(refusing: FlaskClient, path: str, body: dict[str, Any]) -> None:
    refused(refusing.post(path, json=body), 400)


@pytest.mark.parametrize("path", sorted((TESTS / "public_configs").glob("*.xml")), ids=lambda path: path.stem)
def test_every_config_of_the_public_example_is_answered(shared: FlaskClient, path: Path) -> None:
    client, xml = shared, path.read_text()
    assert client.post("/setup", json=setup(xml)).get_json()["model_version"].startswith("yoloop-v0")
    fields = {field: picture() for field in re.findall(r'(?:value|valueList)="\$(\w+)"', xml)}
    response = client.post("/predict", json=predict([{"id": 1, "data": fields}, {"id": 2, "data": {}}], xml))
    assert response.status_code == 200
    first, second = response.get_json()["results"]
    assert "result" not in second  # a task without the image
    if "RectangleLabels" in xml and "model_path" not in xml and "kp" not in path.stem and "obb" not in path.stem:
        assert LabelInterface(xml).validate_prediction(first, return_errors=True) == []
    client.post(
        "/webhook",
        json=event("PROJECT_UPDATED", project={"id": 7, "created_at": CREATED_AT, "title": "t", "label_config": xml}),
    )
    assert client.get("/report").status_code == 200


def test_setup_says_why_in_the_reason_phrase(refusing: FlaskClient) -> None:
    """Of a refusal Label Studio shows the reason phrase alone."""
    threshold = '<RectangleLabels name="ä\n" toName="i" score_threshold="x"><Label value="a"/></RectangleLabels>'
    response = refusing.post("/setup", json=setup(f'<View><Image name="i" value="$i"/>{threshold}</View>'))
    assert response.status.startswith("400 score_threshold of the control 'ä ' is 'x'. It must be a number from 0 to 1")
    assert "\n" not in response.status
    response.status.encode("latin-1")


@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere"), ("DELETE", "/health"), ("GET", "/predict")])
def test_other_addresses(refusing: FlaskClient, method: str, path: str) -> None:
    refused(refusing.open(path, method=method), 404 if path == "/nowhere" else 405)


def test_a_body_past_all_measure(refusing: FlaskClient) -> None:
    response = refusing.post("/webhook", data=b"{}", environ_overrides={"CONTENT_LENGTH": str(2**40)})
    refused(response, 413)


def test_a_failure_inside_tells_nothing(serving: Serving, tmp_path: Path) -> None:
    serving.services.store.close()
    (tmp_path / "home" / "yoloop.db").unlink()
    (tmp_path / "home" / "yoloop.db").mkdir()
    response = create_app(serving=serving).test_client().post("/setup", json=setup())
    refused(response, 500)
    for secret in (str(tmp_path), "sqlite", "Traceback", "0" * 40, serving.secret):
        assert secret not in response.text + response.status


def test_metrics_are_prometheus(client: FlaskClient) -> None:
    client.post("/setup", json=setup())
    client.post("/predict", json=predict([task(1), task(2, "nowhere.jpg")]))
    client.post("/webhook", json=event("ANNOTATION_CREATED"))
    client.post("/webhook", json=event("made up \n by somebody"))
    client.post("/train", json={"project": UID})
    client.get("/nowhere")
    response = client.get("/metrics")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert samples["yoloop_predicted_tasks_total", ("outcome", "answered")] == 1
    assert samples["yoloop_predicted_tasks_total", ("outcome", "failed")] == 1
    assert samples["yoloop_events_total", ("action", "ANNOTATION_CREATED")] == 1
    assert samples["yoloop_events_total", ("action", "other")] == 1
    assert samples["yoloop_served", ("project", UID), ("version", "v0")] == 1
    assert samples["yoloop_jobs", ("project", UID), ("status", "queued")] == 1
    assert samples["yoloop_requests_total", ("endpoint", "predict"), ("status", "200")] == 1
    assert samples["yoloop_requests_total", ("endpoint", "unknown"), ("status", "404")] == 1
    assert samples["yoloop_request_seconds_count", ("endpoint", "setup")] == 1


def test_jobs_are_told(client: FlaskClient, serving: Serving) -> None:
    client.post("/setup", json=setup())
    made = client.post("/train", json={"project": UID})
    assert made.status_code == 201
    job = made.get_json()["job"]
    serving.services.jobs.update(job, status="running", epoch=3, epochs=10)
    with training(serving.settings.root, job):
        for response in (client.post("/job_status", json={"job": job}), client.get(f"/job_status?job={job}")):
            said = response.get_json()
            assert (said["job_status"], said["epoch"], said["epochs"], said["error"]) == ("running", 3, 10, "")
    assert client.post("/job_status", json={"job": job}).get_json()["job_status"] == "queued", "nobody trains it"
    serving.services.jobs.finish(job, "failed", "It went wrong.", 5.0)
    said = client.post("/job_status", json={"job": job}).get_json()
    assert (said["job_status"], said["error"], said["finished_at"]) == ("failed", "It went wrong.", 5.0)
    refused(client.post("/job_status", json={"job": "none"}), 404)


def test_half_a_character_is_a_question_mark(client: FlaskClient, serving: Serving) -> None:
    client.post("/webhook", json=event("X", project={**event("X")["project"], "title": "Sh\ud800pes \U0001f600"}))
    project = serving.services.store.project(UID)
    assert project is not None
    assert project.title == "Sh?pes \U0001f600"
    assert client.post("/predict", json=predict([task(1, picture() + "\udfff")])).status_code == 200


@pytest.mark.parametrize(
    "number", [0, -1, True, "1", 2**63, HUGE, 1.5, None, [1], {"id": 1}], ids=lambda each: repr(each)[:9]
)
def test_ids_that_no_task_has(shared: FlaskClient, number: Any) -> None:
    (entry,) = shared.post("/predict", json=predict([task(number)])).get_json()["results"]
    assert entry["result"]


def test_a_message_is_one_line_of_the_answer(refusing: FlaskClient) -> None:
    answer = refusing.post("/setup", json=setup(config('model_score_threshold="&#133;&#10;\u2028x"')))
    assert answer.status.startswith("400 ")
    assert answer.status.isprintable()


@pytest.mark.parametrize(("configs", "statuses"), [(ACCEPTED, {200}), (REFUSED, {400, 413})], ids=["odd", "harmful"])
def test_configs_past_all_measure_are_answered_in_time(
    client: FlaskClient, configs: dict[str, str], statuses: set[int]
) -> None:
    for name, xml in configs.items():
        for path, body in (("/setup", setup(xml)), ("/predict", predict([task(1)], xml))):
            began = time.process_time()
            answer = client.post(path, json=body)
            assert time.process_time() - began < 10, (name, path)
            if name not in ("nothing", "half a character"):  # the last config serves, and what is left is a config
                assert answer.status_code in statuses, (name, path)
    assert client.get("/report").status_code == 200


def test_validate(refusing: FlaskClient) -> None:
    for name in ("config", "label_config"):
        said = refusing.post("/validate", json={name: config()}).get_json()
        assert said == {"valid": True, "labels": ["Disc", "Square", "Triangle"], "notes": []}


@pytest.mark.parametrize(("path", "key"), [("/delete", "deleted"), ("/duplicate_model", "duplicated")])
def test_what_is_declined(refusing: FlaskClient, path: str, key: str) -> None:
    for body in (None, {"project": UID}):
        said = refusing.post(path, json=body).get_json() if body else refusing.post(path).get_json()
        assert said[key] is False
        assert said["message"]


def refused(response: Any, status: int) -> None:
    """An error as every one of them is: typed, JSON, and with what to do."""
    assert response.status_code == status, response.text
    said = response.get_json()
    assert set(said) == {"error", "hint"}
    assert said["error"]
    assert isinstance(said["hint"], str)
    assert "Traceback" not in response.text
    assert '.py"' not in response.text
