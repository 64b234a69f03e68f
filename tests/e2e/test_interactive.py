"""Interactive mode on a real Label Studio: a person draws a rectangle, and what yoloop finds in it appears."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.browser import signed_in
from support.labelstudio import LabelStudioServer
from support.shapes import draw_pictures
from support.tiny import tiny_yolo
from support.yoloop import Yoloop

pytestmark = pytest.mark.group("label-studio", minutes=5)

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image" smart="true"><Label value="Disc"/><Label value="Square"/></RectangleLabels>
<KeyPointLabels name="point" toName="image" smart="true" model_skip="true"><Label value="Any"/></KeyPointLabels></View>
"""
SHAPES = "() => window.Konva?.stages?.[0]?.find('._transformable').length"


@dataclass
class Drawing:
    label_studio: LabelStudioServer
    project: int
    task: int
    backend: int

    def point(self, x: float, y: float, **fields: Any) -> dict[str, Any]:
        """What yoloop answers to a click at x, y percent, through Label Studio."""
        mark = {
            "type": "keypointlabels",
            "from_name": "point",
            "to_name": "image",
            "value": {"x": x, "y": y, "width": 0.2, "keypointlabels": ["Any"]},
            "is_positive": True,
            **fields,
        }
        return self.ask(mark)

    def rectangle(self, x1: float, y1: float, x2: float, y2: float) -> dict[str, Any]:
        """What yoloop answers to a drawn rectangle, through Label Studio."""
        value = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0, "rectanglelabels": ["Disc"]}
        mark = {"id": "m", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}
        return self.ask({**mark, "origin": "manual"})

    def ask(self, mark: dict[str, Any]) -> dict[str, Any]:
        body = {"task": self.task, "context": {"result": [mark]}}
        answer = self.label_studio.api("POST", f"/api/ml/{self.backend}/interactive-annotating", json=body)
        assert not answer.get("errors"), answer
        found: dict[str, Any] = answer["data"]
        return found


@pytest.fixture(scope="module")
def drawing(label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawing]:
    """A task and a model that finds discs everywhere, none of them sure enough to be suggested."""
    folder = tmp_path_factory.mktemp("interactive")
    (picture,) = draw_pictures(folder, 1, size=320)
    tiny_yolo(folder / "home" / "models" / "tiny.pt", ["Disc", "Square"], {1: (0, 0.9)})
    settings = {"YOLOOP_BASE_MODEL": "tiny.pt", "YOLOOP_IMAGE_SIZE": "64", "YOLOOP_SCORE_THRESHOLD": "0.95"}
    project = label_studio.api("POST", "/api/projects/", json={"title": "pointing", "label_config": CONFIG})["id"]
    with picture.path.open("rb") as image:
        label_studio.api("POST", f"/api/projects/{project}/import", files={"file": ("shapes.jpg", image)})
    (task,) = label_studio.api("GET", f"/api/tasks?project={project}")["tasks"]
    with Yoloop(folder / "home", label_studio, **settings) as yoloop:
        yoloop.run("connect", "--project", str(project), "--url", yoloop.url)
        (backend,) = label_studio.api("GET", f"/api/ml?project={project}")
        assert backend["is_interactive"], "a config with smart tools is connected for interactive mode"
        yield Drawing(label_studio, project, task["id"], backend["id"])


def test_a_click_is_answered_with_the_object_under_it(drawing: Drawing) -> None:
    (region,) = drawing.point(50, 50)["result"]
    value = region["value"]
    assert value["x"] <= 50 <= value["x"] + value["width"]
    assert (region["from_name"], value["rectanglelabels"]) == ("label", ["Disc"])
    assert drawing.point(50, 50, is_positive=False)["result"] == []


@pytest.mark.parametrize("mark", [{"value": None}, {"value": {"x": "left"}}, {"to_name": "sound"}])
def test_a_strange_mark_is_no_error(drawing: Drawing, mark: dict[str, Any]) -> None:
    assert drawing.point(50, 50, **mark)["result"] == []


def test_a_drawn_rectangle_is_accepted_once(drawing: Drawing) -> None:
    """What it finds appears beside the mark; accepted, it takes the mark's place, and is not answered a second time."""
    server = drawing.label_studio
    with signed_in(server) as page:
        page.goto(f"{server.url}/projects/{drawing.project}/data?task={drawing.task}")
        page.get_by_text("Auto-Annotation").click()
        page.wait_for_function(f"() => ({SHAPES})() === 0")
        image = page.locator("canvas").first.bounding_box()
        assert image is not None

        def at(share: float) -> tuple[float, float]:
            return image["x"] + image["width"] * share, image["y"] + image["height"] * share

        def draw() -> list[dict[str, Any]]:
            page.locator(".lsf-toolbar__group .lsf-tool_smart:visible").last.click()
            page.get_by_text("Disc", exact=True).first.click()
            page.mouse.move(*at(0.05))
            page.mouse.down()
            page.mouse.move(*at(0.4), steps=5)
            page.mouse.move(*at(0.7), steps=5)
            with page.expect_response(lambda answer: "interactive-annotating" in answer.url) as answered:
                page.mouse.up()
            found: list[dict[str, Any]] = answered.value.json()["data"]["result"]
            return found

        (region,) = draw()
        assert region["score"] == pytest.approx(0.9, abs=0.01)
        page.wait_for_function(f"() => ({SHAPES})() === 2")  # the drawn rectangle, and what yoloop says of it
        with page.expect_response(lambda answer: "/drafts" in answer.url and answer.request.method != "GET"):
            page.get_by_test_id("bottombar-accept-suggestions-button").click()
            page.wait_for_function(f"() => ({SHAPES})() === 1")
        assert drawing.rectangle(5, 5, 65, 65)["result"] == []
        (draft,) = server.api("GET", f"/api/tasks/{drawing.task}")["drafts"]
        assert [each["id"] for each in draft["result"]] == [region["id"]]
