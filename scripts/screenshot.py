"""A picture of Label Studio's page with a task's suggestions, taken with a real Chromium.

The tests look at the same page through `show_task`, `listed` and `drawn`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, Route, TimeoutError, sync_playwright

WIDTH, HEIGHT = 1400, 900
SECONDS = 60.0

# A browser that talks to the page it was sent to, and to nobody else.
_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)

# The image has arrived, and each region of the outliner has its box on the canvas. The editor draws with
# Konva, on canvases: the DOM alone cannot tell.
BOXES_DRAWN = """() => {
  const listed = document.querySelectorAll('.lsf-outliner .lsf-tree__node').length;
  const stage = window.Konva?.stages?.[0];
  const loaded = [...document.images].every(image => image.complete);
  return listed > 0 && loaded && stage?.find('._transformable').length === listed;
}"""
_DRAWN = "() => window.Konva.stages[0].find('._transformable').filter(shape => shape.isVisible()).length"


def find_chromium() -> str | None:
    """Chromium's command: `CHROMIUM`, or one on the PATH."""
    names = (os.environ.get("CHROMIUM") or "", "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@contextmanager
def empty_page(url: str) -> Iterator[Page]:
    """A browser's page from which every host but that one is out of reach."""
    chromium = find_chromium()
    if chromium is None:
        raise RuntimeError("No Chromium found. Install it, or set CHROMIUM to its command.")
    # Chromium's sandbox does not start as root.
    options = [*_QUIET, "--no-sandbox"] if os.geteuid() == 0 else list(_QUIET)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, service_workers="block")
            page.set_default_timeout(1000 * SECONDS)

            def only_label_studio(route: Route) -> None:
                if route.request.url.startswith(f"{url}/"):
                    route.continue_()
                else:
                    route.abort()

            page.route("**/*", only_label_studio)
            yield page
        finally:
            browser.close()


def sign_in(page: Page, url: str, email: str, password: str) -> None:
    page.goto(f"{url}/user/login/")
    page.fill("input[name=email]", email)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "/user/login" not in address)
    # What the editor's setting "Show region labels" stores: label and score stand on each box.
    page.evaluate("localStorage.setItem('labelStudio:settings', '{\"showLabels\": true}')")


def show_task(page: Page, url: str, project_id: int, task_id: int, ready: str = BOXES_DRAWN) -> None:
    """Go to a task's page and wait for its suggestions.

    Args:
        ready: JavaScript, a function that tells whether the suggestions are there.
    """
    page.goto(f"{url}/projects/{project_id}/data?task={task_id}")
    # A page that opens now and then forgets to ask for them, until it is reloaded.
    for patience in (10_000, 15_000, 25_000, 30_000):
        try:
            page.wait_for_function(ready, timeout=patience)
            return
        except TimeoutError:
            page.reload()
    page.wait_for_function(ready)


@contextmanager
def open_task(url: str, email: str, password: str, project_id: int, task_id: int) -> Iterator[Page]:
    """The page of a task that has suggestions, as soon as their boxes are drawn."""
    with empty_page(url) as page:
        sign_in(page, url, email, password)
        show_task(page, url, project_id, task_id)
        yield page


def listed(page: Page) -> list[tuple[str, float]]:
    """Label and score of each region in the outliner, from top to bottom."""
    rows = page.locator(".lsf-outliner .lsf-tree__node").all()
    return [
        (
            row.locator(".lsf-outliner-item__title").inner_text().strip(),
            float(row.locator(".lsf-outliner-item__control_type_score").inner_text()),
        )
        for row in rows
    ]


def drawn(page: Page) -> int:
    """Number of boxes on the image."""
    return int(page.evaluate(_DRAWN))


def screenshot(url: str, email: str, password: str, project_id: int, task_id: int, path: Path) -> None:
    """Save the task's page as a PNG; 256 colours, a third of the size and the same to the eye."""
    with open_task(url, email, password, project_id, task_id) as page:
        picture = page.screenshot()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(BytesIO(picture)).convert("RGB").quantize(256).save(path, optimize=True)
