"""Backbones: networks by name, and which of their weights may be pruned.

A backbone takes (N, 3, H, W) images, in [0, 1] and normalised by `normalise`, and returns (N, S) logits. Its modules are
registered in the order in which they are applied, so that two places are known without a name: the stem, which is the first
layer with weights (of a vision transformer, the patch embedding), and the classifier, which is the last linear layer. The
networks of torchvision and timm keep the names that these libraries give their parts, and the residual networks here are
named as torchvision's, so that a state dict of one fits the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vpcore.checks import CLASSES, check_network, kind_of, whole_number
from vpcore.errors import InputError, entry

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and standard deviation of red, green, blue
IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # for every source task but for the networks below
HALF: Statistics = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # what EfficientNet-Lite was trained with: images in [-1, 1]
PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.MultiheadAttention)  # layers whose weights are pruned
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


def emulated(precision: str, device: torch.device) -> bool:
    """Whether a device computes a number format without instructions for it, and so many times slower than in float32."""
    if precision != "bf16" or device.type != "cpu":
        return False
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and not supported()


class ResNet(nn.Module):
    """A residual network of basic blocks (He et al. 2016, arXiv 1512.03385) of any width and depth.

    With `blocks=(2, 2, 2, 2)` and `widths=(64, 128, 256, 512)` it is torchvision's ResNet-18, name by name.

    Args:
        classes: number of source classes S.
        blocks: basic blocks in each layer.
        widths: channels of each layer; every layer but the first halves the resolution.
        stem: kernel size and stride of the first convolution; a 7 px stem is followed by max-pooling, as in the paper.

    >>> ResNet(5, blocks=(1, 1), widths=(4, 8), stem=(3, 2))(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 5])
    """

    def __init__(self, classes: int, *, blocks: tuple[int, ...], widths: tuple[int, ...], stem: tuple[int, int]) -> None:
        from torchvision.models.resnet import BasicBlock  # takes a second or two, which only those wait for who need it

        super().__init__()
        kernel, stride = stem
        self.conv1 = nn.Conv2d(3, widths[0], kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1) if kernel == 7 else nn.Identity()
        before = widths[0]
        self.depth = len(blocks)
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            layer = []
            for position in range(count):
                step = 2 if number > 1 and position == 0 else 1
                shortcut = None
                if step != 1 or before != width:
                    shortcut = nn.Sequential(nn.Conv2d(before, width, 1, step, bias=False), nn.BatchNorm2d(width))
                layer.append(BasicBlock(before, width, step, shortcut))
                before = width
            self.add_module(f"layer{number}", nn.Sequential(*layer))
        self.fc = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for number in range(1, self.depth + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.fc(x.mean((2, 3)))


@dataclass(frozen=True)
class Backbone:
    """A kind of network.

    Attributes:
        make: number of source classes S -> a network with fresh weights.
        statistics: what its inputs are normalised with.
        canvas: the side of the images it takes, in pixels; None for any.
        library: "torchvision" or "timm" when it is theirs, else empty.
        entry: its name there, under which published weights are found.
    """

    make: Callable[[int], nn.Module]
    statistics: Statistics = IMAGENET
    canvas: int | None = None
    library: str = ""
    entry: str = ""


def _torchvision(name: str, *, canvas: int | None = None) -> Backbone:
    def make(classes: int) -> nn.Module:
        from torchvision.models import get_model

        return get_model(name, num_classes=classes)

    return Backbone(make, canvas=canvas, library="torchvision", entry=name)


def _timm(name: str, *, statistics: Statistics = IMAGENET, canvas: int | None = None) -> Backbone:
    def make(classes: int) -> nn.Module:
        try:
            import timm
        except ImportError as error:
            raise InputError(f"the network {name} comes from timm; use: pip install 'vpcore[imagenet]'") from error
        return timm.create_model(name, num_classes=classes)

    return Backbone(make, statistics=statistics, canvas=canvas, library="timm", entry=name)


MODELS: dict[str, Backbone] = {
    "resnet8": Backbone(lambda classes: ResNet(classes, blocks=(1, 1, 1), widths=(16, 32, 64), stem=(3, 2))),
    "resnet18-half": Backbone(lambda classes: ResNet(classes, blocks=(2, 2, 2, 2), widths=(32, 64, 128, 256), stem=(7, 2))),
    "resnet18": _torchvision("resnet18"),
    "resnet34": _torchvision("resnet34"),
    "resnet50": _torchvision("resnet50"),
    "vgg11": _torchvision("vgg11"),
    "vgg16": _torchvision("vgg16"),
    "vgg19": _torchvision("vgg19"),
    "vit-b16": _torchvision("vit_b_16", canvas=224),
    "swin-t": _torchvision("swin_t"),
    "deit-tiny": _timm("deit_tiny_patch16_224", canvas=224),
    "efficientnet-lite0": _timm("tf_efficientnet_lite0", statistics=HALF),
    "efficientnet-lite1": _timm("tf_efficientnet_lite1", statistics=HALF),
    "efficientnet-lite2": _timm("tf_efficientnet_lite2", statistics=HALF),
}


def backbone(name: str) -> Backbone:
    """The entry of `MODELS`; an unknown name is refused."""
    return entry("model", name, MODELS)


def build(name: str, *, classes: int, seed: int) -> nn.Module:
    """A network by name, its weights drawn from `seed` without touching the global generator.

    >>> sum(p.numel() for p in build("resnet8", classes=48, seed=0).parameters())
    80512
    """
    kind, classes = backbone(name), whole_number(classes, name="classes", most=CLASSES)
    seed = whole_number(seed, name="seed", least=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.make(classes)


def check_canvas(name: str, canvas: int) -> None:
    """Refuse a canvas that the network cannot take: a position embedding fits one size alone."""
    only = backbone(name).canvas
    if only not in (None, canvas):
        raise InputError(f"`canvas` must be {only} px for {name}, got {canvas}; use {only}, or a network without that limit")


# part of a network that is pruned -> (with the stem, with the classifier)
PARTS: dict[str, tuple[bool, bool]] = {
    "body": (False, False),
    "body+stem": (True, False),
    "body+head": (False, True),
    "all": (True, True),
}


def prunable(model: nn.Module, part: str = "body") -> list[str]:
    """Names of the weights that are pruned, in the order of the layers.

    They are those of convolutions and linear layers, the projection to queries, keys and values of attention included;
    biases, norms and embeddings stay. A weight that several layers share is named once.

    Args:
        model: any network.
        part: a key of `PARTS`. Stem (the first of these layers) and classifier (the last linear one) stay dense in "body",
            as in the paper.

    Raises:
        InputError: for an unknown part; for a network without such layers, or whose classifier is not linear; for a weight
            that is computed from others in every pass, as those pruned by `torch.nn.utils.prune` are.

    >>> prunable(build("resnet8", classes=3, seed=0))[:2]
    ['layer1.0.conv1.weight', 'layer1.0.conv2.weight']
    """
    check_network(model)
    with_stem, with_head = entry("part", part, PARTS)
    weights, names = dict(model.named_parameters()), []
    for name, module in model.named_modules():
        own = "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"
        if isinstance(module, PRUNABLE) and isinstance(weight := getattr(module, own), Tensor):
            names.append(f"{name}.{own}" if name else own)
            if not isinstance(weight, nn.Parameter):
                raise InputError(
                    f"`model` must have weights of its own, but {names[-1]} is computed from other parameters; make that "
                    "permanent with torch.nn.utils.prune.remove or parametrize.remove_parametrizations"
                )
    if not names:
        raise InputError(
            f"`model` must have convolutions or linear layers, but {type(model).__name__} has none; name `weights`"
        )
    dense = set() if with_stem else {names[0]}
    if not with_head:
        dense.add(f"{head_name(model)}.weight".removeprefix("."))
    return [name for name in names if name not in dense and name in weights]


def head_name(model: nn.Module) -> str:
    """Name of the classifier: the last module that has `out_features`, as linear layers have, quantized or not.

    Raises:
        InputError: when there is none.

    >>> head_name(build("resnet8", classes=3, seed=0))
    'fc'
    """
    names = [name for name, module in model.named_modules() if hasattr(module, "out_features")]
    if not names:
        raise InputError(
            f"`model` must end in a linear layer; {type(model).__name__} has none; use a network of MODELS, or name what "
            "cannot be guessed: `head`, the classifier of a network to be frozen, or `weights`, what is pruned"
        )
    return next(name for name in names if f"{names[-1]}.".startswith(f"{name}."))  # the whole of a layer made of layers


def statistics_of(model: nn.Module, statistics: Statistics | None = None) -> Statistics:
    """What the inputs of a network are normalised with, mean and standard deviation of each colour in [0, 1].

    Args:
        model: any network.
        statistics: those that are given; None: what timm notes at its networks, for any other `IMAGENET`.

    Raises:
        InputError: for statistics that are none.

    >>> statistics_of(nn.Linear(2, 2)) == IMAGENET
    True
    """
    own = statistics is None
    if statistics is None:
        known = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
        mean, std = (known.get("mean"), known.get("std")) if isinstance(known, Mapping) else (None, None)
        statistics = IMAGENET if mean is None or std is None else (mean, std)
    try:
        numbers = torch.tensor(statistics, dtype=torch.float64)
    except (TypeError, ValueError):
        numbers = torch.empty(0)
    if numbers.shape != (2, 3) or not bool(numbers.isfinite().all() and (numbers[1] > 0).all()):
        raise InputError(
            "`statistics` must be the means and the standard deviations (above 0) of red, green and blue, "
            f"got {statistics}{', as the network says; one for grey images cannot be shown others' * own}; use "
            "((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) for most networks of ImageNet"
        )
    mean, deviation = numbers.tolist()
    return tuple(mean), tuple(deviation)


def normalise(images: Tensor, statistics: Statistics = IMAGENET) -> Tensor:
    """(..., 3, H, W) images in [0, 1] -> the same with the mean removed and divided by the standard deviation.

    Raises:
        InputError: for images that are not floats.
    """
    key = statistics, images.device, images.dtype
    if key not in _CONSTANTS:
        if not images.is_floating_point():
            raise InputError(f"`images` must be floats in [0, 1], got {kind_of(images)}; of uint8 images, use images / 255")
        with torch.inference_mode(False):
            both = (torch.tensor(numbers, device=images.device, dtype=images.dtype) for numbers in statistics)
            _CONSTANTS[key] = tuple(numbers.view(3, 1, 1) for numbers in both)
    mean, std = _CONSTANTS[key]
    return (images - mean) / std


# statistics, device, type -> (3, 1, 1) mean and deviation, made once: a GPU waits for what comes from Python
_CONSTANTS: dict[tuple[Statistics, torch.device, torch.dtype], tuple[Tensor, ...]] = {}
