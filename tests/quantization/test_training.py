import copy
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.quantization.test_layers import KINDS, draw, small, some_layer, warmed
from vpcore import InputError
from vpcore.networks import integer_grid
from vpcore.networks.backbones import build, normalise
from vpcore.networks.frozen import Frozen
from vpcore.networks.integer_grid import learned_step
from vpcore.networks.shared_border import Framed
from vpcore.networks.training import Recipe, fit
from vpcore.quantization.layers import EDGE_BITS, FLOAT, Quantized, layer_bits, quantize
from vpcore.quantization.training import LearnedSteps, finish_lsq, load_lsq, prepare_lsq
from vpcore.weights.tickets import read_ticket, write_ticket

RECIPE = Recipe(epochs=4, batch=32, lr=0.1, weight_decay=1e-3, augment="none", precision="float32", seed=3)


def patterns(n: int, *, classes: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(n, 3, 16, 16) uint8 images, a faint pattern for each class under noise."""
    shapes = F.interpolate(draw(classes, 3, 4, 4, seed=99), size=16, mode="bilinear")
    labels = torch.arange(n) % classes
    images = 128 + 35 * shapes[labels] + 45 * draw(n, 3, 16, 16, seed=seed)
    return images.clamp(0, 255).to(torch.uint8), labels


def inputs(images: Tensor) -> Tensor:
    return normalise(images.float() / 255)


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    model = build("resnet8", classes=8, seed=0)
    fit(model, *patterns(512), RECIPE)
    return model


def jittered(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight, step and batch norm moved, as by training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            factor = 0.8 + 0.4 * torch.rand(p.shape, generator=generator, dtype=torch.float64)
            sign = -1 if name.endswith("bn1.weight") else 1  # a factor of a batch norm may be negative
            p.mul_(sign * factor.to(p.dtype))
            if name.endswith("_step"):  # a step that has jumped over zero is as good as its absolute value
                p[0] *= -1
        for name, b in model.named_buffers():
            if "running" in name:
                b.add_(0.1 * torch.rand(b.shape, generator=generator).to(b.dtype))
    return model


def by_autograd(x: Tensor, step: Tensor, lowest: int, highest: int, slowed: float) -> Tensor:
    """LSQ as its paper's appendix writes it, s q with the rounding detached; its gradients are autograd's."""
    step = step * slowed + (step * (1 - slowed)).detach()
    v = (x / step).clamp(lowest, highest)
    return (v + (v.round() - v).detach()) * step


@pytest.mark.parametrize("part", [2**18, 50])
@pytest.mark.parametrize(("lowest", "highest"), [(0, 3), (0, 255), (-2, 1), (-4, 3), (-128, 127), (-5, 10), (-3, 0)])
def test_gradients_of_inputs_and_steps_are_those_of_lsq(
    lowest: int, highest: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against autograd, in float64, for one step and for one each row, in one part and in many."""
    monkeypatch.setattr(integer_grid, "PART", part)
    for rows, dtype in itertools.product((False, True), (torch.float64, torch.float32)):
        step = 0.1 + torch.rand(6 if rows else 1, dtype=dtype, generator=torch.Generator().manual_seed(1))
        step = step.view(-1, 1, 1) * 6 / (highest - lowest)
        x, upstream = 3 * draw(6, 5, 7).to(dtype), draw(6, 5, 7, seed=1).to(dtype)
        ours, theirs = ([t.clone().requires_grad_() for t in (x, step)] for _ in range(2))
        integers = learned_step(*ours, lowest, highest, slowed=0.3)
        assert torch.equal(integers, integers.round())
        assert (integers.min(), integers.max()) == (lowest, highest)
        y, expected = ours[1].detach() * integers, by_autograd(*theirs, lowest, highest, 0.3)
        close = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(y, expected, **close)
        for one, other in zip(
            *(torch.autograd.grad(out, of, upstream) for out, of in ((y, ours), (expected, theirs))), strict=True
        ):
            torch.testing.assert_close(one, other, **close)


def test_gradient_of_a_step_is_the_formula_of_the_paper() -> None:
    """Esser et al. 2020, eq. 3, one number at a time: -v + round(v) inside, the end of the grid outside."""
    for v, expected in ((0.3, -0.3), (0.8, 0.2), (-0.7, -0.3), (2.9, 0.1), (3.2, 3.0), (50.0, 3.0), (-4.1, -4.0)):
        step = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
        x = torch.tensor([v * 0.5], dtype=torch.float64)
        (found,) = torch.autograd.grad((step.detach() * learned_step(x, step, -4, 3)).sum(), step)
        assert float(found) == pytest.approx(expected)


def test_in_bf16_integers_and_gradients_are_those_of_the_same_numbers_in_float32() -> None:
    x, upstream = (3 * draw(8, 40)).bfloat16(), draw(8, 40, seed=1).bfloat16()
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        values, step = x.detach().clone().to(dtype).requires_grad_(), torch.tensor([0.02], requires_grad=True)
        q = learned_step(values, step, -128, 127)
        assert q.dtype == dtype
        q.backward(upstream.to(dtype))
        found.append((q.detach().float(), step.grad, values.grad.float()))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][2], found[1][2], rtol=2**-8, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [(8, 8), (4, 3), (2, 2), (3, FLOAT), (FLOAT, 3)])
