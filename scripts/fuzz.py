"""Asks a serving process for nonsense, over HTTP, and tells what became of it.

Half of the requests follow the description at /openapi.json, which schemathesis makes them from; the others are what
Label Studio really sends with something in it broken, which comes further in before it is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
from hypothesis import HealthCheck, Phase, given, seed, settings

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
from support.bodies import UID, config, event, predict, setup, task  # noqa: E402
from support.hostile import CONFIGS, IMAGES, leaves  # noqa: E402
from support.ports import free_port  # noqa: E402
from support.shapes import LABELS  # noqa: E402
from support.tiny import SIZE, tiny_yolo  # noqa: E402

LONGEST = 5.0
"""Seconds that an answer may take on a machine that does nothing else."""

GROWTH = 50.0
"""MiB that the process may have more than after the first requests."""

WARM = 0.2
"""Share of the requests after which memory is looked at first: what is set up once is no growth."""

CHUNK = 200


@dataclass
class Outcome:
    """What became of the requests. `statuses` by path and status; `wrong` holds what should not have happened."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    unsent: int = 0
    growth: float = 0.0

    @property
    def count(self) -> int:
        return self.statuses.total()

    def as_json(self) -> dict[str, Any]:
        statuses = {f"{path} {status}": count for (path, status), count in sorted(self.statuses.items())}
        return {**asdict(self), "statuses": statuses, "count": self.count}

    def __str__(self) -> str:
        by_status = Counter[int]()
        for (_, status), count in self.statuses.items():
            by_status[status] += count
        lines = [f"{self.count} requests, {self.unsent} more that no client can send"]
        lines += [f"  {status}: {count}" for status, count in sorted(by_status.items())]
        for path in sorted({path for path, _ in self.statuses}):
            told = ", ".join(
                f"{status}: {count}" for (each, status), count in sorted(self.statuses.items()) if each == path
            )
            lines.append(f"  {path:<18}{told}")
        lines.append(f"slowest {self.slowest[0]:.2f} s ({self.slowest[1]}), memory {self.growth:+.1f} MiB")
        return "\n".join([*lines, *self.wrong[:20]])


class Asker:
    """Sends requests to one server and judges the answers."""

    def __init__(self, url: str, longest: float) -> None:
        self.outcome = Outcome()
        self._url, self._longest = url, longest
        self._session = requests.Session()

    def ask(self, method: str, path: str, **options: Any) -> None:
        url = options.pop("url", None) or self._url + path
        began = time.perf_counter()
        try:
            answer = self._session.request(method, url, timeout=4 * self._longest, allow_redirects=False, **options)
        except (ValueError, requests.exceptions.InvalidHeader):  # not even a request
            self.outcome.unsent += 1
            return
        except requests.RequestException as error:
            self._tell(f"{method} {path}: {type(error).__name__}", options)
            return
        taken = time.perf_counter() - began
        self.outcome.statuses[path, answer.status_code] += 1
        self.outcome.slowest = max(self.outcome.slowest, (taken, f"{method} {path}"))
        busy = answer.status_code == 503 and "Retry-After" in answer.headers
        alone = answer.status_code == 502 and path == "/accept"  # it needs a Label Studio, and says that there is none
        if answer.status_code >= 500 and not busy and not alone:
            self._tell(f"{method} {path}: {answer.status_code} {answer.text[:200]}", options)
        if taken > self._longest:
            self._tell(f"{method} {path}: {taken:.1f} s", options)

    def _tell(self, what: str, options: dict[str, Any]) -> None:
        shown = {name: value for name, value in options.items() if value is not None}
        self.outcome.wrong.append(f"{what}\n    {str(shown)[:600]}")


