"""docker/Dockerfile as the tests read it, and its steps carried out in a folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Instruction:
    """Such as `COPY` with `backend backend`."""

    name: str
    value: str


def instructions(text: str) -> list[Instruction]:
    """Those of a Dockerfile, in order, without comments; lines that go on are joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", "")
    return [Instruction(*line.split(None, 1)) for line in whole.splitlines()]


@dataclass(slots=True)
class Stage:
    """A folder that stands for the image's root: what the Dockerfile does below `/app` and `/data` is done there.

    Its Python has the packages of the tests' own, as the Dockerfile's would be downloaded. No user is added to this
    machine.

    Args:
        root: the folder; it is made.
        context: where COPY copies from.
        arguments: build arguments.
    """

    root: Path
    context: Path = ROOT
    arguments: dict[str, str] = field(default_factory=dict)
    workdir: Path = field(init=False)
    env: dict[str, str] = field(init=False)
    said: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.workdir = self.root
        programs = self.root / "usr" / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.root / "usr"], check=True)
        (site,) = (self.root / "usr").glob("lib/python*/site-packages")
        (site / "of_the_tests.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
        _program(programs / "pip", 'exec python -m pip "$@"')
        _program(programs / "useradd", "exit 0")
        if os.geteuid() != 0:  # nobody else can give a folder to somebody
            _program(programs / "install", 'for last; do :; done; exec mkdir -p "$last"')
        # PIP_NO_INDEX: whatever is still to be had must come with the context.
        self.env = {"PATH": f"{programs}:/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def carry_out(self, step: Instruction) -> None:
        """One instruction; those that only describe the image to an engine are kept in `said`."""
        value = self.here(step.value)
        match step.name:
            case "WORKDIR":
                self.workdir = Path(value)
                self.workdir.mkdir(parents=True, exist_ok=True)
            case "ENV":
                self.env |= dict(re.findall(r"(\w+)=(\S+)", value))
            case "ARG":
                name, _, default = value.partition("=")
                self.env[name] = self.arguments.get(name, default.strip('"'))
            case "COPY":
                *sources, target = value.split()
                for source in sources:
                    self._copy(source, self.workdir / target)
            case "RUN":
                self.run(["sh", "-ec", value])
            case _:
                self.said[step.name] = value

    def here(self, value: str) -> str:
        """The value with the image's folders in this root."""
        return re.sub(r"(?<![\w.])/(app|data)\b", rf"{self.root}/\1", value)

    def run(self, command: list[str]) -> str:
        """A command in the image; what it printed. Raises when it fails."""
        done = subprocess.run(command, cwd=self.workdir, env=self.env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def installed(self, package: str) -> Path:
        """Where a package of ours is installed."""
        (found,) = (self.root / "usr").glob(f"lib/python*/site-packages/{package}")
        return found

    def _copy(self, source: str, target: Path) -> None:
        allowed = (self.context / ".dockerignore").read_text().splitlines()
        assert f"!{source}" in allowed, f"{source} is copied, but .dockerignore leaves it out"
        if (self.context / source).is_dir():
            shutil.copytree(self.context / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(self.context / source, target)


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