def test_a_layer_has_the_gradients_of_a_layer_of_rounded_floats(kind: str, bits: tuple[int, int]) -> None:
    """Weights, bias, inputs and both steps, in float64, with the factors 1 / sqrt(n highest) of section 2.2."""
    layer, x = some_layer(kind)
    layer, x = layer.double(), x.double()
    network = prepare_lsq(nn.Sequential(layer), [x], weight_bits=4, activation_bits=4)
    ours, (weight_bits, input_bits) = network[0], bits
    ours.weight_bits, ours.input_bits = bits
    ours.input_zero = 0 if float(x.min()) >= 0 else 2 ** (input_bits - 1)
    with torch.no_grad():
        ours.weight_step.mul_(2)
    fed = (1.5 * x).requires_grad_()
    weight, bias, fed_too = (
        t if t is None else t.detach().clone().requires_grad_() for t in (layer.weight, layer.bias, fed)
    )
    steps = [s.detach().clone().requires_grad_() for s in (ours.weight_step, ours.input_step)]
    w, h = weight, fed_too
    if weight_bits < FLOAT:
        most = 2 ** (weight_bits - 1) - 1
        column = steps[0].view(-1, *[1] * (weight.ndim - 1))
        w = by_autograd(weight, column, -most - 1, most, (weight[0].numel() * most) ** -0.5)
    if input_bits < FLOAT:
        most = 2**input_bits - 1 - ours.input_zero
        h = by_autograd(fed_too, steps[1], -ours.input_zero, most, (x[0].numel() * most) ** -0.5)
    reference = torch.func.functional_call(layer, {"weight": w} | ({} if bias is None else {"bias": bias}), (h,))
    y = network(fed)
    torch.testing.assert_close(y, reference, rtol=1e-10, atol=1e-10)
    upstream = draw(*y.shape, seed=1).double()
    y.backward(upstream)
    reference.backward(upstream)
    pairs = [(ours.layer.weight, weight), (fed, fed_too), (ours.weight_step, steps[0]), (ours.input_step, steps[1])]
    for one, other in [*pairs, *([] if bias is None else [(ours.bias, bias)])]:
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["resnet8", "vit", "swin", "deit", "efficientnet"])
def test_the_finished_network_computes_what_was_trained(kind: str) -> None:
    """Equal logits in evaluation mode, integer weights in the layers of `quantize`, and nothing learns any more."""
    model, side = small(kind)
    x = draw(3, 3, side, side).double()
    trained = jittered(prepare_lsq(model.double(), [x], weight_bits=4, activation_bits=4)).eval()
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    for batch_norm in ("folded", "kept"):
        finished = finish_lsq(trained, batch_norm=batch_norm)
        torch.testing.assert_close(finished(x), trained(x), rtol=1e-10, atol=1e-10)
        assert not any(p.requires_grad for p in finished.parameters())
        assert not any(isinstance(m, LearnedSteps) for m in finished.modules())
        layers = {name: m for name, m in finished.named_modules() if isinstance(m, Quantized)}
        assert layer_bits(finished) == layer_bits(trained)
        assert list(layer_bits(finished).values())[1:-1] == [(4, 4)] * (len(layers) - 2)
        assert all(torch.equal(m.layer.weight, m.layer.weight.round()) for m in layers.values())
        after = quantize(model.float().eval(), [x.float()], weight_bits=4, activation_bits=4, batch_norm=batch_norm)
        assert layer_bits(after) == layer_bits(finished)
        norms = ({n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)} for network in (after, finished))
        assert next(norms) == next(norms)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("batch_norm", ["folded", "kept"])
