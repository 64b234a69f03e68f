"""Promotion and rollback under load: no request fails, and each answer comes from the version it names."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from support.bodies import UID, config, predict, setup, task
from support.shapes import LABELS
from support.tiny import SIZE
from support.waiting import wait_for

from backend.app import create_app
from backend.labels.networks import Network
from backend.labels.schema import parse_label_config
from backend.served_models.cache import MOST_UNTRAINED
from backend.served_models.parts import Part
from backend.served_models.served import own_suggestions
from backend.served_models.thresholds import ThresholdPolicy
from backend.served_models.version_string import fingerprint
from backend.server.process import Serving
from model_registry import Version

Start = Callable[..., Serving]
Weights = Callable[..., Path]

PART = Part(Network("detect", "detect", LABELS))
SCORES = {"v0": 0.9, "v1": 0.8, "v2": 0.7, "v3": 0.6}
"""What each version scores its discs with, which tells them apart."""


@pytest.fixture
def serving(start: Start) -> Serving:
    return start(finds={1: (0, SCORES["v0"])})


@pytest.fixture
def app(serving: Serving) -> Flask:
    return create_app(serving=serving)


def register(serving: Serving, weights: Path, uid: str = UID) -> Version:
    """The next version of a project, as a training registers it."""
    registry, schema = serving.services.registry, parse_label_config(config())
    return registry.register(
        uid,
        f"training {time.monotonic_ns()}",
        {"weights.pt": weights},
        metrics={},
        params={},
        tags={
            "classes": json.dumps(LABELS),
            "image_size": str(SIZE),
            "fingerprint": fingerprint(own_suggestions(schema, [PART]), ThresholdPolicy.of(serving.settings)),
        },
    )


def version(app: Flask) -> str:
    found: str = app.test_client().post("/setup", json=setup()).get_json()["model_version"]
    return found


def wait_for_version(app: Flask, name: str) -> None:
    """Until /setup tells of a version; nobody asks for it, the server looks by itself."""
    wait_for(lambda: version(app) == name, 20, f"/setup to say {name}", pause=0.05)


class Load:
    """Eight threads that predict without a pause, and what they were answered."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._stop = threading.Event()
        self.wrong: list[Any] = []
        self.answers: list[str] = []
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(8)]

    def _run(self) -> None:
        client = self._app.test_client()
        while not self._stop.is_set():
            try:
                response = client.post("/predict", json=predict([task(1), task(2)]))
                entries = response.get_json()["results"]
                for entry in entries:
                    found = {round(region["score"], 2) for region in entry["result"]}
                    if response.status_code != 200 or found != {SCORES[entry["model_version"].removeprefix("yoloop-")]}:
                        self.wrong.append(entry)
                    self.answers.append(entry["model_version"])
            except Exception as error:
                self.wrong.append(error)
                return

    def see(self, name: str) -> None:
        """Until every thread can have had an answer by that version."""
        until, want = time.monotonic() + 60, 32
        while self.answers[-want:] != [name] * want:
            assert time.monotonic() < until, f"still {set(self.answers[-want:])}; {self.wrong[:1]}"
            time.sleep(0.01)

    def stop(self) -> None:
        self._stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


@contextmanager
def load(app: Flask) -> Iterator[Load]:
    made = Load(app)
    for thread in made.threads:
        thread.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.slow
def test_promotions_and_rollbacks_under_load(app: Flask, serving: Serving, weights: Weights) -> None:
    registry = serving.services.registry
    assert version(app) == "yoloop-v0"
    for name in ("v1", "v2"):
        assert register(serving, weights(LABELS, {1: (0, SCORES[name])})).name == name
    with load(app) as running:
        running.see("yoloop-v0")
        registry.promote(UID, 1, "better")
        wait_for_version(app, "yoloop-v1")
        running.see("yoloop-v1")
        registry.promote(UID, 2, "better still")
        wait_for_version(app, "yoloop-v2")
        running.see("yoloop-v2")
        registry.rollback(UID)
        wait_for_version(app, "yoloop-v1")
        running.see("yoloop-v1")
        registry.rollback(UID)
        wait_for_version(app, "yoloop-v0")
        running.see("yoloop-v0")
    assert running.wrong == []
    assert set(running.answers) == {"yoloop-v0", "yoloop-v1", "yoloop-v2"}


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(
    app: Flask, serving: Serving, weights: Weights, tmp_path: Path
) -> None:
    registry = serving.services.registry
    register(serving, weights(LABELS, {1: (0, SCORES["v1"])}))
    registry.promote(UID, 1, "better")
    wait_for_version(app, "yoloop-v1")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    register(serving, tmp_path / "junk.pt")
    register(serving, weights(LABELS, {1: (0, SCORES["v3"])}))
    with load(app) as running:
        running.see("yoloop-v1")
        registry.promote(UID, 2, "by mistake")
        tried = serving.services.settings.root / "registry" / "local" / UID / "2" / "weights.pt"
        while not tried.exists():
            time.sleep(0.01)
        running.see("yoloop-v1")
        assert version(app) == "yoloop-v1"
        # The next good version is not held up by the broken one.
        registry.promote(UID, 3, "mended")
        wait_for_version(app, "yoloop-v3")
        running.see("yoloop-v3")
    assert running.wrong == []
    assert set(running.answers) == {"yoloop-v1", "yoloop-v3"}


