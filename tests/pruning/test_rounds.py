import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.networks.test_training import blobs
from tests.pruning.test_schedules import tiny
from vpcore import InputError
from vpcore.networks.backbones import build, prunable
from vpcore.networks.training import Recipe, fit
from vpcore.pruning.masks import SCOPES
from vpcore.pruning.methods import METHODS, parent
from vpcore.pruning.rounds import make_round
from vpcore.pruning.schedules import SparsityTarget, gradual_density, in_sparse_phase
from vpcore.weights import resumable
from vpcore.weights.resumable import unfinished_path
from vpcore.weights.tickets import read_ticket, ticket_path, write_ticket

# 30 steps; the first epoch ends within a sparse phase of AC/DC
RECIPE = Recipe(epochs=3, batch=8, lr=0.1, weight_decay=1e-3, augment="shift", precision="float32", seed=3)
IMAGES, LABELS = blobs(80)
STEPS = RECIPE.steps(80)
TRAINED = [method for method in METHODS if METHODS[method].train is not None]


def path_of(folder: Path, method: str, number: int) -> Path:
    return ticket_path(folder / (method.replace(":", "-") if number else "imp"), number)


def make(
    folder: Path, method: str, number: int, *, recipe: Recipe = RECIPE, rewind: int = 1, scope: str = "global",
    part: str = "body", rate: float = 0.5, log: Callable[[str], None] = lambda text: None,
) -> Path:  # fmt: skip
    """The ticket of a round, with those that it needs before."""
    path, origin = path_of(folder, method, number), parent(method, number)
    if origin is not None and not path_of(folder, *origin).exists():
        make(folder, *origin, rewind=rewind, scope=scope, part=part, rate=rate)
    make_round(
        method, number, tiny, IMAGES, LABELS, recipe, path=path, parent=origin and path_of(folder, *origin),
        rewound=folder / "rewound.safetensors", rate=rate, rewind=rewind, scope=scope, part=part,
        device=torch.device("cpu"), header={"made": "here"}, log=log,
    )  # fmt: skip
    return path


def number_of(method: str) -> int:
    """The round that is looked at."""
    return 1 if method == "2:4" else 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A round of every method, and those that it needs before."""
    folder = tmp_path_factory.mktemp("methods")
    for method in METHODS:
        make(folder, method, number_of(method))
    return folder


@pytest.fixture
def again(made: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A folder in which this round of a method is missing, and others are there."""

    def folder(method: str, number: int) -> Path:
        shutil.copytree(made, tmp_path, dirs_exist_ok=True)
        path_of(tmp_path, method, number).unlink()
        return tmp_path

    return folder


def support(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: state[name] != 0 for name in prunable(tiny())}


@pytest.mark.parametrize("method", ["dense", *METHODS])
def test_the_density_is_the_one_asked_for(made: Path, method: str) -> None:
    method, number = ("imp", 0) if method == "dense" else (method, number_of(method))
    state, masks, header = read_ticket(path_of(made, method, number))
    kept = {name: int(weights.sum()) for name, weights in support(state).items()}
    total, asked = sum(state[name].numel() for name in kept), round(sum(state[name].numel() for name in kept) * 0.5**number)
    if number == 0 or method == "imp-unmasked":
        assert not masks
        assert sum(kept.values()) > 0.99 * total
    else:
        assert kept == {name: int(masks[name].sum()) for name in kept}
        assert set(masks) == set(kept)
        assert sum(kept.values()) == asked if method != "channels" else asked - 72 < sum(kept.values()) <= asked
    assert header["made"] == "here"


@pytest.mark.parametrize("rewind", [0, 1, 2])
def test_imp_against_a_plain_loop(tmp_path: Path, rewind: int) -> None:
    """The paper's method, written down step by step; the tickets are the same to the last bit."""
    make(tmp_path, "imp", 2, rewind=rewind)
    model, names, states, masks = tiny(), prunable(tiny()), {}, {}

    def keep(epoch: int, *_: object) -> None:
        states[epoch] = {name: value.clone() for name, value in model.state_dict().items()}

    def step_and_mask(optimizer: torch.optim.Optimizer, step: int) -> None:
        optimizer.step()
        for name, mask in masks.items():
            model.get_parameter(name).data[~mask] = 0

    keep(0)
    for number in range(3):
        fit(
            model, IMAGES, LABELS, RECIPE, first_epoch=rewind if number else 0, take_step=step_and_mask,
            after_epoch=keep if number == 0 else lambda *_: None,
        )  # fmt: skip
        ticket, _, _ = read_ticket(path_of(tmp_path, "imp", number))
        assert all(torch.equal(ticket[name], value) for name, value in model.state_dict().items())
        sizes = np.concatenate([model.state_dict()[name].numpy().ravel() for name in names])
        best = np.zeros(sizes.size, bool)
        best[np.argsort(-np.abs(sizes), kind="stable")[: round(sizes.size * 0.5 ** (number + 1))]] = True
        for name in names:
            size = model.get_parameter(name).numel()
            masks[name], best = torch.from_numpy(best[:size]).view(model.get_parameter(name).shape), best[size:]
        model.load_state_dict(states[rewind])
        for name, mask in masks.items():
            model.get_parameter(name).data[~mask] = 0


