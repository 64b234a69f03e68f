"""What a sync asks a real Label Studio for, and what it learns of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.labelstudio import LabelStudioServer

from backend.fit.sync import Synced, sync
from backend.labelstudio.client import LabelStudioClient
from backend.services import Services
from backend.settings import Settings
from backend.store.tables import ledger
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


def exported(server: LabelStudioServer, number: int) -> dict[int, Any]:
    """Task id → its data, and id and result of the annotation that teaches, as Label Studio's own export tells."""
    found = {}
    for task in server.api("GET", f"/api/projects/{number}/export?exportType=JSON&download_all_tasks=true"):
        there = [each for each in task["annotations"] if not each["was_cancelled"]]
        last = max(there, key=lambda each: (each["ground_truth"], each["updated_at"], each["id"]), default=None)
        found[task["id"]] = (task["data"], last and last["id"], last and last["result"])
    return found


def kept(services: Services, uid: str) -> dict[int, Any]:
    with services.store.engine.connect() as db:
        rows = db.execute(ledger.select().where(ledger.c.uid == uid)).all()
    return {row.task_id: (row.data, row.annotation_id, row.result) for row in rows}


@dataclass
class Life:
    """What people and programs do to a project, drawn at random, and who reads it."""

    connected: Connected
    random: Random
    services: Services

    def act(self) -> None:
        api, number = self.connected.server.api, self.connected.number
        tasks = self.connected.tasks()
        task = self.random.choice(tasks)
        region = {**REGION, "value": {**REGION["value"], "x": self.random.randint(1, 50)}}
        annotations = api("GET", f"/api/tasks/{task}/annotations/")
        one = self.random.choice(annotations)["id"] if annotations else None
        match self.random.choice(["import", "submit", "submit", "skip", "change", "truth", "clear", "delete", "data"]):
            case "import":
                rows = [
                    {"data": {"image": f"http://images/{index}.jpg"}} for index in range(self.random.randint(1, 30))
                ]
                annotated = [{**row, "annotations": [{"result": [region]}]} for row in rows]
                api("POST", f"/api/projects/{number}/import", json=self.random.choice([rows, annotated]))
            case "submit":
                api("POST", f"/api/tasks/{task}/annotations/", json={"result": [region]})
            case "skip":
                api("POST", f"/api/tasks/{task}/annotations/", json={"result": [], "was_cancelled": True})
            case "change" if one:
                api("PATCH", f"/api/annotations/{one}/", json={"result": [region]})
            case "truth" if one:
                api("PATCH", f"/api/annotations/{one}/", json={"ground_truth": True})
            case "clear" if one:
                api("DELETE", f"/api/annotations/{one}/")
            case "delete" if len(tasks) > 3:
                api("DELETE", f"/api/tasks/{task}/")
            case "data":
                api("PATCH", f"/api/tasks/{task}/", json={"data": {"image": f"http://images/new{task}.jpg"}})

    def read(self) -> None:
        """One look, two at once, or one after a restart; or Label Studio's clock is found to have been ahead."""
        uid, now = self.connected.uid, time.time()
        match self.random.choice(["events", "whole", "deletions", "both", "restart", "ahead"]):
            case "events":
                sync(self.services, uid, now, whole=False)
            case "whole":
                sync(self.services, uid, now)
            case "deletions":
                sync(self.services, uid, now, whole=False, deletions=True)
            case "both":
                with ThreadPoolExecutor(3) as threads:
                    looks = [threads.submit(sync, self.services, uid, now, whole=bool(each)) for each in (0, 1)]
                    looks.append(threads.submit(self.act))
                    for each in looks:
                        each.result(60)
            case "restart":
                self.services.close()
                self.services = Services(self.services.settings)
                sync(self.services, uid, now, compare=True)
            case "ahead":
                self.services.store.save_project(uid, cursor=now + 86400)
                sync(self.services, uid, now)


def test_after_any_life_the_ledger_equals_the_export(connected: Connected) -> None:
    """Twelve looks among two dozen acts; what they are depends on the seed alone."""
    life = Life(connected, Random(20), connected.services)
    try:
        for _ in range(12):
            for _ in range(life.random.randint(0, 4)):
                life.act()
            life.read()
        life.act()
        while not sync(life.services, connected.uid, time.time(), compare=True).complete:
            pass
        there = exported(connected.server, connected.number)
        assert kept(life.services, connected.uid) == there
        assert len(there) > 12 and any(annotation is None for _, annotation, _ in there.values())
    finally:
        life.services.close()