def fuzz(count: int, seconds: float, number: int, longest: float = LONGEST) -> Outcome:
    """Ask until `count` requests are answered or the time is over.

    Args:
        number: of the same nonsense, given the same count.
        longest: seconds that an answer may take.
    """
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as (url, pid):
        asker = Asker(url, longest)
        chance = random.Random(number)
        process = psutil.Process(pid)
        until = time.monotonic() + seconds
        began, before, chunks = time.monotonic(), None, 0
        described = from_description(url, asker)
        good = (_recorded(), _own())
        while asker.outcome.count < count and time.monotonic() < until:
            described(number + chunks)
            for _ in range(CHUNK):
                method, path, options = broken(good, chance)
                asker.ask(method, path, **options)
            chunks += 1
            through = max(asker.outcome.count / count, (time.monotonic() - began) / seconds)
            if before is None and through >= WARM:
                before = process.memory_info().rss
        asker.outcome.growth = (process.memory_info().rss - (before or 0)) / 2**20
        if asker.outcome.growth > GROWTH:
            asker.outcome.wrong.append(f"The process grew by {asker.outcome.growth:.0f} MiB.")
    return asker.outcome


@contextmanager
def serving(home: Path) -> Iterator[tuple[str, int]]:
    """A `yoloop serve` of its own; its address and its process."""
    port = free_port()
    tiny_yolo(home / "models" / "tiny.pt", LABELS, {0: (0, 0.9), 1: (1, 0.6)})
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("YOLOOP", "MLFLOW", "LABEL"))},
        "YOLOOP_HOME": str(home),
        "YOLOOP_PORT": str(port),
        "YOLOOP_OFFLINE": "1",
        "YOLOOP_BASE_MODEL": "tiny.pt",
        "YOLOOP_IMAGE_SIZE": str(SIZE),
        "YOLOOP_DEVICE": "cpu",
        "YOLOOP_ENGINE": "torch",  # a second engine that comes once an export is made would count as growth
        "YOLOOP_FETCH_TIMEOUT": "1",
        "YOLOOP_PREDICT_BUDGET": "4",
        "YOLOOP_LOG_LEVEL": "ERROR",
        "YOLO_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    log = home / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "backend.cli.main", "serve"], env=env, cwd=home, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while not _answers(url):
            if time.monotonic() > until or server.poll() is not None:
                raise RuntimeError(f"The server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        requests.post(f"{url}/predict", json=predict([task(1)]), timeout=60)  # waits for the model
        (worker,) = psutil.Process(server.pid).children()
        yield url, worker.pid
        if tracebacks := log.read_text().count("Traceback"):
            print(f"{tracebacks} tracebacks in its log; the last lines:\n{log.read_text()[-1500:]}", file=sys.stderr)
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(30)
        server.kill()


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=1).ok
    except requests.RequestException:
        return False


