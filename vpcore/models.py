"""Backbones: networks by name, which of their weights may be pruned, and how they are frozen.

All networks name their parts as torchvision does (`conv1`, `layer1` ... `fc`), so a state dict of one fits the other. They
take images in [0, 1], (N, 3, H, W), normalised by `normalise`, and return (N, S) logits.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock

from vpcore.errors import InputError, difference, unknown

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, used for every source task
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


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


# name -> a network with fresh weights for a number of classes
MODELS: dict[str, Callable[[int], nn.Module]] = {
    "resnet8": lambda classes: ResNet(classes, blocks=(1, 1, 1), widths=(16, 32, 64), stem=(3, 2)),
    "resnet18-half": lambda classes: ResNet(classes, blocks=(2, 2, 2, 2), widths=(32, 64, 128, 256), stem=(7, 2)),
    "resnet18": lambda classes: torchvision.models.resnet18(num_classes=classes),
    "resnet34": lambda classes: torchvision.models.resnet34(num_classes=classes),
    "resnet50": lambda classes: torchvision.models.resnet50(num_classes=classes),
}


def build(name: str, *, classes: int, seed: int) -> nn.Module:
    """A network by name, its weights drawn from `seed` without touching the global generator.

    >>> sum(p.numel() for p in build("resnet8", classes=48, seed=0).parameters())
    80512
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name](classes)


def load_weights_(model: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    """Load a state dict strictly: names and shapes must be the same, else nothing is loaded.

    Raises:
        InputError: with the names that are missing (-) and those too many (+).
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        lines = difference([f"{n} {s}" for n, s in expected.items()], [f"{n} {s}" for n, s in found.items()])
        raise InputError(f"{where} must hold the weights of the network; missing (-) and unexpected (+) names:\n{lines}")
    model.load_state_dict(state)


def prunable(model: nn.Module) -> list[str]:
    """Names of the weights that are pruned: every convolution but the first; the classifier stays dense, as in the paper.

    >>> prunable(build("resnet8", classes=3, seed=0))[:2]
    ['layer1.0.conv1.weight', 'layer1.0.conv2.weight']
    """
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return [f"{name}.weight" for name in convolutions[1:]]


def normalise(images: Tensor) -> Tensor:
    """(..., 3, H, W) images in [0, 1] -> the same with the mean and standard deviation of ImageNet removed."""
    mean = torch.tensor(MEAN, device=images.device, dtype=images.dtype).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device, dtype=images.dtype).view(3, 1, 1)
    return (images - mean) / std


def fold_batch_norm_(module: nn.Module) -> None:
    """Fold every batch norm that follows a convolution into it, in place, for evaluation (Jacob et al. 2018, eq. 14).

    Pairs are known by their names, `conv1` and `bn1`, or stand one after the other in a `Sequential`.
    """
    names = [name for name, _ in module.named_children()]
    pairs = [(f"conv{k}", f"bn{k}") for k in (1, 2, 3)]
    if isinstance(module, nn.Sequential):
        pairs = list(itertools.pairwise(names))
    for convolution, norm in pairs:
        if {convolution, norm} <= set(names):
            first, second = getattr(module, convolution), getattr(module, norm)
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(module, convolution, fuse_conv_bn_eval(first, second))
                setattr(module, norm, nn.Identity())
    for child in module.children():
        fold_batch_norm_(child)


class Frozen(nn.Module):
    """A network that no longer learns: evaluation mode, batch norm folded, weights cast once, no gradients for them.

    Gradients still pass through it to the images, which is all that visual prompting needs.

    Args:
        model: left as it is; a copy is frozen.
        precision: a key of `PRECISIONS`, of the weights and activations.
        device: where it runs.
    """

    def __init__(self, model: nn.Module, *, precision: str, device: torch.device) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        self.dtype = PRECISIONS[precision]
        body = copy.deepcopy(model).eval()
        fold_batch_norm_(body)
        body.requires_grad_(False).to(device, self.dtype, memory_format=torch.channels_last)
        self.head, body.fc = body.fc, nn.Identity()
        self.body = body
        self.classes = self.head.out_features
        self.device = device

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) images in [0, 1] -> (N, D) float32 features, the input of the classifier."""
        x = normalise(images).to(self.dtype).contiguous(memory_format=torch.channels_last)
        return self.body(x).float()

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) images in [0, 1] -> (N, S) float32 logits of the source classes."""
        return self.head(self.features(images).to(self.dtype)).float()

    def train(self, mode: bool = True) -> Frozen:
        """Stays in evaluation mode: batch statistics of a new task would change the network."""
        return super().train(False)
