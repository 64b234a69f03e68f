"""What /predict answers, with real detections: one entry per task, whatever happens to the others."""

from __future__ import annotations

import base64
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image
from support.bodies import UID, config, picture, predict, setup, task
from support.tiny import SIZE
from support.web import PNG, Server, answer, encoded

from backend.app import create_app
from backend.labels.schema import parse_label_config
from backend.model import Engine, YoloBackend
from backend.served_models.cache import Models
from backend.server.process import Serving

Start = Callable[..., Serving]

TWO_CONTROLS = """
<View>
  <Image name="left" value="$left"/>
  <Image name="right" value="$right"/>
  <RectangleLabels name="edged" toName="left,right"><Label value="Square"/><Label value="Triangle"/></RectangleLabels>
  <RectangleLabels name="round" toName="left" model_score_threshold="0.05"><Label value="Disc"/></RectangleLabels>
</View>
"""


def ask(client: FlaskClient, tasks: list[Any], label_config: str | None = None) -> list[dict[str, Any]]:
    response = client.post("/predict", json=predict(tasks, label_config))
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.get_json()["results"]
    assert len(results) == len(tasks)
    return results


def labels(entry: dict[str, Any]) -> set[str]:
    return {region["value"]["rectanglelabels"][0] for region in entry["result"]}


def scores(entry: dict[str, Any]) -> list[float]:
    return [region["score"] for region in entry["result"]]


def test_regions_are_ranked_and_valid(client: FlaskClient) -> None:
    (entry,) = ask(client, [task(1, picture(200, 100))])
    assert labels(entry) == {"Disc", "Square"}
    assert scores(entry) == sorted(scores(entry), reverse=True)
    assert {round(score, 2) for score in scores(entry)} == {0.9, 0.6}
    assert entry["score"] == pytest.approx(min(scores(entry)), abs=1e-4), "as sure as the least sure suggestion"
    assert len({region["id"] for region in entry["result"]}) == len(entry["result"])
    for region in entry["result"]:
        assert (region["original_width"], region["original_height"]) == (200, 100)
        assert region["value"]["x"] + region["value"]["width"] <= 100
        assert region["value"]["y"] + region["value"]["height"] <= 100
    assert LabelInterface(config()).validate_prediction(entry, return_errors=True) == []


def test_every_prediction_carries_setups_version(client: FlaskClient) -> None:
    version = client.post("/setup", json=setup()).get_json()["model_version"]
    entries = ask(client, [task(1), task(2, "nowhere.jpg"), task(3)])
    assert [entry["model_version"] for entry in entries] == [version] * 3


def test_a_bad_task_costs_only_itself(client: FlaskClient) -> None:
    bad = [
        "data:image/png;base64,AAAA",
        "nowhere.jpg",
        "file:///etc/passwd",
        "http://127.0.0.1:9/a.jpg",
        5,
        "",
        ["a"],
        {"a": 1},
    ]
    odd: list[Any] = [None, 5, "task", [], {}, {"id": 1}, {"id": 2, "data": None}, {"id": {}, "data": {"picture": "x"}}]
    tasks = [task(100), *(task(number, image) for number, image in enumerate(bad)), *odd, task(200, picture(30, 40))]
    entries = ask(client, tasks)
    assert "result" in entries[0]
    assert entries[-1]["result"][0]["original_height"] == 40
    for entry in entries[1:-1]:
        assert set(entry) == {"model_version", "error"}
        assert entry["error"]


def test_answers_stand_where_their_tasks_stood(client: FlaskClient, studio: Server) -> None:
    client.post("/setup", json=setup(hostname=studio.url))
    tasks = []
    for number in range(40):
        width = 20 + number
        tasks.append(task(number, picture(width, 50) if number % 3 else f"/data/upload/1/{number}.jpg"))
    for number, entry in enumerate(ask(client, tasks)):
        if number % 3:
            assert entry["result"][0]["original_width"] == 20 + number
        else:
            assert "result" not in entry


def test_no_tasks(client: FlaskClient) -> None:
    assert ask(client, []) == []


def test_an_image_that_held_nothing_is_answered_as_empty(client: FlaskClient) -> None:
    (entry,) = ask(client, [task(1)], config('model_score_threshold="0.95"'))
    assert entry["result"] == []
    assert entry["score"] == pytest.approx(0.1, abs=1e-3), "what was found with 0.9 makes the silence doubtful"


