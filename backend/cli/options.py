"""What several commands of `yoloop` share."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backend.cli.home import locate
from backend.errors import BadRequest
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.services import Services

_PROJECT = re.compile(r"[1-9][0-9]{0,18}(\.[0-9]{1,19})?", re.ASCII)

ProjectArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="PROJECT",
        help="Label Studio's project number, or the uid; may be left out when there is one project.",
        show_default=False,
    ),
]
ProjectOption = Annotated[
    str | None, typer.Option("--project", metavar="PROJECT", help="The same, as an option.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

HomeOption = Annotated[Path | None, typer.Option("--home", help="Folder of all data, instead of YOLOOP_HOME.")]
HostOption = Annotated[str | None, typer.Option("--host", help="Address to listen on, instead of YOLOOP_HOST.")]
PortOption = Annotated[int | None, typer.Option("--port", help="Port to listen on, instead of YOLOOP_PORT.")]


def takes_project(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the option `--project` that takes the project as its last argument, too."""

    @functools.wraps(command)
    def run(*, named: str | None = None, **given: Any) -> None:
        option = given.pop("project", None)
        if named is not None and option is not None and named != option:
            raise BadRequest(f"Two projects are named: {named} and {option}.", "Name one.")
        project = option if named is None else named
        if project is not None and not _PROJECT.fullmatch(project):
            raise typer.BadParameter(f"{project!r} is no number of a project, such as 1, and no uid.")
        command(project=project, **given)

    argument = inspect.Parameter("named", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ProjectArgument)
    known = inspect.signature(command, eval_str=True)
    run.__signature__ = known.replace(parameters=[*known.parameters.values(), argument])  # type: ignore[attr-defined]
    return run


def number_of(project: str | None) -> int | None:
    """Label Studio's number of a project that is named by it, or by its uid `<number>.<created at>`."""
    if project is None:
        return None
    number = project.partition(".")[0]
    if not number.isdecimal() or int(number) < 1:
        raise BadRequest(f"{project} is no number of a project.", "Name one, such as `yoloop connect 1`.")
    return int(number)


def settings_of(home: Path | None, host: str | None, port: int | None) -> Settings:
    """The settings, where these go before the environment: of this process and of those that it starts."""
    for name, value in (("HOME", home), ("HOST", host), ("PORT", port)):
        if value is not None:
            for known in [each for each in os.environ if each.upper() == f"YOLOOP_{name}"]:
                del os.environ[known]
            os.environ[f"YOLOOP_{name}"] = str(value)
    return Settings()


def open_services() -> AbstractContextManager[Services]:
    """The services of the home that is meant, closed at the end of the `with`."""
    from backend.services import Services

    return closing(Services(locate()))


def agreed(question: str, yes: bool) -> bool:
    """Whether a person says yes; where nobody can be asked, nobody does."""
    if yes:
        return True
    try:
        return typer.confirm(question)
    except typer.Abort:
        typer.echo()
        return False
