"""Interactive mode on a real Label Studio: a person draws a rectangle, and what yoloop finds in it appears."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import mask2rle
from playwright.sync_api import Page, TimeoutError
from support.browser import signed_in
from support.labelstudio import LabelStudioServer
from support.shapes import draw_pictures
from support.tiny import tiny_yolo
from support.waiting import wait_for
from support.yoloop import Yoloop

pytestmark = pytest.mark.group("label-studio", minutes=5)

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image" smart="true"><Label value="Disc"/><Label value="Square"/></RectangleLabels>
<KeyPointLabels name="point" toName="image" smart="true" model_skip="true"><Label value="Any"/></KeyPointLabels>
<BrushLabels name="paint" toName="image" smart="true" model_skip="true"><Label value="Painted"/></BrushLabels>
<PolygonLabels name="ring" toName="image" smart="true" model_skip="true"><Label value="Ringed"/></PolygonLabels></View>
"""
SIDE = 320
BOTTOM = ((0.0, 62.5), (62.5, 62.5))
"""Where the regions of the task with suggestions begin, in percent: the lower corners, each object of 37.5 %."""

SELECTED = "window.Htx?.annotationStore?.selected"
READY = f"""() => [...document.images].every(image => image.complete) && window.Konva?.stages?.[0]
  && {SELECTED}?.regions.length"""
TOOLS = f"{SELECTED}.names.get('image').getToolsManager()"


@dataclass
class Drawing:
    """A project with a task that shows nothing, and one that opens with two suggestions."""

    label_studio: LabelStudioServer
    project: int
    backend: int
    empty: int
    suggested: int

    def click(self, x: float, y: float, **fields: Any) -> dict[str, Any]:
        """What yoloop answers to a click at x, y percent, through Label Studio."""
        value = {"x": x, "y": y, "width": 0.2, "keypointlabels": ["Any"]}
        return self.ask(
            self.empty, {"type": "keypointlabels", "from_name": "point", "value": value, "is_positive": True, **fields}
        )

    def ask(self, task: int, mark: dict[str, Any]) -> dict[str, Any]:
        """What it answers to any mark."""
        whole = {"id": "m", "to_name": "image", "origin": "manual", **mark}
        whole |= {"original_width": SIDE, "original_height": SIDE}
        body = {"task": task, "context": {"result": [whole]}}
        answer = self.label_studio.api("POST", f"/api/ml/{self.backend}/interactive-annotating", json=body)
        assert not answer.get("errors"), answer
        found: dict[str, Any] = answer["data"]
        return found


