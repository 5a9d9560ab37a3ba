"""Small networks for the tests of audits, as a user's own module would make them."""

import copy

import torch
from torch import nn

from vpcore.pruning.masks import apply_, prune


def dense() -> nn.Module:
    """Sixteen classes, random features: enough for a probe."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 16),
        ).eval()  # fmt: skip


def pruned() -> nn.Module:
    network = dense()
    apply_(network, prune(network, density=0.25))
    return network


def permuted() -> nn.Module:
    """The same network, its classes in another order."""
    network, order = dense(), torch.arange(16).roll(5)
    network[-1].weight.data, network[-1].bias.data = network[-1].weight.data[order], network[-1].bias.data[order]
    return network


def integer() -> nn.Module:
    """What an integer network is to gradients: its outputs are steps."""
    return nn.Sequential(copy.deepcopy(dense()), Rounded(), nn.Linear(16, 16)).eval()


class Rounded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (8 * x).round()


def other_classes() -> nn.Module:
    network = dense()
    network[-1] = nn.Linear(128, 15)
    return network


def broken() -> nn.Module:
    """Finite weights, and outputs that are not."""
    return nn.Sequential(dense(), Logarithm(), nn.Linear(16, 16))


class Logarithm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x - 1).log()
