"""Commands that are no part of a study: `vpcore fetch` gets image sets, `vpcore bench` measures speed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import click

from vpcore.bench.pieces import PIECES
from vpcore.bench.timing import Setting, line, save
from vpcore.data import hub, tasks
from vpcore.errors import InputError, unknown
from vpcore.networks.backbones import check_canvas
from vpcore.study.execution import device_named


def data_option(command: click.Command) -> click.Command:
    """The option --data of all commands that read image sets."""
    return click.option(
        "--data", type=click.Path(path_type=Path), default=lambda: os.environ.get("VPCORE_DATA") or None,
        help="Folder of image sets (Parquet, tv/, coop/), for tasks that are not built in.  [default: $VPCORE_DATA]",
    )(command)  # fmt: skip


@click.command()
@click.option("--model", default="resnet18", show_default=True, help="A network of vpcore.networks.backbones.MODELS.")
@click.option("--canvas", default=224, show_default=True, help="Side of what the network sees, px.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--only", multiple=True, help=f"Only this piece ({', '.join(PIECES)}); may be repeated.")
@click.option("--repeats", default=5, show_default=True, help="Times that each is measured; the median counts.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file that gets the numbers.")
def bench(model: str, canvas: int, device: str, only: tuple[str, ...], repeats: int, output: Path | None) -> None:
    """Measure how fast the pieces are, side by side with the floor, the naive way, and other libraries.

    \b
    vpcore bench --only step                             ResNet-18 at 224 px, some minutes on two CPU cores
    vpcore bench --model resnet50 --only floor --only step
    """
    for name in only:
        if name not in PIECES:
            raise unknown("piece", name, PIECES)
    if repeats < 1:
        raise InputError(f"`repeats` must be at least 1, got {repeats}")
    check_canvas(model, canvas)
    setting = Setting(model, canvas, device_named(device), repeats)
    rows = []
    for name in only or PIECES:
        for row in PIECES[name](setting):
            click.echo(f"{name:8} {line(row)}")
            rows.append(row)
    if output is not None:
        save(output, setting, rows)
        click.echo(f"wrote {output}")


@click.command()
@click.argument("name")
@data_option
@click.option("--revision", help="Commit of a set on the Hugging Face hub, 40 hexadecimal digits.")
@click.option("--repo", help="OWNER/NAME of a set on the hub that is not known here.")
@click.option("--train", help="Pattern of its training files, such as data/train-*.parquet.")
@click.option("--test", help="Pattern of the files that serve as test split.")
@click.option("--image", help="Its column of images.")
@click.option("--label", help="Its column of labels.")
def fetch(name: str, data: Path | None, revision: str | None, repo: str | None, **columns: str | None) -> None:
    """Download an image set into the data folder.

    \b
    vpcore fetch tv-cifar10 --data DIR                        through torchvision, with its checks
    vpcore fetch eurosat --data DIR --revision COMMIT         from the Hugging Face hub, as Parquet
    vpcore fetch mine --data DIR --revision COMMIT --repo OWNER/NAME --train 'data/train-*' --test 'data/test-*'

    Nothing else downloads images: a run whose set is missing says so, and names this command.
    """
    if data is None:
        raise InputError("`data` must name the folder that image sets are kept in; use --data DIR or set VPCORE_DATA")
    given = {key: value for key, value in columns.items() if value is not None}
    source = hub.Source(repo, **given) if repo else None
    if given and not repo:
        if name not in hub.HUB_SETS:
            raise unknown("set on the hub", name, hub.HUB_SETS)
        source = dataclasses.replace(hub.HUB_SETS[name], **given)
    click.echo(f"wrote {tasks.fetch(name, data, source=source, revision=revision)}")