@dataclass
class Editor:
    """The page of one task, as a person uses it."""

    page: Page
    drawing: Drawing
    task: int

    def open(self, regions: int) -> None:
        """Go there, and wait until it shows so many regions."""
        url = f"{self.drawing.label_studio.url}/projects/{self.drawing.project}/data?task={self.task}"
        for patience in (10_000, 20_000, 60_000):  # a page that opens now and then forgets its suggestions
            self.page.goto(url)
            try:
                self.page.wait_for_function(f"({READY})() === {regions}", timeout=patience)
            except TimeoutError:
                continue
            break
        assert self.count() == regions
        if not self.page.evaluate("window.Htx.autoAnnotation"):
            self.page.get_by_text("Auto-Annotation").click()

    def count(self) -> int:
        """Regions in the list, marks included."""
        rows = self.page.locator(".lsf-outliner .lsf-tree__node").count()
        assert rows == self.page.evaluate(f"{SELECTED}.regions.length")
        return rows

    def choose(self, tool: str, label: str) -> None:
        """A smart tool, and the label that its marks carry."""
        for _ in range(5):
            if self.page.evaluate(f"{TOOLS}.findSelectedTool()?.fullName") == f"{tool}-dynamic":
                break
            self.page.locator(".lsf-toolbar__group .lsf-tool_smart:visible").first.click()
        else:
            raise AssertionError(f"Label Studio has no smart {tool}.")
        if not self.page.locator(".lsf-label_selected", has_text=label).count():
            self.page.locator(".lsf-label", has_text=label).click()

    def draw(self, *points: tuple[float, float]) -> None:
        """Press at the first point, in percent of the image, move over the others, and let go."""
        image = self.page.locator(".konvajs-content").first.bounding_box()
        assert image is not None
        first, *others = [
            (image["x"] + image["width"] * x / 100, image["y"] + image["height"] * y / 100) for x, y in points
        ]
        self.page.mouse.move(*first)
        self.page.mouse.down()
        for each in others:
            self.page.mouse.move(*each, steps=5)
        self.page.mouse.up()

    def ask(self, *points: tuple[float, float]) -> list[dict[str, Any]]:
        """What a click, or a rectangle where there are several points, is answered with."""
        if len(points) == 1:
            self.choose("KeyPointTool", "Any")
        else:
            self.choose("RectangleTool", "Disc")
        with self.page.expect_response(lambda answer: "interactive-annotating" in answer.url) as answered:
            wait_for(lambda: self._takes(points), 30, "Label Studio to take the mark")
        found: list[dict[str, Any]] = answered.value.json()["data"]["result"]
        self.page.wait_for_function(f"{SELECTED}.suggestions.size === {len(found)}")
        return found

    def _takes(self, points: Sequence[tuple[float, float]]) -> bool:
        """Draw a mark. The editor takes none while it is still busy with what came before."""
        self.draw(*points)
        try:
            self.page.wait_for_function(f"{SELECTED}.regions.some(region => region.dynamic)", timeout=2_000)
        except TimeoutError:
            return False
        return True

    def accept(self) -> None:
        with self.page.expect_response(lambda answer: "/drafts" in answer.url and answer.request.method != "GET"):
            self.page.get_by_test_id("bottombar-accept-suggestions-button").click()
            self.page.wait_for_function(f"{SELECTED}.suggestions.size === 0")

    def undo(self) -> None:
        self.page.keyboard.press("Control+z")


@pytest.fixture(scope="module")
def drawing(label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawing]:
    """A model that finds discs everywhere, none of them sure enough to be suggested."""
    folder = tmp_path_factory.mktemp("interactive")
    (picture,) = draw_pictures(folder, 1, size=SIDE)
    tiny_yolo(folder / "home" / "models" / "tiny.pt", ["Disc", "Square"], {1: (0, 0.9)})
    settings = {"YOLOOP_BASE_MODEL": "tiny.pt", "YOLOOP_IMAGE_SIZE": "64", "YOLOOP_SCORE_THRESHOLD": "0.95"}
    project = label_studio.api("POST", "/api/projects/", json={"title": "pointing", "label_config": CONFIG})["id"]
    for _ in range(2):
        with picture.path.open("rb") as image:
            label_studio.api("POST", f"/api/projects/{project}/import", files={"file": ("shapes.jpg", image)})
    empty, suggested = (each["id"] for each in label_studio.api("GET", f"/api/tasks?project={project}")["tasks"])
    with Yoloop(folder / "home", label_studio, **settings) as yoloop:
        yoloop.run("connect", "--project", str(project), "--url", yoloop.url)
        (backend,) = label_studio.api("GET", f"/api/ml?project={project}")
        assert backend["is_interactive"], "a config with smart tools is connected for interactive mode"
        result = [
            {
                "id": f"suggested-{x}",
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "score": 0.97,
                "value": {"x": x, "y": y, "width": 37.5, "height": 37.5, "rotation": 0, "rectanglelabels": ["Disc"]},
            }
            for x, y in BOTTOM
        ]
        label_studio.api(
            "POST",
            "/api/predictions/",
            json={"task": suggested, "result": result, "score": 0.9, "model_version": backend["model_version"]},
        )
        yield Drawing(label_studio, project, backend["id"], empty, suggested)


def test_a_click_is_answered_with_the_object_under_it(drawing: Drawing) -> None:
    (region,) = drawing.click(50, 50)["result"]
    value = region["value"]
    assert value["x"] <= 50 <= value["x"] + value["width"]
    assert (region["from_name"], value["rectanglelabels"]) == ("label", ["Disc"])
    assert drawing.click(50, 50, is_positive=False)["result"] == []


