"""The last part of `scripts/image`: docker/docker-compose.yml with a real Label Studio, one life from end to end.

A project is connected, pictures are uploaded and annotated, a version is trained, and its suggestions are seen: all
between the two containers, at the addresses that the compose file gives them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
from support.labelstudio import EMAIL, PASSWORD, LabelStudioServer  # noqa: E402
from support.ports import free_port  # noqa: E402
from support.shapes import draw_pictures  # noqa: E402
from support.waiting import wait_for  # noqa: E402

PICTURES, ANNOTATED = 40, 32
START, TRAINING = 300.0, 900.0
"""Seconds that Label Studio's first start and the first version may take."""

OVERRIDE = """
services:
  label-studio:
    environment:
      LABEL_STUDIO_USERNAME: {email}
      LABEL_STUDIO_PASSWORD: {password}
  yoloop:
    environment:
      YOLOOP_OFFLINE: "1"
      YOLOOP_IMAGE_SIZE: "160"
"""


class Compose:
    """The services of the compose file, Label Studio at a free port of this machine.

    Args:
        folder: where `scripts/image` keeps images and podman-compose.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._program = folder / "compose" / "bin" / "podman-compose"
        self._folder = folder / "compose-file" / "docker"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        text = (ROOT / "docker" / "docker-compose.yml").read_text()
        assert '"8080:8080"' in text
        (self._folder / "docker-compose.yml").write_text(text.replace('"8080:8080"', f'"127.0.0.1:{self.port}:8080"'))
        (self._folder / "override.yml").write_text(OVERRIDE.format(email=EMAIL, password=PASSWORD))
        (self._folder / ".env").write_text("YOLOOP_BASIC_AUTH_USER=try\nYOLOOP_BASIC_AUTH_PASS=try\n")

    def __enter__(self) -> Compose:
        _podman("tag", "localhost/yoloop", "localhost/yoloop_yoloop")
        self._run("down", "--volumes")
        self._run("up", "--detach", "--no-build")
        for name in ("label-studio", "yoloop"):
            wait_for(lambda name=name: self.healthy(name), START, f"{name} to be healthy", pause=1)  # type: ignore[misc]
        return self

    def __exit__(self, *_: object) -> None:
        self._run("down", "--volumes")

    def healthy(self, name: str) -> bool:
        """By the health check of its image or of the compose file."""
        done = subprocess.run(["/usr/bin/env", "podman", "healthcheck", "run", f"yoloop_{name}_1"], capture_output=True)
        return done.returncode == 0

    def yoloop(self, *words: str, **settings: str) -> str:
        """A command of yoloop in its container; what it printed."""
        given = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
        return _podman("exec", *given, "yoloop_yoloop_1", "yoloop", *words)

    def _run(self, *words: str) -> None:
        files = ("-f", "docker-compose.yml", "-f", "override.yml")
        done = subprocess.run([self._program, *files, *words], cwd=self._folder, capture_output=True, text=True)
        if words[0] == "up" and done.returncode != 0:
            raise RuntimeError(done.stdout + done.stderr)


def main() -> None:
    folder = Path(sys.argv[1])
    with Compose(folder) as compose:
        print("Both services are healthy.", flush=True)
        # Only spoken to: the container runs it.
        server = LabelStudioServer(folder / "label-studio", compose.port)
        config = (ROOT / "label_config.xml").read_text()
        project = server.api("POST", "/api/projects/", json={"title": "shapes", "label_config": config})["id"]
        pictures = draw_pictures(folder / "pictures", PICTURES, seed=3, size=160)
        for picture in pictures:
            part = {"file": (picture.path.name, picture.path.read_bytes(), "image/jpeg")}
            server.api("POST", f"/api/projects/{project}/import", files=part)
        address = "http://yoloop.internal:9090"
        print(
            compose.yoloop("connect", "--project", str(project), "--url", address, LABEL_STUDIO_API_KEY=server.pat()),
            flush=True,
        )
        tasks = server.api("GET", f"/api/tasks?project={project}&page_size={PICTURES}")["tasks"]
        by_name = {each.path.stem: each for each in pictures}
        picture_of = {
            task["id"]: next(each for name, each in by_name.items() if re.search(rf"{name}\b", task["data"]["image"]))
            for task in tasks
        }
        for task in list(picture_of)[:ANNOTATED]:
            body = {"result": picture_of[task].result(), "lead_time": 2.0}
            server.api("POST", f"/api/tasks/{task}/annotations/?project={project}", json=body)

        def decided() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads(compose.yoloop("versions", "--json"))
            return [each for each in found if each["decision"] != "undecided"]

        (version,) = wait_for(decided, TRAINING, "the first version", pause=5)
        print(f"{version['version']} is {version['decision']}, mAP50 {version['metrics']['mAP50']:.3f}.", flush=True)

        def suggested() -> dict[str, Any] | None:
            task = server.api("GET", f"/api/projects/{project}/next")["id"]
            found = server.api("GET", f"/api/predictions/?task={task}")
            return next((each for each in found if each["model_version"] == f"yoloop-{version['version']}"), None)

        prediction: dict[str, Any] = wait_for(suggested, 60, "its suggestions in Label Studio", pause=2)
        print(f"Task {prediction['task']} shows {len(prediction['result'])} suggestions.", flush=True)
        print(compose.yoloop("doctor", "--project", str(project)), flush=True)


def _podman(*words: str) -> str:
    done = subprocess.run(["/usr/bin/env", "podman", *words], capture_output=True, text=True, env=os.environ)
    if done.returncode != 0:
        raise RuntimeError(f"podman {' '.join(words)}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
