"""What a sync asks a real Label Studio for, and what it learns of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.labelstudio import LabelStudioServer

from backend.fit.sync import Synced, sync
from backend.labelstudio.client import LabelStudioClient
from backend.services import Services
from backend.settings import Settings
from backend.worker import Worker

pytestmark = pytest.mark.group("label-studio", minutes=5)

CONFIG = (Path(__file__).parents[2] / "label_config.xml").read_text()
REGION = {
    "id": "r1",
    "from_name": "label",
    "to_name": "image",
    "type": "rectanglelabels",
    "original_width": 64,
    "original_height": 48,
    "value": {"x": 1, "y": 2, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["Disc"]},
}


@dataclass
class Connected:
    """A project of twelve tasks, of which ten are annotated and read; `asked` are the paths asked for since."""

    server: LabelStudioServer
    services: Services
    number: int
    uid: str
    asked: list[str] = field(default_factory=list)

    def tasks(self) -> list[int]:
        page = self.server.api("GET", f"/api/tasks?project={self.number}&page_size=100&fields=all")
        return sorted(each["id"] for each in page["tasks"])

    def annotate(self, task: int) -> None:
        self.server.api("POST", f"/api/tasks/{task}/annotations/", json={"result": [REGION]})

    def sync(self, **how: bool) -> Synced:
        self.asked.clear()
        return sync(self.services, self.uid, time.time(), **how)


@pytest.fixture
def connected(label_studio: LabelStudioServer, new_project: Callable[..., int], tmp_path: Path) -> Iterator[Connected]:
    number = new_project(label_config=CONFIG)
    tasks: list[dict[str, Any]] = [{"data": {"image": f"http://images/{index}.jpg"}} for index in range(12)]
    for task in tasks[:10]:
        task["annotations"] = [{"result": [REGION]}]
    label_studio.api("POST", f"/api/projects/{number}/import", json=tasks)
    with closing(LabelStudioClient(label_studio.url, label_studio.token)) as client:
        uid = client.project(number).uid
    services = Services(Settings(home=tmp_path, label_studio_url=label_studio.url, debounce=0, min_new_annotations=99))
    services.store.save_project(uid, url=label_studio.url, api_key=label_studio.token)
    client = services.client(services.store.project(uid))
    client.version()  # it connects, and what it learns of Label Studio is asked for only once
    made = Connected(label_studio, services, number, uid)
    client._sdk._client_wrapper.httpx_client.httpx_client.event_hooks["request"].append(
        lambda request: made.asked.append(request.url.path)
    )
    made.sync()
    yield made
    services.close()


def test_one_new_annotation_costs_one_request(connected: Connected) -> None:
    connected.annotate(connected.tasks()[-1])
    assert connected.sync(whole=False).changed >= 1
    assert connected.asked == ["/api/tasks/"]
    assert len(connected.services.ledger.teaching(connected.uid)) == 11


def test_a_whole_sync_reads_the_project_too(connected: Connected) -> None:
    connected.server.api("PATCH", f"/api/projects/{connected.number}/", json={"title": "renamed"})
    connected.sync(whole=False)
    assert connected.services.store.find(connected.number).title != "renamed"
    connected.sync()
    assert connected.asked == [f"/api/projects/{connected.number}/", "/api/tasks/"]
    assert connected.services.store.find(connected.number).title == "renamed"


def test_deleted_tasks_are_found_whole_or_where_an_event_told_of_them(connected: Connected) -> None:
    first, second = connected.tasks()[:2]
    connected.server.api("DELETE", f"/api/tasks/{first}/")
    assert connected.sync(whole=False).gone == 0
    assert connected.sync().gone == 1
    connected.server.api("DELETE", f"/api/tasks/{second}/")
    assert connected.sync(whole=False, deletions=True).gone == 1
    assert len(connected.services.ledger.teaching(connected.uid)) == 8


def test_the_worker_reads_the_project_now_and_then_and_changed_tasks_at_events(connected: Connected) -> None:
    worker, store = Worker(connected.services), connected.services.store

    def asked(now: float) -> list[str]:
        connected.asked.clear()
        worker.tick(now)
        return [path.rpartition(f"/{connected.number}/")[1] or path for path in connected.asked]

    project, tasks = f"/{connected.number}/", "/api/tasks/"
    now = time.time()
    assert asked(now) == [project, tasks, tasks], "at its start it compares the times of all tasks"
    store.hint(connected.uid, now + 10)
    assert asked(now + 11) == [tasks]
    assert not store.hints()
    assert asked(now + 12) == []
    store.hint(connected.uid, now + 13, deletion=True)
    assert asked(now + 14)[:2] == [project, tasks]
    store.hint(connected.uid, now + 70)
    assert asked(now + 71) == [tasks]
    assert asked(now + 75) == [project, tasks]
