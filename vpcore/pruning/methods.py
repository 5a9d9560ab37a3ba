"""Sparse methods: how a network becomes sparse, with equal densities for all methods.

A lottery ticket is one sparse network among others. Round r of every method has the density (1 - rate)^r, so methods can be
compared round by round; round 0 is the dense network, which they share. The paper's method, iterative magnitude pruning
with weight rewinding, is written as one loop in `iterative`.

A method answers four questions, each by a field of `SparseMethod`: which network it starts from, which weights it keeps,
which values they have at the start, and how they are trained (`schedules`). `rounds` carries a method out. A new method is
one entry of `METHODS`; tables and figures call it by its label.

    imp              Frankle et al. 2020, arXiv 1912.05671
    imp-lr           the same, but only the learning rate is rewound (Renda et al. 2020, arXiv 2003.02389)
    oneshot          the dense network is pruned at once and fine-tuned (Han et al. 2015, arXiv 1506.02626)
    gmp              pruned gradually while it trains from fresh weights (Zhu & Gupta 2017, arXiv 1710.01878)
    acdc             dense and sparse phases take turns, from fresh weights (Peste et al. 2021, arXiv 2106.12379)
    rigl             sparse from the start, with masks that change in training (Evci et al. 2020, arXiv 1911.11134)
    random-uniform   random masks, the same density in every layer, trained from fresh weights
    random-erk       random masks, denser in small layers (`structures`), trained from fresh weights
    reinit           the ticket's masks with other fresh weights (Frankle & Carbin 2019, arXiv 1803.03635, section 2)
    2:4              two of every four input channels of the dense network, fine-tuned (Mishra et al. 2021, arXiv 2104.08378)
    channels         whole filters of the dense network, fine-tuned (Li et al. 2017, arXiv 1608.08710)
    magnitude        as oneshot, but untrained
    magnitude-bn     the same, and the batch norms are re-estimated (`reconstruction`)
    reconstruction   as oneshot, but untrained: layer by layer, the other weights make up for the pruned ones
                     (`reconstruction`)
    wanda            as magnitude-bn, but ranked in each layer by |weight| times the norm of its input (`after_training`)
    obs              as reconstruction, but ranked in each layer by the least error that removing a weight causes
                     (`after_training`)
    snip             the fresh weights to which the loss is most sensitive (Lee et al. 2019, arXiv 1810.02340; `saliency`)
    imp-unmasked     a mistake that is to be shown: the ticket's masks are lost, and the pruned weights have the values again
                     that the ticket was rewound to
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vpcore.errors import InputError, entry
from vpcore.networks.backbones import head_name
from vpcore.networks.training import Step
from vpcore.pruning.after_training import obs, wanda
from vpcore.pruning.masks import Masks, Scores, apply_, full, magnitude, prune, select, select_counts
from vpcore.pruning.reconstruction import reconstruct_, reestimate_batch_norm_
from vpcore.pruning.saliency import sensitivity
from vpcore.pruning.schedules import SparsityTarget, alternating, fixed, gradual, rewired
from vpcore.pruning.structures import channels, erk, random_scores, two_of_four
from vpcore.weights.tickets import State, read_ticket

Batch = tuple[Tensor, Tensor]  # (n, 3, H, W) normalised images and their (n,) labels

REDRAWN = 100_003  # offset of the seed from which `reinit` draws its weights


@dataclass(frozen=True)
class Start:
    """What a method starts from.

    Attributes:
        model: the parent's network, or one with fresh weights.
        masks: those of the parent; all True if it is dense.
        rewound: the file with the weights of the dense network at epoch `rewind`.
        rewind: that epoch.
        seed: of random masks.
        build: offset of the seed -> a network with fresh weights.
        batches: a function that gives some hundred training images of the source task, on the device of the training.
    """

    model: nn.Module
    masks: Masks
    rewound: Path
    rewind: int
    seed: int
    build: Callable[[int], nn.Module]
    batches: Callable[[], Iterable[Batch]]


# Which network a method starts from --------------------------------------------------------------------------------------


def _nothing(number: int) -> None:
    return None


def _dense(number: int) -> tuple[str, int]:
    return "imp", 0


def _ticket(number: int) -> tuple[str, int]:
    return "imp", number


def _round_before(number: int) -> tuple[str, int]:
    return "imp", number - 1


def _own_round_before(number: int) -> tuple[str, int]:
    return "imp-lr" if number > 1 else "imp", number - 1


# Which weights it keeps at the start ----------------------------------------------------------------------------------


def _images(batches: Iterable[Batch]) -> Iterable[Tensor]:
    return (images for images, _ in batches)


def _best(score: Callable[[Start], Scores], *, scope: str | None = None) -> Callable[[Start, SparsityTarget], Masks]:
    return lambda start, target: select(score(start), start.masks, density=target.density, scope=scope or target.scope)


def _largest(start: Start, target: SparsityTarget) -> Masks:
    return prune(start.model, density=target.density, scope=target.scope, within=start.masks)


_most_sensitive = _best(lambda start: sensitivity(start.model, start.masks, start.batches()))
_random_uniform = _best(lambda start: random_scores(start.masks, seed=start.seed), scope="layer")
_by_wanda = _best(lambda start: wanda(start.model, start.masks, _images(start.batches())), scope="layer")
_by_obs = _best(lambda start: obs(start.model, start.masks, _images(start.batches())), scope="layer")


def _all(start: Start, target: SparsityTarget) -> Masks:
    return full(start.model, start.masks)


def _those_of_the_parent(start: Start, target: SparsityTarget) -> Masks:
    return start.masks


def _two_of_four(start: Start, target: SparsityTarget) -> Masks:
    if abs(target.density - 0.5) > 1e-9:
        raise InputError(
            f"`density` must be 0.5 for the sparsifier 2:4, got {target.density:g}; "
            "use the round where (1 - rate)^round = 0.5"
        )
    return two_of_four(magnitude(start.model, start.masks), start.masks)


def _channels(start: Start, target: SparsityTarget) -> Masks:
    if f"{head_name(start.model)}.weight" in start.masks:
        raise InputError(
            "`part` must leave out the classifier for the sparsifier channels, since its channels are the classes; "
            "use body or body+stem"
        )
    scores = magnitude(start.model, start.masks)
    return channels(scores, start.masks, density=target.density, scope=target.scope)


def _random_erk(start: Start, target: SparsityTarget) -> Masks:
    scores = random_scores(start.masks, seed=start.seed)
    return select_counts(scores, start.masks, erk(start.masks, density=target.density))


# Which values they have, and at which epoch of the schedule the training begins ---------------------------------------


def _as_they_are(start: Start) -> tuple[State, int]:
    return start.model.state_dict(), 0


def _redrawn(start: Start) -> tuple[State, int]:
    return start.build(REDRAWN).state_dict(), 0


def _rewound(start: Start) -> tuple[State, int]:
    if not start.rewound.exists():
        raise InputError(
            f"the training goes back to {start.rewound}, which is missing; delete {start.rewound.parent}, "
            "the chain is trained anew"
        )
    return read_ticket(start.rewound)[0], start.rewind


def _unmasked(start: Start) -> tuple[State, int]:
    ticket, (rewound, _) = start.model.state_dict(), _rewound(start)
    return ticket | {name: torch.where(mask, ticket[name], rewound[name]) for name, mask in start.masks.items()}, 0


# How they are adjusted and trained ------------------------------------------------------------------------------------


def _mask_(model: nn.Module, masks: Masks, batches: Iterable[Batch]) -> None:
    apply_(model, masks)


def _mask_and_renew_(model: nn.Module, masks: Masks, batches: Iterable[Batch]) -> None:
    apply_(model, masks)
    reestimate_batch_norm_(model, _images(batches))


def _reconstruct_(model: nn.Module, masks: Masks, batches: Iterable[Batch]) -> None:
    reconstruct_(model, masks, _images(batches))


def _densely(model: nn.Module, masks: Masks, target: SparsityTarget) -> Step:
    return lambda optimizer, step: optimizer.step()


# The methods ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SparseMethod:
    """How a network becomes sparse.

    Attributes:
        label: its name in tables and figures.
        parent: round -> method and round of the ticket that it starts from; None for fresh weights.
        masks: which weights are kept at the start.
        weights: their values at the start, and the epoch of the schedule at which the training begins.
        adjust_: what is done to the model and the masks before the training, or in its place; it may look at
            `Start.batches`, and sets weights to 0 where the masks are False.
        train: the steps of the training (`schedules`); None: it is not trained.
        ranked: whether weights are ranked over the whole network or layer by layer, as `SparsityTarget.scope` says.
        schedules: round -> the number of whole schedules that its weights have been trained for in the end.
    """

    label: str
    parent: Callable[[int], tuple[str, int] | None]
    masks: Callable[[Start, SparsityTarget], Masks]
    weights: Callable[[Start], tuple[State, int]] = _as_they_are
    adjust_: Callable[[nn.Module, Masks, Iterable[Batch]], None] = _mask_
    train: Callable[[nn.Module, Masks, SparsityTarget], Step] | None = fixed
    ranked: bool = True
    schedules: Callable[[int], int] = lambda number: 1


DENSE = SparseMethod("dense", _nothing, _all, train=_densely)  # round 0 of all methods

METHODS: dict[str, SparseMethod] = {
    "imp": SparseMethod("lottery ticket (IMP, weights rewound)", _round_before, _largest, _rewound),
    "imp-lr": SparseMethod("IMP, learning rate rewound", _own_round_before, _largest, schedules=lambda number: number + 1),
    "oneshot": SparseMethod("one shot, fine-tuned", _dense, _largest, schedules=lambda number: 2),
    "2:4": SparseMethod("2:4, fine-tuned", _dense, _two_of_four, ranked=False, schedules=lambda number: 2),
    "channels": SparseMethod("whole channels, fine-tuned", _dense, _channels, schedules=lambda number: 2),
    "gmp": SparseMethod("gradual pruning", _nothing, _all, train=gradual),
    "acdc": SparseMethod("AC/DC", _nothing, _all, train=alternating),
    "rigl": SparseMethod("RigL", _nothing, _random_erk, train=rewired, ranked=False),
    "snip": SparseMethod("SNIP", _nothing, _most_sensitive),
    "random-erk": SparseMethod("random, ERK", _nothing, _random_erk, ranked=False),
    "random-uniform": SparseMethod("random, uniform", _nothing, _random_uniform, ranked=False),
    "reinit": SparseMethod("ticket's mask, fresh weights", _ticket, _those_of_the_parent, _redrawn),
    "reconstruction": SparseMethod("untrained, reconstructed", _dense, _largest, adjust_=_reconstruct_, train=None),
    "wanda": SparseMethod("untrained, Wanda", _dense, _by_wanda, adjust_=_mask_and_renew_, train=None, ranked=False),
    "obs": SparseMethod("untrained, OBS", _dense, _by_obs, adjust_=_reconstruct_, train=None, ranked=False),
    "magnitude": SparseMethod("untrained", _dense, _largest, train=None),
    "magnitude-bn": SparseMethod("untrained, batch norm renewed", _dense, _largest, adjust_=_mask_and_renew_, train=None),
    "imp-unmasked": SparseMethod("ticket, masks undone", _ticket, _all, _unmasked, train=None),
}


def method_named(name: str, number: int) -> SparseMethod:
    """The entry of `METHODS`, or `DENSE` for round 0.

    Raises:
        InputError: for an unknown name.
    """
    method = entry("sparsifier", name, METHODS)
    return method if number else DENSE


def parent(name: str, number: int) -> tuple[str, int] | None:
    """Method and round of the ticket that a round starts from; None for fresh weights, as in round 0.

    >>> parent("imp", 3), parent("imp-lr", 1), parent("oneshot", 3), parent("gmp", 3), parent("reinit", 3)
    (('imp', 2), ('imp', 0), ('imp', 0), None, ('imp', 3))
    """
    return method_named(name, number).parent(number)


def rewinds(name: str) -> bool:
    """Whether a method, or one whose tickets it starts from, goes back to the weights of an early epoch.

    >>> [name for name in METHODS if rewinds(name)]
    ['imp', 'reinit', 'imp-unmasked']
    """
    origin = parent(name, 1)
    return METHODS[name].weights is _rewound or (origin is not None and origin[1] > 0 and rewinds(origin[0]))


def epochs_seen(name: str, number: int, *, epochs: int) -> int:
    """How many epochs the weights of a round have been trained for in the end, including those in its parent networks.

    Args:
        name: a key of `METHODS`.
        number: of the round.
        epochs: length of the schedule.

    >>> epochs_seen("imp", 3, epochs=12), epochs_seen("imp-lr", 3, epochs=12), epochs_seen("oneshot", 3, epochs=12)
    (12, 48, 24)
    """
    return epochs * method_named(name, number).schedules(number)
