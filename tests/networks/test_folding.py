"""Folded networks compute what they computed before, however their modules were registered; what is not sure stays."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vpcore import InputError
from vpcore.networks.backbones import MODELS, build
from vpcore.networks.folding import fold_batch_norm_

# of every kind of network that torchvision has, one that is small
QUICK = ("densenet121", "googlenet", "mobilenet_v3_small", "shufflenet_v2_x0_5", "vgg11_bn")
LARGER = {"maxvit_t": 224, "inception_v3": 75, "alexnet": 63}  # px that they need
# without batch norms; and one of 640 million weights, 20 GB in this check, with the blocks of its smaller sisters
LEFT_OUT = ("vit", "swin", "regnet_y_128gf")
ENTRIES = [name for name in torchvision.models.list_models(module=torchvision.models) if not name.startswith(LEFT_OUT)]
OURS = [name for name in MODELS if name.startswith(("resnet", "efficientnet"))]


def unsettle_(model: nn.Module) -> nn.Module:
    """Give every batch norm statistics and parameters of its own, and make the network ready to be compared."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-1, 1, generator=generator)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def check(model: nn.Module, px: int = 9, *, left: int | None = None) -> None:
    """The folded network has `left` norms and the outputs of the plain one, in float32 and in float64."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        copied = copy.deepcopy(unsettle_(model)).to(dtype)
        x = torch.randn(2, 3, px, px, dtype=dtype, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = copied(x)
            fold_batch_norm_(copied)
            found = copied(x)
        assert float(expected.std()) > 0
        assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())
        assert left is None or norms(copied) == left


@pytest.mark.filterwarnings("ignore:.*init_weights:FutureWarning", "ignore:The default weight init")
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in ENTRIES])
def test_every_network_of_torchvision(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, num_classes=5)
    check(model, LARGER.get(name, 32))


@pytest.mark.parametrize("name", OURS)
def test_the_networks_of_a_study_are_folded_whole(name: str) -> None:
    check(build(name, classes=5, seed=0), 32, left=0)


def test_a_resnet_gets_the_very_weights_of_the_formula() -> None:
    """Pair by pair as torch fuses them; here registration and forward pass have the same order."""
    model = unsettle_(build("resnet8", classes=5, seed=0))
    folded, layers = copy.deepcopy(model), list(model.named_modules())
    fold_batch_norm_(folded)
    leaves = [(name, module) for name, module in layers if not list(module.children())]
    pairs = [
        (name, fuse_conv_bn_eval(module, leaves[i + 1][1]))
        for i, (name, module) in enumerate(leaves)
        if isinstance(module, nn.Conv2d)
    ]
    assert len(pairs) == 9
    for name, fused in pairs:
        assert torch.equal(folded.get_submodule(name).weight, fused.weight)
        assert torch.equal(folded.get_submodule(name).bias, fused.bias)
    assert {name for name, _ in folded.named_modules()} == {name for name, _ in layers}  # modules keep their names


class Parts(nn.Module):
    """Convolutions a and b and norms of their outputs, put together by a function."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.b, self.norm_b = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.act, self.function = nn.ReLU(inplace=True), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def overwritten(m: Parts, x: Tensor) -> Tensor:
    y = m.a(x)
    m.act(y)  # in place: the norm sees another y than the convolution returned
    return m.norm_a(y)


