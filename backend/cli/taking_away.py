"""The commands of `yoloop` that take away what was labelled and learned: export, weights."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from backend.cli.options import ProjectOption, open_services
from backend.errors import BadRequest


class DatasetFormat(StrEnum):
    yolo = "yolo"
    coco = "coco"


class WeightsFormat(StrEnum):
    pt = "pt"
    onnx = "onnx"


def export(
    out: Annotated[Path, typer.Option(help="A new folder.", show_default=False)],
    project: ProjectOption = None,
    to: Annotated[DatasetFormat, typer.Option("--format", help="Of the labels.")] = DatasetFormat.yolo,
    images: Annotated[bool, typer.Option("--images", help="Copy the images, too.")] = False,
    version: Annotated[
        str | None, typer.Option(help="What this version learned, such as v3, instead of what a training would now.")
    ] = None,
) -> None:
    """Write what a training would learn from as files, in the format of ultralytics or COCO."""
    number = None if version is None else _number(version)
    from backend.fit.dataset import export as exporting

    with open_services() as services:
        found = services.store.find(project)
        manifest = None if number is None else exporting.manifest_of(services, found, number)
        done = exporting.export(services, found, out, coco=to is DatasetFormat.coco, images=images, manifest=manifest)
    typer.echo(f"{done.images} images of {done.controls} controls are in {out}.")
    if done.left_out:
        typer.echo(f"{len(done.left_out)} were left out: {out / 'left_out.json'} says why.")


def weights(
    version: Annotated[str, typer.Option(help="Such as v3.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A new file.", show_default=False)],
    project: ProjectOption = None,
    to: Annotated[WeightsFormat, typer.Option("--format", help="Of the file.")] = WeightsFormat.pt,
    network: Annotated[str, typer.Option(help="Which model, of a version that has several.")] = "",
) -> None:
    """Write the weights of a version to a file."""
    if out.exists():
        raise BadRequest(f"{out} is there already.", "Name a new file with --out.")
    number = _number(version)
    from backend.served_models.parts import parts_of

    with open_services() as services:
        found = services.registry.version(services.store.find(project).uid, number)
        parts = {each.network.key: each for each in parts_of(found, services.settings.image_size)}
        if network not in parts and (network or len(parts) > 1):
            raise BadRequest(f"{found.name} has the models {', '.join(parts)}.", "Name one with --network.")
        part = parts[network] if network else next(iter(parts.values()))
        stored = services.registry.fetch(found, part.file)
    out.parent.mkdir(parents=True, exist_ok=True)
    if to is WeightsFormat.onnx:
        from backend.engine.onnx import write_onnx

        write_onnx(stored, part.image_size, out)
    else:
        shutil.copyfile(stored, out)
    typer.echo(f"The weights of {found.name} are in {out}.")


def _number(version: str) -> int:
    number = version.removeprefix("v")
    if not number.isdecimal():
        raise BadRequest(f"{version!r} is not a version.", "Versions are called v1, v2 …: see `yoloop versions`.")
    return int(number)
