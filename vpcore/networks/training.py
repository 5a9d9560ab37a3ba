"""Training and prediction: a short loop without switches; what differs comes in as a function.

SGD with Nesterov momentum under a one-cycle schedule (Smith & Topin 2017, arXiv 1708.07120): the learning rate rises
linearly over the first fifth of the steps and falls linearly to zero. Data order and augmentation depend on the seed and
the number of the epoch alone, so that a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.errors import InputError, unknown
from vpcore.networks.backbones import IMAGENET, PRECISIONS, Statistics, normalise

Step = Callable[[torch.optim.Optimizer, int], None]  # takes a step of training, given how many were done before it

MOMENTUM = 0.9
PIXELS = 2**21  # shown at a time in prediction: 512 images of 64 px, 41 of 224 px
WARM_UP = 0.2  # share of the steps in which the learning rate rises


def _shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random crops after padding by an eighth of the side with edge pixels."""
    n, _, height, width = images.shape
    pad = height // 8
    padded = F.pad(images.float(), [pad] * 4, mode="replicate").to(images.dtype)
    top, left = torch.randint(2 * pad + 1, (2, n), generator=generator).to(images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    picked = padded.permute(0, 2, 3, 1)[
        torch.arange(n, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return picked.permute(0, 3, 1, 2)


def _shift_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    flip = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return _shift(torch.where(flip[:, None, None, None], images.flip(3), images), generator)


# name -> what is done to a batch of (N, 3, H, W) uint8 images in training
AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, generator: images,
    "shift": _shift,
    "shift+flip": _shift_and_flip,
}


def one_cycle(progress: float) -> float:
    """Factor of the learning rate when the share `progress` in [0, 1] of the steps is done.

    >>> [one_cycle(p) for p in (0.0, 0.2, 0.6, 1.0)]
    [0.0, 1.0, 0.5, 0.0]
    """
    return progress / WARM_UP if progress < WARM_UP else (1 - progress) / (1 - WARM_UP)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: length of the schedule.
        batch: images a step; the last, smaller batch of an epoch is left out.
        lr: highest learning rate of the cycle.
        weight_decay: of the convolutions and the classifier; biases and norms have none.
        augment: a key of `AUGMENTATIONS`.
        precision: "float32", or "bf16" for autocast.
        seed: of the order and the augmentation, together with the epoch.
        label_smoothing: share of the target that goes to all classes alike, in [0, 1); 0: none (Szegedy et al. 2016,
            arXiv 1512.00567, section 7).
        mixup: alpha of the Beta(alpha, alpha) distribution from which each step draws how it mixes its images and labels
            with those of a shuffled copy of the batch; 0: it does not (Zhang et al. 2018, arXiv 1710.09412).

    Raises:
        InputError: for a share or an alpha out of range.
    """

    epochs: int
    batch: int
    lr: float
    weight_decay: float
    augment: str
    precision: str
    seed: int
    label_smoothing: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"`label_smoothing` must be in [0, 1), got {self.label_smoothing}; use 0 for none, 0.1 is usual"
            )
        if not 0 <= self.mixup < math.inf:
            raise InputError(f"`mixup` must be a finite alpha of at least 0, got {self.mixup}; use 0 for none, 0.2 is usual")

    def steps(self, images: int) -> int:
        """Steps of the whole schedule when there are so many images."""
        return self.epochs * (images // self.batch)


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    first_epoch: int = 0,
    optimizer_state: dict[str, Any] | None = None,
    statistics: Statistics = IMAGENET,
    take_step: Step = lambda optimizer, step: optimizer.step(),
    after_epoch: Callable[[int, float, dict[str, Any]], None] = lambda epoch, loss, state: None,
) -> None:
    """Train a network in place, from `first_epoch` to the end of the schedule.

    Args:
        model: in training on the device of its weights.
        images: (N, 3, H, W) uint8, best on that device already; else batches are moved there.
        labels: (N,) int64.
        recipe: see there.
        first_epoch: where to begin: 0, the rewinding epoch, or where a killed run goes on.
        optimizer_state: what `after_epoch` was given when the run goes on; None for fresh momentum.
        statistics: mean and standard deviation that the images are normalised with.
        take_step: called in every step when the gradients are there, with the optimizer and the number of steps that the
            schedule has behind it; e.g. steps and puts masks back.
        after_epoch: called with the number of epochs done, their mean loss and the state of the optimizer.

    Raises:
        InputError: when the loss is no longer a number, with the epoch and the learning rate.
    """
    if recipe.augment not in AUGMENTATIONS:
        raise unknown("augment", recipe.augment, AUGMENTATIONS)
    if len(images) < recipe.batch:
        raise InputError(f"`batch` must be at most the number of images, {len(images)}; got {recipe.batch}")
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=MOMENTUM, nesterov=True)
    if optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)
    steps = len(images) // recipe.batch
    for epoch in range(first_epoch, recipe.epochs):
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        order = torch.randperm(len(images), generator=generator)
        total = torch.zeros((), device=device)
        for step in range(steps):
            rows = order[step * recipe.batch : (step + 1) * recipe.batch]
            x = AUGMENTATIONS[recipe.augment](images[rows].to(device), generator)
            x = normalise(x.float() / 255, statistics).contiguous(memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * one_cycle((epoch * steps + step + 0.5) / recipe.steps(len(images)))
            y, mixed = labels[rows].to(device), None
            if recipe.mixup:
                share, other = _mixture(recipe, generator)
                x, mixed = share * x + (1 - share) * x[other.to(device)], y[other.to(device)]
            with torch.autocast(device.type, PRECISIONS[recipe.precision], enabled=recipe.precision != "float32"):
                logits = model(x).float()
            loss = F.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
            if mixed is not None:
                loss = share * loss + (1 - share) * F.cross_entropy(logits, mixed, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            take_step(optimizer, epoch * steps + step)
            total += loss.detach()
        mean = float(total) / steps
        check_loss(mean, f"epoch {epoch + 1} of source training", lr=recipe.lr)
        after_epoch(epoch + 1, mean, optimizer.state_dict())
    model.eval()


def _mixture(recipe: Recipe, generator: torch.Generator) -> tuple[float, Tensor]:
    """What a step of mixup draws: the share of its own images, and the order of those that are mixed in."""
    seed = int(torch.randint(2**62, (), generator=generator))  # torch's own Beta distribution takes no generator
    return np.random.default_rng(seed).beta(recipe.mixup, recipe.mixup), torch.randperm(recipe.batch, generator=generator)


def check_loss(loss: float, where: str, *, lr: float) -> None:
    """Refuse a loss that is not a finite number: what was trained with it is worthless."""
    if not torch.isfinite(torch.tensor(loss)):
        raise InputError(
            f"the loss must be a finite number, got {loss} in {where} with learning rate {lr}; use a lower learning rate"
        )


@torch.no_grad()
def predict(
    forward: Callable[[Tensor], Tensor], images: Tensor, *, batch: int | None = None, device: torch.device
) -> Tensor:
    """Apply `forward` to all images, in batches.

    Args:
        forward: (n, 3, H, W) float images in [0, 1] -> (n, ...), e.g. a `Frozen` network or its features.
        images: (N, 3, H, W) uint8.
        batch: images at a time, which changes nothing but speed and memory; None: as many as have `PIXELS` pixels.
        device: where `forward` runs.

    Returns:
        (N, ...) float32 on the CPU.
    """
    batch = batch or max(1, PIXELS // images.shape[-1] ** 2)
    return torch.cat([forward(part.to(device).float() / 255).float().cpu() for part in images.split(batch)])