def test_images_in_label_studio_are_fetched_with_its_token(client: FlaskClient, studio: Server) -> None:
    client.post("/setup", json=setup(hostname=studio.url))
    studio.routes["/data/upload/1/a.png"] = answer(PNG)
    (entry,) = ask(client, [task(1, "/data/upload/1/a.png")])
    assert entry["result"]
    assert studio.credentials() == [f"Token {'0' * 40}"]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("", {"Disc", "Square"}),
        ('model_score_threshold="0.05"', {"Disc", "Square", "Triangle"}),
        ('score_threshold="0.7"', {"Disc"}),
        ('model_score_threshold="0"', {"Disc", "Square", "Triangle"}),
    ],
)
def test_the_threshold_reaches_the_model(client: FlaskClient, attributes: str, expected: set[str]) -> None:
    (entry,) = ask(client, [task(1)], config(attributes))
    # At zero the grids' other scores, next to nothing, count as well.
    assert labels(entry) == expected


def test_several_classes_to_one_label(start: Start) -> None:
    client = create_app(serving=start()).test_client()
    mapped = """
    <View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
      <Label value="Thing" predicted_values="Disc, square"/><Label value="Other"/>
    </RectangleLabels></View>
    """
    (entry,) = ask(client, [task(1)], mapped)
    assert labels(entry) == {"Thing"}
    assert {round(score, 2) for score in scores(entry)} == {0.9, 0.6}
    assert LabelInterface(mapped).validate_prediction(entry, return_errors=True) == []
    (other,) = ask(client, [task(1)], mapped.replace("Disc, square", "Disc"))
    assert {round(score, 2) for score in scores(other)} == {0.9}


def test_objects_without_a_label_take_no_place_and_what_is_left_out_is_counted(start: Start) -> None:
    client = create_app(serving=start(max_regions=3)).test_client()
    squares = config().replace('<Label value="Disc"/>', "").replace('<Label value="Triangle"/>', "")
    (entry,) = ask(client, [task(1)], squares)
    assert [region["value"]["rectanglelabels"] for region in entry["result"]] == [["Square"]] * 3
    (entry,) = ask(client, [task(1)])
    assert labels(entry) == {"Disc"}, "the best ones"
    (counted,) = [
        line for line in client.get("/metrics").text.splitlines() if line.startswith("yoloop_limited_regions_total")
    ]
    assert float(counted.split()[1]) > 3


def test_an_image_in_a_nested_field(start: Start) -> None:
    client = create_app(serving=start()).test_client()
    nested = config().replace('value="$image"', 'value="$pages[1].url"')
    one = task(1)
    one["data"] = {"pages": ["nowhere.jpg", {"url": one["data"]["image"]}]}
    (entry,) = ask(client, [one], nested)
    assert labels(entry) == {"Disc", "Square"}
    (entry,) = ask(client, [{"id": 2, "data": {"pages": []}}], nested)
    assert "result" not in entry


def test_another_mapping_is_another_version(client: FlaskClient) -> None:
    first = client.post("/setup", json=setup()).get_json()["model_version"]
    assert first == "yoloop-v0"
    mapped = config().replace('value="Disc"', 'value="Disc" predicted_values="Square"')
    second = client.post("/setup", json=setup(mapped)).get_json()["model_version"]
    assert second.startswith("yoloop-v0-")
    assert {entry["model_version"] for entry in ask(client, [task(1)], mapped)} == {second}
    third = client.post("/setup", json=setup(config('model_score_threshold="0.3"'))).get_json()["model_version"]
    assert third not in (first, second)
    assert client.post("/setup", json=setup()).get_json()["model_version"] == first


def test_the_version_is_the_same_before_and_after_the_model_is_loaded(serving: Serving) -> None:
    services, settings = serving.services, serving.settings
    models = Models(settings, services.champions, list)
    waiting = YoloBackend(services, Engine(models, serving.engine.pool, serving.engine.metrics), UID, config())
    assert waiting.setup() == "yoloop-v0"
    models.start()
    assert models.ready(UID, parse_label_config(config()), time.monotonic() + 10).ready
    assert waiting.setup() == "yoloop-v0"
    other = config('model_score_threshold="0.3"')
    assert YoloBackend(services, serving.engine, UID, other).setup().startswith("yoloop-v0-")
    models.close()


def test_two_controls_and_two_images(client: FlaskClient) -> None:
    both = {"id": 1, "data": {"left": picture(200, 100), "right": picture(50, 80)}}
    half = {"id": 2, "data": {"left": picture()}}
    whole, failed = ask(client, [both, half], TWO_CONTROLS)
    assert "result" not in failed
    found = {(each["from_name"], each["to_name"], each["original_width"]) for each in whole["result"]}
    assert found == {("round", "left", 200), ("edged", "left", 200), ("edged", "right", 50)}
    assert scores(whole) == sorted(scores(whole), reverse=True)
    # Each control has its own threshold: the triangles, at 0.1, are below that of theirs.
    assert labels(whole) == {"Disc", "Square"}
    assert LabelInterface(TWO_CONTROLS).validate_prediction(whole, return_errors=True) == []


