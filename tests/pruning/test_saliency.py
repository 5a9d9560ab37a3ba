"""Connection sensitivity is the derivative of the loss with respect to a gate on the weight."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from tests.pruning.test_rounds import IMAGES, LABELS, RECIPE, make
from tests.pruning.test_schedules import tiny
from vpcore import InputError
from vpcore.networks.backbones import normalise, prunable
from vpcore.pruning.masks import full, select
from vpcore.pruning.saliency import sensitivity
from vpcore.weights.tickets import read_ticket


def looked_at() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What a round shows its method: all training images here, in an order of its seed, 64 and then 16 of them."""
    order = torch.randperm(80, generator=torch.Generator().manual_seed(RECIPE.seed))
    return [(normalise(IMAGES[rows].float() / 255), LABELS[rows]) for rows in order.split(64)]


def test_scores_are_the_derivatives_of_gates() -> None:
    """With a gate on every weight, the loss is differentiated twice: by torch, and by a difference of two losses."""
    model = tiny().double().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = full(model, prunable(model))
    batches = [(images.double(), labels) for images, labels in looked_at()]
    scores = sensitivity(model, masks, batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # it is left as it is
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def loss(gates: dict[str, torch.Tensor]) -> torch.Tensor:
        gated = weights | {name: gate * weights[name] for name, gate in gates.items()}
        total = [F.cross_entropy(functional_call(model, gated, x), y, reduction="sum") for x, y in batches]
        return sum(total) / 80

    gates = {name: torch.ones_like(weights[name], requires_grad=True) for name in masks}
    loss(gates).backward()
    for name, score in scores.items():
        torch.testing.assert_close(score, gates[name].grad.abs())
    for name in masks:
        losses = []
        for sign in (1, -1):
            moved = {n: gate.detach().clone() for n, gate in gates.items()}
            moved[name].view(-1)[3] += sign * 1e-5
            losses.append(float(loss(moved)))
        assert abs(losses[0] - losses[1]) / 2e-5 == pytest.approx(float(scores[name].view(-1)[3]), rel=1e-4, abs=1e-9)


def test_snip_keeps_the_fresh_weights_of_highest_sensitivity(tmp_path: Path) -> None:
    masks = full(tiny(), prunable(tiny()))
    expected = select(sensitivity(tiny(), masks, looked_at()), masks, density=0.25)
    _, found, _ = read_ticket(make(tmp_path, "snip", 2))
    assert all(torch.equal(found[name], mask) for name, mask in expected.items())


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="`batches` must hold at least one batch of images and labels, got none"):
        sensitivity(tiny(), full(tiny(), prunable(tiny())), [])


def test_a_layer_that_is_not_used_does_not_matter() -> None:
    model = tiny()
    model.spare = nn.Linear(2, 2)
    scores = sensitivity(model, full(model, ["spare.weight", "fc.weight"]), looked_at())
    assert not scores["spare.weight"].any()
    assert bool(scores["fc.weight"].any())
