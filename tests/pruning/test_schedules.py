import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.ao.pruning import CubicSL

from tests.networks.test_training import blobs
from vpcore.networks.backbones import ResNet, prunable
from vpcore.networks.training import Recipe, Step, fit
from vpcore.pruning.masks import SCOPES, Masks, apply_, full, magnitude, select
from vpcore.pruning.schedules import (
    GRADUAL,
    SparsityTarget,
    alternating,
    gradual,
    gradual_density,
    in_sparse_phase,
    rewire,
    rewired,
    rewired_share,
)

RECIPE = Recipe(epochs=6, batch=8, lr=0.1, weight_decay=1e-3, augment="none", precision="float32", seed=3)
STEPS = RECIPE.steps(64)
GOAL = SparsityTarget(0.25, STEPS, "global")


def tiny(seed: int = 0) -> nn.Module:
    """A residual network of two blocks; with so many channels, it is trained channels-last as those of a study are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet(3, blocks=(1, 1), widths=(8, 16), stem=(3, 2))


def train(kind: Callable[..., Step], target: SparsityTarget, look: Callable[..., None], *, density: float = 1.0) -> Masks:
    """Train, and look at (optimizer, step, model, masks) after each step; the masks begin with a density."""
    model = tiny()
    masks = full(model, prunable(model))
    masks = select(magnitude(model, masks), masks, density=density)
    apply_(model, masks)
    step_under_masks = kind(model, masks, target)

    def take_step(optimizer: torch.optim.Optimizer, step: int) -> None:
        step_under_masks(optimizer, step)
        look(optimizer, step, model, masks)

    fit(model, *blobs(), RECIPE, take_step=take_step)
    return masks


def nonzero(model: nn.Module, masks: Masks) -> int:
    return sum(int((dict(model.named_parameters())[name] != 0).sum()) for name in masks)


def total(masks: Masks) -> int:
    return sum(mask.numel() for mask in masks.values())


@pytest.mark.parametrize("density", [0.5, 0.1, 0.03])
@pytest.mark.parametrize("steps", [20, 97, 1000])
def test_the_cubic_schedule_agrees_with_torch(steps: int, density: float) -> None:
    target, (begin, end) = SparsityTarget(density, steps, "global"), GRADUAL
    found = [gradual_density(step, target) for step in range(steps + 1)]
    for step, value in enumerate(found):
        sparsity = CubicSL.sparsity_compute_fn(0.0, 1 - density, step, begin * steps, 1, (end - begin) * steps)
        expected = 1.0 if step < begin * steps else 1 - sparsity if step < end * steps else density
        assert value == pytest.approx(expected, abs=1e-12)
    assert all(later <= earlier for earlier, later in itertools.pairwise(found))
    assert found[0] == 1
    assert found[-1] == density


@pytest.mark.parametrize("scope", SCOPES)
def test_gradual_pruning_follows_the_schedule_and_is_nested(scope: str) -> None:
    target, seen = replace(GOAL, scope=scope), []

    def look(optimizer: torch.optim.Optimizer, step: int, model: nn.Module, masks: Masks) -> None:
        expected = round(gradual_density(step + 1, target) * total(masks))
        assert sum(int(mask.sum()) for mask in masks.values()) == nonzero(model, masks) == expected
        if seen:
            assert all(bool((~mask | seen[-1][name]).all()) for name, mask in masks.items())
        seen.append(dict(masks))

    masks = train(gradual, target, look)
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.25 * total(masks))
    last_change = max(s for s in range(1, STEPS) if any(not torch.equal(seen[s][n], seen[s - 1][n]) for n in masks))
    assert 0.6 * STEPS < last_change < 0.75 * STEPS  # the last quarter is fine-tuning


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_even_the_shortest_schedule_ends_sparse(steps: int) -> None:
    target = SparsityTarget(0.25, steps, "global")
    for kind in (gradual, alternating):
        model = tiny()
        masks = full(model, prunable(model))
        take_step, optimizer = kind(model, masks, target), torch.optim.SGD(model.parameters(), lr=0.0)
        for step in range(steps):
            take_step(optimizer, step)
        assert nonzero(model, masks) == round(0.25 * total(masks))


@pytest.mark.parametrize("steps", [100, 1000, 3120])
def test_the_phases_of_acdc(steps: int) -> None:
    """In percent: 10 dense; 5 sparse and 5 dense by turns until 75; 10 dense; 15 sparse."""
    phases = [("dense", 10), *[("sparse", 5), ("dense", 5)] * 6, ("sparse", 5), ("dense", 10), ("sparse", 15)]
    epochs = [name for name, length in phases for _ in range(length)]
    target = SparsityTarget(0.1, steps, "global")
    found = ["sparse" if in_sparse_phase(step, target) else "dense" for step in range(steps)]
    assert found == [epochs[math.floor(100 * step / steps)] for step in range(steps)]


@pytest.mark.parametrize("scope", SCOPES)
def test_acdc_is_sparse_in_its_sparse_phases_with_the_weights_that_were_the_largest(scope: str) -> None:
    target, largest, seen, states = replace(GOAL, scope=scope), {}, [], []

    def look(optimizer: torch.optim.Optimizer, step: int, model: nn.Module, masks: Masks) -> None:
        sparse = in_sparse_phase(step, target)
        share = 0.25 if sparse else 1.0
        assert sum(int(mask.sum()) for mask in masks.values()) == round(share * total(masks))
        assert nonzero(model, masks) == round(share * total(masks)) or not sparse
        if sparse and seen[-1]:
            assert all(torch.equal(mask, largest["now"][name]) for name, mask in masks.items())
        everything = full(model, masks)
        chosen = select(magnitude(model, masks), everything, density=0.25, scope=scope)
        if sparse and not seen[-1]:
            assert all(torch.equal(mask, largest["before"][name]) for name, mask in masks.items())
            largest["now"] = dict(masks)
        largest["before"] = chosen
        if seen and not sparse and seen[-1]:  # dense again: every weight moves, from a momentum of nothing but this gradient
            weights = dict(model.named_parameters())
            assert nonzero(model, masks) > 0.9 * total(masks)
            for name in masks:
                expected = weights[name].grad + RECIPE.weight_decay * states[-1][name]
                torch.testing.assert_close(optimizer.state[weights[name]]["momentum_buffer"], expected)
        seen.append(sparse)
        states.append({name: value.detach().clone() for name, value in model.named_parameters()})

    train(alternating, target, look)
    assert seen[-1]
    assert sum(now and not before for before, now in itertools.pairwise(seen)) == 8


def test_the_share_that_rigl_moves_falls_along_half_a_cosine() -> None:
    shares = [rewired_share(step, SparsityTarget(0.1, 1000, "global")) for step in range(0, 751)]
    for step, share in enumerate(shares):
        assert share == pytest.approx(0.15 * (1 + math.cos(step / 750 * math.pi)), abs=1e-12)
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("density", [0.9, 0.5, 0.1])
def test_rewiring_against_a_loop(density: float, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6, bias=False), nn.Linear(6, 5, bias=False))
    masks = {}
    for name, weight in model.named_parameters():
        masks[name] = torch.rand(weight.shape, generator=generator) < density
        weight.data = torch.randn(weight.shape, generator=generator) * masks[name]
        weight.grad = torch.randn(weight.shape, generator=generator)
    before = {name: mask.clone() for name, mask in masks.items()}
    model.requires_grad_(False)
    moved = rewire(model, masks, share=share)
    for name, weight in model.named_parameters():
        places = list(itertools.product(*[range(size) for size in weight.shape]))
        active = sorted((p for p in places if masks[name][p]), key=lambda p: abs(float(weight[p])))
        drop = math.floor(share * len(active))
        stay = set(active[drop:])
        others = sorted((p for p in places if p not in stay), key=lambda p: -abs(float(weight.grad[p])))
        assert {p for p in places if moved[name][p]} == stay | set(others[:drop])
        assert torch.equal(masks[name], before[name])  # left as they are


def test_rigl_grows_weights_at_zero_without_momentum_and_moves_nothing_else() -> None:
    state, moves, counts = {}, [], []

    def look(optimizer: torch.optim.Optimizer, step: int, model: nn.Module, masks: Masks) -> None:
        weights = dict(model.named_parameters())
        assert all(float(weights[name].detach()[~mask].abs().max()) == 0 for name, mask in masks.items())
        counts.append([int(mask.sum()) for mask in masks.values()])
        if state and any(not torch.equal(mask, state["masks"][name]) for name, mask in masks.items()):
            moves.append(step)
            for name, mask in masks.items():
                born, stayed = mask & ~state["masks"][name], mask & state["masks"][name]
                assert not weights[name].detach()[born].any()
                assert not optimizer.state[weights[name]]["momentum_buffer"][born].any()
                assert torch.equal(weights[name].detach()[stayed], state["weights"][name][stayed])
                if born.any():
                    lost = weights[name].grad.abs()[~mask]
                    assert float(weights[name].grad.abs()[born].min()) >= float(lost.max())
        state["masks"], state["weights"] = dict(masks), {name: weight.detach().clone() for name, weight in weights.items()}

    train(rewired, GOAL, look, density=0.25)
    assert moves == [step for step in range(10, STEPS, 10) if step < 0.75 * STEPS]
    assert all(count == counts[0] for count in counts)
