"""Saliency: how much the loss depends on a weight, before anything is trained.

Magnitude knows nothing of the task. SNIP (Lee et al. 2019, arXiv 1810.02340) asks how the loss L would change if a weight w
were taken out: with a gate c = 1 on the connection, the network computes with c w, and

    s = |dL / dc| = |w dL / dw|

is the connection sensitivity of the weight. It is measured once, on fresh weights and some hundred labelled images; the
largest are kept, and the sparse network is trained from these weights on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.errors import InputError
from vpcore.networks.state import check_finite, check_masks
from vpcore.pruning.masks import Masks, Scores


def sensitivity(model: nn.Module, masks: Masks, batches: Iterable[tuple[Tensor, Tensor]]) -> Scores:
    """Connection sensitivities |w dL / dw| of the masked weights, to be ranked by `masks.select`.

    Args:
        model: left as it is; in training mode its batch norms use the statistics of each batch.
        masks: their names say which weights are scored.
        batches: (n, 3, H, W) normalised images and their (n,) labels each; L is the mean cross-entropy over all images.

    Raises:
        InputError: for masks that are not those of the network, and for no batches or those it cannot be trained with.
    """
    check_finite(model)
    check_masks(model, masks)
    network, seen = copy.deepcopy(model).train(), 0
    pairs: Any = batches if isinstance(batches, Iterable) and not isinstance(batches, nn.Module) else [batches]
    for pair in pairs:
        try:
            images, labels = pair
            F.cross_entropy(network.to(images.device)(images), labels, reduction="sum").backward()
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                "`batches` must be pairs of normalised (n, 3, H, W) images that the network takes and their (n,) labels, "
                f"whole numbers below its number of classes ({error}); use [(normalise(images / 255), labels)]"
            ) from error
        seen += len(images)
    if not seen:
        raise InputError(
            "`batches` must hold at least one batch of images and labels, got none; some hundred images are enough"
        )
    scores, weights = {}, dict(network.named_parameters())
    for name, mask in masks.items():
        gradient = weights[name].grad  # None for a layer that is not used
        product = torch.zeros(mask.shape) if gradient is None else (weights[name] * gradient).detach().abs() / seen
        scores[name] = product.to(mask.device)
    return scores
