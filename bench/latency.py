"""How fast the serving process answers while a training runs beside it, against how fast it answers alone.

    python bench/latency.py [--seconds 40]

Starts a serving process on a home of its own and then a real training below it, as `yoloop up` does, and
prints milliseconds and their ratio. The model has random weights: its time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import requests

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.shapes import LABELS, Picture, draw_pictures  # noqa: E402

from backend.engine.environment import prepare  # noqa: E402
from backend.fit.training.process import run_training  # noqa: E402
from backend.fit.training.spec import NetworkSpec, Spec  # noqa: E402
from backend.labels.networks import Network  # noqa: E402
from backend.processes.child import SUPERVISED  # noqa: E402

CONFIG = (ROOT / "label_config.xml").read_text()
PORT = 9191
CLICK = {
    "result": [
        {"type": "keypointlabels", "to_name": "image", "is_positive": True, "value": {"x": 50, "y": 50, "width": 0.2}}
    ]
}
"""What Label Studio's interactive mode sends when a person clicks."""

PROJECT = {"id": 1, "created_at": "2026-01-01T00:00:00Z", "label_config": CONFIG, "title": "bench"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        pictures = draw_pictures(home / "pictures", 60)
        _base_model(home)
        server = serve(home, engine="torch")  # no export of the base model comes between the two sides
        try:
            idle, busy = beside_a_training(home, pictures, seconds)
        finally:
            server.terminate()
            server.wait()
    print(f"{'request':<10}{'idle p50':>10}{'p99':>8}{'training p50':>14}{'p99':>8}{'p95 ratio':>11}   (ms)")
    for name in idle:
        alone, beside = np.percentile(idle[name], [50, 95, 99]), np.percentile(busy[name], [50, 95, 99])
        print(
            f"{name:<10}{alone[0]:>10.1f}{alone[2]:>8.1f}{beside[0]:>14.1f}{beside[2]:>8.1f}"
            f"{beside[1] / alone[1]:>11.2f}   n={len(idle[name])}, {len(busy[name])}"
        )
    ratio = np.median(idle["click"]) / np.median(idle["predict"])
    print(f"A click in interactive mode takes {ratio:.2f} times a task's suggestions (p50, idle).")


def beside_a_training(
    home: Path, pictures: Sequence[Picture], seconds: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """What `measure` gives while nothing else runs, and during a training."""
    idle = measure(pictures, seconds)
    stop = threading.Event()
    training = threading.Thread(target=train, args=(home, pictures, stop))
    training.start()
    try:
        wait(lambda: (home / "job" / "progress.json").exists(), 120)
        return idle, measure(pictures, seconds)
    finally:
        stop.set()
        training.join()


def measure(pictures: Sequence[Picture], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each kind of request, asked in turn for so many seconds."""
    tasks = [{"id": index, "data": {"image": data_uri(picture)}} for index, picture in enumerate(pictures)]
    uid = "1.1767225600"
    kinds: dict[str, tuple[str, Any]] = {
        "health": ("/health", None),
        "setup": ("/setup", {"project": uid, "schema": CONFIG, "hostname": "http://localhost"}),
        "webhook": ("/webhook", {"action": "ANNOTATION_CREATED", "project": PROJECT}),
        "predict": ("/predict", {"project": uid, "label_config": CONFIG, "tasks": []}),
        "click": ("/predict", {"project": uid, "label_config": CONFIG, "tasks": [], "params": {"context": CLICK}}),
    }
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    session = requests.Session()
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        for name, (path, body) in kinds.items():
            if path == "/predict":
                body["tasks"] = [tasks[count % len(tasks)]]
            began = time.perf_counter()
            url = f"http://127.0.0.1:{PORT}{path}"
            answer = session.get(url, timeout=30) if body is None else session.post(url, json=body, timeout=30)
            taken[name].append((time.perf_counter() - began) * 1000)
            answer.raise_for_status()
        count += 1
    return taken


def data_uri(picture: Picture) -> str:
    import base64

    return "data:image/jpeg;base64," + base64.b64encode(picture.path.read_bytes()).decode()


def _base_model(home: Path) -> None:
    prepare(home)
    from ultralytics import YOLO

    (home / "models").mkdir()
    YOLO("yolo11n.yaml").save(str(home / "models" / "yolo11n.pt"))


def serve(home: Path, engine: str = "auto") -> subprocess.Popen[bytes]:
    """A serving process; it and the trainings that this process starts share a session, as under `yoloop up`."""
    os.environ[SUPERVISED] = str(os.getpid())
    settings = {"HOME": str(home), "PORT": str(PORT), "OFFLINE": "1", "ENGINE": engine, "ALLOWED_HOSTS": "127.0.0.1"}
    env = {**os.environ, **{f"YOLOOP_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-m", "backend.cli.main", "serve"]
    with (home / "serve.log").open("ab") as log:  # each request is a line
        server = subprocess.Popen(command, env=env, cwd=ROOT, process_group=0, stderr=log)
    wait(lambda: _answers(), 90)
    return server


def _answers() -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{PORT}/health", timeout=1).ok
    except requests.RequestException:
        return False


def train(home: Path, pictures: Sequence[Picture], stop: threading.Event) -> None:
    from backend.errors import TrainingCancelled

    job = home / "job"
    folder = job / "network-0"
    for side, chosen in (("train", pictures[10:]), ("holdout", pictures[:10])):
        (folder / "images" / side).mkdir(parents=True)
        (folder / "labels" / side).mkdir(parents=True)
        for each in chosen:
            (folder / "images" / side / each.path.name).write_bytes(each.path.read_bytes())
            lines = [_line(shape.box, LABELS.index(shape.label), each.width) for shape in each.shapes]
            (folder / "labels" / side / f"{each.path.stem}.txt").write_text("\n".join(lines))
    (folder / "train.txt").write_text("\n".join(map(str, (folder / "images" / "train").iterdir())))
    names = dict(enumerate(LABELS))
    config = {"path": str(folder), "train": "epoch.txt", "val": "images/holdout", "names": names}
    (folder / "data.yaml").write_text(json.dumps(config))
    (folder / "holdout.json").write_text("[]")
    network = NetworkSpec(
        network=asdict(Network("detect", "detect", LABELS)),
        folder=str(folder),
        architecture="yolo11n.yaml",
        initial="",
        train_images=50,
        image_size=160,
    )
    Spec(
        home=str(home),
        label_config=CONFIG,
        networks=[network],
        parent_version="",
        minutes=30,
        threads=os.cpu_count() or 1,
        device="cpu",
        max_regions=300,
    ).save(job)
    progress: list[Mapping[str, Any]] = []
    try:
        run_training(job, on_progress=progress.append, cancelled=stop.is_set)
        print("The training ended before the measurement: take fewer --seconds.", file=sys.stderr)
    except TrainingCancelled:
        print(f"The training was at epoch {progress[-1]['epoch']} when the measurement ended.")


def _line(box: tuple[float, float, float, float], cls: int, side: int) -> str:
    x1, y1, x2, y2 = (value / side for value in box)
    return f"{cls} {(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1}"


def wait(condition: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("The benchmark's processes did not get ready.")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
