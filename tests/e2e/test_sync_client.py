"""What the client reads from a real Label Studio: no change is lost, however pages and changes fall."""

from __future__ import annotations

import base64
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from PIL import Image
from support.labelstudio import LabelStudioServer
from support.ports import free_port
from support.web import encoded

from backend.errors import LabelStudioError
from backend.fit.sync import sync
from backend.images.addresses import embedded
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.records import ProjectInfo, TaskRecord
from backend.labelstudio.refusals import public_url
from backend.services import Services
from backend.settings import Settings

pytestmark = pytest.mark.group("label-studio", minutes=5)

REGION = {
    "id": "r1",
    "from_name": "label",
    "to_name": "image",
    "type": "rectanglelabels",
    "original_width": 64,
    "original_height": 48,
    "image_rotation": 0,
    "value": {"x": 1, "y": 2, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["Car"]},
}


@pytest.fixture(params=["legacy token", "personal access token"])
def client(label_studio: LabelStudioServer, request: pytest.FixtureRequest) -> Iterator[LabelStudioClient]:
    token = label_studio.token if request.param == "legacy token" else label_studio.pat()
    with closing(LabelStudioClient(label_studio.url, token)) as found:
        yield found


@pytest.fixture
def reader(label_studio: LabelStudioServer) -> Iterator[LabelStudioClient]:
    with closing(LabelStudioClient(label_studio.url, label_studio.token)) as found:
        yield found


@pytest.fixture
def project(label_studio: LabelStudioServer, new_project: Callable[..., int]) -> int:
    return new_project()


def add_tasks(server: LabelStudioServer, project: int, number: int, **fields: Any) -> None:
    tasks = [{"data": {"image": f"http://images/{index}.jpg"}} | fields for index in range(number)]
    server.api("POST", f"/api/projects/{project}/import", json=tasks)


def annotate(server: LabelStudioServer, task: int, **fields: Any) -> int:
    body = {"result": [REGION]} | fields
    return int(server.api("POST", f"/api/tasks/{task}/annotations/", json=body)["id"])


def set_updated_at(server: LabelStudioServer, project: int, time: datetime, first: int, last: int) -> None:
    """Give these tasks of the project, counted from 0 in the order of ids, one and the same time."""
    with closing(sqlite3.connect(server.folder / "data" / "label_studio.sqlite3", timeout=20)) as db, db:
        ids = [row[0] for row in db.execute("SELECT id FROM task WHERE project_id = ? ORDER BY id", [project])]
        stamp = time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        db.executemany("UPDATE task SET updated_at = ? WHERE id = ?", [(stamp, one) for one in ids[first:last]])


def read(pages: Iterator[list[TaskRecord]]) -> list[TaskRecord]:
    return [task for page in pages for task in page]


def test_version_and_owner(label_studio, client):
    assert client.version() == label_studio.api("GET", "/api/version")["release"]
    assert client.whoami() == label_studio.email


def test_headers_open_the_api_from_many_threads(label_studio, client):
    with ThreadPoolExecutor(8) as threads:
        headers = list(threads.map(lambda _: client.auth_headers(), range(16)))
    kind = "Token" if label_studio.token in headers[0]["Authorization"] else "Bearer"
    assert {one["Authorization"].split()[0] for one in headers} == {kind}
    for one in headers[:2]:
        assert requests.get(f"{label_studio.url}/api/projects/", headers=one, timeout=30).status_code == 200


def test_access_token_that_is_refused_or_about_to_end_is_replaced(label_studio):
    client = LabelStudioClient(label_studio.url, label_studio.pat())
    client.whoami()
    tokens = client._sdk._client_wrapper._tokens_client

    damaged = tokens._access_token[:-4] + "aaaa"
    tokens._access_token = damaged
    assert client.whoami() == label_studio.email and tokens._access_token != damaged

    tokens._access_token_expiration = datetime.now(UTC) + timedelta(seconds=5)
    assert client.auth_headers() == {"Authorization": f"Bearer {tokens._access_token}"}
    assert tokens._access_token_expiration > datetime.now(UTC) + timedelta(seconds=60)


def test_access_token_ends_although_the_clock_was_set_back(label_studio, monkeypatch):
    client = LabelStudioClient(label_studio.url, label_studio.pat())
    first = client.auth_headers()
    tokens = client._sdk._client_wrapper._tokens_client
    tokens._access_token_expiration += timedelta(days=2)  # as a clock that is two days late sees it
    assert client.auth_headers() == first

    later = time.monotonic() + 280
    monkeypatch.setattr(time, "monotonic", lambda: later)
    time.sleep(1.1)  # tokens of one second are the same
    assert client.auth_headers() != first


