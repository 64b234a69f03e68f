"""The command `yoloop`."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from backend import __version__
from backend.cli import connection, labelling, serving, taking_away
from backend.cli.annotations import count_annotations
from backend.cli.home import locate
from backend.cli.options import JsonOption, ProjectOption, open_services, takes_project
from backend.engine.environment import provide_user
from backend.errors import YoloopError, unwritable
from backend.observability.masking import masked
from backend.processes.child import SUPERVISED
from backend.settings import Settings, load_dotenv, unknown_variables
from model_registry import RegistryError


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"yoloop {__version__}")
        raise typer.Exit


app = typer.Typer(
    help="A Label Studio ML backend that suggests ranked YOLO boxes and learns from every submitted annotation.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


for _start in (serving.up, serving.serve, serving.worker):
    app.command()(_start)
app.command()(takes_project(connection.connect))
app.command()(takes_project(connection.disconnect))


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Before every command: read `.env`, and name settings that there are none of."""
    load_dotenv()
    _name_unknown_variables()


@app.command()
@takes_project
def train(project: ProjectOption = None) -> None:
    """Train a project now, whatever is new; the worker does it."""
    from backend.processes.liveness import worker_lives
    from backend.processes.room import missing_space

    with open_services() as services:
        uid = _uid(services, project)
        job, new = services.jobs.request(uid, "asked for at the command line", time.time())
        typer.echo(f"{'Asked for' if new else 'Joined'} job {job.id}. `yoloop status` shows how far it is.")
        lack = missing_space(services.settings.root, services.settings.min_free_gb)
        if job.status == "queued" and lack:
            typer.echo(f"It waits for room, as {lack}.")
        elif job.status == "queued" and not worker_lives(services.settings.root):
            typer.echo("It waits for a worker, and none runs: start one with `yoloop up`.")
        elif job.status == "queued" and not new:
            typer.echo(f"It is {job.message}.")


@app.command()
@takes_project
def cancel(project: ProjectOption = None) -> None:
    """Stop the training that waits or runs."""
    from backend.fit.ending import end
    from backend.processes.liveness import worker_lives

    with open_services() as services:
        found = services.jobs.cancel(None if project is None else _uid(services, project))
        works = worker_lives(services.settings.root)
        for job in found:
            if not works and job.status == "queued":
                end(services, job, "cancelled", "Cancelled.")
            typer.echo(f"Job {job.id} is {'being ' if works else ''}cancelled.")
        if not found:
            typer.echo("No training waits or runs.")


