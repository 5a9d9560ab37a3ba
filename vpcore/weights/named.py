"""Networks by where their code is, with the weights of a file: what the commands for a network of your own take.

resnet50                      torchvision's
vit_small_patch16_224         timm's
my_networks:make              what the function `make` of my_networks.py, in this folder, or of a package returns
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from torch import Tensor, nn

from vpcore.checks import CLASSES, whole_number
from vpcore.errors import InputError, unknown
from vpcore.weights.checkpoints import load_checkpoint


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
    classes = whole_number(classes, name="classes", most=CLASSES)
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
    except (Exception, SystemExit) as error:  # noqa: BLE001 whatever goes wrong in the code of others
        raise InputError(
            f"{where} must be a function without arguments that returns a network, in a module of this folder or of an "
            f"installed package; it fails: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(made, nn.Module):
        raise InputError(f"{where} must return a torch.nn.Module, got a {type(made).__name__}")
    return made


def trained_network(name: str, *, weights: Path | None, classes: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network by name with the weights of a file, and the masks of that file; a FACTORY may bring its own weights.

    Args:
        name, classes: see `build_network`.
        weights: a file of any form listed in `vpcore.weights.foreign`; a ticket, too.

    Returns:
        The network, and name of a weight -> bool tensor of its shape; no masks where the file has none.

    Raises:
        InputError: as `build_network` and `load_checkpoint`, or without weights for a network of a library.
    """
    model = build_network(name, classes=classes)
    masks: dict[str, Tensor] = {}
    if weights is not None:
        state, masks = load_checkpoint(weights, model)
        model.load_state_dict(state)
    elif ":" not in name:
        raise InputError(
            f"`weights` must name the file of the trained weights of {name}, which are random without; save them with "
            "torch.save(model.state_dict(), FILE), or name MODULE:FACTORY, a function that returns the trained network"
        )
    return model, masks
