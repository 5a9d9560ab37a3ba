import itertools
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import prune

from vpcore import InputError
from vpcore.networks.backbones import build, prunable
from vpcore.pruning.masks import SCOPES, Masks, full, magnitude, select, select_counts
from vpcore.pruning.structures import channels, erk, random_scores, two_of_four


def ones(shapes: dict[str, tuple[int, ...]]) -> Masks:
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


def erk_densities(shapes: list[tuple[int, ...]], density: Fraction) -> list[Fraction]:
    """Definition of Evci et al., exactly: the largest e with no density above 1, layers that reach 1 taken out in turn."""
    raw = [Fraction(sum(shape), torch.Size(shape).numel()) for shape in shapes]
    sizes, dense = [torch.Size(shape).numel() for shape in shapes], set()
    while True:
        left = density * sum(sizes) - sum(sizes[i] for i in dense)
        e = left / sum(raw[i] * sizes[i] for i in range(len(raw)) if i not in dense)
        top = max((i for i in range(len(raw)) if i not in dense), key=lambda i: raw[i])
        if raw[top] * e <= 1:
            return [Fraction(1) if i in dense else raw[i] * e for i in range(len(raw))]
        dense.add(top)


@pytest.mark.parametrize("density", [0.9, 0.5, 0.125, 0.03])
@pytest.mark.parametrize("name", ["resnet8", "resnet18-half"])
def test_erk_counts_against_the_definition(name: str, density: float) -> None:
    model = build(name, classes=10, seed=0)
    masks = full(model, prunable(model, "all"))
    counts = erk(masks, density=density)
    expected = erk_densities([tuple(mask.shape) for mask in masks.values()], Fraction(density))
    assert sum(counts.values()) == round(density * sum(mask.numel() for mask in masks.values()))
    for (layer, mask), share in zip(masks.items(), expected, strict=True):
        assert counts[layer] <= mask.numel()
        assert abs(counts[layer] - share * mask.numel()) < 1
    if density == 0.9:
        assert max(expected) == 1  # the cap is at work


