from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.tiny import tiny_yolo
from support.web import Server, answer

from backend.health import storage
from backend.health.check import Check
from backend.labels.schema import parse_label_config
from backend.settings import Settings
from backend.store.database import Project, Store
from backend.store.hints import Hint
from backend.store.jobs import Job
from backend.store.progress import Progress
from backend.store.readings import Annotations
from backend.store.refreshes import Refresh

NOW = 1_000_000.0
PROGRESS = Progress(labelled=12, new=3, seen=9)
JOB = Job("a", "7.5", "done", "10 new", NOW - 300, NOW - 290, NOW - 200, 3, 3, "v1 promoted: better.", "v1", False)
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="a" toName="image"><Label value="Car"/>'
    '</RectangleLabels><PolygonLabels name="b" toName="image"><Label value="Car"/></PolygonLabels></View>'
)


def settings(home: Path, **options: Any) -> Settings:
    return Settings(**{"home": home, "device": "cpu", **options})


def test_annotations_that_are_not_understood_are_to_mend() -> None:
    assert storage.learned_from("annotations", Annotations(3, 3, objects={"Car": 3}), 7).ok
    for known in (
        Annotations(3, 2, not_understood={"label `car` is not in the config": 1}),
        Annotations(3, 3, in_part=1),
    ):
        found = storage.learned_from("annotations", known, 7)
        assert found.ok is False and "`yoloop annotations 7 --not-understood`" in found.mend
        assert ("label `car` is not in the config (1)" in found.told) == bool(known.not_understood)


class TestDatabase:
    def test_a_whole_one(self, store: Store, tmp_path: Path) -> None:
        store.save_project("7.5")
        assert storage.database("database", tmp_path / "yoloop.db").ok
        assert storage.database("database", tmp_path / "none.db").ok and not (tmp_path / "none.db").exists()

    def test_a_locked_one(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "yoloop.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            found = storage.database("database", path, wait=0.1)
            assert found.ok is False and "locked" in found.told and "fuser" in found.mend
            other.execute("COMMIT")
        assert storage.database("database", path, wait=0.1).ok

    @pytest.mark.parametrize("where", [0, 4096])
    def test_a_damaged_one(self, tmp_path: Path, where: int) -> None:
        path = tmp_path / "yoloop.db"
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE t (x)")
            db.executemany("INSERT INTO t VALUES (?)", [[os.urandom(200)] for _ in range(200)])
            db.commit()
        whole = path.read_bytes()
        path.write_bytes(whole[:where] + b"\xff" * 2000 + whole[where + 2000 :])
        found = storage.database("database", path)
        assert found.ok is False and "is damaged" in found.told and "backup" in found.mend
        path.write_bytes(whole)
        assert storage.database("database", path).ok

    def test_a_folder_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "yoloop.db").mkdir()
        found = storage.database("database", tmp_path / "yoloop.db")
        assert found.ok is False and "cannot be written" in found.told


class TestTrackingServer:
    @pytest.fixture
    def mlflow(self) -> Iterator[Server]:
        server = Server()
        yield server
        server.close()

    def test_one_that_answers(self, mlflow: Server) -> None:
        mlflow.routes["/health"] = answer(b"OK")
        assert storage.tracking_server("registry", f"{mlflow.url}/").ok

    @pytest.mark.parametrize(("status", "mend"), [(401, "MLFLOW_TRACKING_USERNAME"), (500, "MLFLOW_TRACKING_URI")])
    def test_one_that_refuses(self, mlflow: Server, status: int, mend: str) -> None:
        mlflow.routes["/health"] = answer(b"", status)
        found = storage.tracking_server("registry", mlflow.url)
        assert found.ok is False and mend in found.mend

    def test_one_that_is_not_there(self, mlflow: Server) -> None:
        mlflow.close()
        found = storage.tracking_server("registry", mlflow.url)
        assert found.ok is False and "does not answer" in found.told


