"""Linear probing: a linear classifier on the features of a frozen network.

The logits x W + b of features x, trained by the paper's recipe: Adam, learning rate 0.01, divided by 10 at 50 % and 72 % of
the epochs, no decay. What a linear probe can give is more than that: see `optimal_probing`. The unit is a cohort, K probes
on the same features that differ in their seed. `linear_probe` starts from images, `probe_features` from features that were
computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vpcore.checks import CLASSES, as_labels, check_function, whole_number
from vpcore.data.images import Images
from vpcore.networks.cohort import Best, History, check_cohort, generators_of, in_order, set_rate, uniform_start
from vpcore.networks.frozen import Frozen, check_frozen
from vpcore.networks.inputs import as_images, as_labelled_features, check_features
from vpcore.networks.progress import bar
from vpcore.networks.repeat import adam, repeat
from vpcore.networks.training import predict

View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Classifiers:
    """K linear classifiers of features.

    Attributes:
        weight: (K, D, T).
        bias: (K, 1, T).
        loss: mean training loss of the cohort in each epoch; empty where they were solved for.
        strength: the L2 penalty lambda of each that was chosen; empty where there is none.
    """

    weight: Tensor
    bias: Tensor
    loss: list[float]
    strength: list[float]

    def members(self, first: int, last: int) -> Classifiers:
        """Those from `first` on and before `last`, counted from 0."""
        rows = slice(first, last)
        return Classifiers(self.weight[rows], self.bias[rows], self.loss, self.strength[rows])

    def __call__(self, features: Tensor) -> Tensor:
        """(N, D) features -> (K, N, T) float32 logits, on the device of the classifiers.

        Raises:
            InputError: for features of another width, or that are not finite.
        """
        check_features(features, name="features", width=self.weight.shape[1])
        return apply_probe(self.weight, self.bias, features.to(self.weight.dtype)).float()


@dataclass(frozen=True)
class Probed:
    """K linear probes: a frozen network with classifiers of its features.

    Attributes:
        network: frozen.
        classifiers: of its features.
        view: what the network is shown of images in [0, 1].
    """

    network: Frozen
    classifiers: Classifiers
    view: View

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, h, h) uint8 images -> (K, N, T) float32 logits on the CPU.

        Raises:
            InputError: for images that are not uint8.
        """
        return self.classifiers(_features(self.network, images, self.view)).cpu()


def linear_probe(
    network: Frozen,
    train: Images,
    *,
    index: Tensor | None = None,
    view: View = lambda images: images,
    select: Images | None = None,
    epochs: int = 100,
    batch: int | None = None,
    lr: float = 0.01,
    seeds: Sequence[int] = (0,),
    progress: bool = True,
) -> Probed:
    """Linear probing by the paper's recipe: K linear classifiers on the features of a frozen network.

    Args:
        network: frozen.
        train: training images of the task, uint8, of the side that the network takes. The classes that it names are the T
            target classes.
        index: (K, n) which of the images each member learns from; None: all of them for each seed.
        view: (N, 3, h, h) images in [0, 1] -> what the network sees of them.
        select: images on which the best epoch is picked for each member; None: the last epoch counts.
        epochs: passes over the n images.
        batch: images a step of each member; None: as in the authors' code for such a budget (`cohort.BATCHES`).
        lr: learning rate of Adam at the start.
        seeds: K seeds: of the starting weights and the order of the images.
        progress: whether a progress bar is drawn, if the standard error stream is a terminal.

    Returns:
        The probes: call it with (N, 3, h, h) uint8 images for (K, N, T) logits.

    Raises:
        InputError: for a network that is not frozen, what is not `Images` or not uint8, images of a size that the network
            does not take, and as `probe_features`.
    """
    check_frozen(network)
    check_function(view, name="view", use="lambda images: images")
    images, labels = as_images(train, name="train")
    chosen = None if select is None else as_images(select, name="select", classes=train.classes)
    targets, rows = len(train.classes), slice(None)
    checked, seeds, *_ = check_cohort(
        index, count=len(labels), targets=targets, seeds=seeds, epochs=epochs, batch=batch, lr=lr
    )
    network.check_takes(view(images[:1].float() / 255), name="train.images")
    if index is not None:  # few shots need few features
        rows, checked = checked.unique(return_inverse=True)
    found = probe_features(
        _features(network, images[rows], view, progress).to(network.device), labels[rows], checked,
        targets=targets, epochs=epochs, batch=batch, lr=lr, seeds=seeds, progress=progress,
        select=chosen and (_features(network, chosen[0], view, progress), chosen[1]),
    )  # fmt: skip
    return Probed(network, found, view)