def test_random_masks_are_nested_seeded_and_blind() -> None:
    masks = ones({"a": (8, 4, 3, 3), "b": (16, 8)})
    scores = random_scores(masks, seed=1)
    for choose in (
        lambda d: select(scores, masks, density=d, scope="layer"),
        lambda d: select_counts(scores, masks, erk(masks, density=d)),
    ):
        for wide, narrow in itertools.pairwise([choose(d) for d in (0.9, 0.5, 0.25, 0.125)]):
            assert all(bool((~narrow[name] | wide[name]).all()) for name in masks)
    again, other = random_scores(masks, seed=1), random_scores(masks, seed=2)
    assert all(torch.equal(scores[name], again[name]) and not torch.equal(scores[name], other[name]) for name in masks)
    many = torch.stack([random_scores(masks, seed=s)["b"] < 0.25 for s in range(400)]).float().mean(0)
    assert float((many - 0.25).abs().max()) < 5 * (0.25 * 0.75 / 400) ** 0.5


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(3, 8, 3, 3), (5, 4, 1, 1), (6, 12)])
def test_two_of_four_against_a_loop(shape: tuple[int, ...], ties: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(3, shape, generator=generator).float() if ties else torch.rand(shape, generator=generator)
    kept = two_of_four({"w": scores}, ones({"w": shape}))["w"]
    for place in itertools.product(*[range(size) for size in shape]):
        first = place[1] // 4 * 4
        group = [(place[0], first + j, *place[2:]) for j in range(4)]
        best = sorted(group, key=lambda p: (-float(scores[p]), p[1]))[:2]
        assert bool(kept[place]) == (place in best)


def test_two_of_four_agrees_with_torch() -> None:
    layer = nn.Linear(16, 8)
    layer.weight.data = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(layer)
    ours = two_of_four({"w": layer.weight.detach().abs()}, ones({"w": (8, 16)}))["w"]
    theirs = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    theirs.prepare(model, [{"tensor_fqn": "0.weight"}])
    theirs.step()
    assert torch.equal(model[0].weight != 0, ours)


def test_two_of_four_leaves_other_widths_dense() -> None:
    masks = ones({"depthwise": (8, 1, 3, 3), "odd": (4, 6, 1, 1), "even": (4, 8, 1, 1)})
    kept = two_of_four({name: torch.rand(mask.shape) for name, mask in masks.items()}, masks)
    assert {name: float(mask.float().mean()) for name, mask in kept.items()} == {"depthwise": 1, "odd": 1, "even": 0.5}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("density", [0.9, 0.5, 0.25, 0.1])
def test_channels_are_whole_and_the_density_is_reached_from_below(density: float, scope: str) -> None:
    model = build("resnet8", classes=3, seed=0)
    masks = full(model, prunable(model))
    kept = channels(magnitude(model, masks), masks, density=density, scope=scope)
    filters = {name: mask.flatten(1) for name, mask in kept.items()}
    assert all(bool((f.all(1) | ~f.any(1)).all()) and bool(f.any()) for f in filters.values())
    total = sum(mask.numel() for mask in masks.values())
    gap = round(density * total) - sum(int(mask.sum()) for mask in kept.values())
    smallest_gone = min(f.shape[1] for f in filters.values() if not f.all())
    assert 0 <= gap < smallest_gone  # not one filter more would fit


def test_channels_of_one_layer_agree_with_torch() -> None:
    layer = nn.Conv2d(6, 10, 3, bias=False)
    layer.weight.data = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    masks = ones({"weight": tuple(layer.weight.shape)})
    for scope in SCOPES:
        ours = channels(magnitude(layer, masks), masks, density=0.3, scope=scope)["weight"]
        reference = prune.LnStructured(amount=7, n=2, dim=0).compute_mask(layer.weight, torch.ones_like(layer.weight))
        assert torch.equal(ours, reference.bool())


def test_channels_global_and_by_layer() -> None:
    """All filters of b are larger than those of a: globally a is pruned but for its best, by layer both alike."""
    scores = {"a": torch.arange(1.0, 9.0)[:, None].expand(8, 2), "b": torch.arange(11.0, 19.0)[:, None].expand(8, 6)}
    masks = ones({"a": (8, 2), "b": (8, 6)})
    kept = channels(scores, masks, density=50 / 64)
    assert kept["a"].all(1).tolist() == [False] * 7 + [True]
    assert kept["b"].all()
    kept = channels(scores, masks, density=0.5, scope="layer")
    assert kept["a"].all(1).tolist() == kept["b"].all(1).tolist() == [False] * 4 + [True] * 4


def test_channels_of_different_sizes_and_numbers_compare() -> None:
    """Globally by the mean square, not the sum, of a filter's weights; by layer by the share of better filters."""
    masks = ones({"small": (4, 2), "large": (8, 6)})
    scores = {"small": torch.full((4, 2), 10.0), "large": torch.full((8, 6), 8.0)}  # L2 norms of 14 and 20
    kept = channels(scores, masks, density=(4 * 2 + 6) / 56)
    assert {name: int(mask.all(1).sum()) for name, mask in kept.items()} == {"small": 4, "large": 1}
    kept = channels(scores, masks, density=0.5, scope="layer")
    assert {name: int(mask.all(1).sum()) for name, mask in kept.items()} == {"small": 2, "large": 4}


def test_bad_patterns() -> None:
    masks = ones({"a": (2, 5), "b": (2, 5)})
    scores = random_scores(masks, seed=0)
    with pytest.raises(InputError, match="`density` 0.2 keeps 4 weights, but one filter in every layer takes 10; use"):
        channels(scores, masks, density=0.2)
    with pytest.raises(InputError, match="unknown scope 'filter'"):
        channels(scores, masks, density=0.5, scope="filter")
    with pytest.raises(InputError, match="got 50; percent\\? use 0.5"):
        erk(masks, density=50)
