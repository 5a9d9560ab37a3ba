"""Iterative magnitude pruning: how a lottery ticket is found.

A dense network is trained; its smallest weights are removed, the others go back to the values that they had early in the
training, and the sparse network is trained from there. Repeating this finds sparser networks that still learn than removing
all weights at once does (Frankle & Carbin 2019, arXiv 1803.03635). Large networks must go back to epoch `rewind` instead of
to their first weights (Frankle et al. 2020, arXiv 1912.05671).

    train w_0 for all epochs;  keep w_rewind
    for r = 1, 2, ...:  M_r = the largest (1 - rate)^r of |w|, within M_(r-1)
                        w = M_r * w_rewind;  train M_r * w from epoch `rewind` to the end

A study does the same with the same functions, `prune`, `apply_` and `fit`, but keeps each round in a file so that it can be
resumed, and offers other methods beside this one (`methods`, `rounds`). A test compares the two bit by bit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from vpcore.checks import check_network, whole_number
from vpcore.networks.backbones import Statistics
from vpcore.networks.training import Recipe, check_recipe, fit
from vpcore.pruning.masks import Masks, apply_, density_of_round, prune
from vpcore.pruning.schedules import check_rewind, fixed

State = dict[str, Tensor]


def iterative_magnitude_pruning(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    rounds: int,
    rate: float,
    rewind: int = 0,
    scope: str = "global",
    part: str = "body",
    weights: Iterable[str] | None = None,
    statistics: Statistics | None = None,
) -> Iterator[tuple[int, Masks, State]]:
    """Train, prune, rewind, and train again: a ticket after each round.

    Args:
        model: a network with fresh weights, on the device where it shall train; left as it is.
        images: (N, 3, H, W) uint8 training images; `labels`: (N,) int64 their classes.
        recipe: how it is trained in every round.
        rounds: how often it is pruned.
        rate: share of the weights that are left which each round removes, in (0, 1).
        rewind: epoch of the dense training to whose weights every round goes back; 0: the fresh ones.
        scope, part, weights: which weights compete and may be pruned, as for `prune`.
        statistics: mean and standard deviation that the images are normalised with; None: as in `fit`.

    Yields:
        Round (0: dense), its masks, and the state dict of the network that was trained under them.

    Raises:
        InputError: for an argument out of range, or when the training diverges.

    >>> import torch
    >>> from vpcore import MODELS, density
    >>> images, labels = torch.arange(12 * 8 * 8).remainder(251).to(torch.uint8).view(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    >>> recipe = Recipe(epochs=1, batch=2, lr=0.1, weight_decay=0.0, augment="none", precision="float32", seed=0)
    >>> model = MODELS["resnet8"].make(2)
    >>> for number, masks, state in iterative_magnitude_pruning(model, images, labels, recipe, rounds=2, rate=0.5):
    ...     print(number, round(density(masks), 3))
    0 1.0
    1 0.5
    2 0.25
    """
    check_network(model)
    check_recipe(recipe)
    rounds = whole_number(rounds, name="rounds", least=0)
    density_of_round(rounds, rate=rate)
    check_rewind(rewind, epochs=recipe.epochs)
    network, early = copy.deepcopy(model), {}

    def keep(epoch: int, *_: object) -> None:
        if epoch == rewind:
            early.update(copy.deepcopy(network.state_dict()))

    keep(0)
    fit(network, images, labels, recipe, statistics=statistics, after_epoch=keep)
    masks = prune(network, density=1.0, scope=scope, part=part, weights=weights)
    yield 0, masks, copy.deepcopy(network.state_dict())
    for number in range(1, rounds + 1):
        masks = prune(network, density=density_of_round(number, rate=rate), scope=scope, within=masks)
        network.load_state_dict(early)
        apply_(network, masks)
        steps = fixed(network, masks)
        fit(network, images, labels, recipe, first_epoch=rewind, statistics=statistics, take_step=steps)
        yield number, masks, copy.deepcopy(network.state_dict())
