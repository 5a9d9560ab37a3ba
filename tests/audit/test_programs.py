"""Networks of torch.export, torchao and ONNX, each from a file that its own library has made."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.audit import networks
from vpcore.audit.networks import read_network
from vpcore.audit.options import Options
from vpcore.audit.programs import Program, read_program
from vpcore.audit.run import audit
from vpcore.errors import InputError
from vpcore.networks.backbones import normalise
from vpcore.networks.frozen import Frozen

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
HERE = "tests.audit.networks"


@pytest.fixture(autouse=True)
def _libraries_warn() -> None:
    warnings.simplefilter("ignore")


def exported(path: Path, network: nn.Module, **given: object) -> Path:
    torch.export.save(torch.export.export(network, (IMAGES[:2],), **given), path)
    return path


def small(path: Path) -> Options:
    return Options(
        f"{HERE}:dense", (str(path),), tasks=("shapes",), shots=(1,), seeds=2, canvas=16, epochs=1, test_images=12,
    )  # fmt: skip


def of_any_number() -> dict[str, object]:
    return {"dynamic_shapes": ({0: torch.export.Dim.AUTO},)}


@pytest.mark.parametrize("given", [{}, of_any_number()], ids=["two images", "any number"])
def test_a_program_of_torch_export_is_the_network(given: dict[str, object], tmp_path: Path) -> None:
    """For any number of images, whichever it was saved for, with the features of the classifier and with gradients."""
    path = exported(tmp_path / "network.pt2", networks.dense(), **given)
    read, network = read_network(str(path), canvas=16), Frozen(networks.dense())
    assert torch.allclose(read.frozen(IMAGES), network(IMAGES), atol=1e-6)
    assert torch.allclose(read.frozen.features(IMAGES), network.features(IMAGES), atol=1e-6)
    assert read.no_gradients == ""
    x, y = IMAGES.clone().requires_grad_(), IMAGES.clone().requires_grad_()
    read.frozen(x).square().sum().backward()
    network(y).square().sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-5)
    assert read.facts["weights"] == sum(p.numel() for p in networks.dense().parameters() if p.ndim > 1)
    with pytest.raises(InputError, match="`canvas` must be 16, the side that the program was saved for, got 32"):
        read_network(str(path), canvas=32)


def test_an_audit_of_a_program(tmp_path: Path) -> None:
    path = exported(tmp_path / "network.pt2", networks.dense(), **of_any_number())
    found = audit(small(path))
    assert found.warnings == (
        f"{path}: it needs as many bytes as the dense network: few weights are zero, and none has fewer bits",
    )
    loss = [row["accuracy"] for row in found.rows]
    assert len(loss) == 8
    assert loss[:4] == pytest.approx(loss[4:], abs=0.11)  # of nine images, as sums are rounded otherwise


@pytest.mark.parametrize("name", ["rubbish.pt2", "rubbish.onnx", "none.pt2"])
def test_rubbish_is_refused(name: str, tmp_path: Path) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime", reason="onnxruntime is an extra: programs")
    if "rubbish" in name:
        (tmp_path / name).write_bytes(b"rubbish")
    with pytest.raises(InputError, match="it is damaged or something else|there is no file"):
        read_program(tmp_path / name)


def test_a_program_without_a_classifier_is_refused(tmp_path: Path) -> None:
    path = exported(tmp_path / "network.pt2", nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(InputError, match="end in a linear layer"):
        read_program(path)


def test_a_program_must_give_logits() -> None:
    with pytest.raises(InputError, match=r"must give \(N, S\) logits, got \(1, 3, 8, 8\)"):
        Program(lambda x: (x, x), (None, 8, 8))


def test_onnx_has_no_gradients_and_the_same_features(tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is an extra: programs")
    path = tmp_path / "network.onnx"
    torch.onnx.export(networks.dense(), (IMAGES[:2],), path, dynamo=True, verbose=False, **of_any_number())
    read, network = read_network(str(path), canvas=16), Frozen(networks.dense())
    assert torch.allclose(read.frozen(IMAGES), network(IMAGES), atol=1e-6)
    assert torch.allclose(read.frozen.features(IMAGES), network.features(IMAGES), atol=1e-6)
    assert "grad" in read.no_gradients
    found = audit(small(path))
    assert {row["method"] for row in found.rows if row["network"] == 1} == {"lp"}
    assert any(lack.startswith(f"visual prompting of {path}") for lack in found.not_measured)


def test_weights_of_torchao_keep_their_bits(tmp_path: Path) -> None:
    """From a state dict: the function is the quantized network's, and what it weighs is what is held."""
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is an extra: programs")
    network = networks.dense()
    torchao.quantize_(network, torchao.Int8WeightOnlyConfig())
    torch.save(network.state_dict(), tmp_path / "int8.pth")
    read = read_network(str(tmp_path / "int8.pth"), canvas=16, model=f"{HERE}:dense")
    with torch.no_grad():
        assert torch.allclose(read.frozen(IMAGES), network(normalise(IMAGES)), atol=1e-5)
    whole = read_network(f"{HERE}:dense", canvas=16)
    assert (whole.facts["bits"], read.facts["bits"]) == (32, 8)
    assert whole.facts["bytes"] - read.facts["bytes"] == pytest.approx(3 * 128 * 16, rel=0.06)  # less the scales
    assert read.no_gradients == ""


def test_an_integer_program_has_a_float_twin_with_the_same_rounding(tmp_path: Path) -> None:
    steps = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e", reason="torchao is an extra: programs")
    kinds = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    quantizer = kinds.X86InductorQuantizer()
    quantizer.set_global(kinds.get_default_x86_inductor_quantization_config())
    images = normalise(IMAGES)
    prepared = steps.prepare_pt2e(torch.export.export(networks.dense(), (images[:2],)).module(), quantizer)
    prepared(images[:2])
    integer = steps.convert_pt2e(copy.deepcopy(prepared))
    torch.export.save(torch.export.export(integer, (images[:2],)), tmp_path / "int8.pt2")
    read = read_network(str(tmp_path / "int8.pt2"), canvas=16)
    with torch.no_grad():
        expected = torch.cat([integer(images[:2]), integer(images[2:4])])
    assert torch.allclose(read.frozen(IMAGES[:4]), expected, atol=1e-6)
    assert read.no_gradients == ""
    assert "a float twin with the same scales is prompted" in read.notes[0]
    assert read.facts["bytes"] < 0.4 * read_network(f"{HERE}:dense", canvas=16).facts["bytes"]
