"""Full fine-tuning: the network itself learns the new task, with a new classifier; pruned weights stay pruned.

The upper bracket of transfer: all that the network can do for the task, at the cost of a network a task. The recipe is that
of source training (`training.fit`: SGD with Nesterov momentum under a one-cycle schedule), without augmentation.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vpcore.data.images import Images
from vpcore.networks.backbones import IMAGENET, Statistics, head_name
from vpcore.networks.cohort import check_cohort
from vpcore.networks.frozen import Frozen
from vpcore.networks.training import Recipe, check_pixels, fit, predict
from vpcore.pruning.schedules import fixed

WEIGHT_DECAY = 5e-4


@dataclass(frozen=True)
class FineTuned:
    """K networks that learned a task each by itself.

    Attributes:
        networks: frozen as they were in the end; their logits are those of the T target classes.
        loss: for each, the mean training loss of each epoch.
    """

    networks: tuple[Frozen, ...]
    loss: tuple[list[float], ...]

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 images -> (K, N, T) float32 logits on the CPU."""
        return torch.stack([predict(network, images, device=network.device) for network in self.networks])


def fine_tune(
    model: nn.Module,
    train: Images,
    *,
    masks: Mapping[str, Tensor] | None = None,
    index: Tensor | None = None,
    epochs: int = 100,
    batch: int | None = None,
    lr: float = 0.01,
    seeds: Sequence[int] = (0,),
    precision: str = "float32",
    device: torch.device | None = None,
    statistics: Statistics = IMAGENET,
    progress: bool = True,
) -> FineTuned:
    """Train copies of a network on a task.

    Args:
        model: the source network; left as it is.
        train: training images of the task, uint8, of the side that the network takes. The classes that it names are the T
            target classes.
        masks: of its pruned weights, which stay zero; None for a dense network.
        index: (K, n) which of the images each member learns from; None: all of them for each seed.
        epochs: of the schedule.
        batch: images a step, all of them when there are fewer; None: as in the authors' code for such a budget
            (`cohort.BATCHES`).
        lr: highest learning rate of the cycle.
        seeds: K seeds: of the new classifier and the order of the images.
        precision: a key of `backbones.PRECISIONS`.
        device: where it trains; None: where the model is.
        statistics: with which the network's inputs are normalised.
        progress: whether a terminal shows how far it is; nothing is shown elsewhere.

    Returns:
        The networks: call it with (N, 3, H, W) uint8 images for (K, N, T) logits.

    Raises:
        InputError: for images that are not uint8, labels, rows or numbers out of range, or a loss that is no number.
    """
    check_pixels("train.images", train.images, count=len(train.labels))
    targets = len(train.classes)
    index, batch = check_cohort(train.labels, index, targets=targets, seeds=seeds, epochs=epochs, batch=batch, lr=lr)
    device = next(model.parameters()).device if device is None else device
    networks: list[Frozen] = []
    losses: list[list[float]] = []
    for rows, seed in zip(index, seeds, strict=True):
        recipe = Recipe(
            epochs=epochs, batch=min(batch, len(rows)), lr=lr, weight_decay=WEIGHT_DECAY, augment="none",
            precision=precision, seed=seed,
        )  # fmt: skip
        tuned, name = copy.deepcopy(model), head_name(model)
        width = cast(nn.Linear, tuned.get_submodule(name)).in_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tuned.set_submodule(name, nn.Linear(width, targets))
        tuned.requires_grad_(True).to(device)
        held = {weight: mask.to(device) for weight, mask in (masks or {}).items() if weight != f"{name}.weight"}
        losses.append([])
        fit(
            tuned, train.images[rows].to(device), train.labels[rows], recipe, statistics=statistics,
            take_step=fixed(tuned, held), after_epoch=lambda epoch, loss, state: losses[-1].append(loss), progress=progress,
        )  # fmt: skip
        networks.append(Frozen(tuned, precision=precision, device=device, statistics=statistics))
    return FineTuned(tuple(networks), tuple(losses))
