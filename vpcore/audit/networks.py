"""The networks of an audit: named as one names them, frozen, and weighed.

resnet50@torchvision:IMAGENET1K_V2     a network of torchvision with weights of torchvision
vit_small_patch16_224@timm             timm's
efficientnet-lite0@package             a network of `MODELS` with a source of `WEIGHT_SOURCES`
resnet50@pruned.pth                    either with a file of any form that `vpcore.weights.foreign` lists, a ticket too
pruned.pth                             a file alone: the network is the one that `model` names, or that of the dense one
my_networks:pruned                     what the function `pruned` of my_networks.py returns
my_networks:make@pruned.pth            the same with the weights of a file
network.pt2, network.onnx              a program: what torch.export or ONNX has saved, see `programs`
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vpcore.audit.weighing import Facts, held_bits, make_plain_, random_images, weigh
from vpcore.errors import InputError, unknown
from vpcore.networks.backbones import MODELS, Statistics, backbone, build, head_name
from vpcore.networks.frozen import Frozen
from vpcore.weights.checkpoints import load_checkpoint
from vpcore.weights.foreign import read_weights
from vpcore.weights.named import build_network
from vpcore.weights.published import WEIGHT_SOURCES, pretrained

FILES = (".pth", ".pt", ".safetensors", ".tar", ".bin", ".ckpt")  # endings of files of weights
PROGRAMS = (".pt2", ".onnx")


@dataclass(frozen=True)
class Audited:
    """A network of an audit.

    Attributes:
        name: how it was named.
        model: the name of its code, which a file of weights alone is read into; "" for a program.
        frozen: ready to be probed, and prompted where gradients pass.
        no_gradients: why none pass from its outputs to its inputs; "" where they do.
        facts: what it weighs, see `weigh`.
        notes: sentences that whoever reads the audit must know.
    """

    name: str
    model: str
    frozen: Frozen
    no_gradients: str
    facts: Facts
    notes: tuple[str, ...] = ()


def read_network(
    name: str, *, canvas: int, model: str = "", device: torch.device | str = "cpu", statistics: Statistics | None = None
) -> Audited:
    """A network by its name, frozen and looked at.

    Args:
        name: see the head of this module.
        canvas: side of the images that it will be shown, px.
        model: the network that a file of weights alone is read into.
        device: where it runs.
        statistics: what its inputs are normalised with; None: those of `MODELS`, or what `Frozen` takes.

    Raises:
        InputError: for a name that is none of these, a file that does not fit, weights or outputs that are not finite, and a
            canvas that the network does not take.

    >>> read_network("resnet8@random", canvas=32).facts["weights"]
    140720
    """
    code, _, weights = name.rpartition("@") if "@" in name else (name, "", "")
    if not weights and Path(code).suffix.lower() in FILES:
        if not model:
            raise InputError(
                f"`model` must say which network {name} holds the weights of; use --model NAME, --model MODULE:FUNCTION, or "
                f"NAME@{name}"
            )
        code, weights = model, name
    network: nn.Module
    notes: tuple[str, ...]
    if Path(code).suffix.lower() in PROGRAMS:
        from vpcore.audit.programs import read_program

        network, notes = read_program(Path(code))
        code = ""
    else:
        network, notes = _built(code, weights), ()
        known = backbone(code).statistics if code in MODELS else None
        statistics = statistics or known
    bits, rounding = make_plain_(network)
    if weights and Path(weights).is_file():
        bits |= held_bits(Path(weights))
    try:
        frozen = Frozen(network, device=device, statistics=statistics)
    except InputError as error:
        raise InputError(f"the network {name}: {str(error).replace('`model`', 'it')}") from error
    _check_outputs(frozen, name, canvas)
    return Audited(name, code, frozen, _blocked(frozen, canvas), weigh(frozen, canvas, bits=bits), (*notes, *rounding))


def _built(code: str, weights: str) -> nn.Module:
    """A network by the name of its code, with weights by the name of where they are."""
    kind, colon, detail = weights.partition(":")
    if not weights:
        if ":" not in code:
            raise InputError(
                f"the weights of {code} are random unless they are named; use {code}@FILE, {code}@torchvision:NAME, "
                f"{code}@timm, or MODULE:FUNCTION for a function that returns the trained network"
            )
        return build_network(code, classes=0)
    if code in MODELS and kind + colon in WEIGHT_SOURCES and not Path(weights).exists():
        state, _ = pretrained(code, weights)
        network = build(code, classes=len(state[f"{head_name(build(code, classes=2, seed=0))}.weight"]), seed=0)
        network.load_state_dict(state)
        return network
    if kind == "torchvision" and colon:
        return _of_torchvision(code, detail)
    if weights == "timm":
        return _of_timm(code)
    path = Path(weights)
    if not path.is_file():
        raise InputError(f"there is no file {weights}, and no source of weights has that name; {code}@FILE needs a file")
    network = _fresh(code, _classes(code, path))
    state, _ = load_checkpoint(path, network)
    network.load_state_dict(state)
    return network


def _fresh(code: str, classes: int) -> nn.Module:
    return build(code, classes=classes, seed=0) if code in MODELS else build_network(code, classes=classes)


def _classes(code: str, path: Path) -> int:
    """How many outputs the classifier has whose weights are in a file."""
    if ":" in code:
        return 0  # a function of the user's own knows
    with torch.device("meta"):
        head = f"{head_name(_fresh(code, 2))}.weight"
    found = [value for name, value in read_weights(path)[0].items() if name == head or name.endswith(f".{head}")]
    return len(found[0]) if len(found) == 1 else 1000


def _of_torchvision(code: str, detail: str) -> nn.Module:
    from torchvision.models import get_model, get_model_weights, list_models

    if code not in list_models():
        raise unknown("network of torchvision", code, list_models())
    if detail not in get_model_weights(code).__members__:
        raise unknown(f"weights of torchvision for {code}:", detail, get_model_weights(code).__members__)
    try:
        return get_model(code, weights=detail)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"the weights torchvision:{detail} of {code} cannot be downloaded ({error}); check the network, or copy the "
            f"file into {torch.hub.get_dir()}/checkpoints"
        ) from error


def _of_timm(code: str) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise InputError(f"the network {code} comes from timm; use: pip install 'vpcore[imagenet]'") from error
    if not timm.is_model(code):
        raise unknown("network of timm", code, timm.list_models(pretrained=True))
    try:
        return timm.create_model(code, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"the weights of {code} cannot be downloaded from the Hugging Face hub ({error}); check the network, or copy "
            "the hub's cache from a machine that has them"
        ) from error


def _check_outputs(frozen: Frozen, name: str, canvas: int) -> None:
    images = random_images(frozen, canvas)
    frozen.check_takes(images, name="canvas")
    with torch.no_grad():
        finite = bool(frozen(images).isfinite().all() and frozen.features(images).isfinite().all())
    if not finite:
        raise InputError(f"the network {name} must give finite numbers, and gives NaN or infinity for random ones")


def _blocked(frozen: Frozen, canvas: int) -> str:
    """Why no gradient comes from the outputs of a network to its inputs; "" where one does."""
    images = random_images(frozen, canvas).requires_grad_()
    try:
        frozen(images).logsumexp(1).sum().backward()
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    if images.grad is None or not bool(images.grad.isfinite().all()) or not bool(images.grad.any()):
        return "its outputs do not change with its inputs as far as gradients tell, as where numbers are rounded"
    return ""


def compared(dense: Audited, other: Audited) -> Audited:
    """A compressed network beside its dense one, with notes on what is odd about the two.

    Raises:
        InputError: when they have different numbers of classes.
    """
    if dense.frozen.classes != other.frozen.classes:
        raise InputError(
            f"the networks must have the same classes, but {dense.name} has {dense.frozen.classes} and {other.name} has "
            f"{other.frozen.classes}; compare a compressed network with the one that it was made from"
        )
    notes = list(other.notes)
    ours, theirs = (sorted(_weights(each), key=lambda w: tuple(w.shape)) for each in (dense, other))  # a stable order
    alike = [w.shape for w in ours] == [w.shape for w in theirs]
    if ours and alike and all(map(torch.equal, ours, theirs)):
        notes.append("its weights are those of the dense network, to the bit: nothing is compressed")
    elif other.facts["bytes"] >= 0.99 * dense.facts["bytes"]:  # type: ignore[operator]
        notes.append("it needs as many bytes as the dense network: few weights are zero, and none has fewer bits")
    if ours and theirs and not alike:
        notes.append("its layers are others than those of the dense network: this compares two architectures")
    return dataclasses.replace(other, notes=tuple(notes))


def _weights(network: Audited) -> list[Tensor]:
    """Of convolutions and products, in their order; of a program as of a network."""
    return [value for value in network.frozen.body.parameters() if value.ndim > 1]
