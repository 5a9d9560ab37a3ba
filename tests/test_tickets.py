from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vpcore import InputError, pruning
from vpcore.models import build, prunable
from vpcore.tickets import load_ticket, save_ticket, ticket_path, train_round
from vpcore.training import Recipe

from .test_training import blobs

RECIPE = Recipe(epochs=3, batch=16, lr=0.1, weight_decay=1e-3, augment="none", precision="float32", seed=3)


def grow(
    folder: Path, rounds: int, cpu: torch.device, *, start: int = 0, recipe: Recipe = RECIPE, rewind: int = 1, log=print
) -> None:
    for number in range(start, rounds):
        train_round(
            number, lambda: build("resnet8", classes=3, seed=0), *blobs(), recipe, folder=folder, rate=0.5, rewind=rewind,
            device=cpu, header={"made": "here"}, log=log,
        )  # fmt: skip


def test_rounds_are_exact_nested_and_stay_pruned_after_training(tmp_path: Path, cpu: torch.device) -> None:
    grow(tmp_path, 3, cpu)
    rewound, _, _ = load_ticket(tmp_path / "rewound.safetensors")
    names = prunable(build("resnet8", classes=3, seed=0))
    total = sum(rewound[name].numel() for name in names)
    previous = None
    for number in range(3):
        state, masks, header = load_ticket(ticket_path(tmp_path, number))
        kept = sum(int((state[name] != 0).sum()) for name in names)
        assert kept == round(total * 0.5**number)
        assert set(masks) == (set(names) if number else set())
        if previous is not None:
            assert all(bool((~mask | previous[name]).all()) for name, mask in masks.items())
        previous = masks or {name: torch.ones_like(rewound[name], dtype=torch.bool) for name in names}
        assert header["made"] == "here"
        # every round ends after the same number of epochs; the rewound ones inherit the first
        assert len(header["history"]) == (3 if number == 0 else 2)


def test_a_round_keeps_the_largest_weights_of_the_round_before(tmp_path: Path, cpu: torch.device) -> None:
    grow(tmp_path, 2, cpu)
    dense, _, _ = load_ticket(ticket_path(tmp_path, 0))
    _, masks, _ = load_ticket(ticket_path(tmp_path, 1))
    flat = torch.cat([dense[name].abs().flatten() for name in masks])
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    assert float(flat[kept].min()) >= float(flat[~kept].max())


def test_masks_hold_at_every_step(tmp_path: Path, cpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path, 1, cpu)
    seen = []
    applied = pruning.apply_

    def spy(model: torch.nn.Module, masks: pruning.Masks) -> None:
        applied(model, masks)
        weights = dict(model.named_parameters())
        seen.append(max(float(weights[n].detach()[~m].abs().max()) for n, m in masks.items() if (~m).any()))

    monkeypatch.setattr(pruning, "apply_", spy)
    grow(tmp_path, 2, cpu, start=1)
    assert len(seen) == 1 + 2 * (64 // 16)  # once before training, then after each step of two epochs
    assert max(seen) == 0


def test_training_is_rewound_to_the_weights_of_the_epoch(tmp_path: Path, cpu: torch.device) -> None:
    """With a learning rate that moves nothing, a round ends where it was rewound to, under its mask."""
    grow(tmp_path, 1, cpu)
    before, _, _ = load_ticket(tmp_path / "rewound.safetensors")
    grow(tmp_path, 2, cpu, start=1, recipe=replace(RECIPE, lr=1e-30, weight_decay=0.0))
    after, masks, _ = load_ticket(ticket_path(tmp_path, 1))
    for name, mask in masks.items():
        torch.testing.assert_close(after[name], before[name] * mask)
    first = build("resnet8", classes=3, seed=0).state_dict()
    assert not torch.equal(before["conv1.weight"], first["conv1.weight"])  # epoch 1, not the initial weights


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_round_goes_on_from_its_last_epoch(tmp_path: Path, cpu: torch.device, number: int) -> None:
    grow(tmp_path / "whole", 2, cpu)
    cut = tmp_path / "cut"
    grow(cut, number, cpu)

    def kill(text: str) -> None:
        if "epoch 2/" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow(cut, number + 1, cpu, start=number, log=kill)
    assert not ticket_path(cut, number).exists()
    told = []
    grow(cut, 2, cpu, start=number, log=told.append)
    assert told[0].startswith(f"round {number}, epoch 3/3")  # what was done is not done again
    for r in (0, 1):
        whole, resumed = (load_ticket(ticket_path(tmp_path / f, r)) for f in ("whole", "cut"))
        assert all(torch.equal(whole[0][name], resumed[0][name]) for name in whole[0])
        assert whole[2]["history"] == resumed[2]["history"]
    assert not list(cut.glob("unfinished*"))


def test_damaged_files_are_refused(tmp_path: Path, cpu: torch.device) -> None:
    grow(tmp_path, 1, cpu)
    path = ticket_path(tmp_path, 0)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # one bit of one weight
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"round-00.safetensors must have the SHA-256 .* it is damaged; delete it"):
        load_ticket(path)
    path.write_bytes(content[:100])
    with pytest.raises(InputError, match="must be a ticket file"):
        load_ticket(path)
    with pytest.raises(InputError, match="there is no ticket"):
        load_ticket(tmp_path / "round-07.safetensors")
    (tmp_path / "unfinished-00.pt").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="unfinished-00.pt is damaged .* delete it"):
        grow(tmp_path, 1, cpu)


def test_a_state_that_is_not_masked_is_not_saved(tmp_path: Path) -> None:
    state = {"w": torch.ones(4)}
    with pytest.raises(InputError, match="`state` must be zero where `masks` are False; w is not"):
        save_ticket(tmp_path / "t.safetensors", state, {"w": torch.tensor([True, False, True, True])}, header={})
    assert not list(tmp_path.iterdir())


def test_a_ticket_comes_back_as_it_was_and_smaller(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 64, 3, 3, generator=generator)
    mask = torch.rand(weight.shape, generator=generator) < 0.05
    state = {"w": weight * mask, "count": torch.tensor(7), "b": torch.randn(3, generator=generator)}
    save_ticket(tmp_path / "t.safetensors", state, {"w": mask}, header={"x": 1})
    loaded, masks, header = load_ticket(tmp_path / "t.safetensors")
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert torch.equal(masks["w"], mask)
    assert header == {"x": 1}
    assert (tmp_path / "t.safetensors").stat().st_size < 0.1 * 4 * weight.numel()


def test_bad_rewind(tmp_path: Path, cpu: torch.device) -> None:
    with pytest.raises(InputError, match=r"`rewind` must be an epoch in 0\.\.2, got 3"):
        grow(tmp_path, 1, cpu, rewind=3)
