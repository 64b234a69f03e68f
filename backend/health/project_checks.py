"""The checks of one connected project in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from backend.health import connection, storage, suggestion_check
from backend.health.check import Check, asked, guarded, left_out
from backend.labels.schema import LabelSchema
from backend.labelstudio.connect import our_backends
from backend.labelstudio.probe import Probe
from backend.labelstudio.records import BackendInfo, ProjectInfo, WebhookInfo
from backend.services import Services
from backend.settings import Settings
from backend.store.database import Project
from backend.store.refreshes import Refreshes
from model_registry import Version

NOT_ANSWERING = "as Label Studio cannot be asked"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What was found of the installation: the server `serves`, a worker `works`, the `registry` can be used; and the
    webhook's secret."""

    settings: Settings
    now: float
    serves: bool
    works: bool
    registry: bool
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OneProject:
    """`info` and `probe` None: Label Studio cannot be asked. `connect` is the command that mends the connection."""

    services: Services
    around: Surroundings
    mine: Project
    probe: Probe | None
    info: ProjectInfo | None
    connect: str

    def run(self) -> Iterator[Check]:
        if self.probe is not None and self.info is not None:
            yield from self._connection(self.probe, self.info)
        config = self.info.label_config if self.info else self.mine.label_config
        check, schema = asked(self._name("labels"), lambda: suggestion_check.labels(self._name("labels"), config))
        yield check
        model, champion = self._model(schema)
        yield model
        if schema is not None and self.around.registry:
            yield from self._mapped(schema, champion)
        yield from self._end_to_end(config, schema, champion, model)
        yield from self._learning()

    def _name(self, part: str) -> str:
        return f"project {self.mine.id} {part}"

    def _check(self, part: str, check: Callable[[str], Check]) -> Check:
        name = self._name(part)
        return guarded(name, lambda: check(name))

    def _connection(self, probe: Probe, info: ProjectInfo) -> Iterator[Check]:
        settings, mine, connect = self.around.settings, self.mine, self.connect

        def listed() -> tuple[Check, tuple[list[BackendInfo], list[WebhookInfo]]]:
            return Check(self._name("backend"), True, ""), (probe.backends(mine.id), probe.webhooks(mine.id))

        trouble, found = asked(self._name("backend"), listed)
        if found is None:
            yield trouble
            yield left_out(self._name("webhook"), "as Label Studio does not list it")
            return
        rows, hooks = found
        usual = mine.backend_url or f"http://localhost:{settings.port}"
        there = our_backends(rows, hooks, usual, connection.TITLE)
        url = mine.backend_url or (there[0].url if there else usual)
        ours = connection.ours(rows, hooks, url)
        yield self._check("address", lambda name: connection.reserved(name, probe, mine.id, url, connect))
        yield self._check(
            "backend", lambda name: connection.backend(name, rows, hooks, mine.backend_url, settings, connect)
        )
        yield self._check("webhook", lambda name: connection.webhook(name, ours, url, self.around.secret, connect))
        yield self._check("stale webhooks", lambda name: connection.stale_webhooks(name, ours, url, connect))
        if mine.active_learning and there:
            refresh = Refreshes(self.services.store).get(mine.uid)
            busy = refresh is not None and refresh.finished_at is None
            yield self._check("order", lambda name: connection.order(name, info, there[0], busy, connect))

    def _model(self, schema: LabelSchema | None) -> tuple[Check, Version | None]:
        """The version in service and its files, or what suggests before there is one."""
        name, registry = self._name("model"), self.services.registry
        if not self.around.registry:
            return left_out(name, "as the registry cannot be used"), None
        check, champion = asked(name, lambda: (Check(name, True, ""), registry.champion(self.mine.uid)))
        if not check.ok:
            return check, None
        if champion is not None:
            return guarded(name, lambda: storage.files(name, registry, champion)), champion
        if schema is None:
            return left_out(name, "as the labelling config cannot be used"), None
        return guarded(name, lambda: storage.weights(name, self.around.settings, schema)), None

    def _mapped(self, schema: LabelSchema, champion: Version | None) -> Iterator[Check]:
        """How classes and labels meet; before any training only the serving process knows."""
        name, settings = self._name("labels of"), self.around.settings

        def ask() -> tuple[Check, list[Check]]:
            if champion is not None:
                found = list(suggestion_check.known(name, schema, champion, settings.image_size))
            else:
                found = list(suggestion_check.pretrained(name, settings, self.mine.uid)) if self.around.serves else []
            return Check(name, True, ""), found

        trouble, found = asked(name, ask)
        yield from [trouble] if found is None else found

    def _end_to_end(
        self, config: str, schema: LabelSchema | None, champion: Version | None, model: Check
    ) -> Iterator[Check]:
        """One image fetched, predicted and converted."""
        probe, settings, uid = self.probe, self.around.settings, self.mine.uid
        if probe is None or schema is None:
            why = NOT_ANSWERING if probe is None else "as the labelling config cannot be used"
            yield left_out(self._name("image"), why)
            yield left_out(self._name("prediction"), why)
            return

        def fetch() -> tuple[Check, suggestion_check.Task | None]:
            name, task = self._name("image"), probe.any_task(self.mine.id)
            if task is None:
                return left_out(name, "as the project has no task"), None
            tried = suggestion_check.tried(schema, task)
            return suggestion_check.image(name, probe, tried, settings), tried

        image, task = asked(self._name("image"), fetch)
        yield image
        for stops, why in (
            (not self.around.serves, "as the server does not answer"),
            (task is None or not image.ok, "as there is no image"),
            (not model.ok, "as there is no model to answer with"),
        ):
            if stops:
                yield left_out(self._name("prediction"), why)
                return
        assert task is not None
        serves = champion.name if champion else "v0"
        yield self._check(
            "prediction", lambda name: suggestion_check.prediction(name, task, uid, config, serves, settings)
        )

    def _learning(self) -> Iterator[Check]:
        services, around, mine = self.services, self.around, self.mine
        yield self._check(
            "sync",
            lambda name: storage.synced(name, mine, around.settings, around.now, around.works, self.connect),
        )

        yield self._check(
            "annotations", lambda name: storage.learned_from(name, services.readings.annotations(mine.uid), mine.id)
        )

        def training(name: str) -> Check:
            last = next(iter(services.jobs.of_project(mine.uid, limit=1)), None)
            progress = services.ledger.progress(mine.uid)
            return storage.training(name, last, progress, around.settings, around.now, mine.id, mine.label_config)

        yield self._check("training", training)
        yield self._check(
            "suggestions", lambda name: storage.refreshed(name, Refreshes(services.store).get(mine.uid), mine.id)
        )
