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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.checks import as_device, as_labels, check_function, kind_of, number, whole_number
from vpcore.errors import InputError, entry
from vpcore.networks import parallel
from vpcore.networks.augmentations import AUGMENTATIONS
from vpcore.networks.backbones import PRECISIONS, Statistics, normalise, statistics_of
from vpcore.networks.inputs import check_pixels, check_takes
from vpcore.networks.progress import bar
from vpcore.networks.repeat import repeat, within_memory
from vpcore.networks.state import check_finite, load_optimizer_

Step = Callable[[torch.optim.Optimizer, int], None]  # takes a step of training, given how many were done before it

MOMENTUM = 0.9
BLOCK = 16  # channels that oneDNN takes at once, at most
# device type -> pixels shown at a time in prediction: on a CPU 512 images of 64 px, 41 of 224 px
PIXELS = {"cpu": 2**21, "cuda": 2**24}
WARM_UP = 0.2  # share of the steps in which the learning rate rises


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
        precision: a key of `PRECISIONS`; "bf16" is that of autocast.
        seed: of the order and the augmentation, together with the epoch.
        label_smoothing: share of the target that goes to all classes alike, in [0, 1); 0: none (Szegedy et al. 2016,
            arXiv 1512.00567, section 7).
        mixup: alpha of the Beta(alpha, alpha) distribution from which each step draws how it mixes its images and labels
            with those of a shuffled copy of the batch; 0: it does not (Zhang et al. 2018, arXiv 1710.09412).

    Raises:
        InputError: for a number out of its range, or an unknown name.
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
        entry("augment", self.augment, AUGMENTATIONS)
        entry("precision", self.precision, PRECISIONS)
        checked = {
            "epochs": whole_number(self.epochs, name="epochs", least=0),
            "batch": whole_number(self.batch, name="batch"),
            "lr": number(self.lr, name="lr", use="0.1, which is usual"),
            "weight_decay": number(self.weight_decay, name="weight_decay", zero=True, use="0 for none"),
            "seed": whole_number(self.seed, name="seed", least=0),
            "label_smoothing": number(
                self.label_smoothing, name="label_smoothing", zero=True, below=1, use="0 for none, 0.1 is usual"
            ),
            "mixup": number(self.mixup, name="mixup", zero=True, use="0 for none, 0.2 is usual"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # the way in which a frozen dataclass is given what was checked

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
    statistics: Statistics | None = None,
    take_step: Step = lambda optimizer, step: optimizer.step(),
    after_epoch: Callable[[int, float, dict[str, Any]], None] = lambda epoch, loss, state: None,
    progress: bool = True,
) -> None:
    """Train a network in place, from `first_epoch` to the end of the schedule.

    Args:
        model: in training on the device of its weights.
        images: (N, 3, H, W) uint8, best on that device already; else batches are moved there.
        labels: (N,) int64.
        recipe: see there.
        first_epoch: where to begin: 0, the rewinding epoch, or where a killed run goes on.
        optimizer_state: what `after_epoch` was given when the run goes on; None for fresh momentum.
        statistics: mean and standard deviation that the images are normalised with; None: `statistics_of` the model.
        take_step: called in every step when the gradients are there, with the optimizer and the number of steps that the
            schedule has behind it; e.g. steps and puts masks back.
        after_epoch: called with the number of epochs done, their mean loss and the state of the optimizer.
        progress: whether a progress bar is drawn, if the standard error stream is a terminal.

    Raises:
        InputError: for a model that is no network, has nothing to train or does not take the images; for images that are
            not uint8, labels that the network has no output for, a state of another optimizer, or a loss that is no longer a
            number, with the epoch and the learning rate.
    """
    check_finite(model)
    check_recipe(recipe)
    check_function(take_step, name="take_step", use="lambda optimizer, step: optimizer.step()")
    labels = as_labels(labels)
    check_pixels(images, name="images", count=len(labels))
    first_epoch = whole_number(first_epoch, name="first_epoch", least=0, most=recipe.epochs)
    if len(images) < recipe.batch:
        raise InputError(f"`batch` must be at most the number of images, {len(images)}; got {recipe.batch}")
    if (weight := next((p for p in model.parameters() if p.requires_grad), None)) is None:
        raise InputError("`model` must have weights that want gradients, got none; use model.requires_grad_(True)")
    device, statistics = weight.device, statistics_of(model, statistics)
    check_takes(model.eval(), normalise(images[:1].to(device, weight.dtype) / 255, statistics), name="images")
    model.to(memory_format=layout(model)).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=MOMENTUM, nesterov=True)
    if optimizer_state is not None:
        load_optimizer_(optimizer, optimizer_state)
    network = parallel.replica(model)
    loss_of = loss_function(network, recipe, statistics, targets=int(labels.max()) + 1)

    def gradients(shown: Tensor, y: Tensor, *drawn: Tensor) -> Tensor:
        model.zero_grad()
        with parallel.whole_batches():
            loss = loss_of(shown, y, *drawn)
        loss.backward()
        return loss.detach()

    repeated = repeat(gradients, device=device, on_host=parallel.processes() > 1)
    steps = len(images) // recipe.batch
    for epoch in bar(range(first_epoch, recipe.epochs), "training", unit="epoch", progress=progress):
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        order = torch.randperm(len(images), generator=generator).to(images.device)
        y = labels.to(images.device)[order].to(device, non_blocking=True)
        draws = [_draw(recipe, images.shape[2], generator) for _ in range(steps)]
        drawn = [torch.stack(parts).to(device, non_blocking=True) for parts in zip(*draws, strict=True)]  # copied once
        total = torch.zeros((), device=device)
        for step in range(steps):
            rows = slice(step * recipe.batch, (step + 1) * recipe.batch)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * one_cycle((epoch * steps + step + 0.5) / recipe.steps(len(images)))
            total += repeated(images[order[rows]].to(device), y[rows], *(part[step] for part in drawn))
            take_step(optimizer, epoch * steps + step)
        mean = float(parallel.mean(total)) / steps
        check_loss(mean, f"epoch {epoch + 1} of source training", lr=recipe.lr)
        after_epoch(epoch + 1, mean, optimizer.state_dict())
    model.eval()


