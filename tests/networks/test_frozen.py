import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.utils.prune as torch_prune
import torchvision
from torch import Tensor, nn

from vpcore import InputError
from vpcore.networks.backbones import (
    HALF,
    IMAGENET,
    MODELS,
    build,
    check_canvas,
    head_name,
    normalise,
)
from vpcore.networks.frozen import Float32Gradient, Frozen
from vpcore.networks.training import Recipe, fit


def warmed(name: str = "resnet8", classes: int = 7) -> torch.nn.Module:
    """A network whose batch norms have seen something, as after training."""
    model = build(name, classes=classes, seed=0).train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 32, 32, generator=generator))
    return model.eval()


def unsettle(model: nn.Module) -> None:
    """Give every batch norm statistics and parameters of its own, and the classifier weights that are not zero."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-1, 1, generator=generator)
    model.get_submodule(head_name(model)).weight.data.normal_(0, 0.05, generator=generator)


@pytest.mark.parametrize("name", ["resnet8", "resnet18-half", "resnet18", "resnet50"])
def test_frozen_is_the_network_in_evaluation_mode(name: str, cpu: torch.device) -> None:
    """Folding the batch norms and splitting off the classifier change nothing but the order of operations."""
    model = warmed(name)
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    frozen = Frozen(model, precision="float32", device=cpu).train()
    with torch.no_grad():
        torch.testing.assert_close(frozen(x), model(normalise(x)), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.fc(frozen.features(x)), frozen(x), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in frozen.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())  # the caller's is as it was


def test_gradients_reach_the_image_and_no_weight(cpu: torch.device) -> None:
    frozen = Frozen(warmed(), precision="float32", device=cpu)
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    frozen(x).sum().backward()
    assert float(x.grad.abs().sum()) > 0
    assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())


def test_bf16_is_close_to_float32(cpu: torch.device) -> None:
    """bf16 has 8 bits of mantissa: logits agree to about 2^-7 of their scale through eight layers."""
    model = warmed()
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        full, half = (Frozen(model, precision=p, device=cpu)(x) for p in ("float32", "bf16"))
    assert half.dtype == torch.float32
    assert float((full - half).abs().max()) < 0.05 * float(full.abs().max())


@pytest.mark.parametrize("stride", [2, (1, 2)])
def test_the_detour_of_strided_depthwise_convolutions_changes_rounding_alone(
    stride: int | tuple[int, int], cpu: torch.device
) -> None:
    """Output and gradient are those of float64, as close as bf16 numbers can be; other layers stay."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, stride, 1, groups=6), nn.Conv2d(6, 6, 3, 1, 1, groups=6)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    frozen = Frozen(model, precision="bf16", device=cpu)
    assert [type(layer) is Float32Gradient for layer in frozen.body[:3]] == [False, True, False]
    layer, exact = frozen.body[1], copy.deepcopy(layers[1]).double()
    with torch.no_grad():  # the numbers that bf16 has
        for ours, theirs in zip(layer.layer.parameters(), exact.parameters(), strict=True):
            theirs.copy_(ours.double())
    x = torch.randn(4, 6, 9, 9).bfloat16()
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    y, expected = layer(ours), exact(theirs)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), expected, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(layer(x).double(), expected.detach(), rtol=2**-8, atol=1e-6)  # without a gradient
    upstream = torch.randn(y.shape).bfloat16()
    y.backward(upstream)
    expected.backward(upstream.double())
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=2**-8, atol=1e-6)
    assert not any(isinstance(m, Float32Gradient) for m in Frozen(model, precision="float32", device=cpu).modules())