@pytest.mark.parametrize("method", TRAINED)
def test_masks_hold_at_every_step(again: Callable[..., Path], method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each step the network has as many weights as it should, and with fixed masks those of the ticket."""
    seen, number = [], number_of(method)
    folder = again(method, number)

    def spy(model: nn.Module, *args: object, take_step: Callable[..., None], **more: object) -> None:
        def look(optimizer: torch.optim.Optimizer, step: int) -> None:
            take_step(optimizer, step)
            seen.append(support(model.state_dict()))

        fit(model, *args, take_step=look, **more)

    monkeypatch.setattr(resumable, "fit", spy)
    _, masks, _ = read_ticket(make(folder, method, number))
    assert len(seen) == STEPS - (10 if method == "imp" else 0)
    total, target = sum(mask.numel() for mask in masks.values()), SparsityTarget(0.5**number, STEPS, "global")
    for step, weights in enumerate(seen):
        count = sum(int(weights[name].sum()) for name in masks)
        if method == "gmp":
            assert count == round(gradual_density(step + 1, target) * total)
        elif method == "acdc":
            assert count == round((0.25 if in_sparse_phase(step, target) else 1) * total)
        elif method == "rigl":
            assert count <= round(0.25 * total)  # those that were just grown are zero
        else:
            assert all(torch.equal(weights[name], mask) for name, mask in masks.items())
    assert all(torch.equal(seen[-1][name], mask) for name, mask in masks.items())


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("method", ["imp", "imp-lr"])
def test_rounds_are_nested_and_keep_the_largest_weights_of_the_round_before(
    made: Path, tmp_path: Path, method: str, scope: str
) -> None:
    folder = made if scope == "global" else tmp_path
    if scope == "layer":
        make(folder, method, 2, scope=scope)
    for number in (1, 2):
        before, older, _ = read_ticket(path_of(folder, method, number - 1))
        _, masks, _ = read_ticket(path_of(folder, method, number))
        for rivals in [[name] for name in masks] if scope == "layer" else [list(masks)]:
            kept = torch.cat([before[name][masks[name]].abs() for name in rivals])
            gone = torch.cat([before[name][~masks[name] & (before[name] != 0)].abs() for name in rivals])
            assert float(kept.min()) >= float(gone.max())
        assert all(bool((~mask | older[name]).all()) for name, mask in masks.items() if older)
        shares = [float(mask.float().mean()) for mask in masks.values()]
        assert (max(shares) - min(shares) < 0.02) == (scope == "layer")


@pytest.mark.parametrize("method", ["dense", *TRAINED])
def test_a_killed_round_goes_on_from_its_last_epoch(made: Path, again: Callable[..., Path], method: str) -> None:
    """Killed after each epoch, it gives the same ticket, to the last bit."""
    method, number = ("imp", 0) if method == "dense" else (method, number_of(method))
    folder, told = again(method, number), []
    path = path_of(folder, method, number)

    def kill(text: str) -> None:
        told.append(text.split(",")[1])
        raise KeyboardInterrupt

    epochs = [f" epoch {epoch}/3" for epoch in (1, 2, 3)][method == "imp" and number > 0 :]
    for _ in epochs:
        with pytest.raises(KeyboardInterrupt):
            make(folder, method, number, log=kill)
        assert not path.exists()
        assert unfinished_path(path).exists()
    make(folder, method, number, log=kill)  # nothing is left to train
    assert told == epochs  # what was done is not done again
    assert not list(folder.rglob("*.unfinished"))
    whole, resumed = read_ticket(path_of(made, method, number)), read_ticket(path)
    assert all(torch.equal(value, resumed[0][name]) for name, value in whole[0].items())
    assert all(torch.equal(mask, resumed[1][name]) for name, mask in whole[1].items())
    assert whole[2] == resumed[2]
    assert len(whole[2]["history"]) == len(epochs)


@pytest.mark.parametrize("part", ["body+stem", "all"])
def test_the_part_that_is_pruned(tmp_path: Path, part: str) -> None:
    """The dense network is the same for all parts, so its ticket serves them all."""
    make(tmp_path, "imp", 0)
    for method in ("oneshot", "rigl", "imp"):
        state, masks, _ = read_ticket(make(tmp_path, method, 1, part=part))
        assert set(masks) == set(prunable(tiny(), part))
        assert "conv1.weight" in masks
        total = sum(mask.numel() for mask in masks.values())
        assert sum(int((state[name] != 0).sum()) for name in masks) == round(total / 2)
    with pytest.raises(
        InputError, match=r"(?s)must be pruned in `part` body alone, but is elsewhere; use a larger one:.*conv1.weight"
    ):
        make(tmp_path, "reinit", 1, part="body")


def test_statistics_reach_the_training_and_the_images_that_are_looked_at(tmp_path: Path) -> None:
    make(tmp_path, "imp", 0)
    for method in ("random-erk", "magnitude-bn"):
        states = []
        for number, statistics in enumerate([((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3)]):
            path, origin = tmp_path / f"{method}-{number}.safetensors", parent(method, 1)
            make_round(
                method, 1, tiny, IMAGES, LABELS, RECIPE, path=path, parent=origin and path_of(tmp_path, *origin),
                rewound=tmp_path / "rewound.safetensors", rate=0.5, rewind=1, scope="global", part="body",
                device=torch.device("cpu"), header={}, statistics=statistics,
            )  # fmt: skip
            states.append(read_ticket(path)[0])
        assert not torch.equal(states[0]["bn1.running_mean"], states[1]["bn1.running_mean"])


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`rewind` must be an epoch in 0\.\.2, got 3"):
        make(tmp_path, "imp", 0, rewind=3)
    with pytest.raises(InputError, match="unknown scope 'row'"):
        make(tmp_path, "imp", 0, scope="row")
    with pytest.raises(InputError, match="unknown part 'legs'"):
        make(tmp_path, "imp", 0, part="legs")
    with pytest.raises(InputError, match="`rate` must be in .* use 0.2"):
        make(tmp_path, "imp", 0, rate=20)
    make(tmp_path, "imp", 0)
    common = dict(
        path=tmp_path / "t.safetensors", rewound=tmp_path / "rewound.safetensors", rate=0.5, rewind=1, scope="global",
        part="body", device=torch.device("cpu"), header={},
    )  # fmt: skip
    with pytest.raises(InputError, match="`parent` must be the path of imp 0 for oneshot 3, got None"):
        make_round("oneshot", 3, tiny, IMAGES, LABELS, RECIPE, parent=None, **common)
    with pytest.raises(InputError, match="`parent` must be None for gmp 3, which starts from fresh weights, got"):
        make_round("gmp", 3, tiny, IMAGES, LABELS, RECIPE, parent=path_of(tmp_path, "imp", 0), **common)
    (tmp_path / "rewound.safetensors").unlink()
    with pytest.raises(InputError, match="goes back to .*rewound.safetensors, which is missing; delete"):
        make(tmp_path, "imp", 1)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path, "imp", 0)
    unfinished = unfinished_path(path_of(tmp_path, "gmp", 1))
    unfinished.parent.mkdir()
    unfinished.write_bytes(b"rubbish")
    with pytest.raises(InputError, match="round-01.unfinished is damaged .* delete it"):
        make(tmp_path, "gmp", 1)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="round-00.safetensors .* is damaged .* its SHA-256 is"):
        make(tmp_path, "oneshot", 1)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    write_ticket(path_of(tmp_path, "imp", 0), build("resnet8", classes=3, seed=0).state_dict(), {}, header={})
    with pytest.raises(InputError, match=r"(?s)round-00.safetensors must hold .*- conv1.weight \(8, .*\+ conv1.weight \(16"):
        make(tmp_path, "oneshot", 1)


def test_rewound_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "imp", 0)
    write_ticket(tmp_path / "rewound.safetensors", build("resnet8", classes=3, seed=0).state_dict(), {}, header={})
    with pytest.raises(
        InputError, match=r"imp 1 starts from \(if it is .*rewound.safetensors, delete its folder.*\) must hold"
    ):
        make(tmp_path, "imp", 1)
    assert not path_of(tmp_path, "imp", 1).exists()
