"""The description of the API names every address that there is, and tells the truth about it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from support.bodies import UID, config, event, predict, setup, task
from support.waiting import wait_for

from backend.api.schemas import description
from backend.app import create_app
from backend.server.process import Serving
from backend.store.heartbeats import Heartbeat


@pytest.fixture
def app(serving: Serving) -> Flask:
    return create_app(serving=serving)


def test_every_address_is_described_and_nothing_else(app: Flask) -> None:
    there = {
        (rule.rule, method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert there == {(path, method) for path, methods in description()["paths"].items() for method in methods}


def test_it_is_served(client: FlaskClient) -> None:
    assert client.get("/openapi.json").get_json() == description()


def test_its_schemas_are_schemas() -> None:
    for schema in found_schemas(description()):
        Draft202012Validator.check_schema(schema)


def found_schemas(node: Any) -> list[Any]:
    if isinstance(node, list):
        return [schema for each in node for schema in found_schemas(each)]
    if not isinstance(node, dict):
        return []
    own = [node["schema"]] if isinstance(node.get("schema"), dict) and "in" not in node.get("properties", {}) else []
    return own + [schema for each in node.values() for schema in found_schemas(each)]


ASKED: list[tuple[str, str, Any, int]] = [
    ("get", "/", None, 200),
    ("get", "/health", None, 200),
    ("post", "/setup", setup(), 200),
    ("post", "/setup", setup("<View"), 400),
    ("post", "/predict", predict([task(1), task(2, "nowhere.jpg")]), 200),
    ("post", "/predict", {}, 400),
    ("post", "/webhook", event("ANNOTATION_CREATED"), 201),
    ("post", "/webhook", event("START_TRAINING"), 201),
    ("post", "/train", {"project": UID}, 201),
    ("post", "/train", {"project": "8.1"}, 404),
    ("post", "/webhook", {"action": "START_TRAINING", "project": "8.1"}, 404),
    ("get", "/job_status?job=nothing", None, 404),
    ("post", "/job_status", {}, 400),
    ("get", "/versions", None, 200),
    ("post", "/versions", {"project": UID}, 200),
    ("post", "/validate", {"config": config()}, 200),
    ("post", "/delete", {}, 200),
    ("post", "/duplicate_model", {}, 200),
    ("get", f"/report?project={UID}", None, 200),
    ("get", "/report?project=99", None, 404),
    ("get", f"/advice?project={UID}", None, 200),
    ("post", "/accept", {"project": UID}, 502),
    ("get", "/ready", None, 503),
    ("get", "/metrics", None, 200),
    ("get", "/openapi.json", None, 200),
]


def test_the_answers_are_as_described(client: FlaskClient) -> None:
    client.post("/setup", json=setup())
    paths = description()["paths"]
    for method, path, body, status in ASKED:
        answer = client.open(path, method=method, json=body)
        assert answer.status_code == status, (path, answer.text)
        (content,) = paths[path.partition("?")[0]][method]["responses"][str(status)]["content"].items()
        assert answer.mimetype == content[0]
        if content[0] == "application/json":
            Draft202012Validator(content[1]["schema"]).validate(answer.get_json())


def test_being_ready_is_as_described(client: FlaskClient, serving: Serving) -> None:
    Heartbeat(serving.services.store).beat(time.time(), time.time())
    wait_for(lambda: client.get("/ready").status_code == 200, pause=0.05)
    answer = client.get("/ready")
    (content,) = description()["paths"]["/ready"]["get"]["responses"]["200"]["content"].values()
    Draft202012Validator(content["schema"]).validate(answer.get_json())


def test_a_job_is_as_described(client: FlaskClient) -> None:
    client.post("/setup", json=setup())
    job = client.post("/train", json={"project": UID}).get_json()["job"]
    (content,) = description()["paths"]["/job_status"]["get"]["responses"]["200"]["content"].values()
    Draft202012Validator(content["schema"]).validate(client.get(f"/job_status?job={job}").get_json())
