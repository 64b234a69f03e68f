"""The command `yoloop`."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from backend.cli import labelling
from backend.cli.options import JsonOption, ProjectOption, open_services
from backend.errors import YoloopError
from backend.observability.masking import masked
from backend.settings import Settings
from model_registry import RegistryError

app = typer.Typer(
    help="A Label Studio ML backend that suggests ranked YOLO boxes and learns from every submitted annotation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def up() -> None:
    """Start the serving process and the worker; Ctrl-C stops both."""
    from backend.observability.logs import configure
    from backend.processes.supervisor import Supervisor

    settings = Settings()
    configure(settings.log_level, "up", settings.log_format)
    settings.root  # noqa: B018  made here, so that a home that cannot be written fails at once
    typer.echo(_welcome(settings))
    Supervisor().run()


@app.command()
def serve() -> None:
    """Start the serving process alone."""
    from backend.observability.logs import configure
    from backend.processes.child import end_with_supervisor
    from backend.wsgi import Server

    settings = Settings()
    configure(settings.log_level, "serve", settings.log_format)
    if settings.exposed:
        logging.getLogger("backend").warning(
            "Anybody who reaches %s:%s may use yoloop, as no credentials are asked for: "
            "set YOLOOP_BASIC_AUTH_USER and YOLOOP_BASIC_AUTH_PASS",
            settings.host,
            settings.port,
        )
    end_with_supervisor()
    Server(settings).run()


@app.command()
def worker() -> None:
    """Start the worker alone: it reads Label Studio and trains."""
    from backend.observability.logs import configure
    from backend.processes.child import end_with_supervisor
    from backend.worker import run_worker

    settings = Settings()
    configure(settings.log_level, "worker", settings.log_format)
    end_with_supervisor()
    run_worker(settings)


@app.command()
def connect(
    project: Annotated[int, typer.Option("--project", help="Label Studio's project number.")],
    url: Annotated[str, typer.Option(help="yoloop's address as Label Studio reaches it.")] = "",
    active_learning: Annotated[
        bool, typer.Option("--active-learning", help="Let Label Studio open the most useful task next.")
    ] = False,
) -> None:
    """Connect a project: add the ML backend and its webhook in Label Studio, or mend them."""
    from backend.labelstudio.client import LabelStudioClient
    from backend.labelstudio.connect import connect as connect_project
    from backend.labelstudio.webhook import webhook_secret
    from backend.store.database import Store

    settings = Settings()
    key = settings.label_studio_api_key.get_secret_value()
    if not settings.label_studio_url or not key:
        raise YoloopError(
            "LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY must be set.",
            "The key is in Label Studio under Account & Settings, Personal Access Token.",
        )
    address = settings.label_studio_url.rstrip("/")
    url = url or f"http://localhost:{settings.port}"
    password = settings.basic_auth_pass.get_secret_value()
    report = connect_project(
        LabelStudioClient(address, key),
        project,
        url,
        secret=webhook_secret(settings.root),
        basic_auth=(settings.basic_auth_user, password) if settings.basic_auth_user or password else None,
        active_learning=active_learning,
    )
    for step in report.steps:
        typer.echo(f"{'+' if step.changed else '='} {step.done}")
    store = Store(settings.database_url)
    info = report.project
    store.save_project(
        info.uid,
        url=address,
        api_key=key,
        title=info.title,
        label_config=info.label_config,
        sync_error="",
        backend_url=url.strip().rstrip("/"),
    )
    if active_learning:
        store.save_project(info.uid, active_learning=True)
    store.hint(info.uid, time.time())
    typer.echo("Connected. Every submitted annotation teaches from now on.")


@app.command()
def train(project: ProjectOption = None) -> None:
    """Train a project now, whatever is new; the worker does it."""
    with open_services() as services:
        uid = _uid(services, project)
        job, new = services.jobs.request(uid, "asked for at the command line", time.time())
        typer.echo(f"{'Asked for' if new else 'Joined'} job {job.id}. `yoloop status` shows how far it is.")


@app.command()
def cancel(project: ProjectOption = None) -> None:
    """Stop the training that waits or runs."""
    with open_services() as services:
        found = services.jobs.cancel(None if project is None else _uid(services, project))
        for job in found:
            typer.echo(f"Job {job.id} is being cancelled.")
        if not found:
            typer.echo("No training waits or runs.")


@app.command()
def status(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show what every project has learned, and what the next training waits for."""
    with open_services() as services:
        known = services.store.projects()
        if project is not None:
            known = [each for each in known if each.uid == _uid(services, project)]
        rows = [_status(services, each) for each in known]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        typer.echo("No project is known yet. Connect one: yoloop connect --project N")
    for row in rows:
        typer.echo(f"Project {row['project']}  {row['title']}")
        for name in ("serves", "annotations", "suggestions", "last sync", "training", "trouble"):
            if row[name]:
                typer.echo(f"  {name:<12}{row[name]}")