@pytest.mark.parametrize("name", MODELS)
def test_every_model_runs_frozen_and_passes_gradients_to_the_image(name: str, cpu: torch.device) -> None:
    kind = MODELS[name]
    model = build(name, classes=3, seed=0).eval()
    unsettle(model)
    px = kind.canvas or 32
    check_canvas(name, px)
    frozen = Frozen(model, precision="float32", device=cpu, statistics=kind.statistics).train()
    x = torch.rand(2, 3, px, px, generator=torch.Generator().manual_seed(1), requires_grad=True)
    with torch.no_grad():
        expected = model(normalise(x, kind.statistics))
        features = frozen.features(x)
    logits = frozen(x)
    torch.testing.assert_close(logits.detach(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    head = model.get_submodule(head_name(model))
    assert (frozen.classes, features.shape) == (3, (2, head.in_features))
    torch.testing.assert_close(head(features), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    logits[:, 0].sum().backward()
    assert float(x.grad.abs().amax((1, 2, 3)).min()) > 0
    assert not any(p.requires_grad for p in frozen.parameters())


class Rounded(nn.Module):
    """A layer as quantization makes it: not a linear one, but with one inside."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer, self.out_features = layer, layer.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).round(decimals=1)


def test_the_classifier_is_found_when_it_is_no_linear_layer(cpu: torch.device) -> None:
    model = warmed()
    plain = Frozen(model, precision="float32", device=cpu)
    model.fc = Rounded(model.fc)
    frozen = Frozen(model, precision="float32", device=cpu)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert (head_name(model), frozen.classes) == ("fc", 7)
    assert torch.equal(frozen.features(x), plain.features(x))
    assert torch.equal(frozen(x), plain(x).round(decimals=1))
    with pytest.raises(InputError, match="`model` must end in a linear layer; Sequential has none"):
        Frozen(nn.Sequential(nn.Conv2d(3, 4, 1)), precision="float32", device=cpu)


def test_unknown_precision(cpu: torch.device) -> None:
    with pytest.raises(InputError, match="unknown precision 'fp16'"):
        Frozen(warmed(), precision="fp16", device=cpu)


class Odd(nn.Module):
    """A network whose last linear layer is not its classifier, and which returns what it is told to."""

    def __init__(self, answer: Callable[[Tensor], object] = lambda logits: logits) -> None:
        super().__init__()
        self.head, self.embed, self.answer = nn.Linear(8, 5), nn.Linear(3, 8), answer

    def forward(self, x: Tensor) -> object:
        return self.answer(self.head(self.embed(x.mean((2, 3)))))


def test_it_needs_nothing_but_a_network() -> None:
    """Of torchvision, or one's own with a classifier that is named, and layers after it."""
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for model, head, width in (
        (torchvision.models.resnet18(num_classes=5), None, 512),
        (torchvision.models.squeezenet1_1(num_classes=5), "classifier.1", 512),
        (Odd(), "head", 8),
        (nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "1", 6),
        (nn.Sequential(nn.Flatten(2), nn.Linear(4096, 4), nn.Linear(4, 5), nn.Conv1d(3, 1, 1), nn.Flatten()), "2", 4),
    ):
        frozen = Frozen(model, head=head)
        with torch.no_grad():
            torch.testing.assert_close(frozen(x), model.eval()(normalise(x)), rtol=1e-4, atol=1e-5)
            features = frozen.features(x)
        assert (frozen.classes, features.shape, frozen.device, frozen.dtype) == (5, (2, width), x.device, torch.float32)


def test_features_of_many_places_are_averaged() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(Frozen(model, head="1").features(x), model[0](normalise(x)).mean((2, 3)))


def test_statistics_that_a_network_of_timm_knows() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("tf_efficientnet_lite0", num_classes=5).eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert Frozen(model).statistics == HALF
    assert Frozen(model, statistics=IMAGENET).statistics == Frozen(warmed()).statistics == IMAGENET
    with torch.no_grad():
        torch.testing.assert_close(Frozen(model)(x), model(2 * x - 1), rtol=1e-3, atol=1e-4)
    images, labels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4)
    recipe, trained = Recipe(1, 4, 0.1, 0.0, "none", "float32", 0), {}
    for statistics in (None, HALF, IMAGENET):
        trained[statistics] = copy.deepcopy(model)
        fit(trained[statistics], images, labels, recipe, statistics=statistics)
    same = [torch.equal(trained[None].conv_stem.weight, trained[given].conv_stem.weight) for given in (HALF, IMAGENET)]
    assert same == [True, False]


def test_a_network_pruned_with_torch_is_frozen_as_it_is() -> None:
    """Whether or not `remove` has been called: the same logits, folded alike, and the network itself stays pruned."""
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = warmed()
    layers = [(module, "weight") for module in model.modules() if isinstance(module, nn.Conv2d)]
    for again in range(2):  # the second time, torch keeps both in a container
        torch_prune.global_unstructured(layers, pruning_method=torch_prune.L1Unstructured, amount=0.3 * (1 + again))
    frozen = Frozen(model)
    assert torch.equal(frozen(images), Frozen(model)(images))
    assert torch_prune.is_pruned(model)
    assert not torch_prune.is_pruned(frozen)
    for module, name in layers:
        torch_prune.remove(module, name)
    assert torch.equal(frozen(images), Frozen(model)(images))
    with torch.no_grad():
        assert torch.allclose(frozen(images), model.eval()(normalise(images)), atol=1e-5)


def test_what_cannot_be_frozen_is_refused(cpu: torch.device) -> None:
    def refused(message: str, model: object, **options: object) -> None:
        with pytest.raises(InputError, match=message):
            Frozen(model, **options)

    model = warmed()
    refused("`model` must be a torch.nn.Module, got a OrderedDict; .* load it into", model.state_dict())
    refused("`model` must be .* not frozen yet, got a Frozen", Frozen(model))
    refused(
        r"unknown linear layer or convolution, `head` 'classifier'; There are: conv1, fc, layer1", model, head="classifier"
    )
    refused("must end in a linear layer; SqueezeNet has none; .*`head`", torchvision.models.squeezenet1_1(num_classes=5))
    assert Frozen(model, statistics=[[0.5] * 3, [0.5] * 3]).statistics == HALF
    for wrong in (((0.5,), (0.5,)), ((0.5,) * 3, (0.0,) * 3), (torch.nan, 1), "imagenet", ((0.5,) * 3,)):
        refused(r"`statistics` must be the means and the standard deviations \(above 0\)", model, statistics=wrong)
    uncopied = warmed()
    uncopied.held = [torch.ones(1, requires_grad=True) * 2]
    refused("can be copied, but ResNet cannot", uncopied)
    for value in (torch.nan, torch.inf):
        for name in ("layer1.0.conv1.weight", "bn1.running_var"):
            broken = warmed()
            broken.state_dict()[name].view(-1)[0] = value
            refused(f"must have finite weights, but {name} holds NaN or infinite ones", broken)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Odd(), r"must return \(N, 8\) logits, .* got a tensor of \(2, 5\) torch.float32; name the classifier with head="),
        (Odd(lambda logits: (logits, logits)), r"must return \(N, 8\) logits, .* got a tuple"),
        (Odd(lambda logits: {"out": logits}), r"must return \(N, 8\) logits, .* got a dict"),
        (Odd(lambda logits: logits[..., None]), r"got a tensor of \(2, 5, 1\)"),
    ],
)
def test_a_network_that_does_not_return_its_logits_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Frozen(model)(torch.rand(2, 3, 4, 4))


def test_a_head_that_is_never_called_has_no_features() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    model.add_module("spare", nn.Identity())
    model.spare.layer = nn.Linear(3, 5)
    with pytest.raises(InputError, match="`head` must be called by Sequential, but is not"):
        Frozen(model).features(torch.rand(2, 3, 4, 4))
