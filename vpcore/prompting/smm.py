"""Sample-specific masks (SMM): a small network that draws, for each image, where a visual prompt acts.

    prompted(x) = x + mask(x) * program,      mask(x) = up(f(normalise(x)))              (Cai et al. 2024, arXiv 2406.03150)

f is their network for ResNets, 26,499 parameters: four convolutions of 3 x 3 with batch norm and ReLU, the first three of
them followed by max-pooling, and a last convolution to three channels of H / 8 x W / 8 values. `up` gives each of these
values to a square of 8 x 8 pixels ("patch-wise interpolation"). The values have no limits.

K networks run side by side as one with K groups of channels: a grouped convolution, and a batch norm whose statistics are
those of one member in any case. Every tensor of the state has K as its first dimension.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.errors import InputError
from vpcore.networks.backbones import IMAGENET, normalise
from vpcore.networks.cohort import generators_of, uniform_start
from vpcore.prompting.fixed_prompts import UNIT, Prompt

WIDTHS = (3, 8, 16, 32, 64, 3)  # channels before, between and after the five convolutions
PATCH = 8  # px; a square of this side has one value of the mask


class Convolutions(nn.Module):
    """K convolutions of 3 x 3; each starts as torch's own do, from the generator of its member."""

    def __init__(self, generators: list[torch.Generator], *, channels: int, width: int) -> None:
        super().__init__()
        start = uniform_start(generators, (width, channels * 9 + 1), inputs=channels * 9)
        self.weight = nn.Parameter(start[..., :-1].unflatten(2, (channels, 3, 3)).contiguous())
        self.bias = nn.Parameter(start[..., -1].contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """(N, K * channels, H, W) -> (N, K * width, H, W)"""
        return F.conv2d(x, self.weight.flatten(0, 1), self.bias.flatten(), padding=1, groups=len(self.weight))


class Norms(nn.Module):
    """K batch norms; in training the running statistics move as torch's own do."""

    mean: Tensor
    variance: Tensor

    def __init__(self, cohort: int, *, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(cohort, width))
        self.bias = nn.Parameter(torch.zeros(cohort, width))
        self.register_buffer("mean", torch.zeros(cohort, width))
        self.register_buffer("variance", torch.ones(cohort, width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, K * width, H, W) -> the same shape"""
        mean, variance = self.mean.view(-1), self.variance.view(-1)  # views, so that the buffers move
        return F.batch_norm(x, mean, variance, self.weight.flatten(), self.bias.flatten(), training=self.training)


class MaskNetwork(nn.Module):
    """K mask networks.

    Args:
        seeds: K seeds of their weights.

    >>> network = MaskNetwork([0, 1])
    >>> network(torch.zeros(2, 4, 3, 32, 32)).shape, sum(p[0].numel() for p in network.parameters())
    (torch.Size([2, 4, 3, 32, 32]), 26499)
    """

    def __init__(self, seeds: list[int]) -> None:
        super().__init__()
        generators, widths = generators_of(seeds), list(itertools.pairwise(WIDTHS))
        self.convolutions = nn.ModuleList(Convolutions(generators, channels=c, width=w) for c, w in widths)
        self.norms = nn.ModuleList(Norms(len(seeds), width=width) for _, width in widths[:-1])

    def forward(self, images: Tensor) -> Tensor:
        """(K, N, 3, H, W) normalised images, H and W multiples of 8 -> (K, N, 3, H, W) masks."""
        x = images.transpose(0, 1).flatten(1, 2)  # a group of channels for each member
        for number, norm in enumerate(self.norms):
            x = torch.relu(norm(self.convolutions[number](x)))
            x = F.max_pool2d(x, 2) if 2 ** (number + 1) <= PATCH else x
        masks = F.interpolate(self.convolutions[-1](x), scale_factor=PATCH, mode="nearest")
        return masks.unflatten(1, (images.shape[0], images.shape[2])).transpose(0, 1)


class MaskedPrompt(Prompt):
    """K programs, each behind a mask that a small network draws for each image (SMM).

    Args:
        seeds: K seeds of the weights of the mask networks.
        canvas: side of the images, px, a multiple of 8.
    """

    varies = True  # the batch norm of the mask network
    unit: Tensor

    def __init__(self, seeds: list[int], *, canvas: int) -> None:
        super().__init__()
        if canvas % PATCH:
            raise InputError(f"`canvas` must be a multiple of {PATCH} px for the prompt 'smm', got {canvas}")
        self.program = nn.Parameter(torch.zeros(len(seeds), 3, canvas, canvas))
        self.mask = MaskNetwork(seeds)
        self.register_buffer("unit", UNIT, persistent=False)
        self.size = sum(parameter[0].numel() for parameter in self.parameters())

    def forward(self, images: Tensor, drawn: Tensor | None = None) -> Tensor:
        return images + (self.unit * self.program)[:, None] * self.mask(normalise(images, IMAGENET))