@pytest.mark.parametrize("mark", [{"value": None}, {"value": {"x": "left"}}, {"to_name": "sound"}])
def test_a_strange_mark_is_no_error(drawing: Drawing, mark: dict[str, Any]) -> None:
    assert drawing.click(50, 50, **mark)["result"] == []


def test_each_mark_adds_one_region_and_none_twice(drawing: Drawing) -> None:
    """On a task that shows nothing and on one with suggestions: a mark is answered with what is not there yet, the
    answer takes the mark's place once it is accepted, and the same mark is not answered a second time."""
    server = drawing.label_studio
    with signed_in(server) as page:
        page.set_viewport_size({"width": 1400, "height": 1300})  # all of the image, and the labels below
        for task, before in ((drawing.empty, 0), (drawing.suggested, len(BOTTOM))):
            editor = Editor(page, drawing, task)
            editor.open(before)
            (clicked,) = editor.ask((6, 6))
            assert (clicked["value"]["x"], clicked["value"]["y"]) == (0, 0)
            assert editor.count() == before + 1, "the mark"
            editor.accept()
            assert editor.count() == before + 1, "the object"
            (drawn,) = editor.ask((50, 6), (80, 20), (98, 46))
            assert (drawn["value"]["x"], drawn["value"]["y"]) == (62.5, 0)
            assert drawn["score"] == pytest.approx(0.9, abs=0.01)
            editor.accept()
            assert editor.count() == before + 2
            assert editor.ask((50, 6), (80, 20), (98, 46)) == []
            editor.undo()  # Label Studio leaves a mark that is answered with nothing
            page.wait_for_function(f"{SELECTED}.regions.length === {before + 2}")
            if before:
                assert editor.ask((50, 55), (30, 80), (2, 96)) == [], "what is suggested is there, too"
                editor.undo()
                page.wait_for_function(f"{SELECTED}.regions.length === {before + 2}")
            editor.open(before + 2)  # anew, from the draft
            (draft,) = server.api("GET", f"/api/tasks/{task}")["drafts"]
            ids = [each["id"] for each in draft["result"]]
            assert len(set(ids)) == len(ids) == before + 2 and {clicked["id"], drawn["id"]} <= set(ids)
        # Label Studio's own brush draws, and asks for nothing; for polygons it has no smart tool.
        asked = []
        page.on("request", lambda sent: asked.append(sent.url) if "interactive-annotating" in sent.url else None)
        editor.choose("BrushTool", "Painted")
        editor.draw((45, 45), (55, 45))
        page.wait_for_timeout(2500)
        assert asked == []
        with pytest.raises(AssertionError, match="no smart PolygonTool"):
            editor.choose("PolygonTool", "Ringed")


@pytest.mark.parametrize("kind", ["brushlabels", "polygonlabels"])
def test_a_mark_that_another_editor_may_send_is_answered_once(drawing: Drawing, kind: str) -> None:
    """Stroke and outline around an object; beside suggestions, and where nothing is shown."""

    def around(x: float, y: float, width: float, height: float) -> dict[str, Any]:
        if kind == "polygonlabels":
            points = [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
            return {"type": kind, "from_name": "ring", "value": {"points": points, kind: ["Ringed"]}}
        mask = np.zeros((SIDE, SIDE), np.uint8)
        left, top, right, bottom = (round(each * SIDE / 100) for each in (x, y, x + width, y + height))
        mask[top:bottom, left:right] = 255
        return {
            "type": kind,
            "from_name": "paint",
            "value": {"format": "rle", "rle": mask2rle(mask), kind: ["Painted"]},
        }

    for task in (drawing.empty, drawing.suggested):
        here = around(19, 19, 37, 37)
        (first,) = drawing.ask(task, here)["result"]
        assert (first["type"], first["value"]["x"], first["value"]["y"]) == ("rectanglelabels", 12.5, 12.5)
        assert drawing.ask(task, here)["result"] == [first], "the same mark, the same region"
    (x, y), _ = BOTTOM
    assert len(drawing.ask(drawing.empty, around(x, y, 37.5, 37.5))["result"]) == 1
    assert drawing.ask(drawing.suggested, around(x, y, 37.5, 37.5))["result"] == []
