import pytest
import torch
import torchvision

from vpcore import InputError
from vpcore.models import MODELS, Frozen, ResNet, build, load_weights_, normalise, prunable


def warmed(name: str = "resnet8", classes: int = 7) -> torch.nn.Module:
    """A network whose batch norms have seen something, as after training."""
    model = build(name, classes=classes, seed=0).train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 32, 32, generator=generator))
    return model.eval()


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


def test_prunable_is_every_convolution_but_the_first() -> None:
    model = build("resnet18", classes=3, seed=0)
    names = prunable(model)
    assert "conv1.weight" not in names
    assert "fc.weight" not in names
    assert sum(dict(model.named_parameters())[n].numel() for n in names) == 11_689_512 - 513_000 - 9_408 - 9_600


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


def test_unknown_names(cpu: torch.device) -> None:
    with pytest.raises(InputError, match="unknown model 'resnet81'; did you mean 'resnet8'"):
        build("resnet81", classes=3, seed=0)
    with pytest.raises(InputError, match="unknown precision 'fp16'"):
        Frozen(warmed(), precision="fp16", device=cpu)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_builds_and_ends_in_a_classifier(name: str) -> None:
    assert build(name, classes=3, seed=0).fc.out_features == 3