def test_the_finished_network_computes_the_same_in_float32(dense: nn.Module, batch_norm: str) -> None:
    images, labels = patterns(256)
    x = inputs(images)
    trained = prepare_lsq(dense, [x], weight_bits=3, activation_bits=3)
    fit(trained, images, labels, replace(RECIPE, epochs=1))
    with torch.no_grad():
        expected, logits = trained(x), finish_lsq(trained, batch_norm=batch_norm)(x)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_training_starts_from_the_ranges_of_quantization_after_training(dense: nn.Module) -> None:
    x = inputs(patterns(64)[0])
    network = prepare_lsq(dense, [x], weight_bits=3, activation_bits=3)
    after = quantize(dense, [x], weight_bits=3, activation_bits=3, quant_range="mse", batch_norm="kept")
    for name in layer_bits(network):
        ours, theirs = network.get_submodule(name), after.get_submodule(name)
        assert torch.equal(ours.input_step, theirs.float32.input_scale)
        assert ours.input_ends == theirs.input_grid[1:]
        assert torch.equal(ours.weight_step * ours.input_step, theirs.float32.scale)
    assert network.conv1.input_zero > 0  # images are normalised
    assert network.layer1[0].conv1.input_zero == 0  # comes after a ReLU
    with torch.no_grad():
        logits, expected = network.eval()(x), after(x)
    assert float((logits - expected).norm()) < 0.2 * float(expected.norm())  # the grid has one integer more


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model.eval()(inputs(images)).argmax(1) == labels).float().mean())


@pytest.mark.parametrize(("bits", "gain"), [(2, 0.05), (3, 0.0)])
def test_trained_at_few_bits_a_network_beats_one_quantized_after_training(dense: nn.Module, bits: int, gain: float) -> None:
    images, labels = patterns(512)
    x, test = [inputs(images[:256])], patterns(400, seed=1)
    trained = prepare_lsq(dense, x, weight_bits=bits, activation_bits=bits)
    losses: list[float] = []
    fit(trained, images, labels, RECIPE, after_epoch=lambda epoch, loss, state: losses.append(loss))
    after = quantize(dense, x, weight_bits=bits, activation_bits=bits)
    found = {"dense": accuracy(dense, *test), "after": accuracy(after, *test), "in": accuracy(finish_lsq(trained), *test)}
    assert found["dense"] > 0.9, found
    assert found["in"] > 0.85, found
    assert found["in"] >= found["after"] + gain, found
    assert losses[-1] < losses[0]
    steps = {name: p for name, p in trained.named_parameters() if name.endswith("_step")}
    start = dict(prepare_lsq(dense, x, weight_bits=bits, activation_bits=bits).named_parameters())
    assert all(not torch.equal(p, start[name]) for name, p in steps.items())  # all of them learn
    assert all(bool((p != 0).all() and p.isfinite().all()) for p in steps.values())


def test_32_bits_are_the_dense_control(dense: nn.Module) -> None:
    """The same training as that of the float network, and the same ways to finish and load."""
    images, labels = patterns(64)
    network, control = prepare_lsq(dense, [], weight_bits=FLOAT, activation_bits=FLOAT), copy.deepcopy(dense)
    assert network.training
    for model in (network, control):
        fit(model, images, labels, replace(RECIPE, epochs=1))
    x = inputs(images)
    finished = finish_lsq(network)
    assert torch.equal(finished(x), control(x))
    assert not torch.equal(finished(x), dense(x))
    again = load_lsq(build("resnet8", classes=8, seed=5), network.state_dict())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in control.state_dict().items())
    assert layer_bits(again) == {}