def test_what_does_not_fit_the_budget_is_failed(start: Start, studio: Server) -> None:
    serving = start(predict_budget=3.0, fetch_timeout=90.0)
    client = create_app(serving=serving).test_client()
    client.post("/setup", json=setup(hostname=studio.url))
    assert serving.engine.models.ready(UID, parse_label_config(config()), time.monotonic() + 60).ready
    answered, released = threading.Event(), []

    def stuck(handler: Any) -> None:
        released.append(answered.wait(60))
        answer(PNG)(handler)

    studio.routes["/slow.png"] = stuck
    first, second, third = ask(client, [task(1), task(2, "/slow.png"), task(3)])
    assert first["result"]
    assert third["result"]
    assert set(second) == {"model_version", "error"}
    assert "budget" in second["error"]
    assert not released, "the image is still to come"
    answered.set()


def test_without_weights_nothing_is_made_up(start: Start) -> None:
    client = create_app(serving=start(base_model="absent.pt")).test_client()
    version = client.post("/setup", json=setup()).get_json()["model_version"]
    for entry in ask(client, [task(1), task(2)]):
        assert set(entry) == {"model_version", "error"}
        assert entry["model_version"] == version
        assert "absent.pt" in entry["error"]
        assert "YOLOOP_MODELS" in entry["error"]


def test_weights_that_are_broken(start: Start) -> None:
    serving = start(base_model="broken.pt", models=None)
    (serving.settings.models_dir / "broken.pt").write_bytes(b"not a checkpoint")
    again = start(base_model="broken.pt")
    (entry,) = ask(create_app(serving=again).test_client(), [task(1)])
    assert "broken.pt could not be loaded" in entry["error"]
    assert str(serving.settings.root) not in entry["error"]


def test_a_config_left_out_is_the_last_one_seen(client: FlaskClient) -> None:
    client.post("/setup", json=setup(config('model_score_threshold="0.7"')))
    response = client.post("/predict", json={"tasks": [task(1)], "project": UID})
    assert labels(response.get_json()["results"][0]) == {"Disc"}


def test_too_many_at_once_are_sent_away(start: Start, studio: Server) -> None:
    serving = start(threads=2)  # all but one stay free for /health and /setup
    app = create_app(serving=serving)
    serving.predicting.acquire()
    refused = app.test_client().post("/predict", json=predict([task(1)]))
    assert refused.status_code == 503
    assert refused.get_json()["hint"] == "Ask again in a few seconds."
    assert 0 < int(refused.headers["Retry-After"]) < 10
    assert app.test_client().post("/setup", json=setup()).status_code == 200
    serving.predicting.release()
    for _ in range(3):  # each gives its permit back, an error too
        assert app.test_client().post("/predict", json=predict([task(1)], "<View>")).status_code == 400
        assert ask(app.test_client(), [task(1)])[0]["result"]


@pytest.mark.parametrize("size", [(1024, 512), (1003, 601), (601, 1003)])
def test_a_large_image_is_answered_as_the_same_picture_whole(
    client: FlaskClient, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.new("RGB", size)
    tasks = [
        task(number, f"data:image/{format};base64," + base64.b64encode(encoded(image, format)).decode())
        for number, format in enumerate(("JPEG", "PNG"), 1)
    ]
    shrunk = ask(client, tasks)
    monkeypatch.setattr("backend.model.pixels_enough", lambda tasks, image_size: 0)
    whole = ask(client, tasks)
    assert len(whole[0]["result"]) > 10
    for small, large in zip(shrunk, whole, strict=True):
        for one, other in zip(small["result"], large["result"], strict=True):
            assert (one["original_width"], one["original_height"]) == size
            corner, wanted = ([each["value"][key] for key in ("x", "y", "width", "height")] for each in (one, other))
            assert corner == pytest.approx(wanted, abs=200 / SIZE)  # both sizes round by a pixel of the input


def test_weights_that_are_not_those_that_were_told_suggest_nothing(start: Callable[..., Serving]) -> None:
    serving = start()
    other = serving.settings.models_dir / "other.pt"
    shutil.copyfile(serving.settings.models_dir / "tiny.pt", other)
    other.with_name("other.pt.sha256").write_text("0" * 64)
    client = create_app(serving=serving).test_client()
    body = predict([task(1)], config('model_path="other.pt"'))
    (entry,) = client.post("/predict", json=body).get_json()["results"]
    assert "other.pt.sha256" in entry["error"]
