"""`vpcore prune`: networks of libraries and of one's own, weights from a file, and errors that name what is wrong."""

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from vpcore.cli import main
from vpcore.errors import InputError
from vpcore.pruning.masks import apply_, prune
from vpcore.weights.named import build_network, trained_network
from vpcore.weights.tickets import load_ticket_

OWN = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )

def nothing():
    return 1

def broken():
    return 1 / 0
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with networks of one's own, in the working directory, under a name that no other test has imported."""
    monkeypatch.chdir(tmp_path)
    name = f"own_{abs(hash(tmp_path)):x}"
    Path(f"{name}.py").write_text(OWN)
    return name


def test_a_network_of_ones_own_becomes_a_ticket(module: str) -> None:
    told = call("prune", f"{module}:make", "--density", 0.25, "--output", "tickets/a.safetensors")
    assert told.exit_code == 0
    dense, sparse = build_network(f"{module}:make", classes=0), build_network(f"{module}:make", classes=0)
    masks = load_ticket_("tickets/a.safetensors", sparse)
    assert list(masks) == ["2.weight", "4.weight"]  # the stem and the classifier stay as they are
    sizes = [8 * 16 * 9, 16 * 16 * 9]
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.25 * sum(sizes))
    kept = torch.cat([dense.get_parameter(name)[mask].abs() for name, mask in masks.items()])
    gone = torch.cat([dense.get_parameter(name)[~mask].abs() for name, mask in masks.items()])
    assert kept.min() >= gone.max()
    for name, value in dense.state_dict().items():
        assert torch.equal(sparse.state_dict()[name], value * masks[name] if name in masks else value)
    lines = told.output.splitlines()
    for (name, mask), size, line in zip(masks.items(), sizes, lines[1:3], strict=True):
        assert line.split() == [name, f"{size:,}", f"{float(mask.float().mean()):.4f}"]
    assert lines[3].split() == ["all", f"{sum(sizes):,}", "0.2500"]
    assert lines[4].startswith("wrote tickets/a.safetensors")


def test_a_ticket_is_weights_for_the_next(module: str) -> None:
    call("prune", f"{module}:make", "--density", 0.5, "--output", "a.safetensors")
    told = call("prune", f"{module}:make", "--weights", "a.safetensors", "--density", 0.25, "--output", "b.safetensors")
    assert told.exit_code == 0
    first, second = (load_ticket_(f"{name}.safetensors", build_network(f"{module}:make", classes=0)) for name in "ab")
    assert all(bool((first[name] | ~second[name]).all()) for name in first)


def test_a_ticket_is_pruned_within_its_masks_alone(module: str) -> None:
    call("prune", f"{module}:make", "--density", 0.2, "--output", "a.safetensors")
    first = load_ticket_("a.safetensors", build_network(f"{module}:make", classes=0))
    again = ("prune", f"{module}:make", "--weights", "a.safetensors", "--output", "b.safetensors")
    refused = call(*again, "--density", 0.5)
    assert refused.exit_code == 2
    assert "the ticket a.safetensors, which has 691 of 3,456 weights left, got 0.5" in refused.output
    assert "leave --part out" in call(*again, "--density", 0.1, "--part", "all").output
    assert not Path("b.safetensors").exists()
    # each layer alone would have to keep weights that the ticket has not any more
    assert call(*again, "--density", 0.2, "--scope", "layer").exit_code == 0
    second = load_ticket_("b.safetensors", build_network(f"{module}:make", classes=0))
    assert all(bool((first[name] | ~second[name]).all()) for name in first)


def test_zeros_that_are_kept_are_told(module: str) -> None:
    """A checkpoint that was pruned has no masks to prune within; the table shows what is not zero."""
    model = build_network(f"{module}:make", classes=0)
    masks = prune(model, density=0.25)
    apply_(model, masks)
    torch.save(model.state_dict(), "pruned.pth")
    told = call("prune", f"{module}:make", "--weights", "pruned.pth", "--density", 0.5, "--output", "b.safetensors").output
    assert re.search(r"all +3,456  0.2500\n", told)
    assert "note: 0.5000 are kept, but some of these weights were zero before; were they pruned already?" in told


def test_networks_of_libraries_take_the_weights_of_a_file(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    for number, name in enumerate(("mobilenet_v3_small", "test_resnet.r160_in1k")):
        model = build_network(name, classes=7)
        torch.save(model.state_dict(), tmp_path / f"{number}.pth")
        again = trained_network(name, weights=tmp_path / f"{number}.pth", classes=7)[0]
        assert type(again) is type(model)
        assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_factory_may_bring_its_own_weights(module: str) -> None:
    assert isinstance(trained_network(f"{module}:make", weights=None, classes=1000)[0], nn.Sequential)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet5", "--weights", "x.pth"), "unknown network of torchvision or timm"),
        (("resnet18",), "`--weights` must name the file of the trained weights of resnet18, which are random without"),
        (("resnet18", "--weights", "x.pth"), "there is no checkpoint x.pth"),
        (("MODULE:nothing",), "must return a torch.nn.Module, got a int"),
        (("MODULE:broken",), "it fails: ZeroDivisionError"),
        (("MODULE:absent",), "it fails: AttributeError"),
        (("no_such_module:make",), "it fails: ModuleNotFoundError"),
        (("MODULE:make", "--density", "20"), "`--density` must be in (0, 1], got 20.0; percent? use 0.2"),
        (("MODULE:make", "--scope", "all"), "unknown scope 'all'"),
        (("MODULE:make", "--part", "head"), "unknown part 'head'"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(module: str, arguments: tuple[str, ...], message: str) -> None:
    given = [argument.replace("MODULE", module) for argument in arguments]
    density = () if "--density" in given else ("--density", 0.5)
    refused = call("prune", *given, *density, "--output", "out/ticket.safetensors")
    assert refused.exit_code == 2
    assert refused.output.startswith("vpcore: ")
    assert message in refused.output
    assert not Path("out").exists()


def test_an_unknown_name_raises_from_python_too() -> None:
    with pytest.raises(InputError, match="did you mean 'resnet18'"):
        build_network("resnet-18", classes=2)
