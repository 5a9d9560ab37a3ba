"""Full fine-tuning: the network itself learns the new task, with a new classifier; pruned weights stay pruned.

The upper bracket of transfer: all that the network can do for the task, at the cost of a network a task. The recipe is that
of source training (`training.fit`: SGD with Nesterov momentum under a one-cycle schedule), without augmentation.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vpcore.checks import kind_of
from vpcore.data.images import Images
from vpcore.errors import InputError
from vpcore.networks.backbones import Statistics
from vpcore.networks.cohort import check_cohort
from vpcore.networks.frozen import Frozen
from vpcore.networks.inputs import as_images
from vpcore.networks.state import check_masks
from vpcore.networks.training import Recipe, fit, predict
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
        """(N, 3, H, W) uint8 images -> (K, N, T) float32 logits on the CPU.

        Raises:
            InputError: for images that are not uint8.
        """
        return torch.stack([predict(network, images, device=network.device) for network in self.networks])


def fine_tune(
    model: nn.Module,
    train: Images,
    *,
    masks: dict[str, Tensor] | None = None,
    index: Tensor | None = None,
    epochs: int = 100,
    batch: int | None = None,
    lr: float = 0.01,
    seeds: Sequence[int] = (0,),
    precision: str = "float32",
    device: torch.device | str | None = None,
    statistics: Statistics | None = None,
    head: str | None = None,
    progress: bool = True,
) -> FineTuned:
    """Train copies of a network on a task.

    Args:
        model: the source network; left as it is.
        train: training images of the task, uint8, of the side that the network takes. The classes that it names are the T
            target classes.
        masks: name of a pruned weight -> bool tensor, False where it stays zero; None for a dense network.
        index: (K, n) which of the images each member learns from; None: all of them for each seed.
        epochs: of the schedule.
        batch: images a step, all of them when there are fewer; None: as in the authors' code for such a budget
            (`cohort.BATCHES`).
        lr: highest learning rate of the cycle.
        seeds: K seeds: of the new classifier and the order of the images.
        precision: a key of `backbones.PRECISIONS`.
        device: where it trains; None: where the model is.
        statistics: as for `Frozen`.
        head: name of the classifier, which is replaced; None: the last linear layer.
        progress: whether a progress bar is drawn, if the standard error stream is a terminal.

    Returns:
        The networks: call it with (N, 3, H, W) uint8 images for (K, N, T) logits.

    Raises:
        InputError: for images that are not uint8, labels, rows or numbers out of range, masks of another network, or a loss
            that is no number; and as `Frozen`.
    """
    source = Frozen(model, precision=precision, device=device, statistics=statistics, head=head)
    images, labels = as_images(train, name="train")
    if masks:
        check_masks(model, masks)
    targets, statistics, name = len(train.classes), source.statistics, source.head_name
    index, seeds, epochs, batch, lr = check_cohort(
        index, count=len(labels), targets=targets, seeds=seeds, epochs=epochs, batch=batch, lr=lr
    )
    source.check_takes(images[:1].float() / 255, name="train.images")
    networks: list[Frozen] = []
    losses: list[list[float]] = []
    for rows, seed in zip(index, seeds, strict=True):
        recipe = Recipe(
            epochs=epochs, batch=min(batch, len(rows)), lr=lr, weight_decay=WEIGHT_DECAY, augment="none",
            precision=precision, seed=seed,
        )  # fmt: skip
        tuned = copy.deepcopy(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tuned.set_submodule(name, _classifier(source.head, targets))
        tuned.requires_grad_(True).to(source.device)
        held = {weight: mask.to(source.device) for weight, mask in (masks or {}).items() if weight != f"{name}.weight"}
        losses.append([])
        fit(
            tuned, images[rows].to(source.device), labels[rows], recipe, statistics=statistics,
            take_step=fixed(tuned, held), after_epoch=lambda epoch, loss, state: losses[-1].append(loss), progress=progress,
        )  # fmt: skip
        networks.append(Frozen(tuned, precision=precision, device=source.device, statistics=statistics, head=name))
    return FineTuned(tuple(networks), tuple(losses))


def _classifier(head: nn.Module, targets: int) -> nn.Module:
    """A new classifier of T classes in place of a linear layer or a convolution, drawn from the global generator."""
    if isinstance(head, nn.Conv2d):
        shape: Any = head.kernel_size, head.stride, head.padding, head.dilation  # pairs, which torch calls tuples
        return nn.Conv2d(head.in_channels, targets, *shape)
    if not hasattr(head, "in_features"):
        raise InputError(f"`head` must be a linear layer or a convolution that is replaced, got {kind_of(head)}; name one")
    return nn.Linear(cast(nn.Linear, head).in_features, targets)