@pytest.mark.parametrize("bits", [(3, 4), (2, FLOAT), (FLOAT, 2)])
def test_a_training_that_was_cut_short_goes_on_from_a_ticket(
    dense: nn.Module, bits: tuple[int, int], tmp_path: Path
) -> None:
    """Through a file and into a network of other weights; twice the same from the seed, to the last bit."""
    images, labels = patterns(96)
    options = {"weight_bits": bits[0], "activation_bits": bits[1]}
    recipe, kept = replace(RECIPE, epochs=2, augment="shift+flip"), {}

    def keep(epoch: int, loss: float, state: dict) -> None:
        if epoch == 1:
            write_ticket(tmp_path / "ticket.safetensors", whole.state_dict(), {}, header=options)
            kept.update(copy.deepcopy(state))

    whole, repeated = (prepare_lsq(dense, [inputs(images)], **options) for _ in range(2))
    fit(whole, images, labels, recipe, after_epoch=keep)
    fit(repeated, images, labels, recipe)
    state, _, header = read_ticket(tmp_path / "ticket.safetensors")
    resumed = load_lsq(build("resnet8", classes=8, seed=5), state, where="ticket.safetensors")
    assert header == options
    assert layer_bits(resumed) == layer_bits(whole)
    fit(resumed, images, labels, recipe, first_epoch=1, optimizer_state=kept)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, repeated.state_dict()[name]), name
        assert torch.equal(value, resumed.state_dict()[name]), name
    x = inputs(images)
    assert torch.equal(finish_lsq(whole)(x), finish_lsq(resumed)(x))


def test_it_trains_under_autocast(dense: nn.Module) -> None:
    images, labels = patterns(256)
    losses: list[float] = []
    network = prepare_lsq(dense, [inputs(images)], weight_bits=3, activation_bits=3)
    recipe = replace(RECIPE, precision="bf16", epochs=3)
    fit(network, images, labels, recipe, after_epoch=lambda epoch, loss, state: losses.append(loss))
    assert losses[-1] < losses[0]
    assert all(bool(torch.isfinite(p).all()) for p in network.parameters())
    full, half = finish_lsq(network), Frozen(finish_lsq(network), precision="bf16", device=torch.device("cpu"))
    with torch.no_grad():
        expected, found = full(inputs(images)), half(images.float() / 255)
    assert float((found.argmax(1) == expected.argmax(1)).float().mean()) > 0.9


