import copy
import itertools

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver

from vpcore import InputError
from vpcore.networks.backbones import build, normalise
from vpcore.networks.folding import fold_batch_norm_
from vpcore.networks.frozen import Frozen
from vpcore.networks.integer_grid import straight_through, to_integers
from vpcore.pruning.masks import measure
from vpcore.quantization.layers import (
    EDGE_BITS,
    FLOAT,
    Quantized,
    SelfAttention,
    quantize,
)
from vpcore.quantization.ranges import QUANT_RANGES, grid, minmax
from vpcore.quantization.training import prepare_lsq

ONE = torch.ones(1, 1)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def warmed(name: str = "resnet8", seed: int = 0) -> nn.Module:
    """A network whose batch norms have seen something, as after training, and have weights of their own."""
    model = build(name, classes=7, seed=seed).train()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 32, 32, generator=generator))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
    return model.eval()


def some_layer(kind: str) -> tuple[nn.Module, Tensor]:
    """A layer, as the networks of the study have it, and inputs for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {
            "convolution": lambda: (nn.Conv2d(6, 5, 3, stride=2, padding=1), draw(4, 6, 9, 9)),
            "depthwise": lambda: (nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False), draw(4, 6, 9, 9).relu()),
            "dilated": lambda: (nn.Conv2d(6, 5, 3, padding=2, dilation=2, padding_mode="reflect"), draw(4, 6, 9, 9) + 1),
            "linear": lambda: (nn.Linear(6, 5), draw(8, 6)),
            "tokens": lambda: (nn.Linear(6, 5, bias=False), draw(4, 7, 6) - 3),
        }[kind]()


KINDS = ("convolution", "depthwise", "dilated", "linear", "tokens")


def integers(layer: nn.Module, x: Tensor, *, weights: int, inputs: int, quant_range: str = "minmax") -> Quantized:
    """One layer with integers, its ranges from exactly these inputs."""
    result = Quantized(copy.deepcopy(layer).requires_grad_(False))
    if weights < FLOAT:
        result.quantize_weight_(weights, QUANT_RANGES[quant_range])
    if inputs < FLOAT:
        result.quantize_input_(inputs, QUANT_RANGES[quant_range], x.flatten()[None], ONE)
    return result


def torchs_weight(weight: Tensor, bits: int) -> Tensor:
    """A weight rounded by torch's observer and operator."""
    most = 2 ** (bits - 1) - 1
    scheme = {"dtype": torch.qint8, "qscheme": torch.per_channel_symmetric, "quant_min": -most, "quant_max": most}
    observer = PerChannelMinMaxObserver(**scheme)
    observer(weight)
    scale, zero = observer.calculate_qparams()
    return torch.fake_quantize_per_channel_affine(weight.detach(), scale, zero.int(), 0, -most, most)


def torchs_input(x: Tensor, observed: Tensor, bits: int) -> Tensor:
    """Inputs rounded by torch's observer, that has seen `observed`, and operator."""
    observer = MinMaxObserver(dtype=torch.quint8, quant_min=0, quant_max=2**bits - 1)
    observer(observed)
    scale, zero = observer.calculate_qparams()
    return torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero), 0, 2**bits - 1)


def rounded_by_torch(model: nn.Module, bits: int) -> nn.Module:
    """A copy with all weights of convolutions and projections rounded, to be computed with floats."""
    model = copy.deepcopy(model).eval()
    fold_batch_norm_(model)
    with torch.no_grad():
        for module in model.modules():
            for name in ("weight", "in_proj_weight"):
                if isinstance(module, (nn.Conv2d, nn.Linear, nn.MultiheadAttention)) and hasattr(module, name):
                    weight = getattr(module, name)
                    weight.copy_(torchs_weight(weight, bits))
    return model


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_are_rounded_as_torch_rounds_them(bits: int) -> None:
    """Scales of torch's observer, values of its operator, to the last bit; ties too."""
    for kind, seed in itertools.product(KINDS, range(3)):
        layer, x = some_layer(kind)
        with torch.no_grad():
            layer.weight.copy_(draw(*layer.weight.shape, seed=seed))
            layer.weight[0] = (layer.weight[0] * 4).round() / 2  # many ties when the largest is the highest integer
            layer.weight[0].view(-1)[0] = 2 ** (bits - 1) - 1
        ours = integers(layer, x, weights=bits, inputs=FLOAT)
        most = 2 ** (bits - 1) - 1
        assert float(ours.layer.weight.abs().max()) == most
        scale = ours.float32.scale.view(-1, *[1] * (layer.weight.ndim - 1))
        assert torch.equal(ours.layer.weight * scale, torchs_weight(layer.weight, bits))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("shift", [-4.0, -0.3, 0.0, 0.5, 6.0])
