"""A real Chromium where the administrator of a Label Studio is signed in; what fails keeps its picture and trace."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from playwright.sync_api import Error, Page
from screenshot import empty_page, sign_in
from support.labelstudio import LabelStudioServer
from support.results import evidence


@contextmanager
def signed_in(server: LabelStudioServer) -> Iterator[Page]:
    """The page; docs/testing.md tells how to see the trace of what failed."""
    ended: Path | None = None

    def kept(folder: Path) -> list[Path]:
        return _capture(page, folder) if ended is None else list(ended.iterdir())

    with empty_page(server.url) as page, evidence("browser", kept):
        page.context.tracing.start(snapshots=True)
        page.context.tracing.start_chunk()
        try:
            sign_in(page, server.url, server.email, server.password)
            yield page
        except BaseException:
            ended = Path(tempfile.mkdtemp(prefix="yoloop-browser-"))
            with suppress(Error):  # the page may be gone; what failed is told first
                _capture(page, ended)
            raise


def _capture(page: Page, folder: Path) -> list[Path]:
    page.screenshot(path=folder / "page.png")
    page.context.tracing.stop_chunk(path=folder / "trace.zip")
    page.context.tracing.start_chunk()  # the page may live on for other tests
    return []
