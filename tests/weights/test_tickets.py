from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from torch import nn

from vpcore import InputError
from vpcore.networks.backbones import build, prunable
from vpcore.pruning.masks import Masks, apply_, full, magnitude, select
from vpcore.weights.resumable import Progress, resume_, save_unfinished, unfinished_path
from vpcore.weights.sealed import OF_META
from vpcore.weights.tickets import (
    is_ticket,
    load_ticket_,
    read_ticket,
    save_ticket,
    ticket_path,
    write_ticket,
)


def pruned(name: str, density: float) -> tuple[torch.nn.Module, Masks]:
    model = build(name, classes=10, seed=0)
    masks = full(model, prunable(model))
    masks = select(magnitude(model, masks), masks, density=density)
    apply_(model, masks)
    return model, masks


@pytest.mark.parametrize("density", [1.0, 0.5, 0.03])
def test_a_ticket_comes_back_as_it_was(tmp_path: Path, density: float) -> None:
    model, masks = pruned("resnet8", density)
    write_ticket(tmp_path / "t.safetensors", model.state_dict(), masks, header={"x": 1})
    state, loaded, header = read_ticket(tmp_path / "t.safetensors")
    assert list(loaded) == list(masks)
    assert set(state) == set(model.state_dict())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(loaded[name], mask) for name, mask in masks.items())
    assert header == {"x": 1}


