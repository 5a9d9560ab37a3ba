"""The optimal linear probe: the best that a linear classifier on frozen features can give.

    min over W, b of  mean_i CE(x_i W + b, y_i) + lambda / 2 |W|^2,      on features x

solved to its optimum by L-BFGS for a path of lambda, the one with the lowest NLL on validation images kept (Kornblith et
al. 2019, arXiv 1805.08974, and CLIP's evaluation choose L2 alike). The paper's recipe (`linear_probing`) stops where its
schedule ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vpcore.checks import CLASSES, as_labels, number, whole_number
from vpcore.errors import InputError
from vpcore.networks.inputs import as_index, as_labelled_features, check_features
from vpcore.probing.linear_probing import Classifiers

# lambda over the mean squared norm of the features, strong to weak
L2_GRID = tuple(10.0**power for power in range(0, -8, -1))
COARSE, FINE = 1e-5, 1e-8  # largest gradient along the path (less where L2 is weak), and at the strength that is chosen


def optimal_probe(
    features: Tensor,
    labels: Tensor,
    index: Tensor,
    *,
    targets: int,
    val: tuple[Tensor, Tensor],
    path: tuple[float, ...] = L2_GRID,
) -> Classifiers:
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
        The classifiers, in float64, with the strength of each; biases are not penalised.

    Raises:
        InputError: for features that are NaN, labels or rows out of range, or an empty path.
    """
    check_features(features, name="features")
    targets = whole_number(targets, name="targets", most=CLASSES)
    labels = as_labels(labels, size=len(features), classes=targets)
    val = as_labelled_features(val, name="val", classes=targets, width=features.shape[1])
    if not isinstance(path, Sequence) or not path:
        raise InputError(f"`path` must hold at least one strength of L2, got {path!r}; use L2_GRID")
    path = tuple(number(strength, name="path", use="strengths of L2 such as those of L2_GRID") for strength in path)
    index, labels = as_index(index, count=len(labels)), labels.to(features.device)
    found = [_along_path(features[rows].double(), labels[rows], targets, val, path) for rows in index]
    weights, biases, strengths = zip(*found, strict=True)
    return Classifiers(torch.stack(weights), torch.stack(biases), [], list(strengths))


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