def test_weights_that_changed_on_the_disk_are_not_served(
    app: Flask, serving: Serving, weights: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    registry = serving.services.registry
    register(serving, weights(LABELS, {1: (0, SCORES["v1"])}))
    (stored,) = (serving.settings.root / "registry" / "artifacts").rglob("weights.pt")
    stored.write_bytes(weights(LABELS, {1: (0, SCORES["v2"])}).read_bytes())
    assert version(app) == "yoloop-v0"
    registry.promote(UID, 1, "better")
    wait_for(lambda: "not the one that was registered" in caplog.text, pause=0.01)
    assert version(app) == "yoloop-v0"
    entries = app.test_client().post("/predict", json=predict([task(1)])).get_json()["results"]
    assert round(entries[0]["result"][0]["score"], 2) == SCORES["v0"]


def test_what_served_before_a_restart_serves_after_it(app: Flask, serving: Serving, start: Start) -> None:
    app.test_client().post("/setup", json=setup())
    stored = serving.settings.models_dir / "tiny.pt"
    register(serving, stored)
    serving.services.registry.promote(UID, 1, "better")
    wait_for_version(app, "yoloop-v1")
    serving.close()
    again = create_app(serving=start(finds={1: (0, SCORES["v2"])}))
    assert version(again) == "yoloop-v1"  # at once, although it is still being loaded
    entries = again.test_client().post("/predict", json=predict([task(1)])).get_json()["results"]
    assert entries[0]["model_version"] == "yoloop-v1"
    assert round(entries[0]["result"][0]["score"], 2) == SCORES["v0"]


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_the_last_good_version_serves_after_a_restart_when_the_champion_is_spoiled(
    app: Flask, serving: Serving, weights: Weights, start: Start, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.served_models.cache.RETRY_LOAD", 0.5)
    app.test_client().post("/setup", json=setup())
    registry = serving.services.registry
    for name in ("v1", "v2", "v3"):
        register(serving, weights(LABELS, {1: (0, SCORES[name])}))
        registry.promote(UID, int(name[1:]), "better")
    wait_for_version(app, "yoloop-v3")
    serving.close()
    shutil.rmtree(serving.settings.root / "registry" / "local")
    run = registry.version(UID, 3).run_id
    (stored,) = (serving.settings.root / "registry" / "artifacts" / run).rglob("weights.pt")
    whole = stored.read_bytes()
    stored.unlink()
    if harm == "changed":
        stored.write_bytes(whole[: len(whole) // 2])
    again = create_app(serving=start(finds={1: (0, SCORES["v0"])}))
    entries = again.test_client().post("/predict", json=predict([task(1)])).get_json()["results"]
    assert entries[0]["model_version"] == version(again) == "yoloop-v2"
    assert round(entries[0]["result"][0]["score"], 2) == SCORES["v2"]
    stored.write_bytes(whole)
    wait_for_version(again, "yoloop-v3")


def test_the_versions_are_listed(app: Flask, serving: Serving) -> None:
    version(app)
    client, registry = app.test_client(), serving.services.registry
    for _ in range(11):
        made = register(serving, serving.settings.models_dir / "tiny.pt")
    registry.promote(UID, 1, "First version.")
    registry.reject(UID, made.number, "It is worse.")
    for said in (client.get("/versions").get_json(), client.post("/versions", json={"project": UID}).get_json()):
        assert said["versions"] == [f"v{number}" for number in range(11, 0, -1)]
        newest, oldest = said["details"][0], said["details"][-1]
        assert (newest["version"], newest["champion"], newest["decision"]) == ("v11", False, "rejected")
        assert (oldest["version"], oldest["champion"], oldest["reason"]) == ("v1", True, "First version.")
    assert client.post("/versions", json={"project": "8.1"}).get_json()["versions"] == []


def test_the_models_used_least_recently_wait_on_the_disk(start: Start, weights: Weights) -> None:
    serving = start(max_models=2)
    other = {"8.1": 0.8, "9.1": 0.7, "10.1": 0.6}
    for uid, score in other.items():
        made = register(serving, weights(LABELS, {1: (0, score)}), uid)
        serving.services.registry.promote(uid, made.number, "better")
    client = create_app(serving=serving).test_client()
    models = serving.engine.models

    for uid in (*other, "8.1", "10.1", "9.1"):
        (entry,) = client.post("/predict", json=predict([task(1)], uid=uid)).get_json()["results"]
        assert round(entry["result"][0]["score"], 2) == other[uid]
        assert entry["model_version"] == "yoloop-v1"
        held = [slot for slot in models._slots.values() if slot.awake]
        assert len(held) <= 2
    assert set(models.loaded()) == set(other)


def test_what_anybody_can_name_is_not_remembered_for_ever(start: Start) -> None:
    serving = start()
    client = create_app(serving=serving).test_client()
    models = serving.engine.models
    for number in range(MOST_UNTRAINED + 30):
        named = config(f'model_path="{number}.pt"')
        (entry,) = client.post("/predict", json=predict([task(1)], named, f"{number + 1}.1")).get_json()["results"]
        assert f"{number}.pt" in entry["error"]
    assert len(models._slots) <= MOST_UNTRAINED + 1
    assert len(models._pretrained) <= 1
    shutil.copyfile(serving.settings.models_dir / "tiny.pt", serving.settings.models_dir / "7.pt")
    (entry,) = client.post("/predict", json=predict([task(1)], config('model_path="7.pt"'))).get_json()["results"]
    assert entry["result"]
