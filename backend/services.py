"""What both processes are made of: the store, the registry, and the way to Label Studio."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import ImageUnavailable, LabelStudioError
from backend.images.allowed_hosts import AllowedHosts
from backend.network.urls import plain_address
from backend.processes.liveness import training_lives
from backend.settings import Settings
from backend.store.database import Project, Store
from backend.store.jobs import Jobs
from backend.store.ledger import Ledger
from backend.store.readings import Readings
from backend.store.serving import ServingRows
from backend.store.unreadable import UnreadableTasks
from model_registry import Champions, Registry

if TYPE_CHECKING:
    from backend.images.loader import Images, Source
    from backend.labelstudio.client import LabelStudioClient
    from backend.store.embeddings import Embeddings
    from backend.store.near_duplicates import Duplicates
    from backend.store.sides import Sides

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """Label Studio's address and a token for it."""

    url: str
    api_key: str

    def __repr__(self) -> str:
        return f"Connection({plain_address(self.url)!r})"


def connection_of(project: Project | None, settings: Settings) -> Connection | None:
    """How to reach a project's Label Studio: what `yoloop connect` was told, else the environment, else what
    Label Studio said in /setup (its token there is a legacy one, which new installs refuse).

    The environment's token goes to the environment's address and to no other. Where anybody may call /setup, nothing
    goes to a host that was named there.
    """
    if project is not None and project.url and project.api_key:
        return Connection(plain_address(project.url), project.api_key)
    token = settings.label_studio_api_key.get_secret_value()
    if token and settings.label_studio_url:
        return Connection(plain_address(settings.label_studio_url), token)
    told = _told(project, settings)
    if project is not None and told and project.access_token:
        return Connection(told, project.access_token)
    return None


def _told(project: Project | None, settings: Settings) -> str:
    """Label Studio's address as /setup named it; empty where anybody may call that."""
    return plain_address(project.hostname) if project is not None and not settings.exposed else ""


def open_images(settings: Settings, folder: Path, max_bytes: int) -> Images:
    """The images of tasks, within the settings' limits.

    Args:
        folder: where fetched files stay.
        max_bytes: most that they may take together.
    """
    from backend.images.cache import ImageCache
    from backend.images.loader import Images

    return Images(
        ImageCache(folder, max_bytes),
        timeout=settings.fetch_timeout,
        max_bytes=int(settings.max_image_mb * 2**20),
        max_pixels=int(settings.max_image_megapixels * 1e6),
        workers=settings.fetch_workers,
        allowed=AllowedHosts.read(settings.allowed_hosts),
    )


def _open_registry(settings: Settings, store: Store) -> Registry:
    """The versions. MLflow's client would send its token to a proxy also where the server is in this network."""
    if settings.tracking_uri.startswith(("http://", "https://")):
        from backend.network.proxies import go_direct

        go_direct(settings.tracking_uri)
    return Registry(settings.tracking_uri, settings.root / "registry", ServingRows(store))


class Services:
    """Made once per process, from the settings; nothing here is global.

    What takes long to import, such as all that opens images, is imported when it is first asked for: most commands
    need none of it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.database_url)
        self.ledger = Ledger(self.store, settings.annotations, lambda address: self.images.keep_embedded(address))
        self.readings = Readings(self.store, settings.annotations)
        self.unreadable = UnreadableTasks(self.store)
        self.jobs = Jobs(self.store, partial(training_lives, settings.root))
        self.registry = _open_registry(settings, self.store)
        self.champions = Champions(self.registry)
        self._clients: dict[Connection, LabelStudioClient] = {}
        self._lock = threading.Lock()
        self._opening = threading.Lock()

    @cached_property
    def duplicates(self) -> Duplicates:
        from backend.store.near_duplicates import Duplicates

        return Duplicates(self.store)

    @cached_property
    def sides(self) -> Sides:
        from backend.store.sides import Sides

        return Sides(self.store)

    @cached_property
    def embeddings(self) -> Embeddings:
        from backend.store.embeddings import Embeddings

        return Embeddings(self.store)

    @property
    def images(self) -> Images:
        with self._opening:  # one cache and one pool of threads, whoever asks first
            return self._images

    @cached_property
    def _images(self) -> Images:
        settings = self.settings
        return open_images(settings, settings.root / "cache", int(settings.cache_gb * 2**30))

    def client(self, project: Project | None) -> LabelStudioClient:
        """Label Studio's API for a project. Raises LabelStudioError when no address or token is known."""
        found = connection_of(project, self.settings)
        if found is None:
            alone = self.settings.label_studio_api_key.get_secret_value() and not self.settings.label_studio_url
            raise LabelStudioError(
                "LABEL_STUDIO_API_KEY is set without LABEL_STUDIO_URL, and its token goes to no other address."
                if alone
                else "No address and token of Label Studio are known for this project.",
                "Run `yoloop connect N` with LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY set.",
            )
        from backend.labelstudio.client import LabelStudioClient

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
        from backend.images.loader import Source

        found = connection_of(project, self.settings)
        url = found.url if found else plain_address(self.settings.label_studio_url) or _told(project, self.settings)

        def headers() -> dict[str, str]:
            return self.client(project).auth_headers()

        def source(reference: str, task_id: int | None) -> Source:
            ask = partial(self._embedded, project, reference, task_id)
            return Source(ref=reference, task_id=task_id, ls_url=url, auth=headers, embedded=ask)

        return source

    def _embedded(self, project: Project | None, reference: str, task_id: int | None) -> str:
        """The `data:` address that a reference stands for, as the task has it in Label Studio.

        Raises ImageUnavailable when Label Studio cannot be asked, or no longer has it.
        """
        from backend.images.addresses import embedded, embedded_in

        try:
            tasks = self.client(project).tasks(project.id, [task_id]) if project is not None and task_id else []
        except LabelStudioError as error:
            raise ImageUnavailable(error.message, error.hint) from None
        there = (each for task in tasks for each in embedded_in(task.data))
        found = next((each for each in there if embedded(each) == reference), None)
        if found is None:
            raise ImageUnavailable("The embedded image is no longer in its task.", "It is read again at the next sync.")
        return found

    def close(self) -> None:
        if (images := self.__dict__.get("_images")) is not None:
            images.close()
        self.champions.close()
        self.store.close()
