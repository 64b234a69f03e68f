"""The serving process' parts, made once: what `create_app` hangs into Flask."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from backend.engine.environment import prepare
from backend.engine.pool import EnginePool
from backend.health.readiness import Readiness, readiness
from backend.images.memory import MemoryBudget
from backend.labelstudio.webhook import webhook_secret
from backend.model import Engine
from backend.observability.metrics import Metrics
from backend.processes.activity import Activity
from backend.served_models.cache import Models
from backend.server.collectors import read_all
from backend.services import Services
from backend.settings import Settings
from backend.store.heartbeats import Heartbeat

RESERVED_THREADS = 8

BODIES = 768 * 2**20
"""Bytes that the values of all large bodies may take in memory together."""


@dataclass(frozen=True, slots=True)
class Serving:
    settings: Settings
    services: Services
    engine: Engine
    secret: str
    predicting: threading.Semaphore
    bodies: MemoryBudget
    activity: Activity
    readiness: Readiness

    def close(self) -> None:
        self.engine.models.close()
        self.engine.pool.close()
        self.services.close()


def make_serving(settings: Settings, only: str | None = None) -> Serving:
    """Open the store and begin to load the models, in the background. A registry on a server is not waited for.

    Args:
        only: the project whose version is loaded; None: those of all projects.
    """
    prepare(settings.root)
    services = Services(settings)
    services.images  # noqa: B018  imported and opened now rather than in the first request
    services.champions.start()
    models = Models(
        settings,
        services.champions,
        lambda: [uid for uid in services.store.uids() if only in (None, uid)],
    )
    models.start()
    engine = Engine(models, EnginePool(settings.batch_size), Metrics())
    ready = readiness(services, models, Heartbeat(services.store))
    read_all(engine.metrics, services, models, engine.pool, ready)
    # Some threads stay free for /health and /setup: while those fail, Label Studio hides stored predictions.
    free = max(1, settings.threads - RESERVED_THREADS)
    return Serving(
        settings,
        services,
        engine,
        webhook_secret(settings.root),
        threading.Semaphore(free),
        MemoryBudget(BODIES),
        Activity(settings.root / "serving.active"),
        ready,
    )
