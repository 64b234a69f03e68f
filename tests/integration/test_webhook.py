"""An event becomes one durable row, whatever it holds; START_TRAINING becomes a job."""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from support.bodies import UID, config, event, predict, setup, task
from support.waiting import wait_for

from backend.app import create_app
from backend.server.process import Serving
from backend.store.database import EVERY_PROJECT, Store


def test_many_events_are_one_row(client: FlaskClient, serving: Serving) -> None:
    began = time.time()
    for _ in range(50):
        assert client.post("/webhook", json=event("ANNOTATION_CREATED")).status_code == 201
    (hint,) = serving.services.store.hints()
    assert (hint.uid, hint.events, hint.deletions) == (UID, 50, False)
    assert began <= hint.first_at <= hint.last_at <= time.time()


def test_threads_lose_no_event(serving: Serving) -> None:
    app = create_app(serving=serving)
    actions = ["ANNOTATION_CREATED", "TASKS_DELETED", "ANNOTATION_UPDATED", "PROJECT_UPDATED"] * 15

    def send(action: str) -> int:
        return app.test_client().post("/webhook", json=event(action)).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send, actions)) <= {201, 202}  # where writing takes long, some wait in memory
    store = serving.services.store
    wait_for(lambda: [hint.events for hint in store.hints()] == [60], 20, "all events to be written")
    assert store.hints()[0].deletions


def test_what_was_noted_is_on_the_disk(client: FlaskClient, serving: Serving) -> None:
    client.post("/webhook", json=event("ANNOTATIONS_DELETED", annotations=[{"id": 5}]))
    job = client.post("/webhook", json=event("START_TRAINING")).get_json()["job"]
    other = Store(serving.settings.database_url)
    (hint,) = other.hints()
    assert hint.deletions
    assert other.project(UID) == serving.services.store.project(UID)
    other.close()
    assert serving.services.jobs.get(job) is not None


def test_an_event_without_payload_is_for_every_project(client: FlaskClient, serving: Serving) -> None:
    assert client.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 201
    (hint,) = serving.services.store.hints()
    assert hint.uid == EVERY_PROJECT
    assert serving.services.store.projects() == []


def test_what_names_an_unknown_project_leaves_nothing(client: FlaskClient, serving: Serving) -> None:
    assert client.post("/webhook", json={"action": "ANNOTATION_CREATED", "project": UID}).status_code == 201
    for path, body in (("/webhook", {"action": "START_TRAINING", "project": UID}), ("/train", {"project": UID})):
        answer = client.post(path, json=body)
        assert answer.status_code == 404
        assert "yoloop connect" in answer.get_json()["hint"]
    assert serving.services.store.hints() == []
    assert serving.services.jobs.unfinished() == []
    client.post("/setup", json=setup())
    assert client.post("/train", json={"project": UID}).status_code == 201


def test_an_event_tells_of_its_project(client: FlaskClient, serving: Serving) -> None:
    client.post("/setup", json=setup(config('model_score_threshold="0.9"')))
    client.post("/webhook", json=event("PROJECT_UPDATED"))
    project = serving.services.store.project(UID)
    assert project is not None
    assert (project.id, project.title, project.label_config) == (7, "Shapes", config())


def test_payloads_of_every_kind_are_noted(client: FlaskClient, serving: Serving) -> None:
    for fields in (
        {"annotation": None, "task": "x"},
        {"annotation": [1, 2], "task": []},
        {"annotations": {"id": []}},
        {"annotation": {"result": "NaN"}},
    ):
        assert client.post("/webhook", json=event("ANNOTATION_CREATED", **fields)).status_code == 201
    assert client.post("/webhook", json=event("SOMETHING_NEW_IN_LABEL_STUDIO")).status_code == 201
    (hint,) = serving.services.store.hints()
    assert hint.events == 5


def test_a_second_start_joins_the_first(client: FlaskClient, serving: Serving) -> None:
    first = client.post("/webhook", json=event("START_TRAINING")).get_json()
    second = client.post("/webhook", json=event("START_TRAINING")).get_json()
    assert (first["status"], second["status"]) == ("queued", "joined")
    assert first["job"] == second["job"]
    assert client.post("/train", json={"project": UID}).get_json()["job"] == first["job"]
    (job,) = serving.services.jobs.unfinished()
    assert (job.id, job.uid, job.status) == (first["job"], UID, "queued")
    serving.services.jobs.finish(job.id, "done", "", 1.0)
    assert client.post("/webhook", json=event("START_TRAINING")).get_json()["job"] != first["job"]
    assert serving.services.store.hints() == []


def test_threads_start_one_training(serving: Serving) -> None:
    app = create_app(serving=serving)
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda _: app.test_client().post("/webhook", json=event("START_TRAINING")).get_json(),
                range(16),
            )
        )
    assert len({each["job"] for each in answers}) == 1
    assert sorted(each["status"] for each in answers) == ["joined"] * 15 + ["queued"]


