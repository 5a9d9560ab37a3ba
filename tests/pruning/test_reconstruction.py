import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.quantization.test_layers import small
from vpcore import InputError
from vpcore.networks.backbones import build, prunable
from vpcore.pruning import masks as pruning
from vpcore.pruning.reconstruction import reconstruct_, reestimate_batch_norm_

EVERYWHERE = 10**9  # positions: all places of an image


def batches(*sizes: int, px: int = 16, channels: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(n, channels, px, px, generator=generator, dtype=dtype) + 0.3 for n in sizes]


def random_masks(model: nn.Module, names: list[str], density: float, *, seed: int = 0) -> pruning.Masks:
    generator, weights = torch.Generator().manual_seed(seed), dict(model.named_parameters())
    return {name: torch.rand(weights[name].shape, generator=generator) < density for name in names}


def inputs_and_outputs(model: nn.Module, layer: nn.Module, images: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    seen = []
    handle = layer.register_forward_hook(lambda module, args, output: seen.append((args[0].clone(), output.clone())))
    with torch.no_grad():
        for batch in images:
            model(batch)
    handle.remove()
    return seen


# Batch norm ----------------------------------------------------------------------------------------------------------


def test_one_batch_gives_the_statistics_that_torch_computes() -> None:
    """A momentum of 1 puts the statistics of a batch into the buffers: the reference is torch's own batch norm."""
    model = build("resnet8", classes=5, seed=0).double()
    reference = copy.deepcopy(model).train()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    images = batches(24)
    reference(images[0])
    reestimate_batch_norm_(model, images)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-11, atol=1e-12)


def test_statistics_are_of_all_images_whatever_the_sizes_of_the_batches() -> None:
    """Against numbers by hand from the inputs of each norm, put one after the other; a mean of means would be off."""
    model = build("resnet8", classes=5, seed=0).double()
    images = [batch * (1 + 3 * number) for number, batch in enumerate(batches(3, 16, 9))]
    reference = copy.deepcopy(model).train()
    for name, norm in reference.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            x = torch.cat([seen for seen, _ in inputs_and_outputs(reference, norm, images)]).transpose(0, 1).flatten(1)
            norm.expected = name, x.sum(1) / x.shape[1], ((x - x.mean(1, keepdim=True)) ** 2).sum(1) / (x.shape[1] - 1)
    reestimate_batch_norm_(model, iter(images))
    found = [
        (*norm.expected, model.get_submodule(norm.expected[0])) for norm in reference.modules() if hasattr(norm, "expected")
    ]
    assert len(found) == 9
    for _, mean, var, norm in found:
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(norm.running_var, var, rtol=1e-11, atol=1e-12)
    assert not any(module.training for module in model.modules())


def test_re_estimation_changes_no_weight_and_leaves_no_hook() -> None:
    model = build("resnet8", classes=5, seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    reestimate_batch_norm_(model, batches(8, dtype=torch.float32))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    without = nn.Sequential(nn.Conv2d(3, 2, 1)).train()
    reestimate_batch_norm_(without, batches(2, dtype=torch.float32))  # nothing to do
    assert not without.training
    with pytest.raises(InputError, match="`batches` must hold at least one batch of images, got none"):
        reestimate_batch_norm_(model, [])


# Reconstruction ------------------------------------------------------------------------------------------------------


class TwoLayers(nn.Module):
    """A layer that shifts the inputs of the second, which is the one looked at."""

    def __init__(self, second: nn.Module, *, flat: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.flat = nn.Conv2d(3, 8, 3, padding=1), second, flat

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.second(x.mean((2, 3)) if self.flat else x)


def same(*args: int, **options: int) -> nn.Module:
    """timm's convolution with TensorFlow's padding."""
    return pytest.importorskip("timm.layers").Conv2dSame(*args, **options)


LAYERS = {
    "dense": lambda: TwoLayers(nn.Conv2d(8, 6, 3, padding=1)),
    "pointwise": lambda: TwoLayers(nn.Conv2d(8, 6, 1, bias=False)),
    "depthwise": lambda: TwoLayers(nn.Conv2d(8, 8, 5, padding=2, groups=8)),
    "depthwise, two outputs": lambda: TwoLayers(nn.Conv2d(8, 16, 3, groups=8)),
    "grouped": lambda: TwoLayers(nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=2)),
    "dilated": lambda: TwoLayers(nn.Conv2d(8, 6, (3, 2), padding=(2, 1), dilation=2)),
    "padded to the same": lambda: TwoLayers(nn.Conv2d(8, 6, (3, 5), padding="same")),
    "tensorflow": lambda: TwoLayers(same(8, 8, 3, stride=2, groups=8)),
    "linear": lambda: TwoLayers(nn.Linear(8, 6), flat=True),
    "linear over places": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 6)),
}


