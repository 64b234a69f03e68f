"""Exports of weights that were not trained here: made once for a file, checked against torch, and kept.

That is done in a process of its own, `python -m backend.served_models.pretrained_export FOLDER`, of the lowest
priority. Where the photographs that ultralytics brings along show nothing that the model would suggest, its best
guesses are compared.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from backend.engine.environment import cores, limit_threads, prepare
from backend.engine.weights import sha256
from backend.errors import NoRoom
from backend.observability.logs import about, last_words, new_job
from backend.processes.child import stand_back, start
from backend.processes.room import trouble
from backend.settings import Settings

log = logging.getLogger("backend.served_models.pretrained_export")  # it also runs as __main__

FORMAT = 1
"""Counts what changes in the exports; those of another number are made again."""

LONGEST = 300.0
"""Seconds after which an export is given up."""

GUESSES = 20
"""Best guesses that are compared where nothing would be suggested."""

LOWEST = 0.001
"""Least score of a guess."""


POLL = 0.2
"""Seconds between two looks at what an export waits for."""

FROM_OUTSIDE = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL, os.EX_TEMPFAIL}
"""Ends of the process that say nothing about the weights: somebody wanted it gone, or disk or memory were full."""


@dataclass(frozen=True, slots=True)
class Export:
    """The exported network, and the precision in which it may serve ('': not at all)."""

    path: Path
    precision: str


def kept(settings: Settings, weights: Path) -> Export | None:
    """The export of a file of weights; None where none was tried yet.

    It is remembered under the file's hash in `YOLOOP_HOME/exports`, and so is that it may not serve.
    """
    return _outcome(_folder(settings, weights))


def exported(settings: Settings, weights: Path, stop: threading.Event) -> Export | None:
    """As `kept`, but made now if there is none, which takes seconds; None: it could not be ended.

    Several processes may ask at the same time: one of them exports, and the others wait for it.

    Args:
        stop: gives up, for this time.
    """
    folder = _folder(settings, weights)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"))
    while not stop.is_set():
        with contextlib.suppress(Timeout), lock.acquire(timeout=POLL):
            return _outcome(folder) or _make(settings, weights, folder, stop)
    return None


def _folder(settings: Settings, weights: Path) -> Path:
    return settings.root / "exports" / sha256(weights)


def _made_by() -> dict[str, Any]:
    """What an outcome depends on beside the weights: with another of these the next may be different."""
    return {"format": FORMAT, "openvino": version("openvino")}


def _outcome(folder: Path) -> Export | None:
    """What is remembered of an export; None where it must be made, once more perhaps."""
    try:
        found: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
        precision, made_by = str(found["precision"]), found["made_by"]
    except (OSError, ValueError, KeyError):
        return None
    return Export(folder / "network.xml", precision) if made_by == _made_by() else None


def _remember(folder: Path, precision: str, note: str) -> None:
    (folder / "outcome.json").write_text(json.dumps({"precision": precision, "note": note, "made_by": _made_by()}))


def _make(settings: Settings, weights: Path, folder: Path, stop: threading.Event) -> Export | None:
    """Export in a process of its own, and put what came of it into its place with one move. The lock is held."""
    with about(job_id=new_job("export")):
        return _made(settings, weights, folder, stop)


def _made(settings: Settings, weights: Path, folder: Path, stop: threading.Event) -> Export | None:
    log.info("%s is being made ready for OpenVINO, once; torch serves it meanwhile", weights.name)
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    part.mkdir()
    todo = {
        "weights": str(weights.absolute()),
        "home": str(settings.root),
        "image_size": settings.image_size,
        "max_regions": settings.max_regions,
        "parent": os.getpid(),
    }
    (part / "todo.json").write_text(json.dumps(todo))
    code = _run(part, stop)
    if not stop.is_set() and (why := trouble(settings.root)):
        shutil.rmtree(part, ignore_errors=True)
        raise NoRoom(f"{weights.name} could not be exported: {why}.")
    if stop.is_set() or code in FROM_OUTSIDE:
        log.warning("%s: its export was ended; torch serves it, and the next start tries again", weights.name)
        shutil.rmtree(part, ignore_errors=True)
        return None
    if _outcome(part) is None:
        words = last_words((part / "export.log").read_text(errors="replace"))
        why = f"took more than {LONGEST:.0f} s" if code is None else f"ended with {code}: {words[-300:]}"
        _remember(part, "", f"its export {why}")
    note = json.loads((part / "outcome.json").read_text())["note"]
    shutil.rmtree(folder, ignore_errors=True)  # of another format
    part.replace(folder)
    found = _outcome(folder)
    if found is not None and found.precision:
        log.info("%s: %s", weights.name, note)
    else:
        log.warning("%s: torch serves it, for %s", weights.name, note)
    return found


def _run(part: Path, stop: threading.Event) -> int | None:
    """The process' life; its exit code, negative when a signal killed it, None when it took too long or was stopped."""
    until = time.monotonic() + LONGEST
    process = start("backend.served_models.pretrained_export", [str(part)], part / "export.log", of_server=True)
    try:
        while process.poll() is None and time.monotonic() < until and not stop.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
        return process.poll()
    finally:
        process.kill()
        process.wait()


def main() -> None:
    from backend.observability.logs import configure

    configure("INFO", "export", Settings().log_format)
    folder = Path(sys.argv[1])
    todo = json.loads((folder / "todo.json").read_text())
    stand_back(todo["parent"], own_session=False)
    try:
        prepare(Path(todo["home"]))
        limit_threads(cores())
        precision, note = check(
            Path(todo["weights"]),
            folder / "network.xml",
            image_size=todo["image_size"],
            max_regions=todo["max_regions"],
        )
    except (OSError, MemoryError):
        log.exception("There was no room for the export, or the weights are gone")
        sys.exit(os.EX_TEMPFAIL)
    except Exception as error:  # any file may be named as weights
        log.exception("The weights could not be exported")
        precision, note = "", f"it could not be exported ({type(error).__name__})"
    _remember(folder, precision, note)


def check(weights: Path, path: Path, *, image_size: int, max_regions: int) -> tuple[str, str]:
    """Export weights and compare with torch; the precision in which the export may serve ('': none), and why."""
    import cv2

    from backend.engine.export import export, sample_photographs
    from backend.engine.openvino import OpenVinoDetector
    from backend.engine.parity import PRECISIONS, SUGGESTED, compare
    from backend.engine.torch import TorchDetector

    export(weights, path)
    images: list[Any] = [cv2.imread(str(each)) for each in sample_photographs()]
    torch = TorchDetector(weights, device="cpu", image_size=image_size, max_regions=max_regions)
    expected = [torch.detect([image], LOWEST)[0] for image in images]
    gains = [image_size / max(image.shape[:2]) for image in images]
    scores = sorted((each.score for there in expected for each in there), reverse=True)
    least = SUGGESTED if scores and scores[0] >= SUGGESTED else min(scores[:GUESSES], default=SUGGESTED)
    for precision in PRECISIONS:
        detector = OpenVinoDetector(path, precision=precision, image_size=image_size, max_regions=max_regions)
        found = [detector.detect([image], LOWEST)[0] for image in images]
        parity = compare(torch.task, expected, found, gains, least=least)
        log.info("OpenVINO (%s) against torch: %s", precision, parity)
        if parity.same:
            return precision, f"OpenVINO ({precision}) finds what torch finds: {parity}"
    return "", f"its export finds something else: {parity}"


if __name__ == "__main__":
    main()
