"""yoloop's own addresses: what suggestions are worth, accepting them, and the metrics of both."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from support.bodies import UID, config, setup
from support.web import Server
from typer.testing import CliRunner

from backend.app import create_app
from backend.cli.main import app
from backend.feedback.record import record
from backend.labelstudio.records import AnnotationRecord, PredictionRecord, TaskRecord
from backend.server.process import Serving
from backend.store.refreshes import Refreshes

START = datetime(2026, 1, 1, tzinfo=UTC)


def region(number: int, score: float, label: str = "Disc", left: float = 10.0) -> dict[str, Any]:
    value = {"x": left, "y": 10.0, "width": 20.0, "height": 20.0, "rotation": 0, "rectanglelabels": [label]}
    size = {"original_width": 100, "original_height": 100, "image_rotation": 0}
    names = {"from_name": "label", "to_name": "image", "type": "rectanglelabels"}
    return {"id": f"r{number}", "score": score, "value": value, **size, **names}


def annotated(number: int, suggested: list[dict[str, Any]], drawn: list[dict[str, Any]]) -> TaskRecord:
    at = START + timedelta(minutes=number)
    prediction = PredictionRecord(number, "yoloop-v1", 0.5, suggested, at)
    annotation = AnnotationRecord(number, drawn, False, False, at, at, 1, 4.0 + number % 3, number)
    return TaskRecord(number, at, at, {"image": f"{number}.jpg"}, (annotation,), (prediction,))


@pytest.fixture
def client(serving: Serving) -> FlaskClient:
    """A project whose 80 sure suggestions were all right, and whose 20 doubtful ones were all deleted."""
    client = create_app(serving=serving).test_client()
    client.post("/setup", json=setup())
    tasks = []
    for number in range(80):
        sure, doubtful = region(2 * number, 0.9), region(2 * number + 1, 0.3, left=50.0)
        suggested = [sure, doubtful] if number < 20 else [sure]
        tasks.append(annotated(number, suggested, [{**sure, "origin": "prediction"}]))
    record(serving.services.store, UID, tasks)
    return client


def test_advice_names_the_score_that_can_be_trusted(client: FlaskClient) -> None:
    answer = client.get("/advice", query_string={"project": UID})
    assert answer.status_code == 200, answer.text
    (disc,) = answer.get_json()["advice"]
    assert disc["label"] == "Disc"
    assert disc["threshold"] == pytest.approx(0.9)
    assert (disc["right"], disc["shown"]) == (80, 80)
    assert 0.95 <= disc["low"] < disc["high"] == 1
    assert client.get("/advice").get_json() == answer.get_json(), "the only project need not be named"
    assert client.get("/advice", query_string={"project": "7"}).get_json() == answer.get_json()


def test_the_metrics_count_outcomes_and_fresh_tasks(serving: Serving, client: FlaskClient) -> None:
    Refreshes(serving.services.store).save(UID, "1:a", version="yoloop-v1", total=5, done=3, failed=1)
    text = client.get("/metrics").text
    name = f'yoloop_suggestion_outcomes{{label="Disc",outcome="%s",project="{UID}",score="%s",version="yoloop-v1"}}'
    assert f"{name % ('accepted', '0.9')} 80.0" in text
    assert f"{name % ('deleted', '0.3')} 20.0" in text
    assert f'yoloop_trusted_score{{label="Disc",project="{UID}"}} 0.9' in text
    assert f'yoloop_lead_time_seconds{{project="{UID}",suggestions="with"}} 5.0' in text
    assert f'yoloop_fresh_tasks{{project="{UID}",state="done",version="yoloop-v1"}} 3.0' in text


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"min_score": "high"}, "must be a number"),
        ({"min_score": 1.5}, "which no score can be"),
        ({"labels": ["Disc"]}, "must be an object"),
        ({"labels": {"Disc": None}}, "must be a number"),
        ({"project": "9.9"}, "No such project"),
        ({"project": {"id": "x"}}, "project"),
        ({}, "Label Studio"),
    ],
)
def test_what_cannot_be_accepted_is_refused_in_words(client: FlaskClient, body: dict[str, Any], says: str) -> None:
    answer = client.post("/accept", json=body)
    assert 400 <= answer.status_code < 600
    assert answer.status_code != 500
    assert says in answer.get_json()["error"], answer.get_json()
    assert "Traceback" not in answer.text


def test_nothing_known_is_said(serving: Serving) -> None:
    client = create_app(serving=serving).test_client()
    assert client.get("/advice").status_code == 404
    client.post("/setup", json=setup(config()))
    found = client.get("/advice").get_json()
    assert found["advice"] == []


class TestTwoProjectsOfOneNumber:
    """Those of two Label Studios, or of one that was set up anew: nothing is done to the one that is not named."""

    OLD, NEW = "1.1700000000", "1.1800000000"

    @pytest.fixture
    def studios(self, serving: Serving) -> Iterator[dict[str, Server]]:
        """uid → its Label Studio, which knows no project; the new one was read last."""
        found = {self.OLD: Server(), self.NEW: Server()}
        for uid, server in found.items():
            serving.services.store.save_project(
                uid, title=uid, label_config=config(), url=server.url, api_key="0" * 40, synced_at=float(uid)
            )
        yield found
        for server in found.values():
            server.close()

    @pytest.fixture
    def client(self, serving: Serving) -> FlaskClient:
        return create_app(serving=serving).test_client()

    @pytest.mark.parametrize("body", [{}, {"dry_run": True}, {"undo": "a1b2c3d4"}])
    def test_the_named_one_is_worked_on(
        self, client: FlaskClient, studios: dict[str, Server], body: dict[str, Any]
    ) -> None:
        for uid, server in studios.items():
            assert client.post("/accept", json={"project": uid, **body}).status_code == 502
            assert any(path.startswith("/api/projects/1/") for path in server.paths)
            assert not any(each.asked for other, each in studios.items() if other != uid)
            server.asked.clear()

    def test_the_named_one_is_told_of(self, client: FlaskClient, studios: dict[str, Server], serving: Serving) -> None:
        sure = region(1, 0.9)
        record(serving.services.store, self.OLD, [annotated(1, [sure], [{**sure, "origin": "prediction"}])])
        told = {uid: client.get("/advice", query_string={"project": uid}).get_json() for uid in studios}
        assert {uid: each["project"] for uid, each in told.items()} == {uid: uid for uid in studios}
        assert [len(told[uid]["advice"]) for uid in (self.OLD, self.NEW)] == [1, 0]
        for uid in studios:
            (reported,) = client.get("/report", query_string={"project": uid}).get_json()["projects"]
            assert reported["project"] == uid

    @pytest.mark.parametrize("uid", ["1.1750000000", "1.17", "2.1700000000", "01.1700000000"])
    def test_another_is_not_found(self, client: FlaskClient, studios: dict[str, Server], uid: str) -> None:
        for answer in (
            client.post("/accept", json={"project": uid}),
            client.post("/accept", json={"project": uid, "undo": "a1b2c3d4"}),
            client.get("/advice", query_string={"project": uid}),
            client.get("/report", query_string={"project": uid}),
            client.post("/train", json={"project": uid}),
        ):
            assert answer.status_code == 404, answer.text
        assert client.get("/versions", query_string={"project": uid}).get_json()["details"] == []
        assert not any(server.asked for server in studios.values())

    def test_their_number_is_refused(self, client: FlaskClient, studios: dict[str, Server], serving: Serving) -> None:
        for answer in (
            client.post("/accept", json={"project": 1}),
            client.post("/accept", json={"project": "1", "undo": "a1b2c3d4"}),
            client.post("/accept", json={}),
            client.get("/advice", query_string={"project": "1"}),
            client.get("/advice"),
            client.get("/report", query_string={"project": "1"}),
            client.get("/versions", query_string={"project": "1"}),
            client.post("/train", json={"project": "1"}),
        ):
            assert answer.status_code == 400, answer.text
            assert all(uid in answer.get_json()["error"] for uid in studios)
        assert not any(server.asked for server in studios.values())
        assert serving.services.jobs.unfinished() == []

    def test_a_command_with_their_number_is_refused(self, serving: Serving, studios: dict[str, Server]) -> None:
        """And one with a uid is about that one: the commands share one look-up."""
        for project, code in (("1", 1), ("1.1750000000", 1), (self.OLD, 0)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("YOLOOP_HOME", str(serving.settings.home))
                ran = CliRunner().invoke(app, ["train", "--project", project])
            assert bool(ran.exit_code) is bool(code), ran.output
        assert [job.uid for job in serving.services.jobs.unfinished()] == [self.OLD]
