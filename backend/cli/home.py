"""Which home a command works on: the one that is named, the one in this folder, or that of the yoloop that runs.

A command other than `up`, `serve`, `worker` and a first `connect` makes no home: in the wrong folder it would answer
from an empty one, and leave it behind.
"""

from __future__ import annotations

from pathlib import Path

import typer

from backend.errors import YoloopError
from backend.processes.running import Running, running
from backend.settings import Settings

DATABASE = "yoloop.db"


class NoHome(YoloopError):
    pass


def locate(*, make: bool = False, demand: bool = True) -> Settings:
    """The settings, with the home that is meant and the address at which its yoloop listens.

    Args:
        make: a home that is named, and that is not there yet, will be made.
        demand: raise NoHome where there is none.
    """
    settings = Settings()
    named = settings.model_fields_set
    here, live = settings.place, running()
    if "home" in named:
        chosen: Path | None = here if make or (here / DATABASE).exists() else None
    else:
        chosen = _found(settings, live)
    if chosen is None:
        if demand:
            raise _nothing_at(here, "home" in named)
        return settings
    home = str(chosen.resolve())
    mine = next((each for each in live if each.home == home), None)
    changed: dict[str, object] = {} if chosen == here else {"home": chosen}
    if mine is not None:
        changed |= {name: getattr(mine, name) for name in ("host", "port") if name not in named}
    elif live:
        _note(f"This is the home {chosen}, where no yoloop runs; one runs with the home {live[0].home}.")
    if chosen != here and "home" not in named:
        _note(f"home: {chosen}")
    return settings.model_copy(update=changed)


def _found(settings: Settings, live: list[Running]) -> Path | None:
    """Where no home is named: that of the yoloop at the port that is named, the one here, or the one that runs."""
    here = settings.place
    at_port = [each for each in live if each.port == settings.port]
    if at_port and "port" in settings.model_fields_set:
        return Path(at_port[0].home)
    if (here / DATABASE).exists():
        return here
    candidates = at_port or live
    homes = {each.home for each in candidates}
    if len(homes) > 1:
        told = ", ".join(f"{each.home} (port {each.port})" for each in candidates)
        raise NoHome(
            f"No home is in {here}, and several yoloops run on this machine: {told}.",
            "Set YOLOOP_HOME to the home that you mean.",
        )
    return Path(homes.pop()) if homes else None


def _nothing_at(here: Path, named: bool) -> NoHome:
    runs = "" if named else ", and no yoloop of yours runs on this machine"
    hint = (
        "Set YOLOOP_HOME to the folder that yoloop uses, or start one there with `yoloop up`."
        if named
        else "Start yoloop with `yoloop up`, or set YOLOOP_HOME to the folder that it uses."
    )
    return NoHome(f"There is no home of yoloop at {here}{runs}.", hint)


def _note(text: str) -> None:
    """Beside the answer, which may be JSON for a machine."""
    typer.echo(text, err=True)
