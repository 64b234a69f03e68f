"""What stands in the way of suggestions and of learning, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backend.connect import UNCERTAINTY
from backend.errors import YoloopError
from backend.labels.schema import parse_label_config
from backend.labelstudio.records import ProjectInfo
from backend.parts import parts_of
from backend.predict.base_model import find_base_model
from backend.predict.served import Served, trained, unloaded
from backend.refresh.state import Refreshes
from backend.report import mappings
from backend.services import Services
from backend.store import Project


@dataclass(frozen=True, slots=True)
class Finding:
    """One checked thing: whether it is well, in words, and what to do when it is not."""

    well: bool
    what: str
    remedy: str = ""


def diagnose(services: Services) -> list[Finding]:
    """Check everything that this installation can check of itself and of Label Studio."""
    found = [_weights(services)]
    projects = services.store.projects()
    if not projects:
        found.append(Finding(False, "No project is connected.", "Run `yoloop connect --project N`."))
    for project in projects:
        found.extend(_project(services, project))
    return found


def _weights(services: Services) -> Finding:
    base = find_base_model(services.settings)
    if base.path is not None:
        return Finding(True, f"Base model {base.path.name} is on disk.")
    return Finding(False, "There is no base model.", base.why)


def _project(services: Services, project: Project) -> Iterator[Finding]:
    name = f"Project {project.id}"
    try:
        client = services.client(project)
        info = client.project(project.id)
        yield Finding(True, f"{name}: Label Studio {client.version()} answers {client.whoami()}.")
        if info.uid != project.uid:
            yield Finding(False, f"{name} was made anew in Label Studio.", "Run `yoloop connect --project N` for it.")
            return
        if project.active_learning:
            yield _order(services, project, info, name)
    except YoloopError as error:
        yield Finding(False, f"{name}: {error.message}", error.hint)
    try:
        schema = parse_label_config(project.label_config).require()
        yield Finding(True, f"{name}: labels {', '.join(schema.classes)}.")
    except YoloopError as error:
        yield Finding(False, f"{name}: {error.message}", error.hint)
        return
    for note in schema.notes:
        yield Finding(True, f"{name}: {note}")
    champion = services.registry.champion(project.uid)
    if champion is None:
        yield Finding(True, f"{name}: v0 serves; training {project.waiting_for or 'starts soon'}.")
        return
    yield Finding(True, f"{name}: {champion.name} serves. {champion.reason}")
    parts = parts_of(champion, services.settings.image_size)
    for mapping in mappings(schema, Served(champion.name, trained(schema, [unloaded(part) for part in parts]))):
        yield Finding(not mapping.unmapped_labels, f"{name}: {mapping}", mapping.remedy)


def _order(services: Services, project: Project, info: ProjectInfo, name: str) -> Finding:
    """Whether Label Studio opens the least sure task next."""
    remedy = f"Run `yoloop connect --project {project.id} --active-learning`."
    if info.sampling != UNCERTAINTY:
        return Finding(False, f"{name}: tasks come by {info.sampling.lower()}, not the least sure first.", remedy)
    refresh = Refreshes(services.store).get(project.uid)
    if refresh is not None and refresh.finished_at is not None and info.model_version != refresh.version:
        shown = info.model_version or "no version"
        return Finding(False, f"{name}: Label Studio orders by {shown}, but {refresh.version} serves.", remedy)
    return Finding(True, f"{name}: the least sure task comes next, by {info.model_version}.")
