"""A worker's life on a small disk, in a process of its own: `python -m support.full_disk_life FOLDER`.

The worker, DBOS, the trainings and the databases are real; only Label Studio is missing, so that the annotations are
written into the ledger by hand. It prints what was seen as JSON, on its last line.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from support.small_disk import fill, free, mount
from support.tiny import SIZE, tiny_yolo

from backend import worker as module
from backend.engine.environment import prepare
from backend.fit.sync import Synced
from backend.fit.workflow import Training
from backend.health import storage
from backend.labelstudio.records import AnnotationRecord, TaskRecord
from backend.observability.logs import configure
from backend.services import Services
from backend.settings import Settings
from backend.store.jobs import Job

UID = "1.100"
CONFIG = """
<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
  <Label value="Disc"/></RectangleLabels></View>
"""
PATIENCE = 150.0
"""Seconds for what takes a few on an idle machine."""


class Life:
    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        mount(self.home, 200)
        prepare(self.home)
        tiny_yolo(self.home / "models" / "tiny.pt", ["Disc"], {})
        self.settings = Settings(
            home=self.home, base_model="tiny.pt", image_size=SIZE, train_minutes=3, min_free_gb=0.1, device="cpu",
            train_threads=1, engine="openvino", min_new_annotations=1000, max_class_drop=1.0,
        )  # fmt: skip
        self.services = Services(self.settings)
        self.services.store.save_project(UID, label_config=CONFIG)
        self.annotate(12)
        # Nobody reads Label Studio here.
        module.Training = partial(Training, read=lambda *given, **named: None)  # type: ignore[attr-defined]
        module.sync = lambda *given, **named: Synced(0, 0)  # type: ignore[attr-defined]
        self.worker = module.Worker(self.services)
        self.thread = threading.Thread(target=self.worker.run, daemon=True)
        self.thread.start()

    def annotate(self, count: int) -> None:
        when = datetime.now(UTC)
        tasks = []
        for number in range(count):
            value = {"x": 20, "y": 20, "width": 40, "height": 40, "rotation": 0, "rectanglelabels": ["Disc"]}
            region = {"id": "r", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}
            annotation = AnnotationRecord(number, [region], False, False, when, when, None, None, None)
            tasks.append(TaskRecord(number, when, when, {"image": picture(number)}, (annotation,)))
        self.services.ledger.update(UID, tasks, when.timestamp())

    # ---- what is seen

    def ask(self) -> Job:
        return self.services.jobs.request(UID, "asked for in a test", time.time())[0]

    def job(self, job_id: str) -> Job:
        found = self.services.jobs.get(job_id)
        assert found is not None
        return found

    def trainers(self) -> list[psutil.Process]:
        found = []
        for each in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "backend.fit.training.train" in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE:
                    found.append(each)
        return found

    def wait(self, what: Callable[[], Any], told: str) -> float:
        """Seconds until it was so."""
        began = time.monotonic()
        while not what():
            if time.monotonic() - began > PATIENCE:
                raise AssertionError(f"{told} did not happen; {self.services.jobs.of_project(UID, 1)}")
            time.sleep(0.05)
        return time.monotonic() - began

    def doctor(self, job_id: str) -> str:
        last, progress = self.job(job_id), self.services.ledger.progress(UID)
        return str(storage.training("training", last, progress, self.settings, time.time(), 1))

    def until(self, moment: str, job_id: str) -> None:
        folder = self.home / "jobs" / job_id
        moments: dict[str, Callable[[], Any]] = {
            "reading": lambda: folder.exists(),
            "training": lambda: list(folder.glob("network-*/run/weights/last.pt")),
            "measuring": lambda: list(folder.glob("network-*/trained.json")),
            "registering": lambda: (folder / "result.json").exists(),
        }
        self.wait(moments[moment], f"{moment} of {self.job(job_id)}")

    # ---- what happens

    def full(self, moment: str) -> dict[str, Any]:
        """Fill the disk in one moment of a training, and free it when nothing of the training lives."""
        job = self.ask()
        self.until(moment, job.id)
        fill(self.home)
        waited = self.wait(lambda: self.job(job.id).status != "running", "that it is no longer running")
        seen = self.job(job.id)
        found: dict[str, Any] = {
            "waited": waited, "status": seen.status, "message": seen.message, "trainers": len(self.trainers()),
            "doctor": self.doctor(job.id), "joined": self.ask().status,
        }  # fmt: skip
        free(self.home)
        again = self.wait(lambda: self.job(job.id).status != "queued", "that it goes on")
        self.wait(lambda: self.job(job.id).finished_at is not None, "its end")
        return found | {"again": again, "end": self.job(job.id).status, "said": self.job(job.id).message}

    def cancelled_while_full(self) -> dict[str, Any]:
        job = self.ask()
        self.until("training", job.id)
        fill(self.home)
        self.wait(lambda: self.job(job.id).status != "running", "that it is no longer running")
        with contextlib.suppress(Exception):  # there may be no room even for this
            self.services.jobs.cancel(UID)
        if not self.job(job.id).cancel:
            free(self.home)
            self.services.jobs.cancel(UID)
        took = self.wait(lambda: self.job(job.id).finished_at is not None, "its end")
        free(self.home)
        return {"took": took, "end": self.job(job.id).status, "left": [each.name for each in self.left(job)]}

    def killed(self) -> dict[str, Any]:
        job = self.ask()
        self.until("training", job.id)
        for each in self.trainers():
            each.kill()
        self.wait(lambda: self.job(job.id).finished_at is not None, "its end")
        return {"end": self.job(job.id).status, "left": [each.name for each in self.left(job)]}

    def lost_thread(self) -> dict[str, Any]:
        """The steps' thread dies of something that nobody foresaw, in the middle of DBOS's own work."""
        from dbos._sys_db import SystemDatabase

        right = SystemDatabase.record_operation_result

        def wrong(*given: Any, **named: Any) -> Any:
            SystemDatabase.record_operation_result = right
            raise SystemExit("the thread is gone")

        job = self.ask()
        self.until("reading", job.id)
        SystemDatabase.record_operation_result = wrong
        self.wait(lambda: self.job(job.id).status == "queued" and self.job(job.id).started_at, "the death")
        again = self.wait(lambda: self.job(job.id).status == "running", "that it goes on")
        self.wait(lambda: self.job(job.id).finished_at is not None, "its end")
        return {"again": again, "end": self.job(job.id).status}

    def no_room(self) -> dict[str, Any]:
        """Less than a training needs, though there is room enough for everything else."""
        fill(self.home, left=60 * 2**20)
        job = self.ask()
        self.wait(lambda: "room" in self.job(job.id).message, "that it waits for room")
        time.sleep(5)
        found = {"message": self.job(job.id).message, "doctor": self.doctor(job.id), "trainers": len(self.trainers())}
        self.services.jobs.cancel(UID)
        took = self.wait(lambda: self.job(job.id).finished_at is not None, "its end")
        free(self.home)
        return found | {"cancelled": took, "end": self.job(job.id).status}

    def left(self, job: Job) -> list[Path]:
        """What is left of a job's folder, which goes just after the job has ended."""
        until = time.monotonic() + 10
        while (found := list((self.home / "jobs").glob(f"*{job.id}*"))) and time.monotonic() < until:
            time.sleep(0.1)
        return found


def picture(number: int) -> str:
    pixels = np.full((SIZE, SIZE, 3), 15 * number, np.uint8)
    pixels[12:36, 12:36] = 255 - 15 * number
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def main() -> None:
    configure("INFO", "worker")
    life, seen = Life(Path(sys.argv[1])), {}
    for name in sys.argv[2:]:
        what, _, moment = name.partition(":")
        print("=====", name, file=sys.stderr, flush=True)
        seen[name] = getattr(life, what)(*([moment] if moment else []))
        print(seen[name], file=sys.stderr, flush=True)
    life.worker.stop()
    life.thread.join(30)
    print(json.dumps(seen), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
