"""The command that says what compression has cost a network of your own: `vpcore audit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from vpcore.audit import tables
from vpcore.audit.findings import EXIT
from vpcore.audit.numbers import numbers
from vpcore.audit.options import BUDGET, SHOTS, Options
from vpcore.audit.run import audit as found_by
from vpcore.commands.options import PathType, data_option, device_option, scheduler_option
from vpcore.errors import InputError
from vpcore.report.verdicts import MARGIN

FOUND, FOLDER = PathType(exists=True, file_okay=False), PathType(file_okay=False, writable=True, path_type=Path)


@click.command()
@click.option("--dense", required=True, help="The network before it was compressed.")
@click.option("--compressed", multiple=True, required=True, help="The network after; may be repeated.")
@click.option("--model", default="", help="The network that a file of weights alone belongs to.  [default: that of --dense]")
@click.option("--tasks", default="", help="Image sets, with commas, the most important first.  [default: --images, or ours]")
@click.option("--images", type=FOUND, multiple=True, help="Folder of images of your own, CLASS/*.png; may be repeated.")
@data_option
@click.option("--budget", default=BUDGET, show_default=True, help="Time to spend; the design is chosen for it.")
@click.option("--shots", default=",".join(map(str, SHOTS)), show_default=True, help="Images a class, the smallest first.")
@click.option("--seeds", type=int, help="How many; then all tasks and shots are measured, however long it takes.")
@click.option("--margin", default=MARGIN, show_default=True, help="The largest cost too small to matter; 0.01 is a point.")
@click.option("--own-task", default="", help="Image set that the networks were trained on, with their classes.")
@click.option("--canvas", default=128, show_default=True, help="Side of what the networks see, px.")
@click.option("--px", "image_px", type=int, help="Side of the image within the border of a prompt.  [default: 4/7 of it]")
@click.option("--epochs", default=30, show_default=True, help="Of the prompts.")
@click.option("--lr", default=0.1, show_default=True, help="Learning rate of the prompts.")
@click.option("--test-images", default=300, show_default=True, help="Of each task, about.")
@device_option
@scheduler_option
@click.option("--output", type=FOLDER, default="audit", show_default=True, help="Folder that gets the page and the numbers.")
@click.option("--quiet", is_flag=True, help="Print the verdict only.")
def audit(*, tasks: str, images: tuple[str, ...], shots: str, output: Path, quiet: bool, **given: Any) -> None:
    """Say what compression has cost a network of your own, on one page.

    The networks are named as NAME@WEIGHTS, as a file of weights, as MODULE:FUNCTION, or as a program of torch.export or
    ONNX; NAME is one of torchvision, timm or vpcore, WEIGHTS a file, torchvision:NAME, timm or package.

    \b
    vpcore audit --dense resnet18@torchvision:IMAGENET1K_V1 --compressed pruned.pth
    vpcore audit --dense resnet18@dense.pth --compressed ticket.safetensors --tasks cifar10,eurosat,pets --data DIR
    vpcore audit --dense my_nets:dense --compressed my_nets:pruned --images photos --budget "5 min" --canvas 224

    Exit codes: 0, no relevant cost; 3, a cost was found; 4, inconclusive; 2, something that was given must change.
    """
    try:
        from vpcore.audit.page import write_page
    except ImportError as error:
        raise InputError(
            f"the page needs packages that are not installed ({error.name}); use: pip install 'vpcore[book]'"
        ) from error
    options = Options(tasks=(*(name for name in tasks.split(",") if name), *images), shots=_whole(shots), **given)
    found = found_by(options, log=lambda text: None if quiet else click.echo(text))
    written = write_page(found, output)
    whole = numbers(found)
    for name, each in zip(tables.labels(whole)[1:], whole["findings"], strict=True):
        click.echo(f"{name}: {each['verdict']}")
        for one in each["primary"]:
            click.echo(f"  {one['verdict']:22} {tables.points(one):>24} points  {one['claim']}")
    for note in found.warnings:
        click.echo(f"note: {note}")
    click.echo(f"wrote {written}")
    sys.exit(EXIT[found.verdict])


def _whole(shots: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in shots.split(","))
    except ValueError as error:
        raise InputError(f"`shots` must be whole numbers with commas between them, got {shots!r}; use 1,4,16") from error
