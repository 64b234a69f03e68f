"""A demo on one machine: Label Studio and yoloop, 80 generated images, half of them annotated.

Everything lies in `.yoloop/demo`. Each start begins anew; only Label Studio's empty database is kept, because
making it takes half a minute.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import requests
from filelock import FileLock, Timeout

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
from support.labelstudio import LabelStudioServer, executable, make_template  # noqa: E402
from support.ports import free_port  # noqa: E402
from support.shapes import Picture, draw_pictures  # noqa: E402
from support.waiting import wait_for  # noqa: E402
from support.yoloop import Yoloop  # noqa: E402

DEMO = ROOT / ".yoloop" / "demo"
PROGRAM = ".venv/bin/yoloop"
IMAGES, ANNOTATED = 80, 40
TRAINING = 900.0
"""Seconds that the first version may take on a slow machine."""

WELCOME = """
  Open      {url}/projects/{project}/data
  E-mail    {email}
  Password  {password}

{annotated} of {images} images are annotated, and yoloop trains on them now; that takes a minute or two.
Then "Label All Tasks" opens the image that the model is least sure of, with its suggestions, ranked by score: correct
and submit them.

  yoloop    {yoloop}
  Home      {home}

Commands, in this folder; they find the demo while it runs:
  {program} status {project}     what it has learned, what the next training waits for
  {program} versions {project}   versions with their metrics
  {program} doctor {project}     whether all is as it should be
  {program} accept {project}     turn sure suggestions into annotations, once you were asked