def test_projects(client, new_project):
    ids = [new_project(), new_project()]
    found = {project.id: project for project in client.projects()}
    assert set(ids) <= set(found)
    one = client.project(ids[0])
    assert one == found[ids[0]] and one.created_at.tzinfo is not None and "RectangleLabels" in one.label_config


def test_projects_of_all_pages(label_studio, reader, new_project, monkeypatch):
    for _ in range(101 - len(reader.projects())):
        new_project()
    assert len({project.id for project in reader.projects()}) >= 101


def test_uid_is_the_one_that_label_studio_sends():
    made = datetime.fromisoformat("2026-11-23T17:01:13.434899Z")
    assert ProjectInfo(1, "t", made, "", "").uid == "1.1795453273"


def test_a_task_as_it_is_read(label_studio, client, project):
    add_tasks(label_studio, project, 2)
    task, other = client.task_ids(project)
    first = annotate(label_studio, task, lead_time=1.5, ground_truth=True)
    second = annotate(label_studio, task, was_cancelled=True, result=[])

    records = {record.id: record for record in read(client.changed_tasks(project, None))}

    assert records[other].annotations == () and set(records) == {task, other}
    record = records[task]
    assert record.data == {"image": "http://images/0.jpg"}
    assert record.updated_at >= record.created_at > datetime.now(UTC) - timedelta(minutes=10)
    one, two = sorted(record.annotations, key=lambda annotation: annotation.id)
    assert (one.id, two.id) == (first, second)
    assert (one.result, one.lead_time, one.ground_truth, one.was_cancelled) == ([REGION], 1.5, True, False)
    assert (two.result, two.was_cancelled, two.completed_by, two.parent_prediction) == ([], True, 1, None)
    assert two.created_at.tzinfo is not None


def test_an_embedded_image_and_all_annotations_of_its_task_are_learned(label_studio, project, tmp_path):
    """The database holds neither the image nor a copy of it, and Label Studio is asked when the cache was emptied."""
    image = f"data:image/png;base64,{base64.b64encode(encoded(Image.new('RGB', (64, 48), (0, 200, 0)))).decode()}"
    label_studio.api("POST", f"/api/projects/{project}/import", json=[{"data": {"image": image}}])
    with closing(
        Services(
            Settings(
                home=tmp_path,
                annotations="union",
                label_studio_url=label_studio.url,
                label_studio_api_key=label_studio.token,
            )
        )
    ) as services:
        info = services.client(None).project(project)
        services.store.save_project(info.uid, label_config=info.label_config)
        (task,) = services.client(None).task_ids(project)
        annotate(label_studio, task)
        annotate(label_studio, task, result=[{**REGION, "value": {**REGION["value"], "x": 60}}])
        sync(services, info.uid, time.time())
        (example,) = services.ledger.examples(info.uid)
        assert [region["value"]["x"] for region in example.result] == [60, 1]
        assert example.data == {"image": embedded(image)}
        shutil.rmtree(tmp_path / "cache")
        source = services.source_of(services.store.project(info.uid))
        assert services.images.load(source(example.data["image"], task)).pixels[0, 0].tolist() == [0, 200, 0]


def test_every_kind_of_change_moves_the_cursor(label_studio, client, project):
    add_tasks(label_studio, project, 5)
    cursor = max(task.updated_at for task in read(client.changed_tasks(project, None)))
    ids = list(client.task_ids(project))
    made: list[int] = []

    def submit() -> None:
        made.append(annotate(label_studio, ids[0]))

    def change() -> None:
        label_studio.api("PATCH", f"/api/annotations/{made[0]}/", json={"result": []})

    def delete() -> None:
        label_studio.api("DELETE", f"/api/annotations/{made[0]}/")

    def skip() -> None:
        annotate(label_studio, ids[1], was_cancelled=True)

    def bring_in() -> None:
        add_tasks(label_studio, project, 1, annotations=[{"result": [REGION]}])

    for act, results in [(submit, [1]), (change, [0]), (delete, []), (skip, [1]), (bring_in, [1])]:
        act()
        (task,) = read(client.changed_tasks(project, cursor))
        assert [len(annotation.result) for annotation in task.annotations] == results, act.__name__
        assert task.updated_at > cursor
        cursor = task.updated_at
        assert read(client.changed_tasks(project, cursor)) == []
    assert task.id not in ids and task.annotations[0].ground_truth


