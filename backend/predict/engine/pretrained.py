"""Exports of weights that were not trained here: made once for a file, checked against torch, and kept.

Torch does its part in a process of its own, `python -m backend.predict.engine.pretrained FOLDER`, so that the one that
serves need not load it. Where the photographs that ultralytics brings along show nothing that the model would suggest,
its best guesses are compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from backend.background import end_with, start
from backend.predict.engine.quiet import cores, limit_threads, prepare
from backend.settings import Settings

log = logging.getLogger("backend.predict.engine.pretrained")  # it also runs as __main__

FORMAT = 1
"""Counts what changes in the exports; those of another number are made again."""

LONGEST = 300.0
"""Seconds after which an export is given up."""

GUESSES = 20
"""Best guesses that are compared where nothing would be suggested."""

LOWEST = 0.001
"""Least score of a guess."""


@dataclass(frozen=True, slots=True)
class Export:
    """The exported network, and the precision in which it may serve."""

    path: Path
    precision: str


def exported(settings: Settings, weights: Path) -> Export | None:
    """The export of a file of weights, made now if there is none; None: torch must serve it.

    Whether it may serve is remembered under the file's hash in `YOLOOP_HOME/exports`. Several processes may ask at the
    same time: one of them exports, which takes seconds, and the others wait for it.
    """
    with weights.open("rb") as file:
        folder = settings.root / "exports" / hashlib.file_digest(file, "sha256").hexdigest()
    if (known := _outcome(folder)) is None:
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if (known := _outcome(folder)) is None:
                known = _make(settings, weights, folder)
    return Export(folder / "network.xml", known["precision"]) if known["precision"] else None


def _made_by() -> dict[str, Any]:
    """What an outcome depends on beside the weights: with another of these the next may be different."""
    return {"format": FORMAT, "openvino": version("openvino")}


def _outcome(folder: Path) -> dict[str, str] | None:
    """What is remembered of an export; None where it must be made, once more perhaps."""
    try:
        found: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
    except (OSError, ValueError):
        return None
    return {"precision": found["precision"], "note": found["note"]} if found["made_by"] == _made_by() else None


def _make(settings: Settings, weights: Path, folder: Path) -> dict[str, str]:
    """Export in a process of its own, and put what came of it into its place with one move. The lock is held."""
    log.info("%s is being made ready for OpenVINO, once", weights.name)
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    part.mkdir()
    todo = {
        "weights": str(weights),
        "home": str(settings.root),
        "image_size": settings.image_size,
        "max_regions": settings.max_regions,
        "parent": os.getpid(),
    }
    (part / "todo.json").write_text(json.dumps(todo))
    process = start("backend.predict.engine.pretrained", [str(part)], part / "export.log")
    try:
        code: int | None = process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        process.kill()
        process.wait()
    found = _outcome(part)
    if found is None:
        words = (part / "export.log").read_text(errors="replace").strip().splitlines()
        why = f"took more than {LONGEST:.0f} s" if code is None else f"ended with {code}: {''.join(words[-1:])[-300:]}"
        found = {"precision": "", "note": f"its export {why}"}
        (part / "outcome.json").write_text(json.dumps({**found, "made_by": _made_by()}))
    shutil.rmtree(folder, ignore_errors=True)  # of another format
    part.replace(folder)
    if found["precision"]:
        log.info("%s: %s", weights.name, found["note"])
    else:
        log.warning("%s: torch serves it, for %s", weights.name, found["note"])
    return found


def main() -> None:
    from backend.logs import configure

    configure("INFO", "export")
    folder = Path(sys.argv[1])
    todo = json.loads((folder / "todo.json").read_text())
    end_with(todo["parent"])  # whose suggestions wait for it, so that it has no reason to stand back
    prepare(Path(todo["home"]))
    limit_threads(cores())
    try:
        precision, note = check(
            Path(todo["weights"]),
            folder / "network.xml",
            image_size=todo["image_size"],
            max_regions=todo["max_regions"],
        )
    except Exception as error:  # any file may be named as weights
        log.exception("It could not be exported")
        precision, note = "", f"it could not be exported ({type(error).__name__})"
    (folder / "outcome.json").write_text(json.dumps({"precision": precision, "note": note, "made_by": _made_by()}))


def check(weights: Path, path: Path, *, image_size: int, max_regions: int) -> tuple[str, str]:
    """Export weights and compare with torch; the precision in which the export may serve ('': none), and why."""
    import cv2
    from ultralytics.utils import ASSETS

    from backend.predict.engine.export import export
    from backend.predict.engine.openvino import OpenVinoDetector
    from backend.predict.engine.parity import PRECISIONS, SUGGESTED, compare
    from backend.predict.engine.torch import TorchDetector

    export(weights, path)
    images: list[Any] = [cv2.imread(str(each)) for each in sorted(ASSETS.glob("*.jpg"))]
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
