from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from shapes import LABELS, draw_pictures
from web import Server, answer, encoded

from backend.errors import TrainingError
from backend.fit.dataset import Dataset, NetworkData, build
from backend.fit.ledger import Example
from backend.fit.splits import is_held_out, split_key
from backend.labels.schema import parse_label_config
from backend.predict.decode import Decoded, decode
from backend.services import Services
from backend.settings import Settings
from backend.store import Project

CONFIG = """
<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
  <Label value="Disc"/><Label value="Square"/><Label value="Triangle"/></RectangleLabels></View>
"""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(Settings(home=tmp_path / "home", holdout=0.5, allowed_hosts="127.0.0.1"))
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def project(services: Services) -> Project:
    services.store.save_project("1.100", label_config=CONFIG)
    found = services.store.project("1.100")
    assert found is not None
    return found


def example(number: int, reference: Any, result: list[dict[str, Any]]) -> Example:
    return Example(number, {"image": reference}, 10 * number, result, f"content {number}")


def box(label: str = "Disc", x: float = 10, **fields: Any) -> dict[str, Any]:
    value = {"x": x, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": [label]}
    region = {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}
    return {**region, "original_width": 100, "original_height": 50, **fields}


def sides(server: Server) -> tuple[list[str], list[str]]:
    """Addresses on the server that teach, and that judge, half of each."""
    paths = [f"/{number}.jpg" for number in range(60)]
    judge = [path for path in paths if is_held_out(split_key(server.url + path), 0.5)]
    return [server.url + path for path in paths if path not in judge], [server.url + path for path in judge]


def photo(number: int, quality: int = 90) -> bytes:
    """A JPEG of 100 × 50 pixels, unlike those of other numbers."""
    coarse = np.random.default_rng(number).integers(0, 256, (5, 10, 3), dtype=np.uint8)
    return encoded(Image.fromarray(coarse).resize((100, 50)), "JPEG", quality=quality)


def sides_in(folder: Path) -> dict[int, str]:
    """Task → side, as the manifest tells, which must be that of the files."""
    manifest = json.loads((folder / "manifest.json").read_text())
    told = {each["task"]: each["side"] for each in manifest["images"]}
    files = {
        int(path.stem.partition("-")[0]): path.parent.name
        for path in (folder / "network-0" / "images").rglob("*-image-0.*")
    }
    assert files.items() <= told.items()
    return told


def only(dataset: Dataset) -> NetworkData:
    (found,) = dataset.networks
    return found


def make(services: Services, project: Project, examples: list[Example], folder: Path) -> Dataset:
    return build(services, project, parse_label_config(CONFIG), examples, folder)


def test_what_ultralytics_reads(services: Services, project: Project, server: Server, tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "pictures", 20)
    examples = []
    for number, picture in enumerate(pictures):
        server.routes[f"/{number}.jpg"] = answer(picture.path.read_bytes())
        examples.append(example(number, f"{server.url}/{number}.jpg", picture.result()))
    dataset = make(services, project, examples, tmp_path / "job")
    folder = tmp_path / "job" / "network-0"
    made = only(dataset)
    assert made.train + made.holdout == 20
    assert made.objects == sum(len(picture.shapes) for picture in pictures)
    assert only(dataset).sizes == [(160, 160)] * 20
    assert dataset.learned == {number: f"content {number}" for number in range(20)}

    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    (folder / "epoch.txt").write_text((folder / "train.txt").read_text())
    data = check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    assert list(data["names"].values()) == list(LABELS)
    seen = {}
    for side in ("train", "val"):
        read = YOLODataset(img_path=data[side], data=data, augment=False, cache=False)
        assert len(read.labels) == (made.train if side == "train" else made.holdout)
        seen |= {Path(each["im_file"]).stem: each for each in read.labels}
    for number, picture in enumerate(pictures):
        label = seen[f"{number}-image-0"]
        assert [LABELS[int(cls)] for (cls,) in label["cls"]] == [shape.label for shape in picture.shapes]
        expected = [
            ((x1 + x2) / 320, (y1 + y2) / 320, (x2 - x1) / 160, (y2 - y1) / 160)
            for x1, y1, x2, y2 in (shape.box for shape in picture.shapes)
        ]
        assert np.allclose(label["bboxes"], np.array(expected).reshape(-1, 4), atol=1e-5)


def test_the_hold_out_judges_and_never_teaches(
    services: Services, project: Project, server: Server, tmp_path: Path
) -> None:
    teach, judge = sides(server)
    for number, url in enumerate(teach + judge):
        server.routes[url.removeprefix(server.url)] = answer(photo(number))
    examples = [example(number, url, [box()]) for number, url in enumerate(teach + judge)]
    make(services, project, examples, tmp_path / "job")
    held_out = json.loads((tmp_path / "job" / "network-0" / "holdout.json").read_text())
    stems = {Path(each["image"]).stem for each in held_out}
    assert stems == {f"{number}-image-0" for number in range(len(teach), len(teach + judge))}
    assert held_out[0]["result"] == [box()]
    assert held_out[0]["classes"] == [0]
    taught = {Path(line).stem for line in (tmp_path / "job" / "network-0" / "train.txt").read_text().splitlines()}
    assert taught == {f"{number}-image-0" for number in range(len(teach))}
    manifest = json.loads((tmp_path / "job" / "manifest.json").read_text())
    assert manifest["networks"] == [{"key": "detect", "classes": list(LABELS), "objects": 60}]
    assert {each["side"] for each in manifest["images"] if each["task"] < len(teach)} == {"train"}
    assert manifest["images"][3]["annotation"] == 30
    assert manifest["images"][3]["content"] == "content 3"


def test_images_are_upright_for_everybody(services: Services, project: Project, server: Server, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encoded(Image.new("RGB", (40, 20), (200, 30, 10)), "JPEG", exif=turned, quality=95)
    server.routes["/a.jpg"] = answer(data)
    dataset = make(services, project, [example(1, f"{server.url}/a.jpg", [box()])], tmp_path / "job")
    assert only(dataset).sizes == [(20, 40)]
    (path,) = [path for path in (tmp_path / "job" / "images").rglob("1-image-0.*") if path.is_file()]
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert stored is not None
    assert stored.shape == (40, 20, 3)


def test_large_images_teach_with_the_pixels_that_will_be_shown(
    services: Services, project: Project, server: Server, tmp_path: Path
) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(coarse).resize((2803, 2101)), "JPEG", quality=90)
    server.routes["/a.jpg"] = answer(data)
    dataset = make(services, project, [example(1, f"{server.url}/a.jpg", [box()])], tmp_path / "job")
    assert only(dataset).sizes == [(2803, 2101)]
    (path,) = (tmp_path / "job" / "images").glob("1-image-0.*")
    stored = cv2.imread(str(path))
    assert stored is not None
    assert stored.shape == (526, 701, 3)  # a quarter, which covers the 640 of the input
    shown = decode(data, 10**8, "a", cover=640).pixels
    assert np.abs(stored.astype(int) - shown).mean() < 1
    line = (tmp_path / "job" / "network-0" / "labels").rglob("1-image-0.txt")
    assert np.allclose([float(each) for each in next(line).read_text().split()], [0, 0.25, 0.4, 0.3, 0.4], atol=1e-6)


def test_only_new_images_are_decoded(
    services: Services, project: Project, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        server.routes[f"/{number}.jpg"] = answer(photo(number))
    server.routes["/11.jpg"] = answer(encoded(Image.new("RGB", (1300, 900)), "JPEG"))
    examples = [example(number, f"{server.url}/{number}.jpg", [box()]) for number in range(12)]
    decoded: list[str] = []

    def counted(data: bytes, max_pixels: int, name: str, *, cover: int = 0) -> Decoded:
        decoded.append(name)
        return decode(data, max_pixels, name, cover=cover)

    monkeypatch.setattr("backend.predict.images.decode", counted)

    def files(folder: Path) -> dict[str, bytes]:
        found = (path for path in folder.rglob("*") if path.is_file() and path.suffix in (".jpg", ".txt"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.parent.name != "network-0"}

    make(services, project, examples[:9], tmp_path / "first")
    assert len(decoded) == 9
    second = make(services, project, examples, tmp_path / "second")
    assert len(decoded) == 12
    third = make(services, project, examples, tmp_path / "third")
    assert len(decoded) == 12
    assert files(tmp_path / "third") == files(tmp_path / "second")
    assert only(third).sizes == only(second).sizes
    assert (1300, 900) in only(third).sizes


def test_an_empty_annotation_is_a_background_image(
    services: Services, project: Project, server: Server, tmp_path: Path
) -> None:
    server.routes["/a.jpg"] = server.routes["/b.jpg"] = answer(encoded(Image.new("RGB", (64, 64)), "JPEG"))
    examples = [example(1, f"{server.url}/a.jpg", []), example(2, f"{server.url}/b.jpg", [box()])]
    dataset = make(services, project, examples, tmp_path / "job")
    assert only(dataset).objects == 1
    (label,) = (tmp_path / "job").rglob("1-image-0.txt")
    assert label.read_text() == ""
    assert dataset.learned == {1: "content 1", 2: "content 2"}


def test_some_unreadable_images_are_left_out(
    services: Services, project: Project, server: Server, tmp_path: Path
) -> None:
    for number in range(10):
        server.routes[f"/{number}.jpg"] = answer(encoded(Image.new("RGB", (64, 64)), "JPEG"))
    server.routes["/3.jpg"] = answer(b"junk")
    del server.routes["/7.jpg"]
    examples = [example(number, f"{server.url}/{number}.jpg", [box()]) for number in range(10)]
    dataset = make(services, project, examples, tmp_path / "job")
    assert set(dataset.unreadable) == {3, 7}
    assert set(dataset.learned) == set(range(10)) - {3, 7}
    assert only(dataset).objects == 8
    del server.routes["/8.jpg"]
    with pytest.raises(TrainingError, match="3 of 10 images could not be read; task"):
        make(
            Services(Settings(home=tmp_path / "other", allowed_hosts="127.0.0.1")), project, examples, tmp_path / "job"
        )


@pytest.mark.parametrize(
    ("reference", "result", "words"),
    [
        (None, [box()], "No annotated task has an image"),
        ("", [box()], "No annotated task has an image"),
        (5, [box()], "No annotated task has an image"),
        ("/a.jpg", [], "No submitted annotation says anything"),
        ("/a.jpg", [box("Unknown")], "No submitted annotation says anything"),
        ("/a.jpg", [box(from_name="other")], "No submitted annotation says anything"),
    ],
)
def test_nothing_to_learn_from(
    services: Services,
    project: Project,
    server: Server,
    tmp_path: Path,
    reference: Any,
    result: list[dict[str, Any]],
    words: str,
) -> None:
    server.routes["/a.jpg"] = answer(encoded(Image.new("RGB", (64, 64)), "JPEG"))
    given = server.url + reference if reference == "/a.jpg" else reference
    with pytest.raises(TrainingError, match=words):
        make(services, project, [example(1, given, result)], tmp_path / "job")


def test_repeated_it_starts_over(services: Services, project: Project, server: Server, tmp_path: Path) -> None:
    for number in range(4):
        server.routes[f"/{number}.jpg"] = answer(encoded(Image.new("RGB", (64, 64)), "JPEG"))
    examples = [example(number, f"{server.url}/{number}.jpg", [box()]) for number in range(4)]
    make(services, project, examples, tmp_path / "job")
    dataset = make(services, project, examples[:2], tmp_path / "job")
    files = {path.stem for path in (tmp_path / "job").rglob("*-image-0.*")}
    assert files == {"0-image-0", "1-image-0"}
    assert dataset.learned == {0: "content 0", 1: "content 1"}


def test_one_side_stands_in_for_an_empty_other(
    services: Services, project: Project, server: Server, tmp_path: Path
) -> None:
    for urls in sides(server):
        server.routes[urls[0].removeprefix(server.url)] = answer(encoded(Image.new("RGB", (64, 64)), "JPEG"))
        dataset = make(services, project, [example(1, urls[0], [box()])], tmp_path / "job")
        assert only(dataset).train == 1
        folder = tmp_path / "job" / "network-0"
        config = json.loads((folder / "data.yaml").read_text())
        assert len(list((folder / config["val"]).iterdir())) == 1
        assert len((tmp_path / "job" / "network-0" / "train.txt").read_text().splitlines()) == 1


class TestNearDuplicates:
    def test_they_are_on_the_side_of_the_first(
        self, services: Services, project: Project, server: Server, tmp_path: Path
    ) -> None:
        teach, judge = sides(server)
        # Task 0's image teaches by its name and task 5's judges; the others are copies whose names say otherwise.
        urls = [teach[0], *judge[:4], judge[4], *teach[1:5]]
        for number, url in enumerate(urls):
            data = photo(0 if number < 5 else 1, quality=90 - 8 * number)
            server.routes[url.removeprefix(server.url)] = answer(data)
        examples = [example(number, url, [box()]) for number, url in enumerate(urls)]
        make(services, project, examples[::-1], tmp_path / "job")
        expected = {number: "train" if number < 5 else "holdout" for number in range(10)}
        assert sides_in(tmp_path / "job") == expected
        held_out = json.loads((tmp_path / "job" / "network-0" / "holdout.json").read_text())
        assert sorted(Path(each["image"]).stem for each in held_out) == [f"{number}-image-0" for number in range(5, 10)]

    def test_a_side_stays_when_others_come(
        self, services: Services, project: Project, server: Server, tmp_path: Path
    ) -> None:
        teach, judge = sides(server)
        for number, url in enumerate([teach[0], judge[0]]):
            server.routes[url.removeprefix(server.url)] = answer(photo(0, quality=90 - 10 * number))
        later = [example(7, judge[0], [box()])]
        make(services, project, later, tmp_path / "first")
        assert sides_in(tmp_path / "first") == {7: "holdout"}
        # A task of a lower number: it would have been the first, and goes to the side that is taken.
        make(services, project, [example(3, teach[0], [box()]), *later], tmp_path / "second")
        assert sides_in(tmp_path / "second") == {3: "holdout", 7: "holdout"}
        make(services, project, [example(3, teach[0], [box()])], tmp_path / "third")
        assert sides_in(tmp_path / "third") == {3: "holdout"}

    def test_an_image_that_is_not_read_keeps_its_side(
        self, services: Services, project: Project, server: Server, tmp_path: Path
    ) -> None:
        teach, judge = sides(server)
        urls = [teach[0], judge[0], *teach[1:9]]
        for number, url in enumerate(urls):
            data = photo(0, quality=90 - 10 * number) if number < 2 else photo(number)
            server.routes[url.removeprefix(server.url)] = answer(data)
        examples = [example(number, url, [box()]) for number, url in enumerate(urls)]
        make(services, project, examples, tmp_path / "first")
        assert sides_in(tmp_path / "first")[1] == "train"
        server.routes[judge[0].removeprefix(server.url)] = answer(b"junk")
        shutil.rmtree(services.settings.root / "cache")
        fresh = Services(services.settings)
        dataset = make(fresh, project, examples, tmp_path / "second")
        fresh.close()
        assert set(dataset.unreadable) == {1}
        assert sides_in(tmp_path / "second") == dict.fromkeys(range(10), "train")
