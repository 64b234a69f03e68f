"""The command `yoloop annotations`: what is learned from, and what is not understood."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from backend.cli.options import JsonOption, ProjectOption, open_services
from backend.errors import BadRequest


def count_annotations(
    project: ProjectOption = None,
    not_understood: Annotated[
        bool, typer.Option("--not-understood", help="List the tasks whose annotations are not understood, and why.")
    ] = False,
    several: Annotated[bool, typer.Option("--several", help="List the tasks with several annotations.")] = False,
    empty: Annotated[bool, typer.Option("--empty", help="List the tasks whose annotations are empty.")] = False,
    contradicting: Annotated[
        bool,
        typer.Option("--contradicting", help="List the tasks with nearly the same image and other annotations."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Count a project's annotations, or list some of them."""
    if not_understood + several + empty + contradicting > 1:
        raise BadRequest(
            "Only one list is shown at a time.",
            "Name one of --not-understood, --several, --empty and --contradicting.",
        )
    from backend.services import connection_of

    with open_services() as services:
        found = services.store.find(project)
        known = services.readings.annotations(found.uid)
        rows: list[dict[str, Any]] = []
        if not_understood:
            rows = [asdict(each) for each in services.readings.problems(found.uid)]
        elif several:
            rows = [asdict(each) for each in services.readings.several(found.uid)]
        elif contradicting:
            listed = services.readings.contradictions(found.uid)
            rows = [{**asdict(each), "says": str(each)} for each in listed]
        elif empty:
            rows = [{"task_id": task_id} for task_id in services.readings.empty(found.uid)]
        reached = connection_of(found, services.settings)
    if not (not_understood or several or empty or contradicting):
        typer.echo(json.dumps(known.as_json(), indent=1) if as_json else f"{known}.")
        if known.objects and not as_json:
            typer.echo(f"Objects: {known.told_objects()}.")
        return
    url = "" if reached is None else reached.url
    for row in rows:
        row["url"] = f"{url}/projects/{found.id}/data?task={row['task_id']}"
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        typer.echo("All annotations are understood." if not_understood else "There is none.")
    for row in rows:
        typer.echo(f"task {row['task_id']}{_told(row)}  {row['url']}")


def _told(row: dict[str, Any]) -> str:
    if "reason" in row:
        return f": {row['reason']}" + (" (the rest of it is used)" if row["in_part"] else "")
    if "says" in row:
        return f": {row['says']}"
    if "annotations" not in row:
        return ""
    agreement = row["agreement"]
    return f": {row['annotations']} annotations" + ("" if agreement is None else f", which agree on {agreement:.0%}")