@pytest.mark.parametrize("batch_norm", ["folded", "kept"])
def test_frozen_and_prompted_like_any_quantized_network(dense: nn.Module, batch_norm: str, cpu: torch.device) -> None:
    """Logits, classes and features; the gradient reaches the images; a border in two parts gives what the whole gives."""
    images = patterns(8)[0].float() / 255
    finished = finish_lsq(
        jittered(prepare_lsq(dense, [inputs(patterns(64)[0])], weight_bits=4, activation_bits=4)), batch_norm=batch_norm
    )
    frozen = Frozen(finished, precision="float32", device=cpu)
    x = images.clone().requires_grad_()
    logits = frozen(x)
    expected = finished(normalise(images))
    torch.testing.assert_close(logits.detach(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    logits.sum().backward()
    assert float(x.grad.abs().sum()) > 0
    assert bool(torch.isfinite(x.grad).all())
    assert frozen.classes == 8
    around, whole = images[:1].clone(), images[:1].repeat(8, 1, 1, 1)
    whole[:, :, 5:11, 5:11] = images[:, :, 5:11, 5:11]
    framed = frozen(Framed(around, whole[:, :, 5:11, 5:11], top=5, left=5))
    torch.testing.assert_close(framed, frozen(whole), rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_first_and_last_layer_have_the_bits_of_the_edges(dense: nn.Module) -> None:
    x = [inputs(patterns(8)[0])]
    for weights, activations in ((2, 3), (2, FLOAT), (FLOAT, 3)):
        bits = layer_bits(prepare_lsq(dense, x, weight_bits=weights, activation_bits=activations))
        edge = tuple(max(b, EDGE_BITS) for b in (weights, activations))
        assert bits.pop("conv1") == bits.pop("fc") == edge
        assert set(bits.values()) == {(weights, activations)}
    assert layer_bits(dense) == {}


def test_what_is_given_stays_as_it_was(dense: nn.Module) -> None:
    batch, before, state = inputs(patterns(8)[0]), copy.deepcopy(dense.state_dict()), torch.get_rng_state()
    network = prepare_lsq(dense, iter([batch]), weight_bits=4, activation_bits=4)
    blank = build("resnet8", classes=8, seed=1)
    load_lsq(blank, network.state_dict())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batch, inputs(patterns(8)[0]))
    assert not dense.training
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    assert not any(isinstance(m, LearnedSteps) for m in blank.modules())


def test_dead_filters_and_constant_inputs_stay_numbers() -> None:
    """EfficientNet-Lite0 has filters of zeros alone: they stay, and neither they nor inputs of zeros give NaN."""
    model, side = small("efficientnet")
    images, labels = patterns(16, classes=3)
    images = F.interpolate(images, size=side)
    images[:, 1] = 0
    network = prepare_lsq(model, [inputs(images)], weight_bits=2, activation_bits=2)
    fit(network, images, labels, replace(RECIPE, epochs=1, batch=8))
    finished = finish_lsq(network)
    assert bool(torch.isfinite(finished(inputs(images))).all())
    dead = finished.get_submodule("blocks.1.0.conv_dw").layer.weight[:5]
    assert not dead.any()
    for bits in (8, 2):
        layer = nn.Sequential(nn.Linear(3, 2, bias=False))
        silent = prepare_lsq(layer, [torch.zeros(4, 3)], weight_bits=bits, activation_bits=bits)
        silent(torch.zeros(4, 3)).sum().backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in silent.parameters())
        assert torch.equal(finish_lsq(silent)(torch.zeros(4, 3)), torch.zeros(4, 2))


def test_errors_name_what_is_wrong(dense: nn.Module) -> None:
    x = inputs(patterns(8)[0])
    with pytest.raises(InputError, match="`weight_bits` must be a whole number in 2..8, or 32 for float, got 1"):
        prepare_lsq(dense, [x], weight_bits=1, activation_bits=4)
    with pytest.raises(InputError, match=r"`batches` .* none to conv1, layer1\.0\.conv1"):
        prepare_lsq(dense, [], weight_bits=4, activation_bits=4)
    broken = copy.deepcopy(dense)
    broken.layer2[0].conv1.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"`model` must have finite weights, but layer2\.0\.conv1\.weight "):
        prepare_lsq(broken, [x], weight_bits=4, activation_bits=4)
    with pytest.raises(InputError, match="`batches` .* layer conv1 "):
        prepare_lsq(dense, [x.masked_fill(x > 0, torch.nan)], weight_bits=4, activation_bits=4)
    network = prepare_lsq(dense, [x], weight_bits=4, activation_bits=4)
    with pytest.raises(InputError, match="unknown batch_norm 'fold'; did you mean 'folded'"):
        finish_lsq(network, batch_norm="fold")
    network.layer1[0].conv1.weight_step.data[0] = torch.inf
    with pytest.raises(InputError, match=r"`model` must have finite weights, but layer1\.0\.conv1\.weight_step "):
        finish_lsq(network)
    state = network.state_dict()
    del state["fc.weight_step"]
    with pytest.raises(InputError, match=r"(?s)ticket 3 must hold the weights of the network; .*- fc\.weight_step \(8,\)"):
        load_lsq(build("resnet8", classes=8, seed=0), state, where="ticket 3")
    with pytest.raises(InputError, match="must hold the weights"):
        load_lsq(warmed(), network.state_dict())
