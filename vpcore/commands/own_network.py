"""The commands for a network of your own: `vpcore prune` makes it sparse.

A network is named by where its code is, and its weights are a file, see `vpcore.weights.named`.
"""

from __future__ import annotations

from pathlib import Path

import click
from torch import Tensor

from vpcore.commands.options import Command, a_path, output_option
from vpcore.errors import InputError
from vpcore.networks.backbones import PARTS
from vpcore.pruning import masks as pruning
from vpcore.pruning.masks import SCOPES, apply_, measure
from vpcore.weights.named import trained_network
from vpcore.weights.tickets import save_ticket


def network_options(command: Command) -> Command:
    """The options of a network of your own."""
    command = click.option("--weights", type=a_path, help="File of its trained weights, or a ticket.")(command)
    command = click.option(
        "--classes", default=1000, show_default=True, help="Number of outputs of a network of torchvision or timm."
    )(command)
    return click.argument("network")(command)


@click.command()
@network_options
@click.option("--density", type=float, required=True, help="Share of the weights that is kept, in (0, 1].")
@click.option("--scope", default="global", show_default=True, help=f"Over which weights are ranked: {', '.join(SCOPES)}.")
@click.option("--part", help=f"What may be pruned: {', '.join(PARTS)}.  [default: body; of a ticket, what it masks]")
@output_option(".safetensors", "The ticket file that is written.", required=True)
def prune(
    network: str, weights: Path | None, classes: int, density: float, scope: str, part: str | None, output: Path
) -> None:
    """Prune a network of your own by magnitude.

    NETWORK is a name of torchvision's or timm's, or MODULE:FACTORY, a function that returns it. What is written is a ticket:
    the weights that are kept and their masks, which `load_ticket_` reads, and `--weights` of all commands. A ticket is
    pruned further within its masks.

    \b
    vpcore prune resnet50 --weights resnet50.pth --density 0.8 --output ticket.safetensors
    vpcore prune my_networks:trained --density 0.5 --scope layer --part all --output ticket.safetensors

    This is one cut without training: EfficientNet-Lite0 reads 30 % of Tiny-ImageNet with all weights, 30 % at a density of
    0.7 and 1 % at 0.49. To keep fewer, train on under the masks (`vpcore.pruning.schedules.fixed`), or in rounds (`vpcore
    run`).
    """
    model, before = trained_network(network, weights=weights, classes=classes)
    if before and part is not None:
        raise InputError(f"`part` of a ticket is what it masks, and {weights} is one; leave --part out")
    total, alive = (sum(int(count(mask)) for mask in before.values()) for count in (Tensor.numel, Tensor.sum))
    if before and round(density * total) > alive:
        raise InputError(
            f"`density` must be at most that of the ticket {weights}, which has {alive:,} of {total:,} weights left, got "
            f"{density}; for more, name the dense weights it was made of with --weights"
        )
    part = part or "body"
    masks = pruning.prune(model, density=density, scope=scope, part=part, within=before or None)
    apply_(model, masks)
    header = {"network": network, "density": density, "scope": scope, "part": "of the ticket" if before else part}
    save_ticket(output, model, masks, header=header)
    shares = measure(model, masks)
    width = max(map(len, masks))
    click.echo(f"{'weight':{width}}  {'of':>12}  density")
    for name, mask in masks.items():
        click.echo(f"{name:{width}}  {mask.numel():12,}  {shares[name]:.4f}")
    total = sum(mask.numel() for mask in masks.values())
    left = sum(shares[name] * mask.numel() for name, mask in masks.items()) / total
    click.echo(f"{'all':{width}}  {total:12,}  {left:.4f}")
    if left < (kept := pruning.density(masks)) - 0.5 / total:
        click.echo(f"note: {kept:.4f} are kept, but some of these weights were zero before; were they pruned already?")
    click.echo(f"wrote {output}, {output.stat().st_size / 2**20:.1f} MiB")
