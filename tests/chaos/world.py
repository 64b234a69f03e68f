"""A Label Studio, a yoloop, what stands between them, and an annotator who never stops."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from chaos.proxy import Proxy
from chaos.tree import Tree
from support.labelstudio import LabelStudioServer
from support.results import evidence
from support.shapes import Picture, draw_pictures
from support.tiny import SIZE, YAML
from support.waiting import wait_for

from backend.engine.environment import prepare
from backend.store.database import Store
from backend.store.jobs import Jobs
from model_registry import Registry, Version

ROOT = Path(__file__).parents[2]
CONFIG = (ROOT / "label_config.xml").read_text()

FIRST = 24
"""Annotations before the first round."""

OPEN = 16
"""Unlabelled tasks that there are at least."""

HOME_MB = 768
PATIENCE = 3.0
"""Seconds without any training after which the annotator presses the button."""

TRAINING = 300
"""Seconds in which the world has to come to rest."""

QUICK = {
    "YOLOOP_BASE_MODEL": "tiny.pt",
    "YOLOOP_IMAGE_SIZE": str(SIZE),
    "YOLOOP_TRAIN_MINUTES": "0.06",
    "YOLOOP_MIN_NEW_ANNOTATIONS": "4",
    "YOLOOP_MIN_PER_CLASS": "1",
    "YOLOOP_MAX_TRAININGS_PER_HOUR": "100000",
    "YOLOOP_MAX_CLASS_DROP": "1",
    "YOLOOP_COOLDOWN": "0",
    "YOLOOP_SYNC_INTERVAL": "3",
    "YOLOOP_MIN_FREE_GB": "0.1",
    "YOLOOP_DEBOUNCE": "0.5",
    "YOLOOP_DEBOUNCE_MAX": "3",
}
"""A life in a hurry."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A version's ledger: ids of the annotations that it was taught, or judged on."""

    version: str
    decision: str
    annotations: frozenset[int]


