"""The command `yoloop annotations`: what is learned from, and what is not understood."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from backend.cli.options import JsonOption, ProjectOption, open_services


def count_annotations(
    project: ProjectOption = None,
    not_understood: Annotated[
        bool, typer.Option("--not-understood", help="List the tasks whose annotations are not understood, and why.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Count a project's annotations, or list those that are not understood."""
    from backend.services import connection_of

    with open_services() as services:
        found = services.store.find(project)
        known = services.readings.annotations(found.uid)
        problems = services.readings.problems(found.uid) if not_understood else []
        reached = connection_of(found, services.settings)
    if not not_understood:
        typer.echo(json.dumps(known.as_json(), indent=1) if as_json else f"{known}.")
        if known.objects and not as_json:
            typer.echo(f"Objects: {known.told_objects()}.")
        return
    url = "" if reached is None else reached.url
    links = [f"{url}/projects/{found.id}/data?task={each.task_id}" for each in problems]
    if as_json:
        rows = [{**asdict(each), "url": link} for each, link in zip(problems, links, strict=True)]
        typer.echo(json.dumps(rows, indent=1))
        return
    if not problems:
        typer.echo("All annotations are understood.")
    for each, link in zip(problems, links, strict=True):
        part = " (the rest of it is used)" if each.in_part else ""
        typer.echo(f"task {each.task_id}: {each.reason}{part}  {link}")
