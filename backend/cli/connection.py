"""The commands of `yoloop` that connect a project of Label Studio, and take yoloop out of it again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli.home import locate
from backend.cli.options import ProjectOption, YesOption, agreed, number_of, open_services
from backend.errors import LabelStudioError, YoloopError

if TYPE_CHECKING:
    from backend.labelstudio.connect import Report, Step
    from backend.settings import Settings
    from backend.store.database import Project, Store

REFUSED = 401


def connect(
    project: ProjectOption = None,
    url: Annotated[str, typer.Option(help="yoloop's address as Label Studio reaches it.")] = "",
    active_learning: Annotated[
        bool | None,
        typer.Option(
            "--active-learning/--no-active-learning",
            help="Whether Label Studio opens the most useful task next. It does, unless the project was connected "
            "without before.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Connect a project: add the ML backend and its webhook in Label Studio, or mend them.

    Label Studio's address and token are kept for all its projects, and need not be told again.
    """
    from backend.labelstudio.webhook import SWITCH
    from backend.store.database import Store

    settings = locate(make=True)
    store = Store(settings.database_url)
    number = number_of(project)
    address, keys = _label_studio(settings, store, number)
    if number is None:
        raise _unnamed(address, keys[0])
    kept = _kept(store, address, number)
    url = (url or _told_url(kept) or f"http://localhost:{settings.port}").strip().rstrip("/")
    before = kept is None or not kept.backend_url or kept.active_learning
    active = before if active_learning is None else active_learning
    was_active = kept is not None and kept.active_learning
    with store.expecting(url) as expect:
        report, key = _connected(settings, address, keys, number, url, active, was_active, expect)
    _tell(report.steps)
    if not active and active_learning is None:
        typer.echo("= Tasks come in their order, as before; --active-learning lets the most useful one come next.")
    info, now = report.project, time.time()
    same = [each for each in store.projects() if _same(each.url, address)]
    for each in same:
        store.save_project(each.uid, url=address)
    store.save_project(
        info.uid,
        url=address,
        api_key=key,
        title=info.title,
        label_config=info.label_config,
        sync_error="",
        backend_url=url,
        active_learning=active,
        disconnected_at=None,
    )
    for uid in {info.uid, *(each.uid for each in same if each.disconnected_at is None)}:
        store.hint(uid, now)  # the worker looks at once, also at those that an old token kept it from
    typer.echo("Connected. Every submitted annotation is used for training from now on.")
    typer.echo(
        f'Label Studio\'s own switch "{SWITCH}" is not needed: leave it off. yoloop hears of every submit by the '
        "webhook, and trains when there is enough that is new."
    )


