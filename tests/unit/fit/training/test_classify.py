"""Images of choices, as a training takes them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from backend.fit.training import classify
from backend.fit.training.classify import Pictures

SIZE = 32
BYTES = SIZE * SIZE * 3


def pictures(folder: Path, count: int, workers: int = 0) -> Pictures:
    entries = []
    for number in range(count):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), np.full((50, 40, 3), 10 * number, np.uint8))
        entries.append({"image": str(path), "classes": [number % 2]})
    args = SimpleNamespace(imgsz=SIZE, workers=workers)
    return Pictures(entries, 2, multiple=False, args=args, augment=False)


@pytest.mark.parametrize(("workers", "kept"), [(0, 6), (1, 6), (3, 2)])
def test_so_many_images_are_kept_as_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, kept: int
) -> None:
    monkeypatch.setattr(classify, "CACHED", 6 * BYTES + 10)
    made = pictures(tmp_path, 10, workers)
    first = [made[number]["img"] for number in range(10)]
    assert sum(np.asarray(each).nbytes for each in made._images.values()) == kept * BYTES
    read: list[str] = []
    right = cv2.imread
    monkeypatch.setattr(cv2, "imread", lambda path: read.append(path) or right(path))
    assert all((made[number]["img"] == first[number]).all() for number in range(10))
    assert [Path(each).stem for each in read] == [str(number) for number in range(kept, 10)]
