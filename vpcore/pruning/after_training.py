"""After training: scores that tell which weights matter, from the inputs of their layer.

The magnitude of a weight says little where inputs differ in magnitude. Two scores take inputs into account, measured on some
hundred unlabelled images, with the (n, d) inputs X of the layer in the dense network (`layer_inputs`) and a weight w_j of an
output channel:

    wanda       |w_j| ||X_j||_2,  the weight times the norm of its input (Sun et al. 2023, arXiv 2306.11695)
    obs         w_j^2 / [H^-1]_jj,  H = X'X + l I:  the least error ||X w - X w'||^2 when w_j is removed and all other
                weights of the channel are adjusted (optimal brain surgeon, Hassibi & Stork 1992; layer by layer: Optimal
                Brain Compression, Frantar & Alistarh 2022, arXiv 2208.11580)

The inputs of a linear layer are its features, those of a convolution its windows: each weight of a filter has a norm of its
own, and H is the same for all output channels of a group. Both scores are in the units of a layer's outputs, so they can be
compared within a layer only, and weights are ranked there (`select` with the scope "layer").

`obs` is one-shot: every weight is judged as if it were the only one to be removed, and `reconstruction.reconstruct_` then
adjusts the weights that are left to the removal of all. Weights that can replace each other look dispensable one by one but
are not together; still, choosing column by column (SparseGPT, Frantar & Alistarh 2023, arXiv 2301.00774) did no better on a
ResNet-8.
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
        model: dense; left as it is. A copy of it runs on the device of the batches.
        masks: name -> bool tensor for weights of convolutions and linear layers.
        batches: (n, 3, H, W) normalised images each, some hundred in all; no labels are needed.
        positions: the most places of an image that are rows of X; they are drawn anew for each batch and layer.
        seed: of the places.

    Raises:
        InputError: for a mask of a weight whose inputs cannot be seen, such as those in torchvision's attention, and for
            inputs that are not finite.

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
    """Scores w_j^2 / [H^-1]_jj of the masked weights, to be ranked within each layer by `masks.select`.

    Args:
        model, masks, batches, positions, seed: as for `wanda`, and so are the errors.
        ridge: l, as a share of the mean of the diagonal of X'X.
    """
    ridge = number(ridge, name="ridge", use="0.01; without it H may have no inverse")
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
    positions, sums = whole_number(positions, name="positions"), dict[str, Tensor]()
    generator = torch.Generator().manual_seed(whole_number(seed, name="seed", least=0))

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
    """(groups, d) values, one for each input -> one for each weight: the same in all output channels of a group."""
    return known.repeat_interleave(len(weight) // len(known), 0).view_as(weight).to(weight.device)


def _scores(model: nn.Module, masks: Masks, of: Callable[[str, Tensor], Tensor]) -> Scores:
    """Name -> scores in the precision of the weight, computed by a function of its name and its values in float64."""
    weights = {name: model.get_parameter(name).detach() for name in masks}
    return {name: of(name, weight.double()).to(weight.dtype) for name, weight in weights.items()}