def from_description(url: str, asker: Asker) -> Callable[[int], None]:
    """A function that asks each described operation a few times."""
    import schemathesis

    schema = schemathesis.openapi.from_dict(requests.get(f"{url}/openapi.json", timeout=10).json())
    operations = [found.ok() for found in schema.get_all_operations()]
    strategies = {operation.label: (operation.path, operation.as_strategy()) for operation in operations}
    times = max(1, CHUNK // len(operations))

    def described(number: int) -> None:
        for path, cases in strategies.values():
            once(path, cases, number)

    def once(path: str, cases: Any, number: int) -> None:
        @seed(number)
        @settings(
            max_examples=times,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def each(case: Any) -> None:
            try:
                options = case.as_transport_kwargs(base_url=url)
            except (ValueError, TypeError):
                asker.outcome.unsent += 1
                return
            asker.ask(options.pop("method"), path, **options)

        each()

    return described


# ---- requests of Label Studio with something broken

NONSENSE: list[Any] = [
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    0.1,
    "",
    " ",
    "\x00",
    "\ud800",
    "ä\n\"'<&>",
    "../../etc/passwd",
    "file:///etc/passwd",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/",
    "x" * 10_000,
    "[" * 2000,
    "1.1",
    "-1.2",
    [],
    {},
    [[[[[[[[[[]]]]]]]]]],
    {"": {"": {"": None}}},
    [None] * 50,
    list(range(300)),
]


Good = tuple[str, str, Any]
"""Method, path and body of a request that is answered; of a GET its query."""


def _recorded() -> list[Good]:
    found = []
    for path in sorted((ROOT / "tests" / "label_studio_1.23.2").glob("*.json")):
        entries = json.loads(path.read_text())
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, dict) and entry.get("path") in ("/predict", "/setup", "/webhook"):
                # The hosts of the recording are gone, and asking for them takes time.
                body = re.sub(r"https?://[^/\"\\\\]+", "http://127.0.0.1:9", json.dumps(entry["body"]))
                found.append(("POST", entry["path"], json.loads(body)))
    return found


def _own() -> list[Good]:
    images = [predict([task(7, image)]) for image in IMAGES]
    project = event("PROJECT_UPDATED")["project"]
    return [
        *(("POST", "/predict", body) for body in (*images, predict([task(1), task(2)]))),
        *(("POST", "/predict", predict([task(1)], xml)) for xml in CONFIGS),
        *(("POST", "/setup", setup(xml)) for xml in (*CONFIGS, config(), config('model_path="v3"'))),
        *(("POST", "/validate", {"config": xml}) for xml in CONFIGS),
        *(("POST", "/webhook", event("X", project={**project, "label_config": xml})) for xml in CONFIGS),
        ("POST", "/train", {"project": UID}),
        ("POST", "/job_status", {"job": "nothing"}),
        ("POST", "/versions", {"project": UID}),
        ("POST", "/delete", {"project": UID}),
        ("POST", "/duplicate_model", {"project": UID}),
        ("POST", "/accept", {"project": UID, "min_score": 0.9, "labels": {"Disc": 0.9}, "dry_run": True}),
        ("POST", "/accept", {"project": UID, "undo": "abc"}),
        ("GET", "/report", {"project": UID}),
        ("GET", "/advice", {"project": UID}),
        ("GET", "/versions", {"project": UID}),
        ("GET", "/job_status", {"job": "nothing"}),
    ]


def broken(good: Sequence[Sequence[Good]], chance: random.Random) -> tuple[str, str, dict[str, Any]]:
    """Method, path and further options of a request that was once a good one."""
    method, path, body = chance.choice(chance.choice(good))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 5))):
        body = changed(body, chance)
    if method == "GET":
        query = body if isinstance(body, dict) else {"project": body}
        pairs = {str(name): str(value)[:2000] for name, value in query.items()}
        return method, path, {"params": {_sendable(name): _sendable(value) for name, value in pairs.items()}}
    data = json.dumps(body).encode()
    if chance.random() < 0.1:
        at = chance.randrange(len(data) + 1)
        data = data[:at] + chance.choice((b"", chance.randbytes(3), data[at:] * 2))
    kind = chance.choice(("application/json", "application/json", "text/plain", "image/png"))
    return method, path, {"data": data, "headers": {"Content-Type": kind}}


def changed(body: Any, chance: random.Random) -> Any:
    """The value with one part of it taken away, replaced or doubled."""
    places = leaves(body)
    if not places or chance.random() < 0.02:
        return chance.choice(NONSENSE)
    *above, last = chance.choice(places)
    copy = json.loads(json.dumps(body))
    parent = copy
    for key in above:
        parent = parent[key]
    how = chance.random()
    if how < 0.6:
        parent[last] = chance.choice(NONSENSE)
    elif how < 0.8:
        del parent[last]
    elif isinstance(parent, list):
        parent.insert(last, parent[last])
    else:
        parent[str(chance.choice(NONSENSE))[:100]] = parent[last]
    return copy


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Ask a running yoloop for nonsense.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=LONGEST, help="seconds that an answer may take")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    outcome = fuzz(asked.requests, asked.seconds, asked.seed, asked.longest)
    print(json.dumps(outcome.as_json(), indent=1) if asked.json else outcome)
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