def disconnect(
    project: ProjectOption = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Also delete all that yoloop keeps of the project, its versions too.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """Take the ML backend and its webhook out of a project; what yoloop has learned of it stays, unless --forget."""
    from backend.fit.forget import forget as forget_project
    from backend.labelstudio.disconnect import disconnect as disconnect_project

    with open_services() as services:
        found = services.store.find(project)
        name = f'project {found.id} "{found.title}"'
        if forget and not agreed(
            f"Delete all that yoloop keeps of {name}: every version, what became of its suggestions, its images? "
            "Nothing brings it back.",
            yes,
        ):
            raise YoloopError("Nothing was changed.", "Say --yes where nobody can be asked.")
        try:
            steps = disconnect_project(
                services.client(found),
                found.uid,
                found.backend_url or f"http://localhost:{services.settings.port}",
                active_learning=found.active_learning,
            )
        except LabelStudioError as error:
            if not forget:
                raise
            typer.echo(f"{error} The ML backend and the webhook may still be there: remove them by hand.", err=True)
        else:
            _tell(steps)
        if forget:
            for line in forget_project(services, found.uid, time.time()):
                typer.echo(f"+ {line}")
            typer.echo(f"Forgotten: {name}. In Label Studio its annotations and predictions stay.")
            return
        services.store.disconnect(found.uid, time.time())
    typer.echo(
        f"Disconnected: {name}. Its versions are kept: `yoloop connect {found.id}` goes on with them, and "
        f"`yoloop disconnect {found.id} --forget` deletes them."
    )


def _label_studio(settings: Settings, store: Store, number: int | None) -> tuple[str, list[str]]:
    """The address, and the tokens to try: the one of the environment, then the one that is kept."""
    kept = store.label_studios()
    address = settings.label_studio_url.strip().rstrip("/")
    if not address:
        of_project = {each.url for each in store.projects() if each.url and each.id == number}
        known = of_project if len(of_project) == 1 else set(kept)
        if len(known) > 1:
            raise YoloopError(
                f"Several Label Studios are known: {', '.join(sorted(known))}.", "Set LABEL_STUDIO_URL to one of them."
            )
        address = next(iter(known), "")
    key = settings.label_studio_api_key.get_secret_value().strip()
    keys = list(dict.fromkeys(each for each in (key, *_of(kept, address)) if each))
    if not address or not keys:
        missing = [
            name
            for name, value in (("LABEL_STUDIO_URL", address), ("LABEL_STUDIO_API_KEY", "".join(keys)))
            if not value
        ]
        raise YoloopError(
            f"{' and '.join(missing)} must be set, in the environment or in a file .env.",
            "The key is in Label Studio under Account & Settings, Personal Access Token.",
        )
    return address, keys


def _connected(
    settings: Settings,
    address: str,
    keys: list[str],
    number: int,
    url: str,
    active: bool,
    was_active: bool,
    expect: Callable[[str], None],
) -> tuple[Report, str]:
    """Connect with the first token that is accepted, and say which it was."""
    from backend.labelstudio.client import LabelStudioClient
    from backend.labelstudio.connect import connect as connect_project
    from backend.labelstudio.webhook import webhook_secret

    password = settings.basic_auth_pass.get_secret_value()
    for last, key in ((key is keys[-1], key) for key in keys):
        try:
            report = connect_project(
                LabelStudioClient(address, key),
                number,
                url,
                secret=webhook_secret(settings.root),
                basic_auth=(settings.basic_auth_user, password) if settings.basic_auth_user or password else None,
                active_learning=active,
                was_active=was_active,
                before=lambda info: expect(info.uid),
            )
            return report, key
        except LabelStudioError as error:
            if error.code != REFUSED or last:
                raise
            typer.echo("LABEL_STUDIO_API_KEY is not accepted; the token that is kept is used.", err=True)
    raise AssertionError("there is a token")


def _unnamed(address: str, key: str) -> YoloopError:
    from backend.labelstudio.client import LabelStudioClient

    there = LabelStudioClient(address, key).projects()
    newest = sorted(there, key=lambda each: -each.id)[:20]
    told = ", ".join(f'{each.id} "{each.title}"' for each in newest) or "none"
    if len(there) > len(newest):
        told += f" and {len(there) - len(newest)} older ones"
    return YoloopError(
        f"Which project? Label Studio at {address} has: {told}.", "Name one, such as `yoloop connect 1`."
    )


def _kept(store: Store, address: str, number: int) -> Project | None:
    """The project as it was connected last."""
    found = [each for each in store.projects() if each.id == number and _same(each.url, address)]
    return max(found, key=lambda each: each.synced_at or 0.0, default=None)


def _told_url(kept: Project | None) -> str:
    """yoloop's address as `--url` gave it last time; empty: it was the usual one, whose port may have changed."""
    url = kept.backend_url if kept is not None else ""
    return "" if url.startswith("http://localhost:") else url


def _of(kept: dict[str, str], address: str) -> list[str]:
    return [key for url, key in kept.items() if _same(url, address)]


def _same(one: str, other: str) -> bool:
    from backend.labelstudio.connect import same_address

    return bool(one) and same_address(one, other)


def _tell(steps: Iterable[Step]) -> None:
    for step in steps:
        typer.echo(f"{'+' if step.changed else '='} {step.done}")