class World:
    """One project's life.

    Args:
        folder: holds all of it.
        template: a migrated Label Studio, see `support.labelstudio.make_template`.
        seed: of the pictures.
    """

    def __init__(self, folder: Path, template: Path, seed: int) -> None:
        self.folder, self._seed = folder, seed
        self.studio = LabelStudioServer(folder / "ls", template=template)
        self.home = folder / "home"
        self.mounted = False
        self.open: list[int] = []
        self.submitted: dict[int, int] = {}
        """Annotation → its task, of all that a person was told are stored."""
        self._pictures: dict[int, Picture] = {}
        self._batches = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[World]:
        """Start all of it and bring two versions into service; end it afterwards."""
        prepare(self.folder)
        with self.studio:
            self.proxy = Proxy(self.studio.port)
            self._mount()
            models = self.folder / "models"
            blank_yolo(models / "tiny.pt")
            self.yoloop = Tree(
                self.home, self.studio, **QUICK, YOLOOP_MODELS=str(models), LABEL_STUDIO_URL=self.proxy.url
            )
            try:
                with evidence("yoloop", self.yoloop.logs):
                    self._begin()
                    yield self
            finally:
                self.yoloop.kill_all()
                self.proxy.close()
                if self.mounted:
                    subprocess.run([shutil.which("umount") or "umount", "-l", str(self.home)], check=False)

    def _begin(self) -> None:
        body = {"title": "chaos", "label_config": CONFIG}
        self.project = int(self.studio.api("POST", "/api/projects/", json=body)["id"])
        self.more_tasks(FIRST + OPEN)
        self.yoloop.start()
        self.yoloop.run("connect", "--project", str(self.project), "--url", self.yoloop.url)
        (self.uid,) = (each.uid for each in self.store.projects())
        for part in (FIRST - 4, 4):  # two versions, so that one can fall back upon the other
            for _ in range(part):
                self.submit()
            self.settle(TRAINING)
            newest = self.registry.versions(self.uid)[0]
            if not newest.champion:
                self.registry.promote(self.uid, newest.number, "promoted by hand")

    # ---- the annotator

    def more_tasks(self, count: int) -> None:
        """Import pictures as a person does in the browser."""
        self._batches += 1
        name = f"{self._seed}{self._batches:03}"
        pictures = draw_pictures(self.folder / "pictures", count, seed=int(name), size=SIZE)
        for start in range(0, count, 30):
            batch = pictures[start : start + 30]
            files = {str(at): (each.path.name, each.path.read_bytes(), "image/jpeg") for at, each in enumerate(batch)}
            self.studio.api("POST", f"/api/projects/{self.project}/import", files=files)
        by_name = {each.path.stem: each for each in pictures}
        for task in self.tasks():
            found = re.search(r"shapes-\d+-\d{4}", task["data"]["image"])
            if task["id"] not in self._pictures and found:
                self._pictures[task["id"]] = by_name[found[0]]
                self.open.append(task["id"])

    def submit(self) -> int:
        """Annotate the next task as a careful person would, in Label Studio itself."""
        task = self.open.pop(0)
        body = {"result": self._pictures[task].result(), "lead_time": 2.0}
        made = self.studio.api("POST", f"/api/tasks/{task}/annotations/?project={self.project}", json=body)
        self.submitted[int(made["id"])] = task
        return int(made["id"])

    def next(self) -> None:
        """Open the next task: Label Studio then asks yoloop for suggestions, and stores them."""
        self.studio.api("GET", f"/api/projects/{self.project}/next")

    def press_train(self) -> bool:
        """The button Start Training, at yoloop's own address; whether it was taken."""
        body = {"action": "START_TRAINING", "project": self.studio.api("GET", f"/api/projects/{self.project}/")}
        with contextlib.suppress(requests.RequestException):
            return requests.post(f"{self.yoloop.url}/webhook", json=body, timeout=20).ok
        return False

    def tasks(self) -> list[dict[str, Any]]:
        path = f"/api/tasks?project={self.project}&fields=all&page_size=2000&review=true"
        found: list[dict[str, Any]] = self.studio.api("GET", path)["tasks"]
        return found

    # ---- what is known of yoloop

    @property
    def store(self) -> Store:
        if not hasattr(self, "_store"):
            self._store = Store(f"sqlite:///{self.home / 'yoloop.db'}")
        return self._store

    @property
    def registry(self) -> Registry:
        if not hasattr(self, "_registry"):
            self._registry = Registry(f"sqlite:///{self.home / 'mlflow.db'}", self.home / "registry")
        return self._registry

    def jobs(self) -> Jobs:
        return Jobs(self.store)

    def phase(self) -> str:
        """Where the loop is: idle, reading, training, measuring, promoting or refreshing."""
        jobs = self.jobs().unfinished()
        if not jobs:
            return "refreshing" if self.yoloop.named("backend.suggestions.refresh") else "idle"
        job = jobs[0]
        folder = self.home / "jobs" / job.id
        if (folder / "result.json").exists():
            return "promoting"
        if job.epoch is not None:
            return "measuring" if job.epoch >= (job.epochs or 0) else "training"
        return "reading"

    def wait_for_phase(self, phase: str, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.phase() == phase:
                return True
            time.sleep(0.1)
        return False

    def learned(self) -> Learned | None:
        """The ledger of the newest version that the gate has decided on."""
        for version in self.registry.versions(self.uid):
            if version.decision != "undecided":
                images = json.loads(self.artifact(version, "manifest.json").read_text())["images"]
                known = frozenset(each["annotation"] for each in images if not each["unreadable"])
                return Learned(version.name, version.decision, known)
        return None

    def artifact(self, version: Version, name: str) -> Path:
        """Where the registry stores a version's file."""
        (found,) = (self.home / "registry" / "artifacts").glob(f"{version.run_id}/artifacts/{name}")
        return found

    def missing(self) -> set[int]:
        """Submitted annotations that are not in the newest version's ledger."""
        learned = self.learned()
        return set(self.submitted) - (learned.annotations if learned else frozenset())

    def served(self) -> str:
        """The version that answers now; empty when nothing does."""
        body = {"project": self.uid, "schema": CONFIG, "hostname": self.studio.url}
        with contextlib.suppress(requests.RequestException, ValueError, KeyError):
            return str(requests.post(f"{self.yoloop.url}/setup", json=body, timeout=10).json()["model_version"])
        return ""

    def settle(self, seconds: float) -> str:
        """Wait until all that was submitted is learned and the champion serves. Returns what is still wrong then."""
        until, pressed, wrong = time.monotonic() + seconds, time.monotonic(), "nothing was looked at"
        while time.monotonic() < until:
            try:
                wrong = self._unsettled()
                if not wrong:
                    return ""
                # Few annotations do not start a training by themselves: a person presses the button.
                if time.monotonic() - pressed > PATIENCE and not self.jobs().unfinished() and self.missing():
                    self.press_train()
                    pressed = time.monotonic()
            except Exception as error:  # a database that is locked, a file that is being replaced
                wrong = f"{type(error).__name__}: {error}"
            time.sleep(1.0)
        return f"after {seconds:.0f} s: {wrong}"

    def _unsettled(self) -> str:
        if missing := self.missing():
            return f"{len(missing)} annotations are in no ledger: {sorted(missing)[:10]}"
        if jobs := self.jobs().unfinished():
            return f"a job is {jobs[0].status}: {jobs[0].message}"
        champion = self.registry.champion_number(self.uid)
        if champion is not None and (served := self.served()) != f"yoloop-v{champion}":
            return f"{served or 'nothing'} serves instead of yoloop-v{champion}"
        return ""

    def _mount(self) -> None:
        """A file system of its own for the home, where that is allowed: then it can be full."""
        self.home.mkdir(parents=True)
        mount = shutil.which("mount")
        if mount is not None:
            options = ["-t", "tmpfs", "-o", f"size={HOME_MB}m,mode=0700", "tmpfs", str(self.home)]
            self.mounted = subprocess.run([mount, *options], check=False, capture_output=True).returncode == 0

    def wait_until_serving(self) -> None:
        wait_for(lambda: self.served().startswith("yoloop-v"), 90, "a version to serve")


def blank_yolo(path: Path) -> Path:
    """A tiny network that knows nothing yet."""
    from ultralytics import YOLO

    path.parent.mkdir(parents=True, exist_ok=True)
    yaml = path.with_suffix(".yaml")
    yaml.write_text(YAML.format(nc=3))
    YOLO(str(yaml), task="detect").save(str(path))
    yaml.unlink()
    return path
