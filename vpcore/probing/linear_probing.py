"""Linear probing: a linear classifier on the features of a frozen network.

Two recipes for the same classifier, logits = x W + b on features x:

    linear_probe     the paper's: Adam, learning rate 0.01, divided by 10 at 50 % and 72 % of the epochs, no decay
    optimal_probe    min over W, b of  mean_i CE(x_i W + b, y_i) + lambda / 2 |W|^2,  solved to its optimum by L-BFGS for a
                     path of lambda, the one with the lowest NLL on validation images kept

The second is what a linear probe can give (Kornblith et al. 2019, arXiv 1805.08974, and CLIP's evaluation choose L2 alike);
the first stops where its schedule ends. The unit is a cohort, K probes on the same features that differ in their seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vpcore.errors import InputError
from vpcore.networks.cohort import Best, set_rate
from vpcore.networks.training import check_loss

L2_GRID = tuple(
    10.0**power for power in range(0, -8, -1)
)  # lambda over the mean squared norm of the features, strong to weak
COARSE, FINE = 1e-5, 1e-8  # largest gradient along the path (less where L2 is weak), and at the strength that is chosen
Probe = Callable[[Tensor], Tensor]


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
    select: tuple[Tensor, Tensor] | None = None,
) -> Probe:
    """K linear classifiers on features that were computed once, trained by the paper's recipe.

    Args:
        features: (M, D) float32 features of the training images, on the device where the probes are trained.
        labels: (M,) target classes.
        index: (K, n) which of them each member learns from.
        targets: number of target classes T.
        epochs: passes over the n images.
        batch: images a step of each member.
        lr: learning rate of Adam at the start.
        seeds: K seeds: of the starting weights and the order of the images.
        select: features and labels on which the best epoch of each member is picked; None: the last epoch counts.

    Returns:
        A function: (N, D) features -> (K, N, T) logits, on the same device.
    """
    cohort, count = index.shape
    device, width = features.device, features.shape[1]
    labels, index = labels.to(device), index.to(device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    weight, bias = (_start(generators, shape, width).to(device) for shape in ((width, targets), (1, targets)))
    optimizer = torch.optim.Adam([weight, bias], lr=lr, fused=True)
    best = Best(cohort)
    for epoch in range(epochs):
        set_rate(optimizer, lr, epoch, epochs)
        order = torch.stack([torch.randperm(count, generator=generator) for generator in generators]).to(device)
        total = torch.zeros((), device=device)
        for rows in index.gather(1, order).split(batch, dim=1):
            x, label = features[rows], labels[rows][..., None]
            log_probs = torch.baddbmm(bias, x, weight).log_softmax(2)
            # the gradient of the mean cross-entropy: x^T (p - y) / n
            error = log_probs.exp().scatter_add_(2, label, torch.full_like(label, -1, dtype=x.dtype)) / rows.shape[1]
            weight.grad, bias.grad = x.transpose(1, 2) @ error, error.sum(1, keepdim=True)
            optimizer.step()
            total -= log_probs.gather(2, label).sum() / (cohort * count)
        check_loss(float(total), f"epoch {epoch + 1} of linear probing", lr=lr)
        if select is not None:
            logits = _apply(weight, bias, select[0])
            best.update_({"weight": weight, "bias": bias}, logits, select[1])
    state = {"weight": weight, "bias": bias} if select is None else best.state
    return lambda x: _apply(state["weight"], state["bias"], x)


@dataclass(frozen=True)
class OptimalProbes:
    """K linear classifiers at the optimum of their objective.

    Attributes:
        weight: (K, D, T) float64.
        bias: (K, 1, T) float64.
        strength: the chosen lambda of each.
    """

    weight: Tensor
    bias: Tensor
    strength: list[float]

    def __call__(self, features: Tensor) -> Tensor:
        """(N, D) features -> (K, N, T) float32 logits."""
        return _apply(self.weight, self.bias, features.double()).float()


def optimal_probe(
    features: Tensor,
    labels: Tensor,
    index: Tensor,
    *,
    targets: int,
    val: tuple[Tensor, Tensor],
    path: tuple[float, ...] = L2_GRID,
) -> OptimalProbes:
    """K linear classifiers at the optimum, the strength of L2 chosen on validation images.

    Args:
        features: (M, D) features of the training images.
        labels: (M,) target classes.
        index: (K, n) which of them each member learns from.
        targets: number of target classes T.
        val: (N, D) features and (N,) labels of the validation images; the lowest NLL there wins.
        path: strengths to try, from strong to weak; lambda is each times the mean squared norm of the features learned from,
            so that the scale of the features does not matter.

    Returns:
        The classifiers; biases are not penalised.
    """
    found = [_along_path(features[rows].double(), labels[rows].to(features.device), targets, val, path) for rows in index]
    weights, biases, strengths = zip(*found, strict=True)
    return OptimalProbes(torch.stack(weights), torch.stack(biases), list(strengths))


def _along_path(
    x: Tensor, y: Tensor, targets: int, val: tuple[Tensor, Tensor], path: tuple[float, ...]
) -> tuple[Tensor, Tensor, float]:
    unit = float(x.square().sum(1).mean().sqrt()) or 1.0
    x, x_val, y_val = x / unit, val[0].to(x.device).double() / unit, val[1].to(x.device)
    weight, bias = x.new_zeros(x.shape[1], targets), x.new_zeros(1, targets)
    found = []
    for strength in path:  # each start is the optimum before
        weight, bias = minimise(x, y, weight, bias, strength=strength, tolerance=min(COARSE, strength / 100))
        found.append((float(F.cross_entropy(x_val @ weight + bias, y_val)), strength, weight, bias))
        if len(found) > 2 and found[-3][0] < found[-2][0] < found[-1][0]:
            break  # NLL rises for good once the probe over-fits, and the weak end of the path takes longest
    if not found:
        raise InputError("`path` must hold at least one strength of L2, got none")
    _, strength, weight, bias = min(found, key=lambda each: each[0])
    weight, bias = minimise(x, y, weight, bias, strength=strength)
    return weight / unit, bias, strength * unit**2


def minimise(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, *, strength: float, tolerance: float = FINE
) -> tuple[Tensor, Tensor]:
    """The optimum of  mean CE + strength / 2 |W|^2  by L-BFGS.

    Args:
        x: (n, D) float64 features.
        y: (n,) classes.
        weight: (D, T) float64, where to start; left as it is, like `bias`, (1, T).
        strength: lambda. In scikit-learn's terms, C = 1 / (n * strength).
        tolerance: largest number in the gradient with which it is content.

    Returns:
        The weights and the biases.
    """
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=5000, tolerance_grad=tolerance, tolerance_change=0, history_size=50,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def _start(generators: list[torch.Generator], shape: tuple[int, int], width: int) -> Tensor:
    """Uniform in +-1 / sqrt(D), as torch.nn.Linear starts; drawn on the CPU, so that devices start alike."""
    draws = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
    return (draws * 2 - 1) * width**-0.5


def _apply(weight: Tensor, bias: Tensor, features: Tensor) -> Tensor:
    features = features.to(weight.device)
    return torch.baddbmm(bias, features.expand(len(weight), *features.shape), weight)
