"""How close suggestions come to the raw engine, over HTTP, one image at a time, beside a large request and a training.

    python bench/speed.py [--rounds 5] [--seconds 30] [--predictions 10000] [--only bulk] [--out bench]

Everything is taken in one run, the raw engine beside the rest, and told as ratios of medians; the milliseconds belong
to the machine. The model is yolo11n with random weights, exported as a training exports it; the images are 1280 × 720
JPEGs, which are in the cache of the serving process when the clock runs. Writes results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import zip_longest
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import psutil
import requests
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bulk import TASKS, beside_a_retrieve  # noqa: E402
from latency import CONFIG, PORT, beside_a_training, data_uri, serve, wait  # noqa: E402
from support.shapes import draw_pictures  # noqa: E402

from backend.engine.environment import limit_threads, prepare  # noqa: E402
from backend.engine.export import export  # noqa: E402
from backend.engine.preprocess import letterbox  # noqa: E402
from backend.images.addresses import locate  # noqa: E402
from backend.images.cache import ImageCache  # noqa: E402
from backend.labels.networks import Network  # noqa: E402
from backend.served_models.parts import TAG, Part, dump  # noqa: E402
from model_registry import Registry, Version  # noqa: E402

UID = "1.1767225600"
SIZE = 640
TOGETHER = 64
"""Tasks of one request."""

SWAPS = 20

GOALS: dict[str, tuple[str, float]] = {
    "http_over_raw": (">=", 0.85),
    "http_over_ultralytics": (">=", 2.5),
    "single_over_raw": ("<=", 1.25),
    "large_jpeg": ("<=", 2.5),
    "rss_mb": ("<=", 700),
    "rss_growth_mb": ("<=", 50),
    "bulk_p95": ("<=", 2.0),
    "training_p95": ("<=", 1.3),
    "webhook_p99_ms": ("<=", 50),
    "health_p99_ms": ("<=", 100),
    "setup_p99_ms": ("<=", 500),
    "loop_s": ("<=", 120),
    "loop_overhead_s": ("<=", 10),
    "sync_growth": ("<=", 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30, help="of each side of the comparison with a training")
    parser.add_argument("--predictions", type=int, default=10_000, help="between two looks at the memory")
    parser.add_argument("--only", choices=("engine", "bulk", "training", "memory"), help="one part of it")
    parser.add_argument("--out", type=Path, default=ROOT / "bench")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        prepare(home)
        exported = promote(home)
        pictures, large = draw(home / "pictures")
        files = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(home / "pictures")))
        Thread(target=files.serve_forever, daemon=True).start()
        server = serve(home)
        try:
            ask = asking(files.server_port)
            wait(lambda: answered(partial(ask, pictures[:1])), 120)
            parts: dict[str, Callable[[], Mapping[str, float]]] = {
                "engine": lambda: measure(
                    server.pid, ask, exported, home / "weights.pt", pictures, large, given.rounds
                ),
                "bulk": lambda: retrieve(home, files.server_port, ask, pictures),
                "training": lambda: beside(home, given.seconds),
                "memory": lambda: {"rss_growth_mb": growth(server.pid, home, given.predictions)},
            }
            found = {key: value for name in parts if given.only in (None, name) for key, value in parts[name]().items()}
        finally:
            server.terminate()
            server.wait()
            files.shutdown()
    tell(found, given.out)


def tell(found: Mapping[str, float], out: Path) -> None:
    """Print the figures beside their goals, and put them into results.json, where others stay."""
    path = out / "results.json"
    out.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | dict(found), indent=1) + "\n")
    for name, value in found.items():
        sign, goal = GOALS.get(name, ("", 0.0))
        met = {">=": value >= goal, "<=": value <= goal}.get(sign)
        told = "" if met is None else f"  {'met' if met else 'missed'}: {sign} {goal:g}"
        print(f"{name:<24}{value:>10.2f}{told}")


def asking(port: int) -> Callable[..., None]:
    """A function that asks for the suggestions of pictures, in one request; `copy` keeps like pictures apart."""
    session = requests.Session()

    def task(path: Path, copy: int | None) -> dict[str, Any]:
        return {"id": int(path.stem) + TOGETHER * (copy or 0), "data": {"image": address(port, path, copy)}}

    def ask(paths: Sequence[Path], copies: Sequence[int] = ()) -> None:
        tasks = [task(path, copy) for path, copy in zip_longest(paths, copies)]
        body = {"project": UID, "label_config": CONFIG, "tasks": tasks}
        answer = session.post(f"http://127.0.0.1:{PORT}/predict", json=body, timeout=120)
        answer.raise_for_status()
        failed = [
            each for each in answer.json()["results"] if "result" not in each or each["model_version"] == "yoloop-v0"
        ]
        if failed:
            raise RuntimeError(f"The serving process did not suggest: {failed[0]}")

    return ask


def address(port: int, path: Path, copy: int | None = None) -> str:
    return f"http://127.0.0.1:{port}/{path.name}" + ("" if copy is None else f"?copy={copy}")


def measure(
    pid: int,
    ask: Callable[..., None],
    network: Path,
    weights: Path,
    pictures: Sequence[Path],
    large: Path,
    rounds: int,
) -> dict[str, float]:
    run, inputs = raw_engine(network, [np.asarray(cv2.imread(str(path)), np.uint8) for path in pictures])
    plain = plain_loop(weights)
    ask(pictures)
    ask([large])
    times: dict[str, list[float]] = {
        name: [] for name in ("raw", "http", "ultralytics", "single", "alone", "large", "first")
    }
    for turn in range(rounds):
        times["raw"].append(seconds(lambda: [run(each) for each in inputs]) / len(inputs))
        times["http"].append(seconds(lambda: ask(pictures)) / len(pictures))
        times["ultralytics"].append(seconds(lambda: [plain(path) for path in pictures[:16]]) / 16)
        for number, path in enumerate(pictures[:16]):
            times["single"].append(seconds(partial(ask, [path])))
            times["alone"].append(seconds(partial(decode_and_run, path, run, inputs[number])))
            times["large"].append(seconds(partial(ask, [large])))
        for number in range(3):
            unseen = another(large, 1 + 3 * turn + number)
            times["first"].append(seconds(partial(ask, [unseen])))
    middle = {name: float(np.median(each)) for name, each in times.items()}
    return {
        "http_over_raw": middle["raw"] / middle["http"],
        "http_over_ultralytics": middle["ultralytics"] / middle["http"],
        "single_over_raw": middle["single"] / middle["alone"],
        "large_jpeg": middle["large"] / middle["single"],
        "large_jpeg_first": middle["first"] / middle["single"],
        "rss_mb": resident(pid),
        "http_images_per_s": 1 / middle["http"],
        "raw_images_per_s": 1 / middle["raw"],
        "single_p50_ms": 1000 * middle["single"],
    }


def retrieve(home: Path, port: int, ask: Callable[..., None], pictures: Sequence[Path]) -> Mapping[str, float]:
    """What a retrieve of a thousand tasks costs somebody who labels meanwhile.

    Its pictures have an address each, so that every one of them is decoded.
    """
    cache = ImageCache(home / "cache", 5 * 2**30)
    paths = [pictures[number % len(pictures)] for number in range(TASKS)]
    copies = [1 + number // len(pictures) for number in range(TASKS)]
    for path, copy in zip(paths, copies, strict=True):
        cache.put(locate(address(port, path, copy), None, "").key, path.read_bytes())
    ask(pictures)
    another = asking(port)  # a connection of its own
    found = beside_a_retrieve(
        lambda number: ask([pictures[number % len(pictures)]]), lambda: another(paths, copies), TASKS
    )
    return found.told()


def growth(pid: int, home: Path, predictions: int) -> float:
    """MiB that the serving process has more after so many predictions and twenty swaps, at a small input.

    The first tenth is not counted: what is set up once is no growth.
    """
    part = Part(network(), image_size=64, openvino="auto")
    registry = Registry(f"sqlite:///{home / 'mlflow.db'}", home / "registry")
    versions = [register(registry, home, part).number for _ in range(2)]
    pictures = draw_pictures(home / "small", 100, size=64)
    tasks = [{"id": index, "data": {"image": data_uri(picture)}} for index, picture in enumerate(pictures)]
    session = requests.Session()

    def serves(name: str) -> bool:
        body = {"project": UID, "schema": CONFIG, "hostname": "http://localhost"}
        answer = session.post(f"http://127.0.0.1:{PORT}/setup", json=body, timeout=30)
        return str(answer.json()["model_version"]).removeprefix("yoloop-").partition("-")[0] == name

    before = 0.0
    for swap in range(SWAPS + 2):
        number = versions[swap % 2]
        registry.promote(UID, number, "to be measured")
        wait(partial(serves, f"v{number}"), 60)
        for _ in range(max(1, predictions // SWAPS // len(pictures))):
            asked = {"project": UID, "label_config": CONFIG, "tasks": tasks}
            session.post(f"http://127.0.0.1:{PORT}/predict", json=asked, timeout=120).raise_for_status()
        if swap == 1:
            before = resident(pid)
    return resident(pid) - before


def beside(home: Path, seconds: float) -> dict[str, float]:
    """What a training beside it costs the serving process."""
    idle, busy = beside_a_training(home, draw_pictures(home / "shapes", 60), seconds)
    slow = {name: float(np.percentile(busy[name], 99)) for name in ("webhook", "health", "setup")}
    ratio = float(np.percentile(busy["predict"], 95) / np.percentile(idle["predict"], 95))
    return {"training_p95": ratio, **{f"{name}_p99_ms": value for name, value in slow.items()}}


def raw_engine(
    network: Path, images: Sequence[NDArray[np.uint8]]
) -> tuple[Callable[[NDArray[np.uint8]], Any], list[NDArray[np.uint8]]]:
    """OpenVINO alone, with all cores, compiled for the one shape that all these images have."""
    import openvino as ov

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(os.cpu_count() or 1)}
    inputs = [letterbox(image, SIZE, 32)[0][None] for image in images]
    core = ov.Core()
    model = core.read_model(network)
    model.reshape(list(inputs[0].shape))
    request = core.compile_model(model, "CPU", options).create_infer_request()
    request.infer(inputs[0])
    return request.infer, inputs


def resident(pid: int) -> float:
    """MiB of a process and all below it."""
    process = psutil.Process(pid)
    return float(sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 2**20)


def decode_and_run(path: Path, run: Callable[[NDArray[np.uint8]], Any], tensor: NDArray[np.uint8]) -> None:
    cv2.imread(str(path))
    run(tensor)


def plain_loop(weights: Path) -> Callable[[Path], Any]:
    """ultralytics on torch, one image at a time, with the number of threads that is fastest here."""
    from ultralytics import YOLO

    model = YOLO(str(weights))
    picture = np.zeros((720, 1280, 3), np.uint8)
    taken: dict[int, float] = {}
    for threads in {1, os.cpu_count() or 1}:
        limit_threads(threads)
        model.predict(picture, imgsz=SIZE, verbose=False)
        taken[threads] = min(seconds(lambda: model.predict(picture, imgsz=SIZE, verbose=False)) for _ in range(5))
    limit_threads(min(taken, key=taken.__getitem__))
    return lambda path: model.predict(str(path), imgsz=SIZE, verbose=False)


def promote(home: Path) -> Path:
    """A version in service, as a training leaves it; returns the exported network."""
    from ultralytics import YOLO

    model = YOLO("yolo11n.yaml")
    model.save(str(home / "weights.pt"))
    export(home / "weights.pt", home / "weights.xml")
    registry = Registry(f"sqlite:///{home / 'mlflow.db'}", home / "registry")
    version = register(registry, home, Part(network(), image_size=SIZE, openvino="auto"))
    registry.promote(UID, version.number, "to be measured")
    return home / "weights.xml"


def network() -> Network:
    return Network("detect", "detect", tuple(f"class {number}" for number in range(80)), ("label",))


def register(registry: Registry, home: Path, part: Part) -> Version:
    files = {"weights.pt": home / "weights.pt", **{name: home / name for name in part.exported}}
    run = f"bench {time.monotonic_ns()}"
    return registry.register(UID, run, files, metrics={}, params={}, tags={TAG: dump([part])})


def draw(folder: Path) -> tuple[list[Path], Path]:
    """Smooth noise with a little grain, whose JPEGs are as large as photographs; one of them of 4000 × 3000."""
    folder.mkdir()
    rng = np.random.default_rng(0)

    def write(number: int, width: int, height: int) -> Path:
        coarse = rng.integers(0, 256, (18, 32, 3), np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image += rng.integers(-12, 13, image.shape, np.int16)
        path = folder / f"{number}.jpg"
        cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        return path

    return [write(number, 1280, 720) for number in range(TOGETHER)], write(TOGETHER, 4000, 3000)


def another(path: Path, number: int) -> Path:
    """The same JPEG with a comment: another file, which was never seen."""
    data = path.read_bytes()
    made = path.with_name(f"{int(path.stem) + number}.jpg")
    made.write_bytes(data[:2] + b"\xff\xfe\x00\x04" + number.to_bytes(2, "big") + data[2:])
    return made


def answered(ask: Callable[[], None]) -> bool:
    try:
        ask()
    except RuntimeError:  # the version is still being loaded
        return False
    return True


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    main()