def _features(network: Frozen, images: Tensor, view: View, progress: bool = False) -> Tensor:
    return predict(lambda part: network.features(view(part)), images, device=network.device, progress=progress)


def probe_features(
    features: Tensor,
    labels: Tensor,
    index: Tensor,
    *,
    targets: int,
    epochs: int,
    batch: int | None,
    lr: float,
    seeds: Sequence[int],
    select: tuple[Tensor, Tensor] | None = None,
    progress: bool = False,
) -> Classifiers:
    """K linear classifiers on features that were computed once, trained by the paper's recipe.

    Args:
        features: (M, D) float32 features of the training images, on the device where the probes are trained.
        labels: (M,) target classes.
        index: (K, n) which of them each member learns from.
        targets: number of target classes T.
        epochs: passes over the n images.
        batch: images a step of each member; None: `cohort.usual_batch`.
        lr: learning rate of Adam at the start.
        seeds: K seeds: of the starting weights and the order of the images.
        select: features and labels on which the best epoch of each member is picked; None: the last epoch counts.
        progress: whether a progress bar is drawn, if the standard error stream is a terminal.

    Returns:
        The classifiers, on the same device.

    Raises:
        InputError: for features that are NaN, labels, rows or numbers out of range, or a loss that is no longer a number.
    """
    check_features(features, name="features")
    targets = whole_number(targets, name="targets", most=CLASSES)
    labels = as_labels(labels, size=len(features), classes=targets)
    if select is not None:
        select = as_labelled_features(select, name="select", classes=targets, width=features.shape[1])
    index, seeds, epochs, batch, lr = check_cohort(
        index, count=len(labels), targets=targets, seeds=seeds, epochs=epochs, batch=batch, lr=lr
    )
    cohort, count = index.shape
    device, width = features.device, features.shape[1]
    labels = labels.to(device)
    generators = generators_of(seeds)
    weight, bias = (uniform_start(generators, (rows, targets), inputs=width).to(features) for rows in (width, 1))
    optimizer = adam([weight, bias], lr=lr, device=device, fused=True)

    def step(rows: Tensor) -> Tensor:
        """(K, n) rows -> their part of the mean loss of the epoch; moves the classifiers."""
        x, label = features[rows], labels[rows][..., None]
        log_probs = torch.baddbmm(bias, x, weight).log_softmax(2)
        # the gradient of the mean cross-entropy: x^T (p - y) / n
        error = log_probs.exp().scatter_add_(2, label, torch.full_like(label, -1, dtype=x.dtype)) / rows.shape[1]
        weight.grad, bias.grad = x.transpose(1, 2) @ error, error.sum(1, keepdim=True)
        optimizer.step()
        return -log_probs.gather(2, label).sum() / (cohort * count)

    repeated, history, best = repeat(step, device=device), History("linear probing", lr=lr), Best(cohort)
    for epoch in bar(range(epochs), "linear probing", unit="epoch", progress=progress):
        set_rate(optimizer, lr, epoch, epochs)
        loss = torch.zeros((), device=device)
        for rows in in_order(index, generators).to(device, non_blocking=True).split(batch, dim=1):
            loss += repeated(rows)
        history.append_(loss)
        if select is not None:
            best.update_({"weight": weight, "bias": bias}, apply_probe(weight, bias, select[0]), select[1])
    state = {"weight": weight, "bias": bias} if select is None else best.state
    return Classifiers(state["weight"], state["bias"], history.read(), [])


def apply_probe(weight: Tensor, bias: Tensor, features: Tensor) -> Tensor:
    """(N, D) features -> (K, N, T) logits of classifiers of (K, D, T) and (K, 1, T), where they are."""
    features = features.to(weight.device)
    return torch.baddbmm(bias, features.expand(len(weight), *features.shape), weight)
