"""How long the loop takes: from the last submitted annotation to the version that serves, and what one annotation more
costs in a large project. With a real Label Studio.

    python bench/loop.py [--tasks 10000] [--out bench]

`loop_s`: 200 annotated images of 160 pixels, random weights at the start, settings as they come; `loop_overhead_s` is
the part of it outside the training itself: waiting for quiet, reading, judging, registering, loading. `sync_growth`:
reading one new annotation and writing the dataset, in a project of so many annotated tasks against one of 100; both
have trained before. Adds its figures to results.json.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from speed import tell  # noqa: E402
from support.labelstudio import LabelStudioServer, make_template  # noqa: E402
from support.shapes import LABELS, draw_pictures  # noqa: E402
from support.waiting import wait_for  # noqa: E402
from support.web import Server, answer  # noqa: E402
from support.yoloop import Yoloop  # noqa: E402

from backend.fit.dataset.build import build  # noqa: E402
from backend.fit.sync import sync  # noqa: E402
from backend.labels.schema import parse_label_config  # noqa: E402
from backend.services import Services  # noqa: E402
from backend.settings import Settings  # noqa: E402

CONFIG = (ROOT / "label_config.xml").read_text()
IMAGES = 200
FEW = 100
ROUNDS = 5
TRAINING = 900.0
"""Seconds after which something is wrong."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=ROOT / "bench")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LabelStudioServer(folder / "ls", template=make_template(folder / "template")) as studio:
            tell(loop(studio, folder / "loop") | growth(studio, folder / "growth", given.tasks), given.out)


def loop(studio: LabelStudioServer, folder: Path) -> dict[str, float]:
    """Submit the last of the annotations that a first training waits for, and wait until its version answers."""
    web = Server()
    pictures = draw_pictures(folder / "pictures", IMAGES)
    for picture in pictures:
        web.routes[f"/{picture.path.name}"] = answer(picture.path.read_bytes())
    images = [f"{web.url}/{picture.path.name}" for picture in pictures]
    project = make_project(studio, images, [picture.result() for picture in pictures[:-1]])
    with Yoloop(folder / "home", studio, YOLOOP_MIN_NEW_ANNOTATIONS=str(IMAGES)) as yoloop:
        yoloop.run("connect", "--project", str(project), "--url", yoloop.url)
        (uid,) = (each.uid for each in yoloop.store.projects())
        (last,) = studio.api("GET", f"/api/tasks?project={project}&page_size=1&page={IMAGES}")["tasks"]
        time.sleep(10)  # what connecting brought about has ended
        began = time.monotonic()
        studio.api("POST", f"/api/tasks/{last['id']}/annotations/", json={"result": pictures[-1].result()})
        body = {"project": uid, "schema": CONFIG, "hostname": studio.url}
        wait_for(lambda: yoloop.post("/setup", body)["model_version"] == "yoloop-v1", TRAINING, "the first version")
        taken = time.monotonic() - began
        (version,) = yoloop.versions()
    web.close()
    trained = float(version["metrics"]["seconds"])
    return {"loop_s": taken, "loop_overhead_s": taken - trained, "loop_mAP50": float(version["metrics"]["mAP50"])}


def growth(studio: LabelStudioServer, folder: Path, many: int) -> dict[str, float]:
    """Seconds that one annotation more costs, in a small and in a large project."""
    web = Server()
    random = np.random.default_rng(0)
    for number in range(many + ROUNDS):
        coarse = random.integers(0, 256, (6, 8, 3), np.uint8)
        image = cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC)
        web.routes[f"/{number}.jpg"] = answer(cv2.imencode(".jpg", image)[1].tobytes())
    found: dict[str, float] = {}
    sides = {count: Side(studio, folder / str(count), web, count) for count in (FEW, many)}
    gc.freeze()  # the worker does so as well, and no worker holds ten thousand images for others
    times: dict[int, list[tuple[float, float]]] = {count: [] for count in sides}
    for _ in range(ROUNDS):
        for count, side in sides.items():
            times[count].append(side.one_more())
    for side in sides.values():
        side.services.close()
    web.close()
    middle = {count: np.median(np.array(each), axis=0) for count, each in times.items()}
    found["sync_growth"] = float(middle[many].sum() / middle[FEW].sum())
    found["sync_many_s"], found["dataset_many_s"] = (float(each) for each in middle[many])
    found["sync_few_s"], found["dataset_few_s"] = (float(each) for each in middle[FEW])
    return found


class Side:
    """A project of so many annotated tasks, which has been read and written once, and some without annotation."""

    def __init__(self, studio: LabelStudioServer, folder: Path, web: Server, count: int) -> None:
        self._studio, self._folder, self._count = studio, folder, count
        images = [f"{web.url}/{number}.jpg" for number in range(count + ROUNDS)]
        self._project = make_project(studio, images, [[box(number)] for number in range(count)])
        folder.mkdir(parents=True)
        self.services = Services(Settings(home=folder / "home", label_studio_url=studio.url, allowed_hosts="127.0.0.1"))
        made = studio.api("GET", f"/api/projects/{self._project}/")["created_at"]
        moment = time.strptime(made.partition(".")[0].rstrip("Z"), "%Y-%m-%dT%H:%M:%S")
        self._uid = f"{self._project}.{int(time.mktime(moment) - time.timezone)}"
        self.services.store.save_project(self._uid, url=studio.url, api_key=studio.pat())
        self._changes = 0
        self.measure()

    def one_more(self) -> tuple[float, float]:
        """Annotate one task more, read that and write the dataset: seconds of both."""
        self._changes += 1
        page = f"/api/tasks?project={self._project}&page_size=1&page={self._count + self._changes}"
        (task,) = self._studio.api("GET", page)["tasks"]
        self._studio.api("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": [box(self._changes + 7)]})
        # The overlap of reading would otherwise bring what the import wrote in its last seconds.
        time.sleep(6)
        return self.measure()

    def measure(self) -> tuple[float, float]:
        began = time.perf_counter()
        # As the worker does at an event, except that the first time the project itself is read, too.
        sync(self.services, self._uid, time.time(), whole=not self._changes)
        read = time.perf_counter()
        project = self.services.store.project(self._uid)
        assert project is not None
        schema = parse_label_config(project.label_config)
        teaching, load = self.services.ledger.teaching(self._uid), partial(self.services.ledger.examples, self._uid)
        dataset = build(self.services, project, schema, teaching, load, self._folder / "job")
        if len(dataset.learned) != self._count + self._changes:
            raise RuntimeError(f"{len(dataset.learned)} tasks were written")
        return read - began, time.perf_counter() - read


def make_project(studio: LabelStudioServer, images: list[str], results: list[list[dict[str, Any]]]) -> int:
    """A project whose first tasks are annotated."""
    project = int(studio.api("POST", "/api/projects/", json={"title": "bench", "label_config": CONFIG})["id"])
    tasks: list[dict[str, Any]] = [{"data": {"image": image}} for image in images]
    for task, result in zip(tasks, results, strict=False):
        task["annotations"] = [{"result": result}]
    for start in range(0, len(tasks), 500):
        studio.api("POST", f"/api/projects/{project}/import", json=tasks[start : start + 500])
    return project


def box(number: int) -> dict[str, Any]:
    label = LABELS[number % len(LABELS)]
    value = {"x": 10 + number % 50, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": [label]}
    return {
        "id": f"r{number}",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 64,
        "original_height": 48,
        "value": value,
    }


if __name__ == "__main__":
    main()
