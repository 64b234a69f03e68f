"""`docs/grafana.json` can be loaded, and asks for nothing but what /metrics tells after real traffic."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from support import promql
from support.bodies import UID, event, predict, setup, task
from support.scrape import Scrape
from support.waiting import wait_for

from backend.app import create_app
from backend.feedback.record import record
from backend.labelstudio.records import AnnotationRecord, PredictionRecord, TaskRecord
from backend.processes.liveness import training
from backend.server.process import Serving
from backend.store.heartbeats import Heartbeat
from backend.store.refreshes import Refreshes

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "docs" / "grafana.json").read_text())
ROWS = ["Is it up?", "Are people waiting?", "Is it learning?", "Is it getting better?", "Is anything failing?"]
FROM_PROMETHEUS = {"instance", "job", "le"}
"""Labels that Prometheus adds, or that belong to every histogram."""


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def expressions() -> list[str]:
    """Of all panels and variables, with Grafana's own variables filled in."""
    found = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked is not None
            found.append(f"group by ({asked[2]}) ({asked[1]})")
    return [each.replace("$__rate_interval", "1m").replace("$instance", "a").replace("$project", "b") for each in found]


@pytest.fixture(scope="module")
def asked() -> dict[str, set[str]]:
    """Metric → the labels that the dashboard knows of it."""
    found: dict[str, set[str]] = {}
    for each in expressions():
        for name, labels in promql.parse(each).metrics.items():
            found.setdefault(name, set()).update(labels)
    return found


def test_it_has_what_an_import_needs() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["title"] == "yoloop"
    assert DASHBOARD["id"] is None, "the number of a dashboard of somebody's own would be overwritten"
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "instance", "project"]
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"
    known = {f"${{{name}}}" for name in names} | {"-- Grafana --"}
    assert set(re.findall(r'"uid": "([^"]*)"', json.dumps(DASHBOARD))) - {"yoloop"} <= known


def test_panels_have_numbers_of_their_own_and_a_place_each() -> None:
    numbers = [panel["id"] for panel in panels()]
    assert len(numbers) == len(set(numbers))
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24 and place["w"] > 0 and place["h"] > 0
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_rows_come_in_the_order_of_somebody_on_duty() -> None:
    by_place = sorted(DASHBOARD["panels"], key=lambda panel: (panel["gridPos"]["y"], panel["gridPos"]["x"]))
    assert by_place == DASHBOARD["panels"]
    assert [panel["title"] for panel in by_place if panel["type"] == "row"] == ROWS
    assert by_place[0]["type"] == "row"


def test_every_panel_says_what_it_shows_and_asks_its_datasource() -> None:
    for panel in panels():
        if panel["type"] != "row":
            assert panel["title"] and panel["description"].endswith("."), panel["title"]
            references = [target["refId"] for target in panel["targets"]]
            assert references and len(references) == len(set(references))
            for each in (panel, *panel["targets"]):
                assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_is_promql(expression: str) -> None:
    assert promql.parse(expression).metrics
    assert "$" not in expression


def test_it_asks_for_what_there_is_and_shows_all_of_it(
    serving: Serving, client: FlaskClient, tmp_path: Path, asked: dict[str, set[str]]
) -> None:
    told: dict[str, set[str]] = {}
    for scrape in traffic(serving, client, tmp_path):
        for sample in scrape.samples:
            told.setdefault(sample.name, set()).update(sample.labels)
    assert set(asked) - set(told) == set()
    for name, labels in asked.items():
        assert labels - FROM_PROMETHEUS <= told[name], name
    shown = {name.removesuffix("_bucket") for name in asked}
    ours = {name for name in told if name.startswith("yoloop_") and not name.endswith(("_created", "_count", "_sum"))}
    assert {name.removesuffix("_bucket") for name in ours} - shown == set(), "metrics without a panel"


def traffic(serving: Serving, client: FlaskClient, folder: Path) -> Iterator[Scrape]:
    """Requests, a worker's signs, and trainings of which one has ended and one runs; a second version is broken."""
    services, now = serving.services, time.time()
    client.post("/setup", json=setup())
    client.post("/setup", json=setup(uid="8.1"))
    client.post("/predict", json=predict([task(1), task(2, "nowhere.jpg")]))
    client.post("/webhook", json=event("ANNOTATION_CREATED"))
    weights = serving.settings.models_dir / "tiny.pt"
    services.registry.register(UID, "a", {"weights.pt": weights}, metrics={"fitness": 0.5}, params={}, tags={})
    services.registry.promote(UID, 1, "better")
    (folder / "junk.pt").write_bytes(b"junk")
    services.registry.register("8.1", "b", {"weights.pt": folder / "junk.pt"}, metrics={}, params={}, tags={})
    services.registry.promote("8.1", 1, "by mistake")
    models = serving.engine.models
    wait_for(lambda: models.loaded().get(UID) == "v1" and models.unloadable(), pause=0.05)
    Heartbeat(services.store).beat(now, now)
    Refreshes(services.store).save(UID, "1:a", version="v1", total=5, done=3, failed=1)
    services.store.save_project(UID, synced_at=now)
    tasks = [judged(number) for number in range(80)]
    record(services.store, UID, tasks)
    services.ledger.update(UID, tasks, now)
    job, _ = services.jobs.request(UID, "asked for", now)
    services.jobs.update(job.id, status="running", started_at=now, epoch=1, epochs=9)
    with training(serving.settings.root, job.id):
        yield Scrape(client)
    services.jobs.finish(job.id, "done", "It is better.", now + 1)
    yield Scrape(client)


def judged(number: int) -> TaskRecord:
    """A suggestion that was accepted as it was, and one that was deleted."""
    at = datetime(2026, 1, 1, 0, number % 60, number // 60, tzinfo=UTC)
    size = {"original_width": 100, "original_height": 100, "image_rotation": 0}
    value = {"x": 10.0, "y": 10.0, "width": 20.0, "height": 20.0, "rotation": 0, "rectanglelabels": ["Disc"]}
    names = {"from_name": "label", "to_name": "image", "type": "rectanglelabels"}
    sure = {"id": f"r{number}", "score": 0.9, "value": value, **size, **names}
    shown = PredictionRecord(number, "yoloop-v1", 0.5, [sure], at)
    drawn = AnnotationRecord(number, [{**sure, "origin": "prediction"}], False, False, at, at, 1, 4.0, number)
    return TaskRecord(number, at, at, {"image": f"{number}.jpg"}, (drawn,), (shown,))


@pytest.fixture
def client(serving: Serving) -> FlaskClient:
    return create_app(serving=serving).test_client()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sum(",
        "sum(a))",
        "sum by (x (a)",
        "a{b}",
        'a{b="c}',
        'a{b=="c"}',
        'a{b=~"("}',
        "rate(a)",
        "rate(sum(a)[1m])",
        "a[1m]",
        "a b",
        "a +",
        "nothing(a)",
        "histogram_quantile(a)",
        "a{b='c'} $x",
        "sum(a[5])",
    ],
)
def test_what_is_no_promql_is_found_out(text: str) -> None:
    with pytest.raises((ValueError, re.error)):
        promql.parse(text)


def test_what_an_expression_asks_for_is_found() -> None:
    text = 'histogram_quantile(0.95, sum by (le) (rate(a_bucket{x=~"1|2", y!="3"}[5m]))) / -2 > b or vector(0)'
    assert promql.parse(text).metrics == {"a_bucket": {"x", "y", "le"}, "b": set()}
