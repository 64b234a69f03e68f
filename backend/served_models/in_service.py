"""What Label Studio knows the version in service by, without its models in memory."""

from __future__ import annotations

from backend.labels.schema import parse_label_config
from backend.served_models.parts import Part, parts_of
from backend.served_models.served import own_suggestions
from backend.served_models.thresholds import ThresholdPolicy
from backend.served_models.version_string import fingerprint, strategy_of, version_string
from backend.settings import Settings
from backend.store.database import Project
from model_registry import Registry, RegistryError


def version_in_service(registry: Registry, settings: Settings, project: Project) -> str | None:
    """The version in service as its predictions carry it now; None where none is trained, as a pretrained model must be
    loaded to know."""
    champion = registry.champion(project.uid)
    if champion is None:
        return None

    def fixed(number: int) -> tuple[Part, ...]:
        try:
            return parts_of(registry.version(project.uid, number), settings.image_size)
        except RegistryError:
            return ()

    schema = parse_label_config(project.label_config)
    suggested = own_suggestions(schema, parts_of(champion, settings.image_size), fixed)
    now = fingerprint(suggested, ThresholdPolicy.of(settings), strategy_of(schema, settings.sampling))
    return version_string(champion.name, now, champion.tags.get("fingerprint", "") or project.baseline)