class TestWeights:
    def test_all_that_the_config_asks_for(self, tmp_path: Path) -> None:
        schema, here = parse_label_config(CONFIG), settings(tmp_path, offline=True)
        missing = storage.weights("model", here, schema)
        assert missing.ok is False and "yolo11n.pt" in missing.told and "YOLOOP_OFFLINE" in missing.mend
        here.models_dir.mkdir()
        tiny_yolo(here.models_dir / "tiny.pt", ["Car"], {}).rename(here.models_dir / "yolo11n.pt")
        assert "yolo11n-seg.pt" in storage.weights("model", here, schema).told
        (here.models_dir / "yolo11n-seg.pt").write_bytes((here.models_dir / "yolo11n.pt").read_bytes())
        found = storage.weights("model", here, schema)
        assert found.ok and found.told == (
            "Nothing is trained yet; yolo11n.pt suggests until then. yolo11n-seg.pt finds boxes, so b gets suggestions "
            "after the first training."
        )

    @pytest.mark.parametrize("content", [b"this is no model", b"", b"PK\x03\x04 half an archive"])
    def test_a_file_that_is_no_model(self, tmp_path: Path, content: bytes) -> None:
        here = settings(tmp_path, base_model="x.pt")
        here.models_dir.mkdir()
        (here.models_dir / "x.pt").write_bytes(content)
        found = storage.weights("model", here, parse_label_config(CONFIG))
        assert found.ok is False and "x.pt" in found.told and "suggests until then" not in found.told

    def test_a_setting_that_names_none(self, tmp_path: Path) -> None:
        found = storage.weights("model", settings(tmp_path, base_model=""), parse_label_config(CONFIG))
        assert found.ok is False and "YOLOOP_BASE_MODEL" in found.told + found.mend


class TestQueue:
    def look(self, tmp_path: Path, hints: list[Hint], jobs: list[Job], works: bool, failing: bool = False) -> Check:
        return storage.queue(hints, jobs, settings(tmp_path), NOW, works, failing=failing)

    def test_nothing_or_little_waits(self, tmp_path: Path) -> None:
        fresh = Hint("7.5", NOW - 20, NOW - 1, 4, False)
        queued = replace(JOB, status="queued", finished_at=None, created_at=NOW - 20)
        assert self.look(tmp_path, [], [], False).told == "Nothing waits."
        assert self.look(tmp_path, [fresh], [queued], True).ok

    @pytest.mark.parametrize(("works", "mend"), [(False, "Start it with `yoloop up`."), (True, "Restart `yoloop up`")])
    def test_events_that_wait_long(self, tmp_path: Path, works: bool, mend: str) -> None:
        found = self.look(tmp_path, [Hint("7.5", NOW - 900, NOW - 1, 4, False)], [], works)
        assert found.ok is False and found.told == "4 events wait, the first for 15 min." and mend in found.mend

    def test_events_of_a_project_that_cannot_be_read_wait_for_the_next_try(self, tmp_path: Path) -> None:
        late = [Hint("7.5", NOW - 900, NOW - 900, 1, False)]
        assert self.look(tmp_path, late, [], works=True, failing=True).ok
        assert self.look(tmp_path, late, [], works=False, failing=True).ok is False

    def test_trainings_that_wait_long(self, tmp_path: Path) -> None:
        queued = replace(JOB, status="queued", finished_at=None, created_at=NOW - 3600)
        running = replace(queued, id="b", status="running")
        assert "1 trainings wait" in self.look(tmp_path, [], [queued], True).told
        assert self.look(tmp_path, [], [queued, running], True).ok  # one at a time
        assert "nobody works on it" in self.look(tmp_path, [], [running], False).told
        assert "nobody works on it" in self.look(tmp_path, [], [queued], False).told, "it had begun"
        roomless = replace(queued, message="waits for room, as only 0.1 GiB are free")
        assert self.look(tmp_path, [], [roomless], True).ok, "another check tells of the disk"


