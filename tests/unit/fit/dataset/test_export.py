from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.web import Server, answer, encoded

from backend.errors import BadRequest
from backend.fit.dataset.build import build
from backend.fit.dataset.export import export
from backend.labels.schema import parse_label_config
from backend.services import Services
from backend.settings import Settings
from backend.simulation.holdout import Exam
from backend.store.database import Project, Store
from backend.store.ledger import Example
from backend.store.near_duplicates import copy_groups
from backend.store.sides import copy_sides

CONFIG = """
<View><Image name="image" value="$image"/>
<RectangleLabels name="../box" toName="image"><Label value="Disc"/><Label value="Square"/></RectangleLabels>
<PolygonLabels name="outline" toName="image"><Label value="Leaf"/></PolygonLabels>
<Choices name="weather" toName="image"><Choice value="sun"/><Choice value="rain"/></Choices></View>
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


def region(name: str, kind: str, **value: Any) -> dict[str, Any]:
    return {"from_name": name, "to_name": "image", "type": kind, "value": value}


BOX = region("../box", "rectanglelabels", x=10, y=20, width=30, height=40, rotation=0, rectanglelabels=["Square"])
LEAF = region("outline", "polygonlabels", points=[[10, 10], [60, 10], [60, 80]], polygonlabels=["Leaf"])
RAIN = region("weather", "choices", choices=["rain"])
BROKEN = region("../box", "rectanglelabels", x=10, y=20, width=30, height=40, rotation=0, rectanglelabels=["Gone"])


@pytest.fixture
def examples(server: Server) -> list[Example]:
    found = []
    for number in range(1, 9):
        picture = Image.effect_noise((100, 50), 90 + number).resize((100, 50)).convert("RGB")
        server.routes[f"/{number}.jpg"] = answer(encoded(picture, "JPEG"))
        result = [BROKEN] if number == 8 else [BOX, LEAF, RAIN] if number % 3 else [RAIN]
        found.append(Example(number, {"image": f"{server.url}/{number}.jpg"}, 10 * number, result, f"c{number}"))
    return found


@pytest.fixture
def project(services: Services, examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> Project:
    services.store.save_project("1.100", label_config=CONFIG)
    monkeypatch.setattr(services.ledger, "examples", lambda uid, tasks=None: examples)
    found = services.store.project("1.100")
    assert found is not None
    return found


def train(services: Services, project: Project, examples: list[Example], folder: Path) -> dict[tuple[str, str], str]:
    """What the training reads: side and task → text of its boxes."""
    teaching = {each.task_id: (each.annotation_id, each.content) for each in examples}
    schema = parse_label_config(CONFIG)
    made = build(services, project, schema, teaching, lambda ids: [e for e in examples if e.task_id in ids], folder)
    number = next(str(each.folder.name) for each in made.networks if each.network.task == "detect")
    labels = services.settings.root / "datasets" / project.uid / number / "labels"
    sides = {"train": "train", "holdout": "val"}
    return {(sides[p.parent.name], p.stem.split("-")[0]): p.read_text() for p in labels.rglob("*.txt")}


def read(folder: Path) -> dict[tuple[str, str], str]:
    return {(path.parent.name, path.stem): path.read_text() for path in (folder / "labels").rglob("*.txt")}


@pytest.mark.parametrize("trained_before", [True, False])
def test_yolo_is_what_the_training_reads(
    services: Services, project: Project, examples: list[Example], server: Server, tmp_path: Path, trained_before: bool
) -> None:
    if trained_before:
        wanted = train(services, project, examples, tmp_path / "training")
    done = export(services, project, tmp_path / "out", images=not trained_before)
    if not trained_before:
        assert not (services.settings.root / "datasets").exists()
        wanted = train(services, project, examples, tmp_path / "training")
    assert read(tmp_path / "out" / "_box") == wanted
    assert any(wanted.values()) and len({side for side, _ in wanted}) == 2
    assert {"task": 8, "control": "../box"}.items() <= next(e for e in done.left_out if e["task"] == 8).items()
    assert json.loads((tmp_path / "out" / "left_out.json").read_text()) == done.left_out
    assert set(read(tmp_path / "out" / "weather").values()) == {"1"}


def test_ultralytics_reads_it(services: Services, project: Project, tmp_path: Path) -> None:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    export(services, project, tmp_path / "out", images=True)
    data = check_det_dataset(str(tmp_path / "out" / "outline" / "data.yaml"), autodownload=False)
    assert data["names"] == {0: "Leaf"}
    found = [
        label
        for side in ("train", "val")
        for label in YOLODataset(img_path=data[side], data=data, task="segment", imgsz=64, augment=False).labels
    ]
    assert sorted(len(each["cls"]) for each in found) == [0] * (len(found) - 5) + [1] * 5


def test_pycocotools_reads_it(services: Services, project: Project, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    export(services, project, tmp_path / "out", coco=True)
    coco = COCO(tmp_path / "out" / "annotations.json")
    names = {each["id"]: each["name"] for each in coco.loadCats(coco.getCatIds())}
    boxes = [each for each in coco.anns.values() if names[each["category_id"]] == "Square"]
    assert len(boxes) == 5
    assert all(each["bbox"] == pytest.approx([10, 10, 30, 20]) for each in boxes)
    leaves = [each for each in coco.anns.values() if names[each["category_id"]] == "Leaf"]
    assert all(coco.annToMask(each).sum() == each["area"] for each in leaves)
    assert leaves


def test_the_sides_are_those_of_the_database(
    services: Services, project: Project, examples: list[Example], tmp_path: Path
) -> None:
    """For an export before the first training as for a simulation; the training has them, too."""
    export(services, project, tmp_path / "out")
    held_out = {task for side, task in read(tmp_path / "out" / "weather") if side == "val"}
    groups = Store(f"sqlite:///{tmp_path / 'groups.db'}")
    copy_groups(services.store, groups, project.uid)
    copy_sides(services.store, groups, project.uid)
    exam = Exam.of(services, project, parse_label_config(CONFIG), examples, groups)
    groups.close()
    assert exam.images == len(held_out) > 0
    teaching = {each.task_id: (each.annotation_id, each.content) for each in examples}
    schema = parse_label_config(CONFIG)
    made = build(services, project, schema, teaching, lambda ids: [e for e in examples if e.task_id in ids], tmp_path)
    assert {str(task) for task, judges in made.sides.items() if judges} == held_out


def test_a_folder_with_something_in_it_is_refused(services: Services, project: Project, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(BadRequest, match="not empty"):
        export(services, project, tmp_path / "out")
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_version_is_what_it_learned(
    services: Services, project: Project, examples: list[Example], tmp_path: Path
) -> None:
    wanted = train(services, project, examples, tmp_path / "training")
    manifest = json.loads((tmp_path / "training" / "manifest.json").read_text())
    url = str(examples[0].data["image"])
    examples[1] = Example(2, examples[1].data, 20, [], "changed")
    examples.append(Example(9, {"image": url}, 90, [BOX], "new"))
    done = export(services, project, tmp_path / "out", manifest=manifest)
    assert read(tmp_path / "out" / "_box") == {key: text for key, text in wanted.items() if key[1] != "2"}
    assert {"task": 2, "control": "../box", "reason": "its annotation has changed since"} in done.left_out


ALL_KINDS = """
<View><Image name="image" valueList="$pages"/>
<RectangleLabels name="turned" toName="image"><Label value="Ship"/></RectangleLabels>
<KeyPointLabels name="points" toName="image" model_point="true"><Label value="Nose"/></KeyPointLabels>
<Choices name="many" toName="image" choice="multiple" perItem="true"><Choice value="a"/><Choice value="b"/></Choices>
<Taxonomy name="kind" toName="image"><Choice value="Animal"><Choice value="Cat"/></Choice></Taxonomy></View>
"""


def test_pages_turned_boxes_and_several_choices(
    services: Services, server: Server, examples: list[Example], project: Project, tmp_path: Path
) -> None:
    urls = [str(each.data["image"]) for each in examples[:2]]
    ship = region("turned", "rectanglelabels", x=30, y=30, width=20, height=20, rotation=30, rectanglelabels=["Ship"])
    both = region("many", "choices", choices=["a", "b"])
    cat = region("kind", "taxonomy", taxonomy=[["Animal", "Cat"]])
    nose = region("points", "keypointlabels", x=40, y=40, width=1, keypointlabels=["Nose"])
    result = [{**ship, "item_index": 1}, {**nose, "item_index": 1}, {**both, "item_index": 0}, cat]
    examples[:] = [Example(1, {"pages": urls}, 10, result, "c")]
    services.store.save_project("1.100", label_config=ALL_KINDS)
    paged = services.store.project("1.100")
    assert paged is not None
    export(services, paged, tmp_path / "out")
    ships = {stem: text for (_, stem), text in read(tmp_path / "out" / "turned").items()}
    assert ships["1-0"] == "" and len(ships["1-1"].split()) == 9
    assert {stem: text for (_, stem), text in read(tmp_path / "out" / "many").items()}["1-0"] == "0\n1"
    assert set(read(tmp_path / "out" / "kind").values()) <= {"0", "1"}
    export(services, paged, tmp_path / "coco", coco=True)
    found = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    controls = {each["id"]: each["supercategory"] for each in found["categories"]}
    objects = {controls[each["category_id"]]: each for each in found["annotations"]}
    assert len(objects["turned"]["segmentation"][0]) == 8
    assert objects["points"]["keypoints"] == pytest.approx([40, 20, 2])


SIBLINGS = """
<View><Image name="image" value="$image"/>
<RectangleLabels name="box" toName="image"><Label value="Disc"/><Label value="Square"/></RectangleLabels>
<EllipseLabels name="round" toName="image"><Label value="Ring"/><Label value="Disc"/></EllipseLabels></View>
"""


def test_of_controls_that_share_a_model_both_are_left_out_where_the_training_leaves_the_image_out(
    services: Services, examples: list[Example], project: Project, tmp_path: Path
) -> None:
    square = {**BOX, "from_name": "box"}
    place = {"x": 70, "y": 60, "radiusX": 10, "radiusY": 20, "rotation": 0}
    drawn = {
        label: region("round", "ellipselabels", **place, ellipselabels=[label]) for label in ("Ring", "Disc", "Gone")
    }
    results = [[square], [drawn["Disc"]], [square, drawn["Ring"]], [square, drawn["Gone"]], [square, drawn["Disc"]], []]
    images = [each.data for each in examples]
    examples[:] = [Example(n, images[n], 10 * n, result, f"c{n}") for n, result in enumerate(results, start=1)]
    services.store.save_project("1.100", label_config=SIBLINGS)
    both = services.store.project("1.100")
    assert both is not None
    teaching = {each.task_id: (each.annotation_id, each.content) for each in examples}
    load = {each.task_id: each for each in examples}
    made = build(
        services,
        both,
        parse_label_config(SIBLINGS),
        teaching,
        lambda ids: [load[i] for i in ids],
        tmp_path / "training",
    )
    written = {p.stem.split("-")[0]: p.read_text() for p in (services.settings.root / "datasets").rglob("*.txt")}
    done = export(services, both, tmp_path / "out")
    found = {
        name: {stem: text for (_, stem), text in read(tmp_path / "out" / name).items()} for name in ("box", "round")
    }
    assert {int(stem) for stem in written} == set(load) - made.not_understood.keys() == {1, 2, 3, 5, 6}
    assert found["box"].keys() == found["round"].keys() == written.keys()
    assert {(each["task"], each["control"]) for each in done.left_out} == {(4, "box"), (4, "round")}
    # Disc, Square and Ring to the training; Disc and Square of the boxes; Ring and Disc of the ellipses.
    names = {"box": {"0": "0", "1": "1"}, "round": {"0": "0", "1": "2"}}
    for stem, text in written.items():
        lines = {
            f"{names[name][line.split()[0]]} {line.split(maxsplit=1)[1]}"
            for name, texts in found.items()
            for line in texts[stem].splitlines()
        }
        assert lines == set(text.splitlines())
