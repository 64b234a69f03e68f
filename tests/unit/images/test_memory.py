from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.web import encoded

from backend.errors import Busy
from backend.images.memory import DecodingMemory, MemoryBudget

SIDE = 9000

HOSTILE = """
import base64, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from backend.images.cache import ImageCache
from backend.images.loader import Images, Source

def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1000

images = Images(ImageCache(Path("cache"), 10**9), timeout=5, max_bytes=10**8, max_pixels=10**8, workers=8)

def load(path):
    uri = "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()
    return images.load(Source(uri, 1, "", dict), 640).size.width

load(sys.argv[1])
before = resident("VmRSS")
with ThreadPoolExecutor(8) as pool:
    assert set(pool.map(load, sys.argv[2:])) == {9000}
print(resident("VmHWM") - before)
"""


@pytest.mark.slow
def test_hostile_pictures_at_once_stay_within_the_budget(tmp_path: Path) -> None:
    palette = Image.new("P", (SIDE, SIDE))
    pictures = [
        encoded(Image.new("RGB", (9, 9))),
        encoded(palette, transparency=0),
        encoded(Image.fromarray(np.zeros((SIDE, SIDE), np.uint16)), compress_level=1),
        encoded(Image.new("RGB", (SIDE, SIDE), "red"), "WEBP", method=0),
        encoded(Image.new("RGBA", (SIDE, SIDE)), "TIFF", compression="tiff_deflate", tiffinfo={278: SIDE}),
        encoded(Image.new("CMYK", (SIDE, SIDE)), "JPEG", progressive=True),
    ]
    for number, data in enumerate(pictures):
        (tmp_path / str(number)).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, *(str(tmp_path / str(number)) for number in range(len(pictures)))],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 800


def test_the_deadline_ends_the_wait_and_leaves_nothing_held() -> None:
    memory = MemoryBudget(10)
    with memory.hold(10), pytest.raises(Busy), memory.hold(1, time.monotonic() + 0.05):
        pass
    with memory.hold(100, time.monotonic()):  # all of it, alone
        pass


def test_usual_images_do_not_queue_behind_large_ones() -> None:
    memory = DecodingMemory(10**8)
    with memory.hold(memory.most), memory.hold(10**6, time.monotonic()):
        pass
    with memory.hold(memory.most), pytest.raises(Busy), memory.hold(10**8, time.monotonic()):
        pass
