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


def ask(
    client: FlaskClient, *marks: Any, image: Any = None, label_config: str | None = None, **fields: Any
) -> dict[str, Any]:
    body = predict([{**task(1, picture(100, 100) if image is None else image), **fields}], label_config)
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


@pytest.mark.parametrize(
    "marks",
    [
        [None],
        [5],
        [{"type": "keypointlabels"}],
        [{"value": {"x": "a", "y": None}}],
        [mark("keypointlabels", float("nan"), 5)],
        [mark("rectanglelabels", 1e308, 1e308, 1e308, 1e308)],
        [mark("polygonlabels", 5, 5)],
        [mark("brushlabels", 5, 5, original_width=10**400)],
    ],
)
def test_marks_that_cannot_be_read_are_answered_with_nothing(client: FlaskClient, marks: list[Any]) -> None:
    assert ask(client, *marks)["result"] == []


def test_an_unreadable_mark_is_told(client: FlaskClient) -> None:
    assert "in percent of the image" in ask(client, mark("keypointlabels", "left", 5))["error"]  # type: ignore[arg-type]


def test_nothing_drawn_asks_nothing(client: FlaskClient) -> None:
    assert ask(client)["result"] == []


def test_marks_on_another_image_ask_nothing_of_this_one(client: FlaskClient) -> None:
    elsewhere = {**click(50, 50), "to_name": "other"}
    assert ask(client, elsewhere)["result"] == []


def everything(client: FlaskClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(client, mark("rectanglelabels", 0, 0, 100, 100))["result"]
    return found


def test_only_the_new_mark_asks_and_nothing_is_answered_twice(client: FlaskClient) -> None:
    """What Label Studio sends on a task with suggestions: they come first, the mark last."""
    found = everything(client)
    old = [{**region, "id": f"old{place}", "origin": "prediction"} for place, region in enumerate(found)]
    new = mark("rectanglelabels", 0, 0, 100, 100, id="new", origin="manual")
    assert ask(client, *old, new)["result"] == []
    (back,) = ask(client, *old[1:], new)["result"]
    assert back["value"] == found[0]["value"]
    corner = {**new, "value": {**new["value"], "width": 30, "height": 30}}
    assert 0 < len(ask(client, *old[-1:], corner)["result"]) < 10


@pytest.mark.parametrize("where", ["drafts", "annotations", "predictions"])
def test_what_the_task_shows_is_not_answered_again(client: FlaskClient, where: str) -> None:
    (first,) = ask(client, click(50, 50))["result"]
    shown = {"id": 1, "result": [{**first, "id": "other", "origin": "manual"}]}
    assert ask(client, click(51, 51), **{where: [shown]})["result"] == []
    away = {**first, "value": {**first["value"], "x": (first["value"]["x"] + 50) % 80}}
    (again,) = ask(client, click(50, 50), **{where: [{"id": 1, "result": [{**away, "id": "other"}]}]})["result"]
    assert again == first, "the same mark, the same id"
    moved = {"id": 1, "result": [away]}
    assert ask(client, click(50, 50), **{where: [moved]})["result"] == [], "it would replace what a person moved"


def test_what_a_person_deleted_can_be_asked_for_again(client: FlaskClient) -> None:
    (first,) = ask(client, click(50, 50))["result"]
    prediction, draft = {"id": 1, "result": [first]}, {"id": 2, "result": []}
    assert ask(client, click(50, 50), predictions=[prediction], drafts=[draft])["result"] == [first]


def test_the_same_mark_has_the_same_ids_after_a_restart(
    client: FlaskClient, start_once: Callable[..., Serving]
) -> None:
    restarted = create_app(serving=start_once()).test_client()
    assert everything(restarted) == everything(client)
    assert len({region["id"] for region in everything(client)}) == 80


def test_the_label_of_a_click_wins(client: FlaskClient) -> None:
    asked = click(50, 50)
    asked["value"]["keypointlabels"] = ["Triangle"]
    (region,) = ask(client, asked)["result"]
    assert region["value"]["rectanglelabels"] == ["Triangle"]


def test_a_rectangle_is_not_answered_with_a_share_of_the_best(start_once: Callable[..., Serving]) -> None:
    few = create_app(serving=start_once(max_regions=10)).test_client()
    assert len(everything(few)) == 80


@pytest.mark.parametrize("tag", ["RectangleLabels", "EllipseLabels"])
def test_overlap_is_that_of_the_control(client: FlaskClient, tag: str) -> None:
    xml = config().replace("RectangleLabels", tag)
    (first,) = ask(client, click(50, 50), label_config=xml)["result"]
    width = first["value"].get("width", 2 * first["value"].get("radiusX", 0))
    for share, answered in ((0.1, False), (0.35, True)):  # 0.9 / 1.1 = 0.82 and 0.65 / 1.35 = 0.48 of boxes
        value = {**first["value"], "x": first["value"]["x"] + share * width}
        shown = {"id": 1, "result": [{**first, "id": "s", "value": value}]}
        assert bool(ask(client, click(50, 50), label_config=xml, drafts=[shown])["result"]) is answered