def test_inputs_and_their_gradients_are_rounded_as_torch_rounds_them(bits: int, shift: float) -> None:
    """An observer's range, rounding and clamping to the last bit, and a gradient that stops where torch's stops."""
    steps = 2**bits - 1
    observed = draw(500, seed=bits) + shift
    scale, zero = grid(minmax(observed[None], ONE, steps), steps)
    x = torch.cat([observed * 1.7, (torch.arange(-300, 300) + 0.5) * scale])  # beyond the range, and all ties
    ours, theirs, weight = x.clone().requires_grad_(), x.clone().requires_grad_(), draw(len(x))
    y = straight_through(ours, float(scale), -int(zero), steps - int(zero)) * scale
    reference = torchs_input(theirs, observed, bits)
    assert torch.equal(y, reference)
    (y * weight).sum().backward()
    (reference * weight).sum().backward()
    centred = x / scale + int(zero) - steps / 2
    elsewhere = (centred.abs() - steps / 2 - 0.5).abs() > 1e-3  # torch's mask follows the tie at the very end
    torch.testing.assert_close(ours.grad[elsewhere], theirs.grad[elsewhere], rtol=1e-6, atol=0)  # x / s * s
    assert 0 < int((ours.grad == 0).sum()) < len(x)
    assert int(elsewhere.sum()) >= len(x) - 4


@pytest.mark.parametrize("kind", KINDS)
def test_integers_compute_what_rounded_floats_compute(kind: str) -> None:
    """Against torch's rounded weights and inputs in a float64 layer; the border of zeros is exact for any zero point."""
    layer, x = some_layer(kind)
    for weights, inputs in ((8, 8), (4, 4), (3, 8), (2, 2), (4, FLOAT), (FLOAT, 4)):
        ours = integers(layer, x, weights=weights, inputs=inputs)
        reference = copy.deepcopy(layer)
        if weights < FLOAT:
            reference.weight.data = torchs_weight(layer.weight, weights)
        fed = torchs_input(x, x, inputs) if inputs < FLOAT else x
        with torch.no_grad():
            y, expected = ours.double()(x.double()), reference.double()(fed.double())
        assert y.dtype == torch.float64
        torch.testing.assert_close(y, expected, rtol=2e-6, atol=2e-6)
        taken = {}
        ours.layer.register_forward_pre_hook(lambda _, args, taken=taken: taken.update(x=args[0]))
        ours(x.double())
        for numbers, bits in ((ours.layer.weight, weights), (taken["x"], inputs)):
            if bits < FLOAT:
                assert torch.equal(numbers, numbers.round())
                assert torch.equal(numbers, numbers.to(torch.bfloat16).to(numbers.dtype))


