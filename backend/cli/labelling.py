"""The commands of `yoloop` that help with labelling: suggest, accept, advise, simulate."""

from __future__ import annotations

import json
import sys
import time
import uuid
from functools import partial as with_these
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.cli.options import JsonOption, ProjectOption, YesOption, agreed, open_services
from backend.errors import BadRequest, YoloopError


def predict(
    project: ProjectOption = None,
    view: Annotated[int | None, typer.Option(help="Number of a Data Manager tab: only the tasks it shows.")] = None,
    task: Annotated[list[int] | None, typer.Option(help="Only this task; may be given several times.")] = None,
) -> None:
    """Suggest for every unlabelled task that lacks suggestions of the version in service."""
    from backend.server.process import make_serving
    from backend.suggestions.refresh import Refresher

    with open_services() as services:
        settings, uid = services.settings, services.store.find(project).uid
    serving = make_serving(settings, only=uid)
    try:
        with _Bar() as bar:
            found = Refresher(serving, uid).run(bar.told, view, task or None)
    finally:
        serving.close()
    typer.echo(f"{_count(found.done, 'task')} got suggestions of {found.version}.")
    if found.failed:
        typer.echo(f"{_count(found.failed, 'task')} failed: see the lines above.", err=True)
        raise typer.Exit(1)


def accept(
    project: ProjectOption = None,
    min_score: Annotated[float, typer.Option(help="Least score of a suggestion, 0 to 1.")] = 0.8,
    label: Annotated[
        list[str] | None, typer.Option(help="Another least score for one label, such as Car=0.9; several times.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept the sure suggestions of tasks that have doubtful ones, too.")
    ] = False,
    complete_only: Annotated[bool, typer.Option("--complete-only", hidden=True, help="The default since 0.8.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be accepted.")] = False,
    yes: YesOption = False,
    undo: Annotated[str, typer.Option(help="Take back the run of that name.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Turn suggestions above a score into annotations, or take them back.

    It says what it would do, and asks before it does it. A task that also has a doubtful suggestion is left alone.
    """
    if partial and complete_only:
        raise BadRequest("The options --partial and --complete-only say the opposite of each other.", "Leave one out.")
    from backend.suggestions import accept as accepting

    with open_services() as services:
        found = services.store.find(project)
        if undo:
            undone = accepting.undo(services, found, undo)
            typer.echo(json.dumps(undone.as_json(), indent=1) if as_json else str(undone))
            return
        accepts = with_these(
            accepting.accept,
            services,
            found,
            min_score=min_score,
            labels=_scores(label or []),
            complete_only=not partial,
        )
        if dry_run or not yes:
            with _Bar() as bar:
                planned = accepts(dry_run=True, run="", now=time.time(), told=bar.looked)
            if dry_run or not planned.tasks:
                typer.echo(json.dumps(planned.as_json(), indent=1) if as_json else str(planned))
                return
            typer.echo(str(planned), err=as_json)
            if not agreed(f"Write {_count(planned.tasks, 'annotation')} to Label Studio?", yes):
                raise YoloopError("Nothing was written.", "Say --yes where nobody can be asked.")
        with _Bar() as bar:
            accepted = accepts(dry_run=False, run=uuid.uuid4().hex[:8], now=time.time(), told=bar.looked)
    typer.echo(json.dumps(accepted.as_json(), indent=1) if as_json else str(accepted))


def advice(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Say for each label from which score its suggestions can be trusted, and what became of them so far."""
    from backend.feedback.report import report

    with open_services() as services:
        found = report(services, services.store.find(project))
    typer.echo(json.dumps(found.as_json(), indent=1) if as_json else str(found))


def simulate(
    project: ProjectOption = None,
    every: Annotated[list[int] | None, typer.Option(help="Annotations between trainings; several times.")] = None,
    order: Annotated[
        list[str] | None,
        typer.Option(help="'as submitted', 'random', or a strategy such as least-confidence; several times."),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Most minutes of one training.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Of what is left to chance.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the curves go; a .json with the numbers stands beside it.")] = Path(
        "simulation.png"
    ),
) -> None:
    """Replay a project's annotations under other settings, and draw learning curves."""
    from backend.simulation import simulate as simulating

    with open_services() as services:
        found = services.store.find(project)
        gaps, orders = every or simulating.EVERY, order or simulating.DEFAULT_ORDERS
        count = services.ledger.progress(found.uid).labelled
        most = simulating.most_minutes(count, gaps, orders, minutes)
        typer.echo(f"Replaying {_count(count, 'annotation')}; the trainings take {most:.0f} minutes at most.")
        from backend.engine.environment import prepare

        prepare(services.settings.root)
        done = simulating.simulate(
            services, found, minutes=minutes, every=gaps, orders=orders, seed=seed, told=typer.echo
        )
    simulating.draw(done, out)
    out.with_suffix(".json").write_text(json.dumps(done.as_json(), indent=1))
    typer.echo(simulating.table(done))
    typer.echo(simulating.conclusion(done.curves))
    typer.echo(f"The curves are in {out}.")


class _Bar:
    """A progress bar whose length is known only once work begins; nothing where nobody looks."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

    def looked(self, done: int, total: int) -> None:
        self.told(done, 0, total)

    def told(self, done: int, failed: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = typer.progressbar(length=total, label="Tasks", show_pos=True, file=sys.stderr).__enter__()
        self._bar.update(done + failed - self._bar.pos)


def _scores(given: list[str]) -> dict[str, float]:
    """Label → least score, from texts such as "Car=0.9"."""
    found = {}
    for text in given:
        name, _, score = text.rpartition("=")
        try:
            found[name] = float(score)
        except ValueError:
            name = ""
        if not name:
            raise BadRequest(f"{text!r} names no label and score.", "Write it like --label Car=0.9.")
    return found


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
