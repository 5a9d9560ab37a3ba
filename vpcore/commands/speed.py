"""The command that measures speed: `vpcore bench`."""

from __future__ import annotations

from pathlib import Path

import click

from vpcore.bench.pieces import PIECES
from vpcore.bench.timing import Setting, line, save
from vpcore.checks import SIDE, whole_number
from vpcore.commands.options import check_known, device_option, output_option, warn_of_emulation
from vpcore.networks.backbones import PRECISIONS, check_canvas
from vpcore.study.execution import device_named


@click.command()
@click.option("--model", default="resnet18", show_default=True, help="A network of vpcore.networks.backbones.MODELS.")
@click.option("--canvas", default=224, show_default=True, help="Side of what the network sees, px.")
@device_option
@click.option("--only", multiple=True, help=f"Only this piece ({', '.join(PIECES)}); may be repeated.")
@click.option("--repeats", default=5, show_default=True, help="How often each is measured; the median counts.")
@output_option(".json", "JSON file that gets the numbers.")
def bench(model: str, canvas: int, device: str, only: tuple[str, ...], repeats: int, output: Path | None) -> None:
    """Measure how fast the pieces are, side by side with the floor, the naive way, and other libraries.

    \b
    vpcore bench --only step                             ResNet-18 at 224 px, some minutes on two CPU cores
    vpcore bench --model resnet50 --only floor --only step
    """
    check_known("piece", only, PIECES)
    repeats, canvas = whole_number(repeats, name="repeats"), whole_number(canvas, name="canvas", least=8, most=SIDE)
    check_canvas(model, canvas)
    setting = Setting(model, canvas, device_named(device), repeats)
    warn_of_emulation(setting.device, PRECISIONS)
    rows = []
    for name in only or PIECES:
        for row in PIECES[name](setting):
            click.echo(f"{name:8} {line(row)}")
            rows.append(row)
    if output is not None:
        save(output, setting, rows)
        click.echo(f"wrote {output}")