def check_recipe(recipe: object) -> None:
    """Refuse what is no `Recipe`."""
    if not isinstance(recipe, Recipe):
        raise InputError(f"`recipe` must be a Recipe, got {kind_of(recipe)}; use Recipe(epochs=..., batch=..., ...)")


def _draw(recipe: Recipe, px: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """What a step draws, on the CPU: for the augmentation, and for mixup the share and whom each image is mixed with."""
    drawn = AUGMENTATIONS[recipe.augment].draw(recipe.batch, px, generator)
    if not recipe.mixup:
        return drawn
    import numpy as np  # torch's own Beta distribution takes no generator

    seed = int(torch.randint(2**62, (), generator=generator))
    share = np.random.default_rng(seed).beta(recipe.mixup, recipe.mixup)
    return *drawn, torch.tensor(share, dtype=torch.float32), torch.randperm(recipe.batch, generator=generator)


def loss_function(model: nn.Module, recipe: Recipe, statistics: Statistics, *, targets: int = 1) -> Callable[..., Tensor]:
    """What a step minimises: ((N, 3, H, W) uint8 images, (N,) labels, what `_draw` gave) -> the loss; all on one device.

    A model that gives no logits of at least so many classes as `targets` is refused in the first step.
    """
    smoothing, dtype, weights = recipe.label_smoothing, PRECISIONS[recipe.precision], next(model.parameters()).dtype
    vary, memory = AUGMENTATIONS[recipe.augment].apply, layout(model)

    def loss_of(images: Tensor, labels: Tensor, *drawn: Tensor) -> Tensor:
        drawn, mixture = (drawn[:-2], drawn[-2:]) if recipe.mixup else (drawn, ())
        x = normalise(vary(images, *drawn).to(weights) / 255, statistics).contiguous(memory_format=memory)
        if mixture:
            share, other = mixture
            x = share * x + (1 - share) * x[other]
        x, y = parallel.share(x), parallel.share(labels)
        # no cache of cast weights, which outlives a recording: none is cast twice
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32, cache_enabled=False):
            logits = model(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < targets:
            raise InputError(
                f"`model` must return (N, S) logits, S at least {targets} as there are labels up to {targets - 1}, got "
                f"{kind_of(logits)}; build it with that many classes, or number those of the labels from 0"
            )
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(logits, y, label_smoothing=smoothing)
        if mixture:
            others = parallel.share(labels[other])
            loss = share * loss + (1 - share) * F.cross_entropy(logits, others, label_smoothing=smoothing)
        return loss

    return loss_of


def layout(model: nn.Module) -> torch.memory_format:
    """In which order the numbers of a network's images lie in memory: channels last, which is faster, where that is safe.

    On a CPU, oneDNN's gradient of the weights of a 1 x 1 convolution with a stride writes beyond its memory when the input
    channels come last and are fewer than a block of 8 or 16 (its issue 6035): it crashes, or is wrong without a word. The
    gradient of the images, which is all that a frozen network needs, is right.

    >>> layout(nn.Conv2d(16, 8, 1, stride=2)), layout(nn.Conv2d(4, 8, 1, stride=2))
    (torch.channels_last, torch.contiguous_format)
    """
    unsafe = any(
        isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride != (1, 1) and layer.in_channels < BLOCK
        for layer in model.modules()
    )
    return torch.contiguous_format if unsafe else torch.channels_last


def check_loss(loss: float, where: str, *, lr: float) -> None:
    """Refuse a loss that is not a finite number: what was trained with it is worthless."""
    if not math.isfinite(loss):
        raise InputError(
            f"the loss must be a finite number, got {loss} in {where} with learning rate {lr}; use a lower learning rate"
        )


def predict(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    batch: int | None = None,
    device: torch.device | str,
    progress: bool = False,
) -> Tensor:
    """Apply `forward` to all images, in batches; in smaller ones where a GPU's memory runs out.

    Args:
        forward: (n, 3, H, W) float images in [0, 1] -> (n, ...), e.g. a `Frozen` network or its features.
        images: (N, 3, H, W) uint8.
        batch: images at a time, which changes nothing but speed and memory; None: as many as have `PIXELS` pixels.
        device: where `forward` runs.
        progress: whether a progress bar is drawn, if the standard error stream is a terminal.

    Returns:
        (N, ...) float32 on the CPU.

    Raises:
        InputError: when `images` are no uint8 images, or `batch` is below 1.
    """
    check_pixels(images, name="images")
    device = as_device(device)
    batch = images_shown(device, side=images.shape[-1]) if batch is None else whole_number(batch, name="batch")

    def in_parts(size: int) -> Tensor:
        def show(part: Tensor) -> Tensor:
            return forward(part.float() / 255).float()

        step = repeat(show, device=device)
        parts = bar(images.split(size), "reading images", unit="batch", progress=progress)
        return torch.cat([step(part.to(device)) for part in parts]).cpu()

    with torch.no_grad():
        return within_memory(in_parts, batch)


def images_shown(device: torch.device, *, side: int, members: int = 1) -> int:
    """How many images of a side are shown at a time in prediction, to each of so many members of a cohort."""
    return max(1, PIXELS.get(device.type, PIXELS["cpu"]) // (members * side**2))