@app.command()
@takes_project
def status(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show what every project has learned, and what the next training waits for."""
    with open_services() as services:
        known = services.store.projects()
        if project is not None:
            uid = _uid(services, project)
            known = [each for each in known if each.uid == uid]
        rows = [_status(services, each) for each in known]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        typer.echo("No project is known yet. Connect one: yoloop connect N")
    for row in rows:
        typer.echo(f"Project {row['project']}  {row['title']}")
        for name in ("serves", "annotations", "objects", "suggestions", "last sync", "training", "trouble"):
            if row[name]:
                typer.echo(f"  {name:<12}{row[name]}")


@app.command()
@takes_project
def versions(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List a project's versions, newest first."""
    with open_services() as services:
        found = services.registry.versions(_uid(services, project))
    if as_json:
        rows = [
            {
                "version": each.name,
                "champion": each.champion,
                "created_at": each.created_at.isoformat(),
                "parent": each.parent,
                "decision": each.decision,
                "decided_by": each.decided_by,
                "message": each.message,
                "reason": each.reason,
                "gate": each.gate,
                "metrics": dict(each.metrics),
            }
            for each in found
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    if not found:
        typer.echo("No version yet. `yoloop status` says what the first training waits for.")
        return
    typer.echo(f"  {'version':<8}{'made':<18}{'parent':<8}{'fitness':>9}  decision")
    for each in found:
        mark = "*" if each.champion else " "
        made = each.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        scores = ", ".join(f"{name} {score:.3f}".strip() for name, score in sorted(each.fitness.items())).rjust(9)
        typer.echo(f"{mark} {each.name:<8}{made:<18}{each.parent or '-':<8}{scores}  {each.decision}: {each.message}")


@app.command()
@takes_project
def promote(version: Annotated[str, typer.Argument(help="Such as v3.")], project: ProjectOption = None) -> None:
    """Put a version in service."""
    number = version.removeprefix("v")
    if not number.isdecimal():
        raise YoloopError(f"{version!r} is not a version.", "Versions are called v1, v2 …: see `yoloop versions`.")
    with open_services() as services:
        promoted = services.registry.promote(_uid(services, project), int(number), "promoted by hand", "person")
    typer.echo(f"{promoted.name} serves within a second or two.")


@app.command()
@takes_project
def rollback(project: ProjectOption = None) -> None:
    """Put the version in service that served before."""
    with open_services() as services:
        found = services.registry.rollback(_uid(services, project))
    typer.echo(f"{found.name if found else 'v0, the model before any training,'} serves within a second or two.")


@app.command()
@takes_project
def doctor(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Check Label Studio, the connection, the machine and what yoloop keeps; say what mends what is not well."""
    from backend.health.check import counted
    from backend.health.doctor import examine

    logging.disable()  # what goes wrong is a line of its own
    found = []
    for check in examine(locate(demand=False), project):
        found.append(check)
        if not as_json:
            typer.echo(str(check))
    typer.echo(json.dumps([asdict(check) for check in found], indent=1) if as_json else counted(found))
    if any(check.ok is False for check in found):
        raise typer.Exit(1)


app.command("annotations")(takes_project(count_annotations))
app.command()(takes_project(labelling.predict))
app.command()(takes_project(labelling.accept))
app.command()(takes_project(labelling.advice))
app.command()(takes_project(labelling.simulate))
app.command()(takes_project(taking_away.export))
app.command()(takes_project(taking_away.weights))


def _uid(services: Any, named: str | None) -> str:
    return str(services.store.find(named).uid)


def _waits(services: Any, project: Any) -> str:
    """What the next training waits for: what the worker wrote down when it looked, but seconds are those of now."""
    from backend.fit.triggers import Rules, should_train
    from backend.served_models.base_model import starts_pretrained

    told = project.waiting_for
    if not told or not re.search(r" in \d+ s$", told):
        return f"waits: {told}" if told else ""
    rules = Rules.of(services.settings, pretrained=starts_pretrained(services.settings, project.label_config))
    trigger = should_train(services.ledger.progress(project.uid), rules, time.time())
    return f"{'is due' if trigger.train else 'waits'}: {trigger.reason}"


def _status(services: Any, project: Any) -> dict[str, Any]:
    from backend.store.refreshes import Refreshes

    known = services.readings.annotations(project.uid)
    serves = services.registry.name_in_service(project.uid)
    taken_away = services.registry.trouble_in_mlflow(project.uid)
    jobs = services.jobs.of_project(project.uid, limit=1)
    waits = _waits(services, project)
    training = waits
    if jobs and jobs[0].finished_at is None:
        training = f"{jobs[0].status}: {jobs[0].message}"
    elif jobs and jobs[0].status != "done":
        training = f"{jobs[0].status}: {jobs[0].message.rstrip('.') if waits else jobs[0].message}"
        training += f"; {waits}" if waits else ""
    unreadable = services.unreadable.all(project.uid)
    named = "".join(
        f"; {len(unreadable)} cannot be read, such as task {one.task_id}: {one.reason}" for one in unreadable[:1]
    )
    ago = f"{time.time() - project.synced_at:.0f} s ago" if project.synced_at else "never"
    return {
        "project": project.id,
        "uid": project.uid,
        "title": project.title,
        "serves": (serves or "v0, nothing is trained yet") if not taken_away else f"{serves or 'v0'}: {taken_away}",
        "annotations": f"{known}{named}",
        "objects": known.told_objects(),
        "annotation_counts": known.as_json(),
        "suggestions": str(Refreshes(services.store).get(project.uid) or ""),
        "last sync": ago,
        "training": training,
        "trouble": project.sync_error if project.disconnected_at is None else _disconnected(project),
    }


def _disconnected(project: Any) -> str:
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(project.disconnected_at))
    return f"disconnected since {at}; `yoloop connect {project.id}` goes on"


def _name_unknown_variables() -> None:
    """A setting with a mistyped name does nothing, which nobody would notice."""
    if SUPERVISED in os.environ:  # `yoloop up` has said it
        return
    for name, meant in unknown_variables(os.environ).items():
        did_you = f"did you mean {meant}?" if meant else "the settings are in the README."
        typer.echo(f"{name} is no setting of yoloop and changes nothing: {did_you}", err=True)


def main() -> None:
    """Run a command; an error is one line for a person and exit status 1."""
    with suppress(ValidationError):  # the command says which setting it is
        provide_user(Settings().home.expanduser().absolute())
    try:
        app()
    except ValidationError as error:
        for each in error.errors():
            name = str(each["loc"][0]) if each["loc"] else ""
            variable = Settings.variable(name) if name in Settings.model_fields else name
            typer.echo(masked(f"{variable}={each['input']}: {each['msg']}"), err=True)
        sys.exit(2)
    except (YoloopError, RegistryError) as error:
        reason = getattr(error, "reason", "")
        whose = "Label Studio said" if getattr(error, "code", None) is not None else "The reason"
        typer.echo(masked(f"{error}" + (f"\n{whose}: {reason}" if reason else "")), err=True)
        sys.exit(1)
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(130)
    except Exception as error:
        if not (why := unwritable(error)):
            raise
        typer.echo(f"YOLOOP_HOME takes nothing: {why}. Free some room on its disk, then do this again.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
