import sys

import pytest
import torch
import torchvision
from torch import nn

from vpcore import InputError
from vpcore.networks.backbones import (
    HALF,
    IMAGENET,
    MODELS,
    PARTS,
    ResNet,
    build,
    check_canvas,
    head_name,
    normalise,
    prunable,
)
from vpcore.networks.state import load_weights_


def outline(name: str) -> nn.Module:
    """A network without memory for its weights: names and shapes."""
    with torch.device("meta"):
        return build(name, classes=1000, seed=0)


def test_resnet_is_torchvisions_resnet18_name_by_name_and_number_by_number() -> None:
    reference = torchvision.models.resnet18(num_classes=5).eval()
    ours = ResNet(5, blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512), stem=(7, 2)).eval()
    load_weights_(ours, reference.state_dict(), where="torchvision")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x))


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, same, other = (build("resnet8", classes=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.conv1.weight, same.conv1.weight)
    assert not torch.equal(one.conv1.weight, other.conv1.weight)


# number of prunable weights and of all parameters, of the "body", counted from the papers' tables of layers
SIZES = {
    "resnet18": (11_689_512 - 513_000 - 9_408 - 9_600, 11_689_512),
    "resnet50": (25_557_032 - 2_049_000 - 9_408 - 53_120, 25_557_032),
    "vgg16": (138_357_544 - 4_097_000 - 1_728 - (4_224 + 8_192), 138_357_544),
    "vit-b16": (12 * 12 * 768**2, 86_567_656),
    "deit-tiny": (12 * 12 * 192**2, 5_717_416),
}


@pytest.mark.parametrize("name", MODELS)
def test_prunable_is_every_weight_matrix_but_stem_and_classifier(name: str) -> None:
    model = outline(name)
    weights = dict(model.named_parameters())
    head = f"{head_name(model)}.weight"
    assert weights[head].shape[0] == 1000
    matrices = [n for n, w in weights.items() if w.ndim in (2, 4) and "bias" not in n]  # swin has a table of biases
    parts = {part: prunable(model, part) for part in PARTS}
    assert parts["all"] == matrices
    assert parts["body"] == [n for n in matrices if n not in (matrices[0], head)]
    assert parts["body+stem"] == [n for n in matrices if n != head]
    assert parts["body+head"] == matrices[1:]
    assert weights[matrices[0]].shape[1] == 3  # the stem sees the colours
    if name in SIZES:
        assert (sum(weights[n].numel() for n in parts["body"]), sum(w.numel() for w in weights.values())) == SIZES[name]


@pytest.mark.parametrize("name", ["resnet8", "resnet18-half", "resnet18", "resnet34", "resnet50"])
def test_of_a_resnet_every_convolution_but_the_first_is_prunable(name: str) -> None:
    model = outline(name)
    convolutions = [f"{n}.weight" for n, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    assert convolutions[0] == "conv1.weight"
    assert prunable(model) == convolutions[1:]


@pytest.mark.parametrize("statistics", [IMAGENET, HALF])
def test_normalised_images_have_the_statistics_removed(statistics: tuple) -> None:
    mean, std = statistics
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = torchvision.transforms.functional.normalize(x, mean, std)
    torch.testing.assert_close(normalise(x, statistics), expected)


def test_efficientnet_is_normalised_to_minus_one_and_one() -> None:
    timm = pytest.importorskip("timm")
    assert normalise(torch.tensor([0.0, 1.0]).expand(3, 1, 2), HALF)[0, 0].tolist() == [-1, 1]
    for kind in MODELS.values():
        if kind.library == "timm":
            published = timm.get_pretrained_cfg(kind.entry)
            assert kind.statistics == (published.mean, published.std)


def test_loading_is_strict_and_says_what_differs() -> None:
    model = build("resnet8", classes=3, seed=0)
    state = dict(model.state_dict())
    before = state["conv1.weight"].clone()
    state["model.conv1.weight"] = torch.zeros_like(state.pop("conv1.weight"))
    with pytest.raises(InputError, match=r"(?s)weights\.pth .*- conv1\.weight .*\+ model\.conv1\.weight"):
        load_weights_(model, state, where="weights.pth")
    with pytest.raises(InputError, match=r"(?s)- fc\.weight \(3, 64\).*\+ fc\.weight \(4, 64\)"):
        load_weights_(model, build("resnet8", classes=4, seed=0).state_dict(), where="weights.pth")
    assert torch.equal(model.conv1.weight, before)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="unknown model 'resnet81'; did you mean 'resnet8'"):
        build("resnet81", classes=3, seed=0)


def test_unknown_part_and_impossible_canvas() -> None:
    with pytest.raises(InputError, match=r"unknown part 'heads'; .*There are: all, body, body\+head, body\+stem"):
        prunable(build("resnet8", classes=3, seed=0), "heads")
    with pytest.raises(InputError, match=r"`canvas` must be 224 px for deit-tiny, got 128; use 224"):
        check_canvas("deit-tiny", 128)
    with pytest.raises(InputError, match="unknown model 'deit'"):
        check_canvas("deit", 128)


@pytest.mark.parametrize("name", ["vit-b16", "deit-tiny"])
def test_the_canvas_is_limited_where_the_network_would_fail(name: str) -> None:
    with pytest.raises(AssertionError):
        outline(name)(torch.zeros(1, 3, 128, 128, device="meta"))


def test_a_network_of_timm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"tf_efficientnet_lite0 comes from timm; use: pip install 'vpcore\[imagenet\]'"):
        build("efficientnet-lite0", classes=3, seed=0)