class TestSync:
    @pytest.fixture
    def project(self, store: Store) -> Project:
        store.save_project("7.5", synced_at=NOW - 30)
        return store.find(7)

    def look(self, tmp_path: Path, project: Project, works: bool = True) -> Check:
        return storage.synced("sync", project, settings(tmp_path), NOW, works, "yoloop connect --project 7")

    def test_one_of_late(self, tmp_path: Path, project: Project) -> None:
        assert self.look(tmp_path, project).told == "Label Studio was read 30 s ago."

    def test_one_that_failed(self, tmp_path: Path, project: Project) -> None:
        found = self.look(tmp_path, replace(project, sync_error="It is down."))
        assert found.ok is False and "It is down." in found.told and "`yoloop connect --project 7`" in found.mend

    def test_one_long_ago_or_never(self, tmp_path: Path, project: Project) -> None:
        old = replace(project, synced_at=NOW - 7200)
        assert "2 h ago" in self.look(tmp_path, old).told
        assert "Restart" in self.look(tmp_path, old).mend
        assert self.look(tmp_path, old, works=False).mend == "Start it with `yoloop up`."
        never = self.look(tmp_path, replace(project, synced_at=None), works=False)
        assert never.ok is False and never.mend == "Start it with `yoloop up`."


class TestTraining:
    def look(self, tmp_path: Path, last: Job | None, progress: Progress = PROGRESS) -> Check:
        return storage.training("training", last, progress, settings(tmp_path), NOW, 7)

    def test_what_the_next_one_waits_for(self, tmp_path: Path) -> None:
        assert self.look(tmp_path, None).told == "There was none. The next one waits: 3 of 10 new annotations."
        found = self.look(tmp_path, JOB)
        assert found.ok and "v1 promoted: better. The next one waits: 3 of 10" in found.told
        assert "is due: 13 new" in self.look(tmp_path, JOB, replace(PROGRESS, new=13)).told

    def test_pretrained_weights_wait_for_less(self, tmp_path: Path) -> None:
        config = (
            '<View><Image name="i" value="$i"/><RectangleLabels name="b" toName="i"><Label value="Tree"/>'
            "</RectangleLabels></View>"
        )
        ours = settings(tmp_path, base_model="mine.pt")
        ours.models_dir.mkdir(exist_ok=True)
        (ours.models_dir / "mine.pt").write_bytes(b"weights")
        progress = Progress(3, 3, 0)
        found = storage.training("training", None, progress, ours, NOW, 7, config)
        assert found.told == "There was none. The next one waits: 3 of 5 new annotations."

    def test_one_that_failed_and_the_one_after_it(self, tmp_path: Path) -> None:
        failed = replace(JOB, status="failed", message="The disk is full.")
        found = self.look(tmp_path, failed, replace(PROGRESS, new=13, failures=1, failed_at=NOW - 20))
        assert found.ok is False and "The disk is full." in found.told and "next try in 40 s" in found.told
        assert "`yoloop train --project 7`" in found.mend
        assert self.look(tmp_path, JOB).ok

    def test_one_that_runs(self, tmp_path: Path) -> None:
        running = replace(JOB, status="running", finished_at=None, message="epoch 3 of 20")
        assert self.look(tmp_path, running).told == "One is running: epoch 3 of 20."


def test_suggestions_of_unlabelled_tasks() -> None:
    done = Refresh("7.5", "k", "v2", 9, 8, 8, 0, 0, NOW, NOW, "")
    assert storage.refreshed("suggestions", None, 7).ok is None
    assert storage.refreshed("suggestions", done, 7).ok
    assert storage.refreshed("suggestions", replace(done, finished_at=None, done=3), 7).ok
    stopped = storage.refreshed("suggestions", replace(done, finished_at=None, message="It is down."), 7)
    assert stopped.ok is False and "It is down." in stopped.told and "`yoloop predict --project 7`" in stopped.mend
    assert storage.refreshed("suggestions", replace(done, done=7, failed=1), 7).ok is False