@app.command()
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
                "reason": each.reason,
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
        scores = f"{each.metrics.get('fitness', each.metrics.get('mAP50-95', 0)):>9.3f}"
        typer.echo(f"{mark} {each.name:<8}{made:<18}{each.parent or '-':<8}{scores}  {each.decision}: {each.reason}")


@app.command()
def promote(version: Annotated[str, typer.Argument(help="Such as v3.")], project: ProjectOption = None) -> None:
    """Put a version in service."""
    number = version.removeprefix("v")
    if not number.isdecimal():
        raise YoloopError(f"{version!r} is not a version.", "Versions are called v1, v2 …: see `yoloop versions`.")
    with open_services() as services:
        promoted = services.registry.promote(_uid(services, project), int(number), "promoted by hand")
    typer.echo(f"{promoted.name} serves within a second or two.")


@app.command()
def rollback(project: ProjectOption = None) -> None:
    """Put the version in service that served before."""
    with open_services() as services:
        found = services.registry.rollback(_uid(services, project))
    typer.echo(f"{found.name if found else 'v0, the model before any training,'} serves within a second or two.")


@app.command()
def doctor(
    project: Annotated[int | None, typer.Option("--project", help="Only this project of Label Studio.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check Label Studio, the connection, the machine and what yoloop keeps; say what mends what is not well."""
    from backend.health.check import counted
    from backend.health.doctor import examine

    logging.disable()  # what goes wrong is a line of its own
    found = []
    for check in examine(Settings(), project):
        found.append(check)
        if not as_json:
            typer.echo(str(check))
    typer.echo(json.dumps([asdict(check) for check in found], indent=1) if as_json else counted(found))
    if any(check.ok is False for check in found):
        raise typer.Exit(1)


for _command in (labelling.predict, labelling.accept, labelling.advice, labelling.simulate):
    app.command()(_command)


def _uid(services: Any, number: int | None) -> str:
    return str(services.store.find(number).uid)


def _status(services: Any, project: Any) -> dict[str, Any]:
    from backend.store.refreshes import Refreshes

    progress = services.ledger.progress(project.uid)
    champion = services.registry.champion(project.uid)
    jobs = services.jobs.of_project(project.uid, limit=1)
    waits = f"waits: {project.waiting_for}" if project.waiting_for else ""
    training = waits
    if jobs and jobs[0].finished_at is None:
        training = f"{jobs[0].status}: {jobs[0].message}"
    elif jobs and jobs[0].status != "done":
        training = f"{jobs[0].status}: {jobs[0].message}" + (f"; {waits}" if waits else "")
    unreadable = services.unreadable.all(project.uid)
    named = "".join(
        f"; {len(unreadable)} cannot be read, such as task {one.task_id}: {one.reason}" for one in unreadable[:1]
    )
    ago = f"{time.time() - project.synced_at:.0f} s ago" if project.synced_at else "never"
    return {
        "project": project.id,
        "uid": project.uid,
        "title": project.title,
        "serves": champion.name if champion else "v0, nothing is trained yet",
        "annotations": f"{progress.labelled} teach, {progress.new} of them new{named}",
        "suggestions": str(Refreshes(services.store).get(project.uid) or ""),
        "last sync": ago,
        "training": training,
        "trouble": project.sync_error,
    }


def _welcome(settings: Settings) -> str:
    below = os.path.relpath(sys.argv[0])
    program = "yoloop" if shutil.which("yoloop") else sys.argv[0] if below.startswith("..") else below
    return (
        f"yoloop listens on http://{settings.host}:{settings.port} and keeps its data in {settings.home}.\n"
        "Connect a project from another terminal, in this folder:\n"
        f"  LABEL_STUDIO_URL=http://localhost:8080 LABEL_STUDIO_API_KEY=<token> {program} connect --project 1\n"
        "Ctrl-C stops."
    )


def main() -> None:
    """Run a command; an error is one line for a person and exit status 1."""
    try:
        app()
    except ValidationError as error:
        for each in error.errors():
            name = str(each["loc"][0]) if each["loc"] else ""
            variable = Settings.variable(name) if name in Settings.model_fields else name
            typer.echo(f"{variable}={each['input']}: {each['msg']}", err=True)
        sys.exit(2)
    except (YoloopError, RegistryError) as error:
        reason = getattr(error, "reason", "")
        typer.echo(masked(f"{error}" + (f"\nLabel Studio said: {reason}" if reason else "")), err=True)
        sys.exit(1)
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(130)


if __name__ == "__main__":
    main()
