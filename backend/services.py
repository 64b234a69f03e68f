"""What both processes are made of: the store, the registry, and the way to Label Studio."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from backend.errors import LabelStudioError
from backend.images.allowed_hosts import AllowedHosts
from backend.images.cache import ImageCache
from backend.images.loader import Images, Source
from backend.labelstudio.client import LabelStudioClient
from backend.settings import Settings
from backend.store.database import Project, Store
from backend.store.embeddings import Embeddings
from backend.store.jobs import Jobs
from backend.store.ledger import Ledger
from backend.store.near_duplicates import Duplicates
from backend.store.unreadable import UnreadableTasks
from model_registry import Registry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """Label Studio's address and a token for it."""

    url: str
    api_key: str

    def __repr__(self) -> str:
        return f"Connection({self.url!r})"


def connection_of(project: Project | None, settings: Settings) -> Connection | None:
    """How to reach a project's Label Studio: what `yoloop connect` was told, else the environment, else what
    Label Studio said in /setup (its token there is a legacy one, which new installs refuse).

    Where anybody may call /setup, nothing goes to a host that was named there, least of all the environment's token.
    """
    if project is not None and project.url and project.api_key:
        return Connection(project.url, project.api_key)
    told = project.hostname if project is not None and not settings.exposed else ""
    token = settings.label_studio_api_key.get_secret_value()
    if token and (url := settings.label_studio_url or told):
        return Connection(url.rstrip("/"), token)
    if project is not None and told and project.access_token:
        return Connection(told.rstrip("/"), project.access_token)
    return None


class Services:
    """Made once per process, from the settings; nothing here is global."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.database_url)
        self.ledger = Ledger(self.store)
        self.duplicates = Duplicates(self.store)
        self.unreadable = UnreadableTasks(self.store)
        self.jobs = Jobs(self.store)
        self.embeddings = Embeddings(self.store)
        self.registry = Registry(settings.tracking_uri, settings.root / "registry")
        self.images = Images(
            ImageCache(settings.root / "cache", int(settings.cache_gb * 2**30)),
            timeout=settings.fetch_timeout,
            max_bytes=int(settings.max_image_mb * 2**20),
            max_pixels=int(settings.max_image_megapixels * 1e6),
            workers=settings.fetch_workers,
            allowed=AllowedHosts.read(settings.allowed_hosts),
        )
        self._clients: dict[Connection, LabelStudioClient] = {}
        self._lock = threading.Lock()

    def client(self, project: Project | None) -> LabelStudioClient:
        """Label Studio's API for a project. Raises LabelStudioError when no address or token is known."""
        found = connection_of(project, self.settings)
        if found is None:
            raise LabelStudioError(
                "No address and token of Label Studio are known for this project.",
                "Run `yoloop connect --project N` with LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY set.",
            )
        with self._lock:
            if found not in self._clients:
                self._clients[found] = LabelStudioClient(found.url, found.api_key)
            return self._clients[found]

    def trained(self, uid: str) -> Callable[[], frozenset[int]]:
        """A function that gives the numbers of the versions trained here for a project; it looks once, when asked."""

        @functools.cache
        def numbers() -> frozenset[int]:
            found = self.jobs.versions(uid)
            try:
                found |= {version.number for version in self.registry.versions(uid)}
            except Exception as error:  # it may be a server that is away; what the trainings say stands
                log.warning("Project %s: its versions cannot be listed: %s", uid, type(error).__name__)
            return frozenset(found)

        return numbers

    def source_of(self, project: Project | None) -> Callable[[str, int | None], Source]:
        """A function that makes an image's `Source` from its reference in a task and the task's id."""
        found = connection_of(project, self.settings)
        url = found.url if found else (project.hostname if project else "") or self.settings.label_studio_url

        def headers() -> dict[str, str]:
            return self.client(project).auth_headers()

        return lambda reference, task_id: Source(ref=reference, task_id=task_id, ls_url=url, auth=headers)

    def close(self) -> None:
        self.images.close()
        self.store.close()
