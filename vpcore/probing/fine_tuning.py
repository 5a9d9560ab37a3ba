"""Full fine-tuning: the network itself learns the new task, with a new classifier; pruned weights stay pruned.

The upper bracket of transfer: all that the network can do for the task, at the cost of a network a task. The recipe is that
of source training (`training.fit`: SGD with Nesterov momentum under a one-cycle schedule), without augmentation.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from vpcore.networks.backbones import IMAGENET, Statistics, head_name
from vpcore.networks.frozen import Frozen
from vpcore.networks.training import Recipe, fit
from vpcore.pruning.masks import Masks
from vpcore.pruning.schedules import fixed

WEIGHT_DECAY = 5e-4


def fine_tune(
    model: nn.Module,
    masks: Masks,
    images: Tensor,
    labels: Tensor,
    *,
    targets: int,
    epochs: int,
    batch: int,
    lr: float,
    seed: int,
    precision: str,
    device: torch.device,
    statistics: Statistics = IMAGENET,
) -> Frozen:
    """Train a copy of a network on a task.

    Args:
        model: the source network; left as it is.
        masks: of its pruned weights, which stay zero; empty for a dense network.
        images: (n, 3, H, W) uint8 training images.
        labels: (n,) target classes.
        targets: number of target classes T.
        epochs: of the schedule.
        batch: images a step; all of them when there are fewer.
        lr: highest learning rate of the cycle.
        seed: of the new classifier and the order of the images.
        precision: a key of `backbones.PRECISIONS`.
        device: where it trains.
        statistics: with which the network's inputs are normalised.

    Returns:
        The trained network, frozen; its logits are those of the T target classes.
    """
    tuned = copy.deepcopy(model)
    name = head_name(tuned)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tuned.set_submodule(name, nn.Linear(tuned.get_submodule(name).in_features, targets))
    tuned.requires_grad_(True).to(device)
    held = {weight: mask.to(device) for weight, mask in masks.items() if weight != f"{name}.weight"}
    recipe = Recipe(
        epochs=epochs,
        batch=min(batch, len(images)),
        lr=lr,
        weight_decay=WEIGHT_DECAY,
        augment="none",
        precision=precision,
        seed=seed,
    )
    fit(
        tuned,
        images.to(device),
        labels,
        recipe,
        statistics=statistics,
        take_step=fixed(tuned, held),
    )
    return Frozen(tuned, precision=precision, device=device, statistics=statistics)