def test_masks_and_weights_of_all_shapes_and_kinds(tmp_path: Path) -> None:
    """Also where the bits do not fill a byte, a layer is empty or full, a weight is half precision or channels-last."""
    generator = torch.Generator().manual_seed(0)
    state, masks = {"count": torch.tensor(7), "bias": torch.randn(3, generator=generator)}, {}
    for number, (shape, share) in enumerate([((3, 5), 0.5), ((2, 3, 3, 3), 0.1), ((7,), 0.0), ((9, 1), 1.0)]):
        masks[f"w{number}"] = torch.rand(shape, generator=generator) < share
        state[f"w{number}"] = torch.randn(shape, generator=generator) * masks[f"w{number}"]
    state["w1"] = state["w1"].to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    write_ticket(tmp_path / "t.safetensors", state, masks, header={})
    loaded, again, _ = read_ticket(tmp_path / "t.safetensors")
    assert all(torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype for name, value in state.items())
    assert all(torch.equal(again[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize("density", [0.5, 0.1, 0.03])
def test_a_ticket_is_small(tmp_path: Path, density: float) -> None:
    """One bit a prunable weight and 32 a kept one: 0.53, 0.13 and 0.06 of a dense checkpoint of the same network."""
    model, masks = pruned("resnet18-half", density)
    write_ticket(tmp_path / "t.safetensors", model.state_dict(), masks, header={})
    torch.save(model.state_dict(), tmp_path / "dense.pth")
    size, dense = ((tmp_path / name).stat().st_size for name in ("t.safetensors", "dense.pth"))
    prunable_weights = sum(mask.numel() for mask in masks.values())
    others = sum(v.numel() * v.element_size() for n, v in model.state_dict().items() if n not in masks)
    content = prunable_weights / 8 + 4 * round(density * prunable_weights) + others
    assert 0 <= size - content < 30_000  # names, shapes and the header
    assert size / dense < {0.5: 0.54, 0.1: 0.14, 0.03: 0.07}[density]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = ticket_path(tmp_path, 0)
    model, masks = pruned("resnet8", 0.5)
    write_ticket(path, model.state_dict(), masks, header={})
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # one bit of one weight
    path.write_bytes(content)
    with pytest.raises(InputError, match="round-00.* is damaged .*SHA-256 .* another.; if .* delete it .* otherwise copy"):
        read_ticket(path)
    path.write_bytes(content[:100])
    with pytest.raises(InputError, match="must be a ticket file"):
        read_ticket(path)
    with pytest.raises(InputError, match="there is no ticket .* `vpcore run` makes those of a study, others must be copied"):
        read_ticket(tmp_path / "round-07.safetensors")


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    """Wherever a byte of the file is changed, be it of the header, of the shapes or of their names."""
    path = tmp_path / "t.safetensors"
    mask = torch.tensor([True, False, True, True])
    write_ticket(path, {"w": torch.ones(4) * mask, "b": torch.ones(2)}, {"w": mask}, header={"a": 1})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(InputError, match="SHA-256|must be a ticket file"):
            read_ticket(path)


@pytest.mark.parametrize(("key", "value"), [("header", '{"seed": 1}'), ("shapes", '{"w": [1, 4]}')])
def test_the_header_and_the_shapes_are_checked_but_in_older_tickets(tmp_path: Path, key: str, value: str) -> None:
    path, mask = tmp_path / "t.safetensors", torch.tensor([[True, False], [True, True]])
    write_ticket(path, {"w": torch.ones(2, 2) * mask}, {"w": mask}, header={"seed": 0})
    with safe_open(path, "pt") as file:
        meta, tensors = file.metadata(), load_file(path)
    save_file(tensors, path, metadata={**meta, key: value})
    with pytest.raises(InputError, match=f"is damaged .* its SHA-256 is {meta[OF_META][:12]}"):
        read_ticket(path)
    save_file(tensors, path, metadata={name: text for name, text in meta.items() if name != OF_META})
    state, masks, header = read_ticket(path)
    assert torch.equal(state["w"], mask.float())
    assert torch.equal(masks["w"], mask)
    assert header == {"seed": 0}


def test_files_of_others_are_no_tickets(tmp_path: Path) -> None:
    write_ticket(tmp_path / "ours.safetensors", {"w": torch.ones(2)}, {}, header={})
    save_file({"w": torch.ones(2)}, theirs := tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    (tmp_path / "rubbish.safetensors").write_bytes(b"rubbish")
    found = {name: is_ticket(tmp_path / f"{name}.safetensors") for name in ("ours", "theirs", "rubbish", "nowhere")}
    assert found == {"ours": True, "theirs": False, "rubbish": False, "nowhere": False}
    with pytest.raises(InputError, match=r"must be a ticket file; .*\(its metadata are format\); .* otherwise copy"):
        read_ticket(theirs)


def test_a_state_that_is_not_masked_is_not_saved(tmp_path: Path) -> None:
    state = {"w": torch.ones(4)}
    with pytest.raises(InputError, match="weights must be zero where `masks` are False; w is not; use apply_"):
        write_ticket(tmp_path / "t.safetensors", state, {"w": torch.tensor([True, False, True, True])}, header={})
    assert not list(tmp_path.iterdir())


def test_an_unfinished_training_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    model, masks = pruned("resnet8", 0.1)
    fresh, everything = build("resnet8", classes=10, seed=1), full(model, masks)
    assert resume_(path, fresh, everything, header={}, first=3) == Progress(3, None, [])  # there is nothing yet
    save_unfinished(path, model, masks, Progress(2, {"state": {}, "param_groups": []}, [1.5, 0.5]), header={})
    progress = resume_(path, fresh, everything, header={}, first=3)
    assert progress == Progress(2, {"state": {}, "param_groups": []}, [1.5, 0.5])
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in fresh.state_dict().items())
    assert all(torch.equal(mask, masks[name]) for name, mask in everything.items())


def test_a_damaged_unfinished_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    model, masks = pruned("resnet8", 0.1)
    unfinished_path(path).write_bytes(b"rubbish")
    with pytest.raises(InputError, match="t.unfinished is damaged .* delete it"):
        resume_(path, model, masks, header={}, first=0)
    save_unfinished(path, build("resnet18-half", classes=10, seed=0), masks, Progress(1, None, []), header={})
    with pytest.raises(InputError, match=r"(?s)missing .* unexpected .*\+ conv1.weight \(32, 3, 7, 7\)"):
        resume_(path, model, masks, header={}, first=0)


class Tied(nn.Module):
    """Two layers of one weight, a buffer whose name ends as the parts of a ticket do, and a counter."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(4, 4, bias=False, dtype=dtype) for _ in range(3))
        self.two.weight = self.one.weight
        self.register_buffer("mask", torch.rand(4))
        self.register_buffer("kept", torch.tensor(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_network_of_ones_own_is_saved_and_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    model, other, path = Tied(dtype), Tied(dtype), tmp_path / "new" / "t.safetensors"
    masks = {name: torch.rand(4, 4) < 0.5 for name in ("one.weight", "three.weight")}
    apply_(model, masks)
    save_ticket(str(path), model, masks, header={"what": "mine"})
    loaded = load_ticket_(path, other)
    assert all(torch.equal(loaded[name], mask) for name, mask in masks.items())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())
    assert read_ticket(path)[2] == {"what": "mine"}


def test_a_ticket_of_another_network_loads_nothing(tmp_path: Path) -> None:
    model, masks = pruned("resnet8", 0.5)
    save_ticket(tmp_path / "t.safetensors", model, masks)
    other = build("resnet8", classes=3, seed=1)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(InputError, match=r"(?s)t.safetensors must hold .*- fc.weight \(3, 64\).*\+ fc.weight \(10, 64\)"):
        load_ticket_(tmp_path / "t.safetensors", other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_what_is_not_a_ticket_is_not_saved(tmp_path: Path) -> None:
    model, masks = pruned("resnet8", 0.5)
    with pytest.raises(InputError, match="`header` must be a dict of what JSON can hold: .*Path"):
        save_ticket(tmp_path / "t.safetensors", model, masks, header={"path": tmp_path})
    model.fc.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="must have finite weights, but fc.weight holds NaN"):
        save_ticket(tmp_path / "t.safetensors", model, masks)
    model = build("resnet8", classes=10, seed=0)
    with pytest.raises(InputError, match=r"must be zero where `masks` are False; layer1.* use apply_\(model, masks\)"):
        save_ticket(tmp_path / "t.safetensors", model, masks)
    with pytest.raises(InputError, match="`state` must be a state dict, name -> tensor, but 'extra' is 3"):
        write_ticket(tmp_path / "t.safetensors", {"extra": 3}, {}, header={})
    assert not list(tmp_path.iterdir())


def test_a_training_does_not_go_on_elsewhere_than_it_was_begun(tmp_path: Path) -> None:
    path, (model, masks) = tmp_path / "round-01.safetensors", pruned("resnet8", 0.5)
    save_unfinished(path, model, masks, Progress(1, None, []), header={"device": "cpu", "started": "then"})
    assert resume_(path, model, masks, header={"device": "cpu", "started": "now"}, first=0).epoch == 1
    with pytest.raises(InputError, match="begun as .*cpu.* should go on as .*H200"):
        resume_(path, model, masks, header={"device": "H200", "started": "then"}, first=0)
