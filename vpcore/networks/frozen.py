"""A frozen network: what visual prompting and linear probing adapt to.

It is in evaluation mode, its batch norms are folded into the convolutions, its weights are cast once and want no gradients;
gradients still pass through it to the images, which is all that a prompt needs.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vpcore.errors import unknown
from vpcore.networks.backbones import IMAGENET, PRECISIONS, Statistics, head_name, normalise
from vpcore.networks.shared_border import Framed


def fold_batch_norm_(model: nn.Module) -> None:
    """Fold every batch norm that directly follows a convolution into it, in place, for evaluation.

    With the statistics m, v and the parameters g, b of the norm, W <- W g / sqrt(v + eps) and
    bias <- (bias - m) g / sqrt(v + eps) + b for each output channel (Jacob et al. 2018, arXiv 1712.05877, eq. 14). In timm
    an activation is part of the norm; it stays.
    """
    leaves = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) or not list(m.children())]
    for (convolution_name, convolution), (norm_name, norm) in itertools.pairwise(leaves):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            model.set_submodule(convolution_name, fuse_conv_bn_eval(convolution, norm))
            model.set_submodule(norm_name, nn.Sequential(*norm.children()))


class Float32Gradient(nn.Module):
    """A layer in bf16 that goes through float32 where a gradient must pass. Sums are in float32 either way.

    For grouped convolutions with a stride on a CPU: torch's gradient of them in bf16 is 2 to 30 times slower than in float32
    (torch 2.14, oneDNN); in EfficientNet-Lite0 four such layers took half of a training step.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer, self.wide = layer, copy.deepcopy(layer).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(x.float()).to(x.dtype) if x.requires_grad else self.layer(x)


class Frozen(nn.Module):
    """A network that no longer learns.

    Args:
        model: left as it is; a copy is frozen.
        precision: a key of `PRECISIONS`, of the weights and activations.
        device: where it runs.
        statistics: what the inputs are normalised with, `Backbone.statistics` of the network.
    """

    def __init__(self, model: nn.Module, *, precision: str, device: torch.device, statistics: Statistics = IMAGENET) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        self.dtype = PRECISIONS[precision]
        body = copy.deepcopy(model).eval()
        fold_batch_norm_(body)
        body.requires_grad_(False).to(device, self.dtype, memory_format=torch.channels_last)
        if self.dtype == torch.bfloat16 and device.type == "cpu":
            for name, layer in list(body.named_modules()):
                if isinstance(layer, nn.Conv2d) and layer.groups > 1 and max(layer.stride) > 1:
                    body.set_submodule(name, Float32Gradient(layer))
        name = head_name(body)
        self.head = body.get_submodule(name)
        body.set_submodule(name, nn.Identity())
        self.body, self.statistics = body, statistics
        self.classes = self.head.out_features
        self.device = device

    def features(self, images: Tensor | Framed) -> Tensor:
        """(N, 3, H, W) images in [0, 1] -> (N, D) float32 features, the input of the classifier."""

        def ready(part: Tensor) -> Tensor:
            return normalise(part, self.statistics).to(self.dtype).contiguous(memory_format=torch.channels_last)

        x = images.each(ready) if isinstance(images, Framed) else ready(images)
        return self.body(x).float()

    def forward(self, images: Tensor | Framed) -> Tensor:
        """(N, 3, H, W) images in [0, 1] -> (N, S) float32 logits of the source classes."""
        return self.head(self.features(images).to(self.dtype)).float()

    def train(self, mode: bool = True) -> Frozen:
        """Stays in evaluation mode: batch statistics of a new task would change the network."""
        return super().train(False)