def made(kind: str) -> tuple[nn.Module, str, str]:
    """A network in float64 and the names of its two layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = LAYERS[kind]().double().eval()
    names = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    return model, *names


def design(layer: nn.Module, x: Tensor) -> Tensor:
    """(outputs, n, d) inputs that each output multiplies with its weights: d passes with one weight set to one."""
    probe, columns = copy.deepcopy(layer), []
    for column in range(layer.weight[0].numel()):
        with torch.no_grad():
            probe.weight.zero_()
            probe.weight.flatten(1)[:, column] = 1
            if probe.bias is not None:
                probe.bias.zero_()
            columns.append(per_output(layer, probe(x)))
    return torch.stack(columns, dim=2)


def per_output(layer: nn.Module, out: Tensor) -> Tensor:
    """(outputs, n)"""
    return (out.flatten(0, -2) if isinstance(layer, nn.Linear) else out.permute(0, 2, 3, 1).flatten(0, 2)).T


@pytest.mark.parametrize("ridge", [1e-9, 0.01, 1.0])
@pytest.mark.parametrize("kind", LAYERS)
def test_weights_solve_the_least_squares_problem_on_their_support(kind: str, ridge: float) -> None:
    """Against torch.linalg.lstsq, channel by channel, on a design matrix that the layer itself computes."""
    dense, first, second = made(kind)
    model, images = copy.deepcopy(dense), batches(6, 4)
    masks = random_masks(dense, [first, second], 0.6)
    masks[second].flatten(1)[1] = False  # a channel of which nothing is left
    reconstruct_(model, masks, images, positions=EVERYWHERE, ridge=ridge)
    name = second.removesuffix(".weight")
    layer, original = model.get_submodule(name), dense.get_submodule(name)
    x = torch.cat([seen for seen, _ in inputs_and_outputs(model, layer, images)])  # of the first layer as reconstructed
    wanted = torch.cat([seen for _, seen in inputs_and_outputs(dense, original, images)])
    matrix, y = design(layer, x), per_output(layer, wanted)
    if layer.bias is not None:
        y = y - layer.bias[:, None]
    per_group = len(y) // getattr(layer, "groups", 1)
    for channel, kept in enumerate(masks[second].flatten(1)):
        start = channel // per_group * per_group  # the ridge is a share of the mean of the group's diagonal
        strength = ridge * float((matrix[start] ** 2).sum(0).mean())
        v = original.weight[channel].flatten()[kept]
        left = torch.cat([matrix[channel][:, kept], math.sqrt(strength) * torch.eye(int(kept.sum()), dtype=torch.float64)])
        right = torch.cat([y[channel], math.sqrt(strength) * v])
        expected = torch.linalg.lstsq(left, right[:, None], driver="gelsd").solution[:, 0]
        torch.testing.assert_close(layer.weight[channel].flatten()[kept], expected.detach(), rtol=1e-7, atol=1e-8)
    for name, mask in masks.items():
        assert bool((dict(model.named_parameters())[name][~mask] == 0).all())


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("ridge", [1e-6, 0.01, 100.0])
def test_the_error_of_a_layer_is_never_above_that_of_plain_masking(kind: str, ridge: float) -> None:
    dense, _, name = made(kind)
    images, masks = batches(10, 10), random_masks(dense, [name], 0.5)
    plain, fitted = copy.deepcopy(dense), copy.deepcopy(dense)
    pruning.apply_(plain, masks)
    reconstruct_(fitted, masks, images, positions=EVERYWHERE, ridge=ridge)
    with torch.no_grad():
        wanted, masked, found = (torch.cat([model(x) for x in images]) for model in (dense, plain, fitted))
    before, after = (
        (per_output(dense.get_submodule(name.removesuffix(".weight")), out - wanted) ** 2).sum(1) for out in (masked, found)
    )
    assert bool((after <= before).all())
    assert float(after.sum()) < 0.9 * float(before.sum()) or ridge > 1


@pytest.mark.parametrize("kind", LAYERS)
def test_few_places_give_about_what_all_give(kind: str) -> None:
    dense, _, name = made(kind)
    images, masks = batches(150, 150, px=16), random_masks(dense, [name], 0.5)
    some, everything = copy.deepcopy(dense), copy.deepcopy(dense)
    reconstruct_(some, masks, images, positions=16)
    reconstruct_(everything, masks, images, positions=EVERYWHERE)
    one, other = (model.state_dict()[name] for model in (some, everything))
    start = dense.state_dict()[name] * masks[name]
    assert float((one - other).norm()) < 0.2 * float((other - start).norm())


@pytest.mark.parametrize("name", ["resnet8", "efficientnet-lite0"])
def test_masks_that_keep_everything_give_back_the_weights(name: str) -> None:
    model = build(name, classes=5, seed=0)
    names = prunable(model, "all") if name == "resnet8" else prunable(model)[:4]
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    reconstruct_(model, pruning.full(model, names), batches(8, px=32, dtype=torch.float32))
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_a_whole_network_is_closer_to_the_dense_one_than_with_new_batch_norms_alone() -> None:
    """On images that were not used: masks exact, statistics those of the network as it is, logits nearer."""
    dense = build("resnet8", classes=5, seed=0)
    smooth = [F.interpolate(x, size=32, mode="bilinear") for x in batches(64, 64, 64, px=6, dtype=torch.float32)]
    reestimate_batch_norm_(dense, smooth[:2])
    scores, full = pruning.magnitude(dense, pruning.full(dense, prunable(dense))), pruning.full(dense, prunable(dense))
    masks = pruning.select(scores, full, density=0.5)
    plain, fitted = copy.deepcopy(dense), copy.deepcopy(dense)
    pruning.apply_(plain, masks)
    reestimate_batch_norm_(plain, smooth[:2])
    reconstruct_(fitted, masks, smooth[:2])
    with torch.no_grad():
        wanted, plain_logits, logits = dense(smooth[2]), plain(smooth[2]), fitted(smooth[2])
    assert float((logits - wanted).norm()) < 0.85 * float((plain_logits - wanted).norm())
    measured = pruning.measure(fitted, masks)
    assert measured == {name: float(mask.float().mean()) for name, mask in masks.items()}
    again = copy.deepcopy(fitted)
    reestimate_batch_norm_(again, smooth[:2])
    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in fitted.state_dict().items() if "running" in name
    )
    repeated = copy.deepcopy(dense)
    reconstruct_(repeated, masks, smooth[:2])
    assert all(torch.equal(p, q) for p, q in zip(repeated.parameters(), fitted.parameters(), strict=True))


def test_layers_are_taken_in_the_order_of_their_use() -> None:
    """Registered the other way round: the second sees the first as reconstructed, or it would not be optimal."""

    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.later, self.earlier = nn.Linear(6, 4), nn.Linear(3, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.later(torch.tanh(self.earlier(x.mean((2, 3)))))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense = Swapped().double()
    masks = random_masks(dense, ["later.weight", "earlier.weight"], 0.6)
    model, images = copy.deepcopy(dense), batches(200)
    reconstruct_(model, masks, images, ridge=1e-10)
    x, wanted = inputs_and_outputs(model, model.later, images)[0][0], dense(images[0]).detach() - dense.later.bias.detach()
    for channel, kept in enumerate(masks["later.weight"]):
        expected = torch.linalg.lstsq(x[:, kept], wanted[:, channel, None]).solution[:, 0]
        torch.testing.assert_close(model.later.weight[channel][kept].detach(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["dense", "pointwise", "depthwise"])
def test_the_layout_of_the_weights_in_memory_does_not_matter(kind: str) -> None:
    dense, _, name = made(kind)
    images, masks = batches(8), random_masks(dense, [name], 0.5)
    plain, channels_last = copy.deepcopy(dense), copy.deepcopy(dense).to(memory_format=torch.channels_last)
    reconstruct_(plain, masks, images)
    reconstruct_(channels_last, masks, [x.contiguous(memory_format=torch.channels_last) for x in images])
    torch.testing.assert_close(channels_last.state_dict()[name], plain.state_dict()[name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["swin", "vit"])
def test_attention_whose_inputs_cannot_be_seen_is_refused(kind: str) -> None:
    model, side = small(kind)
    masks, before = pruning.prune(model, density=0.5), copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=r"these cannot: .* \(\d+ in all\); prune others"):
        reconstruct_(model, masks, [torch.zeros(1, 3, side, side)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # nothing is pruned then


def test_bad_arguments() -> None:
    model = build("resnet8", classes=5, seed=0)
    masks = pruning.full(model, prunable(model))
    with pytest.raises(InputError, match="`ridge` must be a number in .*, got 0"):
        reconstruct_(model, masks, batches(1), ridge=0)
    with pytest.raises(InputError, match="`batches` must hold at least one batch"):
        reconstruct_(model, masks, [])