@pytest.mark.parametrize("kind", ["convolution", "linear"])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_gradient_is_the_straight_through_gradient(kind: str, bits: int) -> None:
    """Written by hand: the transposed layer with rounded weights, and 0 where an input lies off the grid."""
    layer, x = some_layer(kind)
    ours = integers(layer, x, weights=bits, inputs=bits, quant_range="mse").double()
    wide = (2 * x).double().requires_grad_()
    y = ours(wide)
    upstream = draw(*y.shape, seed=1).double()
    y.backward(upstream)
    weight = ours.layer.weight * (ours.float32.scale / ours.float32.input_scale).view(-1, *[1] * (layer.weight.ndim - 1))
    transposed = {
        "linear": lambda: upstream @ weight,
        "convolution": lambda: nn.grad.conv2d_input(x.shape, weight, upstream, 2, 1),
    }
    through = transposed[kind]()
    on_grid = (wide / ours.float32.input_scale.double()).round()
    on_grid = (on_grid >= ours.input_grid[1]) & (on_grid <= ours.input_grid[2])
    assert 0 < int(on_grid.sum()) < x.numel()
    torch.testing.assert_close(wide.grad, through * on_grid, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("quant_range", QUANT_RANGES)
def test_ranges_come_from_all_batches(quant_range: str) -> None:
    """Inputs of a middle layer, counted at 2,048 points: the range is that of the inputs kept whole, to a point or two."""
    model, batches = warmed(), [draw(4, 3, 32, 32, seed=seed) * (1 + seed) for seed in range(3)]
    network = quantize(model, iter(batches), weight_bits=8, activation_bits=4, quant_range=quant_range)
    folded, kept = copy.deepcopy(model), []
    fold_batch_norm_(folded)
    folded.layer2[0].conv2.register_forward_pre_hook(lambda _, args: kept.append(args[0].flatten()))
    for batch in batches:
        folded(batch)
    whole = torch.cat(kept)[None].detach()
    scale, zero = grid(QUANT_RANGES[quant_range](whole, ONE, 15), 15)
    ours = network.layer2[0].conv2
    assert ours.input_grid[1:] == (-int(zero), 15 - int(zero)) == (0, 15)
    if quant_range == "mse":  # near its minimum the error is flat: what counts is the error, not where it lies
        errors = [((to_integers(whole, s, 0, 15) * s - whole) ** 2).sum() for s in (ours.float32.input_scale, scale)]
        assert float(errors[0]) <= 1.001 * float(errors[1])
    else:
        points = {"minmax": 1e-3, "percentile": 1}[quant_range]
        assert abs(float(ours.float32.input_scale - scale)) * 15 <= points * float(whole.max()) / 2047


@pytest.mark.parametrize(
    ("quant_range", "batch_norm"), [("minmax", "folded"), ("minmax", "kept"), ("percentile", "folded"), ("mse", "kept")]
)
def test_error_is_small_at_8_bits_and_grows_as_bits_fall(quant_range: str, batch_norm: str) -> None:
    model, x = warmed(seed=len(quant_range)), draw(16, 3, 32, 32)
    with torch.no_grad():
        logits = model(x)
        for only in ({}, {"weight_bits": FLOAT}, {"activation_bits": FLOAT}):
            errors = []
            for bits in (8, 5, 2):
                options = {
                    "weight_bits": bits,
                    "activation_bits": bits,
                    "quant_range": quant_range,
                    "batch_norm": batch_norm,
                }
                network = quantize(model, [x], **{**options, **only})
                errors.append(float((network(x) - logits).norm() / logits.norm()))
            assert 0 < errors[0] < (0.1 if quant_range == "percentile" else 0.03), errors
            assert errors == sorted(errors)
            if quant_range != "percentile":  # which cuts off the same share at any number of bits
                assert errors[0] < 0.5 * errors[1] < 0.25 * errors[2], errors


@pytest.mark.parametrize("quant_range", QUANT_RANGES)
def test_integers_are_the_same_with_batch_norm_folded_or_kept(quant_range: str) -> None:
    """A norm multiplies a channel by one number, which its scale takes up; but for ties that fall the other way."""
    options = {"weight_bits": 4, "activation_bits": FLOAT, "quant_range": quant_range}
    folded, kept = (quantize(warmed(), [], batch_norm=batch_norm, **options) for batch_norm in ("folded", "kept"))
    for one, other in zip(*([m for m in n.modules() if isinstance(m, Quantized)] for n in (folded, kept)), strict=True):
        assert float((one.layer.weight != other.layer.weight).float().mean()) < 0.001


def test_first_and_last_layer_have_the_bits_of_the_edges() -> None:
    network = quantize(warmed(), [draw(2, 3, 32, 32)], weight_bits=3, activation_bits=2)
    bits = [(m.weight_bits, m.input_bits) for m in network.modules() if isinstance(m, Quantized)]
    assert bits[0] == bits[-1] == (EDGE_BITS, EDGE_BITS)
    assert set(bits[1:-1]) == {(3, 2)}
    assert isinstance(network.conv1, Quantized)
    assert isinstance(network.fc, Quantized)
    network = quantize(warmed(), [], weight_bits=3, activation_bits=FLOAT)
    assert (network.fc.weight_bits, network.fc.input_bits) == (EDGE_BITS, FLOAT)


def test_the_model_that_is_given_stays_as_it_was() -> None:
    model, batch = warmed().train(), draw(2, 3, 32, 32)
    before, images, state = copy.deepcopy(model.state_dict()), batch.clone(), torch.get_rng_state()
    network = quantize(model, [batch], weight_bits=4, activation_bits=4)
    float_network = quantize(model, [], weight_bits=FLOAT, activation_bits=FLOAT)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batch, images)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not any(isinstance(m, Quantized) for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert torch.equal(float_network(batch), model.eval()(batch))  # the float network is its own baseline


@pytest.mark.parametrize("batch_norm", ["folded", "kept"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_frozen_takes_a_quantized_network(batch_norm: str, precision: str, cpu: torch.device) -> None:
    """Logits are those of the network itself; integers and scales survive the cast; gradients reach the images."""
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network = quantize(warmed(), [normalise(x)], weight_bits=8, activation_bits=8, batch_norm=batch_norm)
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == (batch_norm == "kept")
    expected = network(normalise(x))
    frozen = Frozen(network, precision=precision, device=cpu)
    assert any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules()) == (batch_norm == "kept")
    images = x.clone().requires_grad_()
    logits = frozen(images)
    apart = float((logits.detach() - expected.detach()).abs().max() / expected.detach().abs().max())
    assert apart < {"float32": 1e-4, "bf16": 0.05}[precision]
    logits.sum().backward()
    assert float(images.grad.abs().sum()) > 0
    assert frozen.classes == 7
    assert frozen.features(x).shape == (8, 64)
    for one, other in ((network.layer1[0].conv1, frozen.body.layer1[0].conv1), (network.fc, frozen.head)):
        assert torch.equal(one.layer.weight, other.layer.weight.float())
        for name, value in one.float32.named_buffers():
            assert torch.equal(value, getattr(other.float32, name)), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_bf16_is_float32_rounded_twice(kind: str, bits: int) -> None:
    """For the same inputs the integers are the same; the sum and the result are each rounded to 2^-8 of their size."""
    layer, x = some_layer(kind)
    x = x.bfloat16()
    ours = integers(layer, x.float(), weights=bits, inputs=bits)
    full = ours(x.float())
    half = copy.deepcopy(ours).bfloat16()(x)
    assert half.dtype == torch.bfloat16
    bias = ours.float32.bias.view(-1, *[1] * (layer.weight.ndim - 2))
    allowed = 2**-8 * ((full - bias).abs() + full.abs()) + 1e-6
    assert bool(((half.float() - full).abs() <= allowed).all())


@pytest.mark.parametrize("quant_range", QUANT_RANGES)
def test_zeros_stay_zeros(quant_range: str) -> None:
    model = warmed()
    names = [f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for name in names:
            weight = model.get_parameter(name)
            weight.mul_(draw(*weight.shape).abs() > 1)
    before = measure(model, names)
    for bits in (8, 4, 2):
        network = quantize(model, [], weight_bits=bits, activation_bits=FLOAT, quant_range=quant_range)
        for name in names:
            weight = network.get_parameter(name.replace(".weight", ".layer.weight"))
            assert bool((weight[model.get_parameter(name) == 0] == 0).all())
            assert 0 < float((weight != 0).float().mean()) <= before[name] < 0.4


@pytest.mark.parametrize("quant_range", QUANT_RANGES)
@pytest.mark.parametrize("bits", [8, 2])
def test_dead_filters_and_constant_inputs_are_exact(quant_range: str, bits: int) -> None:
    """EfficientNet-Lite0 has filters of zeros alone: a scale of 0 would make them NaN."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 1))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([0.0, 0.0, 3.0, 1e-42]))  # the inputs of the next layer are constant
        model[1].weight[:2] = 0
        model[1].weight[3] = 1e-42
    for bias in (None, model[1].bias):
        model[1].bias = bias
        network = quantize(model, [draw(2, 3, 5, 5)], weight_bits=bits, activation_bits=bits, quant_range=quant_range)
        y = network[:2](draw(2, 3, 5, 5))
        expected = torch.zeros(4) if bias is None else bias
        assert torch.equal(y[:, :2], expected[:2].view(2, 1, 1).expand(2, 2, 3, 3))
        assert bool(torch.isfinite(network(draw(2, 3, 5, 5))).all())
    silent = quantize(
        nn.Sequential(nn.Linear(3, 2, bias=False)), [torch.zeros(4, 3)], weight_bits=bits, activation_bits=bits
    )
    assert torch.equal(silent(torch.zeros(4, 3)), torch.zeros(4, 2))


def small(kind: str) -> tuple[nn.Module, int]:
    """A network and the side of its images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "resnet8":
            return warmed(), 32
        if kind == "vit":
            width = {"hidden_dim": 16, "mlp_dim": 32}
            model = torchvision.models.VisionTransformer(32, 8, num_layers=2, num_heads=2, num_classes=3, **width)
            nn.init.normal_(model.heads.head.weight)
            return model, 32
        if kind == "swin":
            shape = {"patch_size": [4, 4], "depths": [2, 2], "num_heads": [2, 2], "window_size": [4, 4]}
            return torchvision.models.SwinTransformer(embed_dim=8, num_classes=3, **shape), 40  # 10 is not a multiple of 4
        timm = pytest.importorskip("timm")
        if kind == "deit":
            width = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
            return timm.models.vision_transformer.VisionTransformer(img_size=32, **width), 32
        model = timm.create_model("tf_efficientnet_lite0", num_classes=3)
        nn.init.zeros_(model.blocks[1][0].conv_dw.weight[:5])
        return model, 64


@pytest.mark.parametrize("kind", ["resnet8", "vit", "swin", "deit", "efficientnet"])
def test_every_projection_is_quantized(kind: str) -> None:
    """With 8-bit weights each network computes what it computes with weights that torch has rounded."""
    model, side = small(kind)
    model, x = model.eval(), draw(2, 3, side, side)
    network = quantize(model, [], weight_bits=8, activation_bits=FLOAT, quant_range="minmax")
    expected = rounded_by_torch(model, 8)(x).detach()
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    both = quantize(model, [x], weight_bits=8, activation_bits=8, quant_range="minmax")
    quantizable = [m for m in both.modules() if isinstance(m, Quantized)]
    assert all((m.weight_bits, m.input_bits) == (8, 8) for m in quantizable)
    tables = ("pos_embed", "pos_embedding", "cls_token", "class_token", "relative_position_bias_table")
    matrices = [name for name, p in both.named_parameters() if p.ndim > 1 and name.split(".")[-1] not in tables]
    assert len(matrices) == len(quantizable)
    images = x.clone().requires_grad_()
    y = both(images)
    exact = model(x).detach()
    assert 0 < float((y.detach() - exact).norm()) < 0.1 * float(exact.norm())
    y.sum().backward()
    assert float(images.grad.abs().sum()) > 0
    assert bool(torch.isfinite(images.grad).all())


def test_self_attention_is_torchs() -> None:
    attention = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    nn.init.normal_(attention.in_proj_bias)
    x = draw(2, 5, 12)
    expected, _ = attention(x, x, x, need_weights=False)
    torch.testing.assert_close(SelfAttention(attention)(x, x, x)[0], expected)
    with pytest.raises(InputError, match="must be self-attention"):
        SelfAttention(attention)(x, x.clone(), x)
    with pytest.raises(InputError, match="must be batch_first"):
        SelfAttention(nn.MultiheadAttention(12, 3))


def test_weights_of_a_quantized_layer_cannot_be_taken_for_floats() -> None:
    layer = Quantized(nn.Linear(3, 2))
    x = draw(4, 3)
    assert torch.equal(nn.functional.linear(x, layer.weight, layer.bias), layer(x))
    with pytest.raises(TypeError):
        torch.matmul(x, layer.weight)


def test_what_is_not_finite_is_found() -> None:
    model, x = warmed(), draw(2, 3, 32, 32)
    options = {"weight_bits": 4, "activation_bits": 4}
    broken = copy.deepcopy(model)
    broken.layer2[0].conv1.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match=r"`model` must have finite weights, but layer2\.0\.conv1\.weight "):
        quantize(broken, [x], **options)
    for value in (torch.nan, torch.inf):
        batch = x.clone()
        batch[0, 0, 0, 0] = value
        with pytest.raises(InputError, match="`batches` .* layer conv1 "):
            quantize(model, [x, batch], **options)
    batch[0, 0, 0, 0] = torch.nan  # later on it is not clamped to something that looks like a number
    assert quantize(model, [x], **options)(batch).isnan().any(1).tolist() == [True, False]


@pytest.mark.parametrize("kind", ["standardised", "normed"])
def test_weights_that_a_layer_computes_itself_are_refused(kind: str) -> None:
    """Their scale would be lost: wrong numbers, and no error."""
    strange = {
        "standardised": lambda: pytest.importorskip("timm.layers").StdConv2d(4, 5, 3),
        "normed": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 5, 3)),
    }[kind]()
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), strange), draw(2, 3, 8, 8)
    for make in (quantize, prepare_lsq):
        with pytest.raises(InputError, match=r"`model` must have layers .* 1 \(\w*Conv2d\)"):
            make(model, [x], weight_bits=4, activation_bits=4)


def test_errors_name_what_is_wrong() -> None:
    model, x = warmed(), draw(2, 3, 32, 32)
    with pytest.raises(InputError, match="`weight_bits` must be a whole number in 2..8, or 32 for float, got 1;"):
        quantize(model, [x], weight_bits=1, activation_bits=8)
    with pytest.raises(InputError, match="`activation_bits` must be a whole number in 2..8, or 32 for float, got 16"):
        quantize(model, [x], weight_bits=8, activation_bits=16)
    with pytest.raises(InputError, match="unknown quant_range 'max'; .*There are: minmax, mse, percentile"):
        quantize(model, [x], weight_bits=8, activation_bits=8, quant_range="max")
    with pytest.raises(InputError, match="unknown batch_norm 'fold'; did you mean 'folded'"):
        quantize(model, [x], weight_bits=8, activation_bits=8, batch_norm="fold")
    with pytest.raises(InputError, match=r"`batches` .* none to conv1, layer1\.0\.conv1"):
        quantize(model, [], weight_bits=8, activation_bits=8)
