"""The commands for a network of one's own: `vpcore prune` makes it sparse.

A network is named by where its code is, and its weights are a file:

    resnet50                      torchvision's
    vit_small_patch16_224         timm's
    my_networks:make              what the function `make` of my_networks.py, in this folder, or of a package returns
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import click
from torch import nn

from vpcore.commands.options import Command
from vpcore.errors import InputError, unknown
from vpcore.networks.backbones import PARTS
from vpcore.pruning.masks import SCOPES, apply_, density, measure
from vpcore.pruning.masks import prune as masks_of
from vpcore.weights.checkpoints import load_checkpoint
from vpcore.weights.tickets import save_ticket


def build_network(name: str, *, classes: int) -> nn.Module:
    """A network by where its code is, with fresh weights.

    Args:
        name: a name of torchvision's or timm's, or MODULE:FACTORY, a function without arguments that returns a network; its
            module is looked for in the working directory, too.
        classes: number of outputs; a FACTORY has its own.

    Raises:
        InputError: for a name that is none of these, or a factory that fails or returns something else.

    >>> sum(p.numel() for p in build_network("squeezenet1_1", classes=5).parameters())
    725061
    """
    module, colon, factory = name.partition(":")
    if colon:
        return _made(module, factory)
    from torchvision.models import get_model, list_models  # takes a second or two, like timm

    ours = list_models(importlib.import_module("torchvision.models"))
    if name in ours:
        return get_model(name, num_classes=classes)
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"{unknown('network of torchvision', name, ours)}. For one of timm use: pip install 'vpcore[imagenet]'; "
            "for one of your own name MODULE:FACTORY"
        ) from error
    if not timm.is_model(name):
        raise unknown("network of torchvision or timm (for one of your own name MODULE:FACTORY)", name, ours)
    return timm.create_model(name, num_classes=classes)


def _made(module: str, factory: str) -> nn.Module:
    """What a function in a module returns."""
    where = f"`{module}:{factory}`"
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), factory)()
    except Exception as error:  # noqa: BLE001 whatever goes wrong in the code of others
        raise InputError(
            f"{where} must be a function without arguments that returns a network, in a module of this folder or of an "
            f"installed package; it fails: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(made, nn.Module):
        raise InputError(f"{where} must return a torch.nn.Module, got a {type(made).__name__}")
    return made


def trained_network(name: str, *, weights: Path | None, classes: int) -> nn.Module:
    """A network by name, with the weights of a file; a FACTORY may bring its own.

    Args:
        name, classes: see `build_network`.
        weights: a file of any form listed in `vpcore.weights.foreign`; a ticket, too.

    Raises:
        InputError: as `build_network` and `load_checkpoint`, or without weights for a network of a library.
    """
    model = build_network(name, classes=classes)
    if weights is not None:
        model.load_state_dict(load_checkpoint(weights, model)[0])
    elif ":" not in name:
        raise InputError(
            f"`--weights` must name the file of the trained weights of {name}, which are random without; save them with "
            "torch.save(model.state_dict(), FILE), or name MODULE:FACTORY, a function that returns the trained network"
        )
    return model


def network_options(command: Command) -> Command:
    """The options of a network of one's own."""
    for option in (
        click.option("--classes", default=1000, show_default=True, help="Outputs of a network of torchvision or timm."),
        click.option("--weights", type=click.Path(path_type=Path), help="File of its trained weights, or a ticket."),
        click.argument("network"),
    ):
        command = option(command)
    return command


@click.command()
@network_options
@click.option("--density", "kept", type=float, required=True, help="Share of the weights that is kept, in (0, 1].")
@click.option("--scope", default="global", show_default=True, help=f"Over which weights are ranked: {', '.join(SCOPES)}.")
@click.option("--part", default="body", show_default=True, help=f"What may be pruned: {', '.join(PARTS)}.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The ticket file that is written.")
def prune(network: str, weights: Path | None, classes: int, kept: float, scope: str, part: str, output: Path) -> None:
    """Prune a network of one's own by magnitude.

    NETWORK is a name of torchvision's or timm's, or MODULE:FACTORY, a function that returns it. What is written is a ticket:
    the weights that are kept and their masks, which `load_ticket_` reads, and `--weights` of all commands.

    \b
    vpcore prune resnet50 --weights resnet50.pth --density 0.2 --output ticket.safetensors
    vpcore prune my_networks:trained --density 0.1 --scope layer --part all --output ticket.safetensors
    """
    model = trained_network(network, weights=weights, classes=classes)
    masks = masks_of(model, density=kept, scope=scope, part=part)
    apply_(model, masks)
    header = {"network": network, "density": kept, "scope": scope, "part": part}
    save_ticket(output, model, masks, header=header)
    shares = measure(model, masks)
    width = max(map(len, masks))
    click.echo(f"{'weight':{width}}  {'of':>12}  density")
    for name, mask in masks.items():
        click.echo(f"{name:{width}}  {mask.numel():12,}  {shares[name]:.4f}")
    click.echo(f"{'all':{width}}  {sum(mask.numel() for mask in masks.values()):12,}  {density(masks):.4f}")
    click.echo(f"wrote {output}, {output.stat().st_size / 2**20:.1f} MiB")
