"""A project of Label Studio in memory, behind the real client: what its task listings tell, and when.

Its clock may jump, tasks may appear later than their time says, and `before` may do anything between two requests.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.records import ProjectInfo

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Car"/><Label value="Plane"/></RectangleLabels></View>'
)
INFO = ProjectInfo(1, "t", NOON, CONFIG, "")


def box(region_id: str, label: str = "Car", score: float | None = None, x: float = 1.0) -> dict[str, Any]:
    value = {"x": x, "y": 1.0, "width": 5.0, "height": 5.0, "rectanglelabels": [label]}
    made = {"id": region_id, "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}
    return made if score is None else made | {"score": score}


class TaskServer:
    """The tasks of one project, as JSON.

    `now` is the true time and `ahead` how far Label Studio's clock is from it; `late` holds what is written already
    but cannot be seen yet. Every change has a time of its own, except where several are made in one transaction.
    """

    def __init__(self) -> None:
        self.now = NOON
        self.ahead = timedelta()
        self.rows: dict[int, dict[str, Any]] = {}
        self.late: list[Callable[[], None]] = []
        self.last = 0

    def time(self) -> str:
        """Label Studio's time, a little later each time that it is asked for."""
        self.now += timedelta(milliseconds=1)
        return (self.now + self.ahead).isoformat()

    def number(self) -> int:
        self.last += 1
        return self.last

    def import_tasks(self, count: int, *, annotated: bool = False) -> list[int]:
        """New tasks, all with one time."""
        at, made = self.time(), []
        for _ in range(count):
            task = self.number()
            row = {"id": task, "created_at": at, "updated_at": at, "data": {"image": f"http://images/{task}.jpg"}}
            self.rows[task] = row | {"annotations": [], "predictions": []}
            if annotated:
                self.rows[task]["annotations"].append(self.annotation(at))
            made.append(task)
        return made

    def annotation(self, at: str, *regions: dict[str, Any]) -> dict[str, Any]:
        number = self.number()
        return {
            "id": number, "result": list(regions) or [box(f"r{number}")], "was_cancelled": False,
            "ground_truth": False, "created_at": at, "updated_at": at, "completed_by": 1, "lead_time": None,
            "parent_prediction": None,
        }  # fmt: skip

    def annotate(self, task: int) -> None:
        at = self.time()
        self.rows[task]["annotations"].append(self.annotation(at))
        self.rows[task]["updated_at"] = at

    def change(self, task: int) -> None:
        at = self.time()
        for each in self.rows[task]["annotations"][-1:]:
            each |= {"result": [box(f"r{self.number()}", x=2.0)], "updated_at": at}
        self.rows[task]["updated_at"] = at

    def clear(self, task: int) -> None:
        """All annotations of a task are deleted."""
        self.rows[task] |= {"annotations": [], "updated_at": self.time()}

    def delete(self, task: int) -> None:
        self.rows.pop(task, None)

    def slowly(self, act: Callable[[], None]) -> None:
        """What `act` does has its time now, and is seen only once `commit` is called."""
        seen = copy.deepcopy(self.rows)
        act()
        written, self.rows = self.rows, seen
        changed = {task: row for task, row in written.items() if row != seen.get(task)}
        self.late.append(lambda: self.rows.update(copy.deepcopy(changed)))

    def commit(self) -> None:
        for act in self.late:
            act()
        self.late.clear()


class TaskClient(LabelStudioClient):
    """The real client's listings, answered by a `TaskServer`, `page` tasks at most at a time."""

    def __init__(self, server: TaskServer, page: int = 3) -> None:
        super().__init__("http://labelstudio", "t" * 40)
        self.server, self.page = server, page
        self.asked: list[str] = []
        self.before: Callable[[str], None] = lambda what: None

    def project(self, project_id: int) -> ProjectInfo:
        self._ask("project")
        return ProjectInfo(1, "t", NOON, CONFIG, "", tasks=len(self.server.rows))

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        self.before(what)
        self.clock = (self.server.now + self.server.ahead).replace(microsecond=0)

    def _tasks(
        self, project_id: int, filters: Any, order: str, page_size: int, include: str, read: Any, only: Any = None
    ) -> Any:
        self._ask("times" if include == "id,updated_at" else "tasks" if only is None else "named")
        rows = [json.loads(json.dumps(row)) for row in self.server.rows.values() if only is None or row["id"] in only]
        for each in filters:
            column, value = each["filter"].rpartition(":")[2], each["value"]
            if each["type"] == "Datetime":
                value = datetime.fromisoformat(value)
            for row in list(rows):
                found = datetime.fromisoformat(row[column]) if each["type"] == "Datetime" else row[column]
                if not (found > value if each["operator"] == "greater" else found == value):
                    rows.remove(row)
        rows.sort(key=lambda row: (datetime.fromisoformat(row[order]) if order == "updated_at" else 0, row["id"]))
        page = rows[: min(page_size, self.page)] if only is None else rows
        return [read(row) for row in page], len(rows) > len(page) > 0
