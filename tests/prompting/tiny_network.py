"""A task and a network so small that a prompt is learned in no time, which tests of prompting share."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vpcore.networks.backbones import ResNet, normalise

TARGETS, CANVAS, PX = 3, 16, 8


def tinted(count: int = 24, *, px: int = PX, tint: int = 80, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of noise, tinted by their class; with a weak tint mappings change while a prompt is learned."""
    generator, labels = torch.Generator().manual_seed(seed), torch.arange(count) % TARGETS
    noise = torch.randint(176, (count, 3, px, px), generator=generator)
    return (noise + tint * F.one_hot(labels, 3)[:, :, None, None]).to(torch.uint8), labels


def tiny_network() -> ResNet:
    """Its batch norm has seen images, and none of its classes always wins."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = ResNet(7, blocks=(1,), widths=(6,), stem=(3, 2))
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(16, 3, CANVAS, CANVAS, generator=generator))
        model.eval().fc.weight *= 4  # else all classes are about as likely,
        model.fc.bias -= model(normalise(F.pad(tinted()[0].float() / 255, [4] * 4, value=0.5))).mean(
            0
        )  # and none always wins
    return model