def test_a_locked_database_keeps_nobody_waiting(serving: Serving) -> None:
    """Label Studio gives /setup 3 s, and hides stored predictions after; an event has 1 s, and is told once."""
    app = create_app(serving=serving)
    store = serving.services.store

    def post(path: str, body: dict[str, Any]) -> tuple[float, Any]:
        began = time.monotonic()
        answer = app.test_client().post(path, json=body)
        return time.monotonic() - began, answer

    def patient(path: str, body: dict[str, Any]) -> Any:
        """The quickest of three: on a busy machine any one may be late."""
        tries = [post(path, body) for _ in range(3)]
        assert min(took for took, _ in tries) < 0.5
        return tries[0][1]

    for path, body in (("/setup", setup()), ("/predict", predict([task(1)]))):  # it is known, and its model is loaded
        assert post(path, body)[1].status_code == 200
    with (
        sqlite3.connect(serving.settings.root / "yoloop.db", isolation_level=None) as other,
        ThreadPoolExecutor(16) as pool,
    ):
        other.execute("BEGIN IMMEDIATE")
        events = [pool.submit(post, "/webhook", event("ANNOTATION_CREATED")) for _ in range(16)]
        assert patient("/setup", setup()).status_code == 200
        (entry,) = patient("/predict", predict([task(1)])).get_json()["results"]
        assert entry["result"]
        changed = config('model_score_threshold="0.7"')
        assert post("/setup", setup(changed))[1].status_code == 200
        assert post("/setup", setup(uid="8.5"))[1].status_code == 200
        told = [each.result() for each in events]
        assert {answer.status_code for _, answer in told} == {202}
        assert max(took for took, _ in told) < 0.95
        assert "next look at Label Studio" in told[0][1].get_json()["message"]
        refused = post("/webhook", event("START_TRAINING"))[1]
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "3")
        assert "Ask again" in refused.get_json()["hint"]
        other.execute("ROLLBACK")
    wait_for(store.hints, 10, "the events to be written")
    assert [(hint.uid, hint.events) for hint in store.hints()] == [(UID, 16)]
    known = store.project(UID)
    assert known is not None and known.label_config == config(), "what could not be saved is told again, and is then"
    post("/setup", setup(changed))
    assert (now := store.project(UID)) is not None and now.label_config == changed


def switched_on() -> dict[str, Any]:
    """START_TRAINING, as Label Studio sends it with its switch on: at each submit, and for the button just so."""
    body = event("START_TRAINING")
    body["project"]["min_annotations_to_start_training"] = 1
    return body


def test_label_studios_own_switch_starts_no_training(client: FlaskClient, serving: Serving) -> None:
    client.post("/setup", json=setup())
    for _ in range(3):
        answer = client.post("/webhook", json=switched_on())
        assert (answer.status_code, answer.get_json()) == (201, {"status": "noted"})
        client.post("/webhook", json=event("ANNOTATION_CREATED", annotation={"ground_truth": False}))
    assert serving.services.jobs.unfinished() == []
    (hint,) = serving.services.store.hints()
    assert (hint.events, hint.asked, hint.submits) == (6, 3, 3)
    assert not hint.asked_by_a_person(3)
    client.post("/webhook", json=switched_on())  # the button
    (hint,) = serving.services.store.hints()
    assert hint.asked_by_a_person(3)


def test_the_switch_of_an_unknown_project_leaves_nothing(client: FlaskClient, serving: Serving) -> None:
    body = switched_on()
    body["project"] = {"id": 99, "created_at": body["project"]["created_at"], "min_annotations_to_start_training": 1}
    answer = client.post("/webhook", json=body)
    assert answer.status_code in (201, 404) and serving.services.jobs.unfinished() == []


def test_a_disconnected_project_is_told_nothing_until_label_studio_asks_again(
    client: FlaskClient, serving: Serving
) -> None:
    client.post("/setup", json=setup())
    serving.services.store.disconnect(UID, time.time())
    assert client.post("/webhook", json=event("ANNOTATION_CREATED")).status_code == 201
    assert client.post("/webhook", json=event("START_TRAINING")).status_code == 404
    assert (serving.services.store.hints(), serving.services.jobs.unfinished()) == ([], [])
    client.post("/setup", json=setup())
    client.post("/webhook", json=event("ANNOTATION_CREATED"))
    assert len(serving.services.store.hints()) == 1


def test_an_event_without_config_or_title_empties_nothing(client: FlaskClient, serving: Serving) -> None:
    client.post("/setup", json=setup())
    client.post("/webhook", json=event("PROJECT_UPDATED"))
    before = serving.services.store.project(UID)
    for left in ({}, {"label_config": None, "title": 5}, {"label_config": "", "title": ""}):
        body = {"action": "ANNOTATION_CREATED", "project": {**event("X")["project"], **left}}
        for key in ("label_config", "title"):
            if key not in left:
                body["project"].pop(key, None)
        assert client.post("/webhook", json=body).status_code == 201
    assert serving.services.store.project(UID) == before
    assert before is not None and before.label_config


@pytest.mark.parametrize("spaces", [0, 1_500_000])
def test_a_config_of_a_stranger_is_not_kept_whatever_its_size(
    client: FlaskClient, serving: Serving, spaces: int
) -> None:
    body = event("PROJECT_UPDATED")
    body["project"] = {**body["project"], "label_config": f"<View>{' ' * spaces}</View>", "title": "t" * 10_000}
    assert client.post("/webhook", json=body).status_code == 201
    (known,) = serving.services.store.projects()
    assert (known.label_config, len(known.title)) == ("", 300)
