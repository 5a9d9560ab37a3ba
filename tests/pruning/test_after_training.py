import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.pruning.test_reconstruction import (
    EVERYWHERE,
    LAYERS,
    batches,
    design,
    inputs_and_outputs,
    made,
)
from vpcore import InputError
from vpcore.networks.backbones import build, prunable
from vpcore.pruning import masks as pruning
from vpcore.pruning.after_training import obs, wanda
from vpcore.pruning.masks import Masks
from vpcore.pruning.reconstruction import reconstruct_


def looked_at(kind: str) -> tuple[nn.Module, Masks, list[Tensor], Tensor, Tensor]:
    """A network, a full mask of its second layer, images, that layer's design matrix (O, n, d) and its weights (O, d)."""
    model, _, name = made(kind)
    images, layer = batches(6, 4), model.get_submodule(name.removesuffix(".weight"))
    x = torch.cat([seen for seen, _ in inputs_and_outputs(model, layer, images)])
    return model, pruning.full(model, [name]), images, design(layer, x).detach(), layer.weight.detach().flatten(1)


@pytest.mark.parametrize("kind", LAYERS)
def test_wanda_is_the_weight_times_the_norm_of_its_inputs(kind: str) -> None:
    """Number by number, on a design matrix that the layer itself computes."""
    model, masks, images, matrix, weight = looked_at(kind)
    (scores,) = wanda(model, masks, images, positions=EVERYWHERE).values()
    for channel, row in enumerate(scores.flatten(1)):
        for j, score in enumerate(row):
            norm = math.sqrt(sum(x**2 for x in matrix[channel][:, j].tolist()))
            assert float(score) == pytest.approx(abs(float(weight[channel, j])) * norm, rel=1e-9)


@pytest.mark.parametrize("kind", LAYERS)
def test_obs_is_the_least_error_without_the_weight(kind: str) -> None:
    """Against least squares without each weight in turn; the ridge is rows of its own, which pull at every weight."""
    model, masks, images, matrix, weight = looked_at(kind)
    ((name, scores),) = obs(model, masks, images, positions=EVERYWHERE, ridge=1e-3).items()
    group = len(weight) // getattr(model.get_submodule(name.removesuffix(".weight")), "groups", 1)
    for channel in (0, len(weight) - 1):
        strength = 1e-3 * float((matrix[channel // group * group] ** 2).sum(0).mean())
        rows = torch.cat([matrix[channel], strength**0.5 * torch.eye(weight.shape[1], dtype=torch.float64)])
        wanted = rows @ weight[channel]
        for j in range(0, weight.shape[1], max(1, weight.shape[1] // 9)):
            others = torch.arange(weight.shape[1]) != j
            found = torch.linalg.lstsq(rows[:, others], wanted[:, None], driver="gelsd").solution[:, 0]
            error = float((rows[:, others] @ found - wanted).square().sum())
            assert float(scores.flatten(1)[channel, j]) == pytest.approx(error, rel=1e-6, abs=1e-12)


def test_few_places_rank_about_as_all_do() -> None:
    model, masks, _, _, _ = looked_at("dense")
    images = batches(100, 100)
    for judge in (wanda, obs):
        (some,), (everything,) = (judge(model, masks, images, positions=p).values() for p in (16, EVERYWHERE))
        ranks = torch.stack([s.flatten().argsort().argsort().double() for s in (some, everything)])
        assert float(torch.corrcoef(ranks)[0, 1]) > 0.98


def test_where_inputs_differ_in_size_both_keep_what_magnitude_throws_away() -> None:
    """The outputs of a layer stay closer to the dense ones, pruned and reconstructed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).double().eval()
    with torch.no_grad():
        model[0].weight.mul_(torch.logspace(-1, 1, 16, dtype=torch.float64).view(-1, 1, 1, 1))
        model[0].bias.zero_()
    masks, images, fresh = pruning.full(model, ["2.weight"]), batches(40, 40), batches(120)[0][80:]
    errors = {}
    for name, scores in (
        ("magnitude", pruning.magnitude(model, masks)),
        ("wanda", wanda(model, masks, images)),
        ("obs", obs(model, masks, images)),
    ):
        kept = pruning.select(scores, masks, density=0.4, scope="layer")
        pruned, solved = copy.deepcopy(model), copy.deepcopy(model)
        pruning.apply_(pruned, kept)
        reconstruct_(solved, kept, images)
        with torch.no_grad():
            errors[name] = [float((network(fresh) - model(fresh)).norm()) for network in (pruned, solved)]
    for name in ("wanda", "obs"):
        assert errors[name][0] < 0.3 * errors["magnitude"][0], errors
        assert errors[name][1] < 0.3 * errors["magnitude"][1], errors
    assert all(solved < plain for plain, solved in errors.values()), errors


@pytest.mark.parametrize("judge", [wanda, obs])
def test_the_model_stays_as_it_was_and_all_comes_from_the_seed(judge: Callable) -> None:
    model = build("resnet8", classes=5, seed=0)
    masks, images = pruning.full(model, prunable(model)), batches(8, dtype=torch.float32)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = judge(model, masks, iter(images))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert [(name, s.shape) for name, s in found.items()] == [(name, m.shape) for name, m in masks.items()]
    assert not any(s.requires_grad for s in found.values())
    again, other = judge(model, masks, images), judge(model, masks, images, seed=1)
    assert all(torch.equal(s, again[name]) for name, s in found.items())
    assert not all(torch.equal(s, other[name]) for name, s in found.items())


def test_dead_inputs_go_first() -> None:
    """A channel that is zero for all images, and no score is NaN."""
    model, _, name = made("dense")
    with torch.no_grad():
        model.first.weight[2].zero_()
        model.first.bias[2] = -1
    masks = pruning.full(model, [name])
    for judge in (wanda, obs):
        scores = judge(model, masks, batches(8))[name]
        assert bool(torch.isfinite(scores).all())
        assert float(scores[:, 2].max()) < 0.2 * float(scores[:, :2].median())


def test_errors_name_what_is_wrong() -> None:
    model = build("resnet8", classes=5, seed=0)
    masks, images = pruning.full(model, prunable(model)), batches(4, dtype=torch.float32)
    with pytest.raises(
        InputError, match="`ridge` must be a number in .*, got 0; use 0.01; without it H may have no inverse"
    ):
        obs(model, masks, images, ridge=0)
    for judge in (wanda, obs):
        with pytest.raises(InputError, match="`batches` must hold at least one batch of images, got none"):
            judge(model, masks, [])
        with pytest.raises(InputError, match=r"`batches` must give finite inputs .* layer1\.0\.conv1\.weight are NaN"):
            judge(model, masks, [images[0].masked_fill(images[0] > 0.5, torch.nan)])
        with pytest.raises(InputError, match=r"these cannot: bn1\.weight \(1 in all\)"):
            judge(model, {"bn1.weight": torch.ones(16, dtype=torch.bool)}, images)
