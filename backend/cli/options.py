"""What several commands of `yoloop` share."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, Annotated

import typer

from backend.settings import Settings

if TYPE_CHECKING:
    from backend.services import Services

ProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project", help="Label Studio's project number, or the uid; may be left out when there is one project."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_services() -> AbstractContextManager[Services]:
    """The services, closed at the end of the `with`."""
    from backend.services import Services

    return closing(Services(Settings()))
