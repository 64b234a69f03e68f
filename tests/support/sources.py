"""Images and their sources, as the tests of this folder make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.web import Server

from backend.images.allowed_hosts import AllowedHosts
from backend.images.cache import ImageCache
from backend.images.loader import Images, Source

SECRET = "Bearer s3cr3t"


def make(folder: Path, **limits: Any) -> Images:
    options = {"timeout": 5.0, "max_bytes": 1 << 20, "max_pixels": 1_000_000, "workers": 4, **limits}
    options = {"allowed": AllowedHosts.read("127.0.0.1"), **options}
    return Images(ImageCache(folder, 1 << 24), **options)


def source(server: Server, ref: str, task_id: int | None = 7) -> Source:
    return Source(ref, task_id, server.url, lambda: {"Authorization": SECRET})
