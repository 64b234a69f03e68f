from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.fit.evaluation.held_out import HeldOut, Seen, rank, seen, within
from backend.labels.networks import Network
from backend.labels.schema import parse_label_config


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"image": f"/data/{name}.jpg", "page": 0, "data_key": "image", "classes": [0], "result": [], **more}


def write(path: Path, entries: Sequence[dict[str, Any]], *, lines: bool = True) -> Path:
    path.write_text(f"[{(',' + chr(10)).join(map(json.dumps, entries))}]" if lines else json.dumps(entries))
    return path


@pytest.mark.parametrize("lines", [True, False], ids=["lines", "as an earlier release wrote it"])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_all_judge_while_they_are_few(tmp_path: Path, count: int, lines: bool) -> None:
    entries = [entry(f"{number}-image-0", result=[{"value": {"text": ["]}, {\n["]}}]) for number in range(count)]
    found = HeldOut(write(tmp_path / "holdout.json", entries, lines=lines))
    assert len(found) == count
    assert sorted(found, key=lambda each: entries.index(each)) == entries
    assert [rank(each["image"]) for each in found] == sorted(rank(each["image"]) for each in entries)
    assert list(found) == list(found), "they can be read once more"


@pytest.mark.parametrize("lines", [True, False])
def test_those_that_judge_stay_when_others_come(tmp_path: Path, lines: bool) -> None:
    entries = [entry(f"{number}-image-0") for number in range(300)]
    before = [each["image"] for each in HeldOut(write(tmp_path / "a", entries[:200], lines=lines), most=50)]
    after = [each["image"] for each in HeldOut(write(tmp_path / "b", entries, lines=lines), most=50)]
    assert len(before) == len(after) == 50
    old = {each["image"] for each in entries[:200]}
    kept = [name for name in after if name in old]
    assert kept == before[: len(kept)], "only the last ones make room"
    assert 20 < len(kept) < 50


def test_the_folder_does_not_decide() -> None:
    assert rank("/a/7-image-0.jpg") == rank("/b/c/7-image-0.png") != rank("/a/8-image-0.jpg")


CONFIG = """
<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
  <Label value="Disc"/></RectangleLabels></View>
"""


def test_an_image_that_is_gone_does_not_judge(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    there = tmp_path / "1-image-0.png"
    cv2.imwrite(str(there), np.zeros((40, 20, 3), np.uint8))
    value = {"x": 50.0, "y": 0.0, "width": 50.0, "height": 50.0, "rotation": 0, "rectanglelabels": ["Disc"]}
    region = {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}
    entries = [entry("2-image-0", image=str(tmp_path / "2-image-0.png")), entry("", image=str(there), result=[region])]
    network = Network("detect", "detect", ("Disc",), ("label",))
    ((shown, image, truth),) = seen(entries, parse_label_config(CONFIG), network)
    assert shown == entries[1] and image.shape == (40, 20, 3)
    assert [(each.box.x1, each.box.y1, each.box.x2, each.box.y2) for each in truth] == [(10, 0, 20, 20)]
    assert "2-image-0.png cannot be read" in caplog.text and str(tmp_path) not in caplog.text


class Slow:
    """Images that take a second each, of a clock of their own."""

    def __init__(self, count: int) -> None:
        self.now, self._count = 100.0, count

    def clock(self) -> float:
        return self.now

    def __iter__(self) -> Any:
        for _ in range(self._count):
            self.now += 1
            yield Seen({}, np.zeros((1, 1, 3), np.uint8), [])


@pytest.mark.parametrize(
    ("count", "seconds", "fewest", "expected"),
    [(30, 100, 5, 30), (30, 12, 5, 11), (30, 2, 5, 5), (3, 2, 5, 3), (0, 2, 5, 0)],
)
def test_as_many_as_the_time_allows(count: int, seconds: float, fewest: int, expected: int) -> None:
    slow = Slow(count)
    found: list[Seen] = list(within(slow, 100 + seconds, slow.clock, fewest))
    assert len(found) == expected
