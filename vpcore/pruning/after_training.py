"""After training: which weights matter, by what their layer sees.

The size of a weight says little where inputs differ in size. Two scores look at some hundred unlabelled images as well, with
the (n, d) inputs X of the dense network's layer (`layer_inputs`) and a weight w_j of an output channel:

    wanda       |w_j| ||X_j||_2,  the weight times the norm of what it multiplies (Sun et al. 2023, arXiv 2306.11695)
    obs         w_j^2 / [H^-1]_jj,  H = X'X + l I:  what ||X w - X w'||^2 is at least when w_j is gone and all other weights
                of the channel make up for it (optimal brain surgeon, Hassibi & Stork 1992; layer by layer: Optimal Brain
                Compression, Frantar & Alistarh 2022, arXiv 2208.11580)

The inputs of a linear layer are its features, those of a convolution its windows: each weight of a filter has a norm of its
own, and H is the same for all output channels of a group. Both scores are in the units of a layer's outputs: they compare
within a layer, and weights are ranked there (`select` with the scope "layer").

`obs` is one-shot: every weight is judged as if it went alone, and `reconstruction.reconstruct_` then solves for what is left
of all that go together. Weights that can stand in for each other look dispensable one by one and are not together; on a
ResNet-8, choosing column by column instead (SparseGPT, Frantar & Alistarh 2023, arXiv 2301.00774) did no better.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from vpcore.checks import number, whole_number
from vpcore.errors import InputError
from vpcore.networks.state import check_finite, check_masks
from vpcore.pruning.layer_inputs import Layer, add_ridge, by_place, checked_batches, draw_places, inputs_at, watch_masked
from vpcore.pruning.masks import Masks, Scores


def wanda(model: nn.Module, masks: Masks, batches: Iterable[Tensor], *, positions: int = 32, seed: int = 0) -> Scores:
    """Scores |w_j| ||X_j||_2 of the masked weights, to be ranked within each layer by `masks.select`.

    Args:
        model: dense; left as it is. A copy runs where the batches are.
        masks: name -> bool tensor for weights of convolutions and linear layers.
        batches: (n, 3, H, W) normalised images each, some hundred in all; no labels are needed.
        positions: at most so many places of an image, drawn anew for each batch and layer, are rows of X.
        seed: of the places.

    Raises:
        InputError: for a mask of a weight whose inputs cannot be seen, as in the attention of torchvision, and for inputs
            that are not finite.

    >>> layer, images = nn.Conv2d(2, 1, 1), torch.tensor([[[[3.0, 4.0]], [[1.0, 0.0]]]])
    >>> _ = nn.init.constant_(layer.weight, -2)
    >>> wanda(nn.Sequential(layer), {"0.weight": layer.weight != 0}, [images])["0.weight"].flatten().tolist()
    [10.0, 2.0]
    """
    squares = _sums(model, masks, batches, lambda x: x.double().square().sum(1), positions=positions, seed=seed)
    return _scores(model, masks, lambda name, weight: weight.abs() * _by_weight(squares[name].sqrt(), weight))


def obs(
    model: nn.Module, masks: Masks, batches: Iterable[Tensor], *, positions: int = 32, ridge: float = 0.01, seed: int = 0
) -> Scores:
    """Scores w_j^2 / [H^-1]_jj of the masked weights; arguments and errors as in `wanda`, and

    Args:
        ridge: l, as a share of the mean of the diagonal of X'X.
    """
    number(ridge, name="ridge", use="0.01; without it H may have no inverse")
    grams = _sums(model, masks, batches, lambda x: (x.mT @ x).double(), positions=positions, seed=seed)

    def score(name: str, weight: Tensor) -> Tensor:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(add_ridge(grams.pop(name), ridge)))
        return weight.square() / _by_weight(inverse.diagonal(dim1=1, dim2=2), weight)

    return _scores(model, masks, score)


@torch.no_grad()
def _sums(
    model: nn.Module,
    masks: Masks,
    batches: Iterable[Tensor],
    of: Callable[[Tensor], Tensor],
    *,
    positions: int,
    seed: int,
) -> dict[str, Tensor]:
    """Name of a weight -> sum over the batches of a function of the (groups, n, d) inputs of its layer."""
    check_finite(model)
    check_masks(model, masks)
    whole_number(positions, name="positions")
    whole_number(seed, name="seed", least=0)
    sums: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)

    def add(name: str, layer: Layer, x: Tensor, output: Tensor) -> None:
        places = draw_places(by_place(layer, output), positions, generator)
        sums[name] = sums.get(name, 0) + of(inputs_at(layer, x, output.shape, places))

    batches = checked_batches(batches)
    watch_masked(copy.deepcopy(model).eval().to(batches[0].device), masks, batches, add)
    for name, total in sums.items():
        if not bool(torch.isfinite(total).all()):
            raise InputError(f"`batches` must give finite inputs of layers, but those of {name} are NaN or infinite")
    return sums


def _by_weight(known: Tensor, weight: Tensor) -> Tensor:
    """What is known of each input, (groups, d), for each weight: the same for all output channels of a group."""
    return known.repeat_interleave(len(weight) // len(known), 0).view_as(weight).to(weight.device)


def _scores(model: nn.Module, masks: Masks, of: Callable[[str, Tensor], Tensor]) -> Scores:
    """A function of the name and the float64 values of each weight, in the precision of the weight."""
    weights = {name: model.get_parameter(name).detach() for name in masks}
    return {name: of(name, weight.double()).to(weight.dtype) for name, weight in weights.items()}
