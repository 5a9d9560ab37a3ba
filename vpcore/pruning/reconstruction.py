"""Sparse without training: a network is pruned once and adjusted on some hundred unlabelled images.

Setting weights to zero changes the inputs of all later layers. There are two remedies, and the second includes the first:

Batch norms get the statistics of the pruned network (`reestimate_batch_norm_`; precise batch norm, Wu & Johnson 2021,
arXiv 2105.07576, section 3).

Layer by layer, the weights that are left make up for those that are removed (`reconstruct_`; AdaPrune, Hubara et al. 2021,
arXiv 2102.08124, section 5; Optimal Brain Compression, Frantar & Alistarh 2022, arXiv 2208.11580). With the mask fixed,
the weights w of one output channel solve a least-squares problem on their support S,

    min over w on S of  ||y - X w||^2 + l ||w - v||^2,

where y are the outputs of the channel in the dense network, X the (n, d) inputs of the layer in the network pruned so far,
v the dense weights, zero outside S, and l a small ridge. With the residual r = y - X v and H = X'X the solution is

    w_S = v_S + (H_SS + l I)^-1 (X'r)_S,

the optimal brain surgeon's update (Hassibi & Stork 1992) for a set of weights at once. Since the ridge pulls to v, the error
||y - X w|| is never above that of plain masking, and a mask that keeps everything changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor, nn

from vpcore.checks import number, whole_number
from vpcore.networks.state import check_finite, check_masks
from vpcore.networks.watching import watch
from vpcore.pruning.layer_inputs import Layer, add_ridge, at, by_place, checked_batches, draw_places, inputs_at, watch_masked
from vpcore.pruning.masks import Masks, apply_


@torch.no_grad()
def reestimate_batch_norm_(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of every batch norm to the mean and variance of its inputs over all batches.

    It takes one pass, in which every norm uses the statistics of its batch, as in training: a batch should have 32 images or
    more.

    Args:
        model: changed in place and left in evaluation mode; a network without batch norm is left as it is.
        batches: (n, 3, H, W) normalised images each; n may differ.

    Raises:
        InputError: for no batches, or those that the network does not take.
    """
    check_finite(model)
    batches = checked_batches(batches)
    sums: dict[nn.Module, list[Tensor]] = {}

    def add(name: str, norm: nn.Module, x: Tensor, output: Tensor) -> None:
        var, mean = (s.double() for s in torch.var_mean(x, (0, 2, 3), correction=0))
        count = x.numel() // x.shape[1]
        parts = torch.full_like(mean, count), count * mean, count * (var + mean**2)
        sums[norm] = [old + new for old, new in zip(sums[norm], parts, strict=True)] if norm in sums else list(parts)

    model.eval()
    try:
        norms = {name: norm.train() for name, norm in model.named_modules() if isinstance(norm, nn.BatchNorm2d)}
        watch(model, norms, batches, add)
    finally:
        model.eval()
    for norm, (count, total, squares) in sums.items():
        mean = total / count
        norm.get_buffer("running_mean").copy_(mean)
        var = (squares / count - mean**2).clamp(min=0) * count / (count - 1)  # unbiased, as torch's are
        norm.get_buffer("running_var").copy_(var)


@torch.no_grad()
def reconstruct_(
    model: nn.Module,
    masks: Masks,
    batches: Iterable[Tensor],
    *,
    positions: int = 32,
    ridge: float = 0.01,
    seed: int = 0,
) -> None:
    """Prune a network with given masks, adjust the weights that are left layer by layer, and re-estimate its batch norms.

    It takes one pass of the dense network over the batches and, for each layer, one of the pruned network up to this layer.
    The outputs of the dense network are kept at the places that serve as equations, n images x `positions` x the outputs of
    all layers: 0.5 GB for 256 images and EfficientNet-Lite0. H has d^2 entries, d being the weights of an output channel.

    Args:
        model: dense; changed in place and left in evaluation mode.
        masks: name -> bool tensor for weights of convolutions and linear layers; what they leave out is 0 afterwards.
        batches: (n, 3, H, W) normalised images each, some hundred in all; no labels are needed.
        positions: the most places of an image that are equations of a layer; they are drawn anew for each layer.
        ridge: l, as a share of the mean of the diagonal of H.
        seed: of the places.

    Raises:
        InputError: for masks that are not those of the network, a mask of a weight whose inputs cannot be seen, such as
            those in torchvision's attention, batches that the network does not take, and a ridge or positions out of range.
    """
    check_finite(model)
    check_masks(model, masks)
    ridge = number(ridge, name="ridge", use="0.01; without it the equations may have no single solution")
    positions = whole_number(positions, name="positions")
    generator = torch.Generator().manual_seed(whole_number(seed, name="seed", least=0))
    batches = checked_batches(batches)
    # for each masked layer, in the order of their use, and each batch: (N, P) places and the (N, P, O) outputs there
    dense: dict[tuple[str, Layer], list[tuple[Tensor, Tensor]]] = {}

    def record(name: str, layer: Layer, x: Tensor, output: Tensor) -> None:
        values = by_place(layer, output)
        places = draw_places(values, positions, generator)
        dense.setdefault((name, layer), []).append((places, at(values, places)))

    watch_masked(model.eval(), masks, batches, record)
    apply_(model, masks)
    for name, layer in list(dense):
        gram, right = torch.zeros(()), torch.zeros(())
        for images, (places, wanted) in zip(batches, dense.pop((name, layer)), strict=True):
            inputs, outputs = _reach(model, layer, images)
            residual = wanted - at(by_place(layer, outputs), places)
            x = inputs_at(layer, inputs, outputs.shape, places)
            r = residual.flatten(0, 1).unflatten(1, (len(x), -1)).transpose(0, 1)  # (groups, n, outputs of a group)
            gram = gram + (x.mT @ x).double()
            right = right + (x.mT @ r).double()
        _solve_(layer.weight, masks[name], add_ridge(gram, ridge), right)
    reestimate_batch_norm_(model, batches)


class _Reached(Exception):
    """Ends a pass at the layer that is asked about: the rest is not needed, and could change the output in place."""


def _reach(model: nn.Module, layer: Layer, images: Tensor) -> tuple[Tensor, Tensor]:
    """The input and the output of a layer."""
    seen: list[Tensor] = []

    def stop(name: str, layer: Layer, x: Tensor, output: Tensor) -> None:
        seen.extend((x, output))
        raise _Reached

    with suppress(_Reached):
        watch(model, {"": layer}, [images], stop)
    return seen[0], seen[1]


def _solve_(weight: Tensor, mask: Tensor, gram: Tensor, right: Tensor) -> None:
    """Add the solution of the normal equations to the weights of each output channel, on the support of its mask.

    Args:
        weight: (O, ...) weights, zero outside the mask.
        mask: of its shape.
        gram: (groups, d, d) X'X + l I; right: (groups, d, O / groups) X'r.
    """
    rows, masks = weight.flatten(1).clone(), mask.flatten(1)
    per_group = right.shape[2]
    for channel in range(len(rows)):
        group, place = divmod(channel, per_group)
        kept = masks[channel].nonzero()[:, 0]
        system = gram[group][kept][:, kept]
        change = torch.cholesky_solve(right[group, kept, place, None], torch.linalg.cholesky(system))
        rows[channel, kept] += change[:, 0].to(weight.dtype)
    weight.copy_(rows.view_as(weight))