CASES: dict[str, tuple[Callable[[Parts, Tensor], Tensor], int]] = {
    "plain": (lambda m, x: m.norm_b(m.b(m.norm_a(m.a(x)))), 0),
    "conv-relu-bn": (lambda m, x: m.norm_b(m.act(m.b(m.norm_a(m.act(m.a(x)))))), 2),
    "pre-activation": (lambda m, x: (y := m.a(x)) + m.b(m.act(m.norm_a(y))), 2),
    "called in another order than registered": (lambda m, x: m.norm_a(m.b(m.norm_b(m.a(x)))), 0),
    "convolution used twice": (lambda m, x: m.norm_b(m.b(m.b(m.norm_a(m.a(x))))), 1),
    "norm used twice": (lambda m, x: m.norm_a(m.b(m.norm_a(m.a(x)))), 2),
    "output used elsewhere": (lambda m, x: m.norm_a(y := m.a(x)) + y, 2),
    "output changed in place": (overwritten, 2),
    "weights used elsewhere": (lambda m, x: m.norm_a(m.a(x)) * m.a.weight.sum(), 2),
    "norm of a sum": (lambda m, x: m.norm_a(m.a(x) + 1), 2),
    "norm called by a function": (lambda m, x: F.relu(m.norm_a(m.a(x))).flip(3), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_only_a_norm_whose_input_is_the_convolution_alone_is_folded(case: str) -> None:
    forward, left = CASES[case]
    check(Parts(forward), left=left)


def test_one_module_under_two_names_stays() -> None:
    model = Parts(lambda m, x: m.again(m.norm_a(m.a(x))) if hasattr(m, "again") else m.norm_a(m.a(x)))
    model.other = model.a
    check(model, left=2)


class Standardised(nn.Conv2d):
    """A convolution that standardises its weights in every pass, as those of timm's BiT do."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, F.layer_norm(self.weight, self.weight.shape[1:]), self.bias)


class Rectified(nn.BatchNorm2d):
    """A norm that does more than to normalise."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def hooked() -> nn.Conv2d:
    convolution = nn.Conv2d(3, 4, 3)
    convolution.register_forward_hook(lambda module, inputs, output: output.abs())
    return convolution


STRANGE = {
    "standardised weights": lambda: (Standardised(3, 4, 3), nn.BatchNorm2d(4)),
    "a norm that rectifies": lambda: (nn.Conv2d(3, 4, 3), Rectified(4)),
    "a hook": lambda: (hooked(), nn.BatchNorm2d(4)),
    "spectral norm": lambda: (nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)),
    "no statistics": lambda: (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_as_usual_stays(name: str) -> None:
    check(nn.Sequential(*STRANGE[name]()), left=1)


@pytest.mark.parametrize("options", [{"padding_mode": "reflect", "padding": 1}, {"groups": 3, "dilation": 2, "stride": 2}])
@pytest.mark.parametrize("affine", [True, False])
def test_convolutions_of_all_kinds_are_folded(options: dict, affine: bool) -> None:
    norm = nn.BatchNorm2d(6, affine=affine)
    norm.running_mean.fill_(0.5)
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 6, 3, **options)), norm).eval()
    folded, x = copy.deepcopy(model), torch.randn(2, 3, 9, 9)
    fold_batch_norm_(folded)
    assert norms(folded) == 0
    torch.testing.assert_close(folded(x), model(x))


def by_value(m: Parts, x: Tensor) -> Tensor:
    return m.norm_a(m.a(x)) if x.sum() > 0 else m.norm_b(m.a(x))


def test_what_cannot_be_traced_stays_and_says_so_once() -> None:
    model = unsettle_(Parts(by_value))
    folded, x = copy.deepcopy(model), torch.rand(2, 3, 5, 5)
    with pytest.warns(UserWarning, match="the batch norms of Parts are not folded .* torch.fx cannot trace") as told:
        fold_batch_norm_(folded)
    assert len(told) == 1
    assert norms(folded) == 2
    assert all(torch.equal(folded(sign * x), model(sign * x)) for sign in (1, -1))


def test_an_optional_argument_is_left_out_as_in_a_call_without_it() -> None:
    class Optional(Parts):
        def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
            y = self.a(x)
            return self.norm_a(y) if skip is None else self.norm_b(y)

    model = unsettle_(Optional(by_value))
    folded, x = copy.deepcopy(model), torch.rand(2, 3, 5, 5)
    fold_batch_norm_(folded)
    assert norms(folded) == 1
    torch.testing.assert_close(folded(x), model(x))


def test_without_norms_nothing_is_traced() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model.forward = None  # would fail
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fold_batch_norm_(model)


def test_a_network_in_training_is_refused() -> None:
    with pytest.raises(InputError, match=r"`model` must be in evaluation mode .* call model.eval\(\) first"):
        fold_batch_norm_(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