def test_pages_are_in_order_and_complete(label_studio, reader, project):
    assert list(reader.changed_tasks(project, None)) == []
    add_tasks(label_studio, project, 250)

    pages = list(reader.changed_tasks(project, None, page_size=100))

    assert [task.id for page in pages for task in page] == list(reader.task_ids(project, page_size=60))
    assert len(pages) == 3 and all(len(page) <= 100 for page in pages)
    cursor = pages[1][-1].updated_at
    assert [task.id for task in read(reader.changed_tasks(project, cursor))] == [
        task.id for page in pages for task in page if task.updated_at > cursor
    ]


@pytest.mark.parametrize(("first", "last"), [(0, 300), (50, 350), (30, 130), (320, 370), (270, 370), (0, 1)])
def test_many_tasks_of_one_time_lose_none(label_studio, reader, project, first, last):
    add_tasks(label_studio, project, 370)
    before = read(reader.changed_tasks(project, None))
    set_updated_at(label_studio, project, before[first].updated_at, first, last)

    pages = list(reader.changed_tasks(project, None, page_size=100))

    assert all(0 < len(page) <= 100 for page in pages)
    assert Counter(task.id for page in pages for task in page) == Counter(task.id for task in before)
    later = read(reader.changed_tasks(project, before[first].updated_at, page_size=100))
    assert {task.id for task in later} == {task.id for task in before[last:]}


def test_changes_while_pages_are_read_hide_no_task(label_studio, reader, project):
    add_tasks(label_studio, project, 60)
    ids = list(reader.task_ids(project))
    pages = reader.changed_tasks(project, None, page_size=20)

    seen = next(pages)
    for task in seen[:10]:
        annotate(label_studio, task.id)
    label_studio.api("DELETE", f"/api/tasks/{seen[12].id}/")
    label_studio.api("DELETE", f"/api/tasks/{ids[-1]}/")
    rest = read(pages)

    assert {task.id for task in seen} | {task.id for task in rest} == set(ids[:-1])
    assert {task.id for task in rest if task.annotations} == {task.id for task in seen[:10]}


def test_deleted_tasks_show_in_the_listing_of_ids(label_studio, reader, project):
    assert reader.task_ids(project) == {} and reader.count_tasks(project) == 0
    add_tasks(label_studio, project, 7)
    before = reader.task_ids(project, page_size=3)
    gone = list(before)[4]
    label_studio.api("DELETE", f"/api/tasks/{gone}/")

    after = reader.task_ids(project, page_size=3)

    assert before.keys() - after.keys() == {gone} and reader.count_tasks(project) == len(after) == 6
    assert all(before[task] == time for task, time in after.items())


def test_reading_never_makes_label_studio_ask_for_predictions(label_studio, reader, new_project, ml_backend):
    project = new_project(evaluate_predictions_automatically=True)
    add_tasks(label_studio, project, 3)
    reader.create_backend(project, ml_backend.url, "a backend")
    before = read(reader.changed_tasks(project, None))
    reader.task_ids(project)
    assert len(before) == 3 and "/predict" not in ml_backend.paths()

    label_studio.api("GET", f"/api/tasks?project={project}&fields=all")
    assert "/predict" in ml_backend.paths(), "otherwise this test shows nothing"


def test_address_where_nobody_listens():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LabelStudioError, match=f"{url} cannot be reached") as caught:
        LabelStudioClient(url, "t" * 40).version()
    assert caught.value.hint


def test_address_of_something_else(ml_backend):
    client = LabelStudioClient(ml_backend.url, "t" * 40)
    for call in (client.version, client.whoami, client.projects, lambda: client.project(1)):
        with pytest.raises(LabelStudioError) as caught:
            call()
        assert caught.value.hint and "t" * 40 not in str(caught.value)


def test_nothing_is_imported_or_sent_before_the_first_call():
    code = (
        "import sys; from backend.labelstudio.client import LabelStudioClient; LabelStudioClient('http://x', 'k');"
        "print([name for name in ('label_studio_sdk', 'httpx', 'pandas') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_addresses_in_messages_hold_no_credentials():
    assert public_url("https://user:word@host:8080/ls?token=1") == "https://host:8080/ls"
