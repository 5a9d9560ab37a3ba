"""Transfer: a frozen network learns a new task, by a linear probe or by visual prompting.

The unit is a cohort: K runs that share the network, the task and the budget and differ in their seed, trained in one pass.
Every function returns the logits of the target task for images it is given, so that metrics are computed once, afterwards.

Recipe of both (the paper's): Adam, learning rate 0.01, divided by 10 at 50 % and 72 % of the epochs, no augmentation; the
last epoch counts, nothing is picked on test data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vpcore import mapping as mappings
from vpcore.models import Frozen
from vpcore.prompting import PadPrompt
from vpcore.training import check_loss, predict

MILESTONES = (0.5, 0.72)  # shares of the epochs at which the learning rate is divided by 10


@dataclass(frozen=True)
class Prompted:
    """K prompts as they were learned.

    Attributes:
        program: (K, 3, H, W) float32, before the sigmoid.
        mapping: (K, T) source class of each target class, computed with the final prompt.
        loss: mean training loss of the cohort in each epoch.
        prompt: the module that puts the program on images.
    """

    program: Tensor
    mapping: Tensor
    loss: list[float]
    prompt: PadPrompt


def visual_prompt(
    network: Frozen,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    *,
    targets: int,
    canvas: int,
    epochs: int,
    batch: int,
    lr: float,
    seeds: list[int],
) -> Prompted:
    """Visual prompting with iterative label mapping (ILM-VP, Chen et al. 2023, algorithm 1).

    Before every epoch the mapping is computed anew on the training images under the prompt as it is; then the prompt is
    trained on the cross-entropy of the mapped logits. When all images fit one batch, the logits of the one step serve for
    both, which is the same computation.

    Args:
        network: frozen, S source classes.
        images: (M, 3, h, h) uint8 training images of the task, at the size they have on the canvas.
        labels: (M,) target classes.
        index: (K, n) which of them each member learns from.
        targets: number of target classes T.
        canvas: side of the canvas, px.
        epochs: passes over the n images.
        batch: images a step of each member.
        lr: learning rate of Adam at the start.
        seeds: K seeds: of the order of the images and of the ties in the mapping.

    Returns:
        The prompts and their mappings.
    """
    cohort, count = index.shape
    device = network.device
    images, labels, index = images.to(device), labels.to(device), index.to(device)
    prompt = PadPrompt(cohort, canvas=canvas, image_px=images.shape[-1]).to(device)
    priority = mappings.priorities(seeds, targets=targets, sources=network.classes).to(device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    optimizer = torch.optim.Adam([prompt.program], lr=lr)
    history = []

    def source_logits(rows: Tensor) -> Tensor:
        """(K, n) rows -> (K, n, S)"""
        prompted = prompt(images[rows].float() / 255)
        return network(prompted.flatten(0, 1)).unflatten(0, rows.shape)

    def mapping_from(logits: Tensor, rows: Tensor) -> Tensor:
        return mappings.greedy(mappings.frequencies(logits, labels[rows], targets=targets), priority)

    def current_mapping() -> Tensor:
        with torch.no_grad():
            logits = torch.cat([source_logits(part) for part in index.split(batch, dim=1)], dim=1)
        return mapping_from(logits, index)

    for epoch in range(epochs):
        _set_rate(optimizer, lr, epoch, epochs)
        if count <= batch:
            parts, mapping = [index], None
        else:
            order = torch.stack([torch.randperm(count, generator=generator) for generator in generators]).to(device)
            parts, mapping = index.gather(1, order).split(batch, dim=1), current_mapping()
        total = 0.0
        for rows in parts:
            logits = source_logits(rows)
            if mapping is None:
                mapping = mapping_from(logits.detach(), rows)
            total += _step(optimizer, mappings.target_logits(logits, mapping), labels[rows]) * rows.shape[1] / count
        check_loss(total, f"epoch {epoch + 1} of visual prompting", lr=lr)
        history.append(total)
    return Prompted(prompt.program.detach(), current_mapping(), history, prompt)


def prompted_logits(network: Frozen, prompted: Prompted, images: Tensor) -> Tensor:
    """(N, 3, h, h) uint8 images -> (K, N, T) target logits, of every member for all images."""
    cohort = len(prompted.mapping)

    def forward(part: Tensor) -> Tensor:
        with torch.no_grad():
            views = prompted.prompt(part.expand(cohort, *part.shape))
            logits = network(views.flatten(0, 1)).unflatten(0, views.shape[:2])
            return mappings.target_logits(logits, prompted.mapping).transpose(0, 1)

    return predict(forward, images, batch=max(1, 512 // cohort), device=network.device).transpose(0, 1)


def linear_probe(
    features: Tensor,
    labels: Tensor,
    index: Tensor,
    *,
    targets: int,
    epochs: int,
    batch: int,
    lr: float,
    seeds: list[int],
) -> Callable[[Tensor], Tensor]:
    """K linear classifiers on features that were computed once.

    Args:
        features: (M, D) float32 features of the training images, on the device where the probes are trained.
        labels: (M,) target classes.
        index: (K, n) which of them each member learns from.
        targets: number of target classes T.
        epochs, batch, lr: as in `visual_prompt`.
        seeds: K seeds: of the starting weights and the order of the images.

    Returns:
        A function: (N, D) features -> (K, N, T) logits, on the same device.
    """
    cohort, count = index.shape
    device, width = features.device, features.shape[1]
    labels, index = labels.to(device), index.to(device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def start(*shape: int) -> Tensor:
        """Uniform in +-1 / sqrt(D), as torch.nn.Linear starts; drawn on the CPU, so that devices start alike."""
        draws = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
        return ((draws * 2 - 1) * width**-0.5).to(device).requires_grad_()

    weight, bias = start(width, targets), start(1, targets)
    optimizer = torch.optim.Adam([weight, bias], lr=lr)
    for epoch in range(epochs):
        _set_rate(optimizer, lr, epoch, epochs)
        order = torch.stack([torch.randperm(count, generator=generator) for generator in generators]).to(device)
        total = 0.0
        for rows in index.gather(1, order).split(batch, dim=1):
            logits = torch.baddbmm(bias, features[rows], weight)
            total += _step(optimizer, logits, labels[rows]) * rows.shape[1] / count
        check_loss(total, f"epoch {epoch + 1} of linear probing", lr=lr)
    weight, bias = weight.detach(), bias.detach()
    return lambda x: torch.baddbmm(bias, x.to(device).expand(cohort, *x.shape), weight)


def _set_rate(optimizer: torch.optim.Optimizer, lr: float, epoch: int, epochs: int) -> None:
    passed = sum(epoch >= int(share * epochs) for share in MILESTONES)
    for group in optimizer.param_groups:
        group["lr"] = lr * 0.1**passed


def _step(optimizer: torch.optim.Optimizer, logits: Tensor, labels: Tensor) -> float:
    """One step on the sum over members of their mean losses; returns the mean over members.

    Adam acts on each number alone, so with a sum each member moves as if it were trained alone.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)
    optimizer.zero_grad()
    losses.sum().backward()
    optimizer.step()
    return float(losses.detach().mean())
