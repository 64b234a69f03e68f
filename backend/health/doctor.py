"""All checks in their order: what an earlier one found wrong spares the later ones that rest on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

from backend.health import label_studio, machine, storage
from backend.health.check import Check, asked, guarded, ill, left_out, masked, well
from backend.health.project_checks import NOT_ANSWERING, OneProject, Surroundings
from backend.labelstudio.probe import Probe
from backend.labelstudio.webhook import webhook_secret
from backend.services import Connection, Services, connection_of
from backend.settings import Settings
from backend.store.database import Project

TIMEOUT = 10.0
"""Seconds that Label Studio may take for one answer."""


def examine(settings: Settings, named: str | int | None = None) -> Iterator[Check]:
    """Check everything, one after the other; nothing that is found wrong raises.

    Args:
        named: only this project, by its number in Label Studio or its uid; None: all that are connected.
    """
    examination = _Examination(settings, "" if named is None else str(named), time.time())
    checks = examination.run()
    while True:
        # Between the checks little can go wrong, and it ends them: it is told like one.
        rest, check = asked("the other checks", lambda: (well("", ""), next(checks, None)))
        if check is None and rest.ok:
            return
        yield masked(check or rest, examination.secrets)


class _Examination:
    def __init__(self, settings: Settings, named: str, now: float) -> None:
        self._settings = settings
        self._named = named
        self._number = named.partition(".")[0]
        self._now = now
        self._probes: dict[Connection, Probe | None] = {}
        self.secrets = {settings.label_studio_api_key.get_secret_value(), settings.basic_auth_pass.get_secret_value()}

    def run(self) -> Iterator[Check]:
        settings = self._settings
        home = guarded("home", lambda: machine.home(settings))
        yield home
        yield guarded("memory", machine.memory)
        yield guarded("engine", lambda: machine.engine(settings))
        server = guarded("server", lambda: machine.server(settings))
        yield server
        if not home.ok:
            yield from self._without_projects("without a home")
            return
        yield guarded("disk", lambda: machine.disk(settings))
        worker = guarded("worker", lambda: machine.worker(settings))
        yield worker
        access, secret = asked("access", lambda: (machine.access(settings), webhook_secret(settings.root)))
        yield access
        self.secrets.add(secret or "")
        database = guarded("database", lambda: storage.database("database", settings.root / "yoloop.db"))
        yield database
        yield guarded("trainings", lambda: storage.database("trainings", settings.root / "dbos.db"))
        registry = guarded("registry", self._registry)
        yield registry
        if not database.ok:
            yield from self._without_projects("as the database cannot be used")
            return
        around = Surroundings(
            settings, self._now, server.ok is True, worker.ok is True, registry.ok is True, secret or ""
        )
        with closing(Services(settings)) as services:
            yield from self._projects(services, around)

    def _registry(self) -> Check:
        uri = self._settings.tracking_uri
        if uri.startswith("sqlite:///"):
            return storage.database("registry", self._settings.root / "mlflow.db")
        self.secrets.add(urlsplit(uri).password or "")
        if uri.startswith(("http://", "https://")):
            return storage.tracking_server("registry", uri)
        return well("registry", f"MLflow keeps it at {uri}.")

    def _without_projects(self, why: str) -> Iterator[Check]:
        """Label Studio as far as the environment tells of it."""
        yield left_out("projects", why)
        yield from self._by_environment()

    def _by_environment(self) -> Iterator[Check]:
        if (found := connection_of(None, self._settings)) is not None:
            yield from self._visit(found, f"yoloop connect --project {self._number or 'N'}")

    def _projects(self, services: Services, around: Surroundings) -> Iterator[Check]:
        known = [each for each in services.store.projects() if each.disconnected_at is None]
        self.secrets |= {secret for each in known for secret in (each.api_key, each.access_token)}
        hints, jobs = services.store.hints(), services.jobs.unfinished()
        failing = any(each.sync_error for each in known)
        yield guarded(
            "queue", lambda: storage.queue(hints, jobs, self._settings, self._now, around.works, failing=failing)
        )
        found: dict[tuple[int, str], list[Project]] = {}
        for each in known:
            if self._named in ("", each.uid, str(each.id)):
                reached = connection_of(each, self._settings)
                found.setdefault((each.id, reached.url if reached else ""), []).append(each)
        for _, same in sorted(found.items()):
            yield from self._project(services, around, same)
        if not found:
            what, option = (f"Project {self._named} is not", self._number) if self._named else ("No project is", "N")
            yield ill(
                "projects",
                f"{what} connected.",
                f"`yoloop connect --project {option}`; or run this in the folder where yoloop runs.",
            )
            yield from self._by_environment()

    def _visit(self, found: Connection, connect: str) -> Iterator[Check]:
        """The checks of a Label Studio, once however many projects it has."""
        if found in self._probes:
            return
        self._probes[found] = None
        self.secrets.add(found.api_key)
        check, greeting = asked("Label Studio", lambda: label_studio.reachable(found, connect, TIMEOUT))
        yield check
        if greeting is None:
            yield left_out("token", NOT_ANSWERING)
            return
        yield guarded("clock", lambda: label_studio.clock(greeting))
        probe = Probe(found.url, found.api_key, timeout=TIMEOUT)
        check, owner = asked("token", lambda: label_studio.token(probe, found.api_key, connect, self._now))
        yield check
        if owner:
            self._probes[found] = probe

    def _project(self, services: Services, around: Surroundings, same: list[Project]) -> Iterator[Check]:
        """All checks of the project of one number in one Label Studio.

        Args:
            same: what is known under that number: a Label Studio that was set up anew hands it out again.
        """
        last = max(same, key=lambda each: each.synced_at or 0.0)
        name = f"project {last.id}"
        connect = label_studio.connect_command(self._settings, last.id, last)
        probe, info = None, None
        if (found := connection_of(last, self._settings)) is None:
            mend = f"`LABEL_STUDIO_URL=<address> LABEL_STUDIO_API_KEY=<token> {connect}`"
            yield ill("Label Studio", f"The address and token of {name}'s are not known.", mend)
        else:
            yield from self._visit(found, connect)
            probe = self._probes[found]
        if probe is None:
            yield left_out(name, NOT_ANSWERING)
        else:
            asking = probe
            check, info = asked(name, lambda: label_studio.project(asking, last.id, connect))
            yield check
        mine = next((each for each in same if info is not None and each.uid == info.uid), last)
        if info is not None and info.uid != mine.uid:
            yield ill(f"{name} identity", "It was made anew in Label Studio since it was connected.", f"`{connect}`")
            return
        yield from OneProject(services, around, mine, probe if info else None, info, connect).run()