Beside another yoloop of yours, say which one is meant: export YOLOOP_HOME={home}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Label Studio and yoloop, to try out.")
    parser.add_argument("--check", action="store_true", help="end after the first suggestions were seen")
    parser.add_argument("--screenshot", type=Path, metavar="FILE", help="save a picture of the suggestions and end")
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    DEMO.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(DEMO / "lock", timeout=0):
            demonstrate(given.check or given.screenshot is not None, given.screenshot)
    except Timeout:
        print("The demo runs already.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
    except (AssertionError, RuntimeError) as error:
        print(f"{error}\nThe logs are in {DEMO.relative_to(ROOT)}.", file=sys.stderr)
        return 1
    return 0


def demonstrate(check: bool, picture: Path | None) -> None:
    """Run the demo until Ctrl-C, or with `check` until the first version's suggestions were seen."""
    program = executable()
    if program is None:
        raise RuntimeError("Label Studio is not installed; run scripts/install --label-studio.")
    for name in ("files", "home", "label-studio"):
        shutil.rmtree(DEMO / name, ignore_errors=True)
    (DEMO / "home.log").unlink(missing_ok=True)
    print("Starting Label Studio. The first time it makes its database, which takes a minute.", flush=True)
    template = make_template(DEMO / f"template-{program.stat().st_mtime_ns}")
    # Label Studio serves folders below this one, never this one itself.
    files = DEMO / "files"
    pictures = draw_pictures(files / "images", IMAGES, seed=1, size=320)
    with LabelStudioServer(DEMO / "label-studio", _port(8080), local_files=files, template=template) as server:
        project = make_project(server, files / "images")
        tasks = import_tasks(server, project, pictures)
        port = _port(9090)
        # Half the images' size teaches the shapes as well, in a quarter of the time.
        settings = {"YOLOOP_PORT": str(port), "YOLOOP_IMAGE_SIZE": "160"}
        yoloop = Yoloop(DEMO / "home", server, **settings)
        yoloop.port = port
        with yoloop:
            print(yoloop.run("connect", str(project), "--url", yoloop.url))
            annotated = list(tasks)[:ANNOTATED]
            for task in annotated:
                _annotate(server, project, task, tasks[task])
            show = {"url": server.url, "email": server.email, "password": server.password, "project": project}
            mine = {"yoloop": yoloop.url, "home": DEMO / "home", "program": PROGRAM}
            print(WELCOME.format(annotated=ANNOTATED, images=IMAGES, **show, **mine), flush=True)
            serves, told = "", set[str]()
            while not serves:
                serves = tell_next_version(yoloop, told, TRAINING)
            if not check:
                print("Label on: ten new annotations or more start the next training. Ctrl-C stops.", flush=True)
                while True:
                    tell_next_version(yoloop, told, float("inf"))
            see_suggestions(server, project, serves)
            if picture is not None:
                from screenshot import screenshot

                crowd = max(list(tasks)[ANNOTATED:], key=lambda task: _variety(tasks[task]))
                _retrieve(server, project, crowd)
                screenshot(server.url, server.email, server.password, project, crowd, picture)
                print(f"Saved {picture}.")


def make_project(server: LabelStudioServer, images: Path) -> int:
    """A project with the sample config, whose images may lie in that folder; its id."""
    body = {"title": "Shapes", "label_config": (ROOT / "label_config.xml").read_text()}
    project = int(server.api("POST", "/api/projects/", json=body)["id"])
    # Without a storage that covers the folder, Label Studio refuses its files.
    storage = {"project": project, "path": str(images.absolute()), "use_blob_urls": True, "title": "Images"}
    server.api("POST", "/api/storages/localfiles/", json=storage)
    return project


def import_tasks(server: LabelStudioServer, project: int, pictures: list[Picture]) -> dict[int, Picture]:
    """Task id → picture, in the pictures' order."""
    address = {f"/data/local-files/?d=images/{picture.path.name}": picture for picture in pictures}
    body = [{"data": {"image": image}} for image in address]
    server.api("POST", f"/api/projects/{project}/import", json=body)
    found = server.api("GET", f"/api/tasks?project={project}&page_size={len(pictures)}")["tasks"]
    return {task["id"]: address[task["data"]["image"]] for task in sorted(found, key=lambda task: task["id"])}


def tell_next_version(yoloop: Yoloop, told: set[str], seconds: float) -> str:
    """Wait for a version that was not told of, and tell of it. Returns its name if it serves, else nothing."""

    def fresh() -> dict[str, Any] | None:
        try:
            found = reversed(yoloop.versions())
        except requests.RequestException:  # a dead server is started again
            return None
        return next((one for one in found if one["version"] not in told and one["decision"] != "undecided"), None)

    version: dict[str, Any] = wait_for(fresh, seconds, "a version; yoloop's log says more")
    name = str(version["version"])
    told.add(name)
    outcome = "serves now" if version["champion"] else "does not serve"
    print(f"{name} {outcome}: mAP50 {version['metrics'].get('mAP50', 0):.3f}, {version['reason']}", flush=True)
    return name if version["champion"] else ""


def see_suggestions(server: LabelStudioServer, project: int, version: str) -> None:
    """Ask the label stream for a task, as a person does, and look at what it stored; RuntimeError if it is wrong."""

    def stored() -> dict[str, Any] | None:
        task = server.api("GET", f"/api/projects/{project}/next")["id"]
        found = server.api("GET", f"/api/predictions/?task={task}")
        return next((one for one in found if one["model_version"] == f"yoloop-{version}"), None)

    # The promotion reaches the serving process within a second or two.
    prediction: dict[str, Any] = wait_for(stored, 30, f"suggestions of {version}")
    scores = [region["score"] for region in prediction["result"]]
    if not scores or scores != sorted(scores, reverse=True):
        raise RuntimeError(f"These suggestions are not ranked: {scores}")
    listed = ", ".join(f"{one['value']['rectanglelabels'][0]} {one['score']:.2f}" for one in prediction["result"])
    print(f"Task {prediction['task']} shows {listed}.", flush=True)


def _annotate(server: LabelStudioServer, project: int, task: int, picture: Picture) -> None:
    # No lead time: nobody labelled this in so many seconds.
    body = {"result": picture.result()}
    server.api("POST", f"/api/tasks/{task}/annotations/?project={project}", json=body)


def _retrieve(server: LabelStudioServer, project: int, task: int) -> None:
    """Have the suggestions stored once. A page that opens asks for them twice at a time, and shows both answers."""
    action = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}"
    server.api("POST", action, json={"selectedItems": {"all": False, "included": [task]}})


def _variety(picture: Picture) -> tuple[int, int]:
    return len({shape.label for shape in picture.shapes}), len(picture.shapes)


def _port(wanted: int) -> int:
    """The port, or a free one when somebody listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
    return wanted


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
