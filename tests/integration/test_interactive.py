"""Interactive mode, with the requests that a real Label Studio sends while a person draws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from support.bodies import config, picture, predict, task

from backend.app import create_app
from backend.server.process import Serving

RECORDED = Path(__file__).parents[1] / "label_studio_1.23.2"


@pytest.fixture(scope="module")
def client(start_once: Callable[..., Serving]) -> FlaskClient:
    """Of one process: pointing at something leaves nothing behind."""
    return create_app(serving=start_once()).test_client()


def mark(kind: str, x: float, y: float, width: float = 0, height: float = 0, **fields: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, kind: ["Disc"]}
    return {"id": "m", "type": kind, "from_name": "label", "to_name": "image", "value": value, **fields}


def click(x: float, y: float, positive: bool = True) -> dict[str, Any]:
    return mark("keypointlabels", x, y, 0.2, is_positive=positive)


def ask(client: FlaskClient, *marks: Any, image: Any = None, label_config: str | None = None) -> dict[str, Any]:
    body = predict([task(1, picture(100, 100) if image is None else image)], label_config)
    body["params"]["context"] = {"result": list(marks)}
    response = client.post("/predict", json=body)
    assert response.status_code == 200, response.text
    (entry,) = response.get_json()["results"]
    found: dict[str, Any] = entry
    return found


def test_a_click_answers_with_the_best_object_under_it(client: FlaskClient) -> None:
    (region,) = ask(client, click(50, 50))["result"]
    value = region["value"]
    assert value["x"] <= 50 <= value["x"] + value["width"]
    assert value["y"] <= 50 <= value["y"] + value["height"]
    assert value["rectanglelabels"] == ["Disc"], "the model's label: the surest object there is a disc"
    assert region["score"] == pytest.approx(0.9, abs=0.01)


def test_a_click_also_finds_what_is_not_suggested(client: FlaskClient) -> None:
    strict = config('model_score_threshold="0.99"')
    assert len(ask(client, click(50, 50), label_config=strict)["result"]) == 1


def test_a_rectangle_answers_with_the_objects_inside(client: FlaskClient) -> None:
    everything = ask(client, mark("rectanglelabels", 0, 0, 100, 100))["result"]
    corner = ask(client, mark("rectanglelabels", 0, 0, 40, 40))["result"]
    assert 0 < len(corner) < len(everything) == 80
    for region in corner:
        assert region["value"]["x"] + region["value"]["width"] / 2 <= 40
        assert region["value"]["y"] + region["value"]["height"] / 2 <= 40


def test_negative_clicks_remove(client: FlaskClient) -> None:
    everything = ask(client, mark("rectanglelabels", 0, 0, 100, 100))["result"]
    fewer = ask(client, mark("rectanglelabels", 0, 0, 100, 100), click(50, 50, positive=False))["result"]
    assert 0 < len(fewer) < len(everything)
    for region in fewer:
        value = region["value"]
        inside = value["x"] < 50 < value["x"] + value["width"] and value["y"] < 50 < value["y"] + value["height"]
        assert not inside


@pytest.mark.parametrize("name", ["interactive_backend_rect.json", "interactive_backend_kp.json"])
def test_recorded_requests_are_answered(client: FlaskClient, name: str) -> None:
    (call,) = json.loads((RECORDED / name).read_text())
    body = call["body"]
    body["tasks"][0]["data"]["image"] = picture(1280, 720)
    (drawn,) = body["params"]["context"]["result"]
    if drawn["type"] == "rectanglelabels":
        drawn["value"] |= {"x": 10, "y": 10, "width": 60, "height": 80}  # around some objects of this model
    body["label_config"] = body["label_config"].replace('value="Car"', 'value="Car" predicted_values="Disc"')
    response = client.post("/predict", json=body)
    assert response.status_code == 200
    (entry,) = response.get_json()["results"]
    assert entry["result"]
    assert {region["type"] for region in entry["result"]} == {"rectanglelabels"}


@pytest.mark.parametrize(
    "image",
    ["nowhere.jpg", "data:image/png;base64,AAAA", 5, "", None],
)
def test_an_image_that_cannot_be_read_is_answered_with_nothing(client: FlaskClient, image: Any) -> None:
    body = predict([{"id": 1, "data": {"image": image}}])
    body["params"]["context"] = {"result": [click(50, 50)]}
    response = client.post("/predict", json=body)
    assert response.status_code == 200
    (entry,) = response.get_json()["results"]
    assert entry["result"] == []


@pytest.mark.parametrize("broken", ["<View>", "", "<!DOCTYPE x><View/>", '<View><Text name="t" value="$t"/></View>'])
def test_a_config_that_cannot_be_read_is_answered_with_nothing(client: FlaskClient, broken: str) -> None:
    assert ask(client, click(1, 1), label_config=broken)["result"] == []


@pytest.mark.parametrize("marks", [[], [None], [5], [{"type": "keypointlabels"}], [{"value": {"x": "a", "y": None}}]])
def test_marks_that_cannot_be_read_are_left_out(client: FlaskClient, marks: list[Any]) -> None:
    assert len(ask(client, *marks)["result"]) == 80


def test_marks_on_another_image_ask_nothing_of_this_one(client: FlaskClient) -> None:
    elsewhere = {**click(50, 50), "to_name": "other"}
    assert ask(client, elsewhere)["result"] == []
