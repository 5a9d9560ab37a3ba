import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.pruning.test_rounds import IMAGES, RECIPE, make, path_of
from tests.pruning.test_schedules import tiny
from vpcore import InputError
from vpcore.networks.backbones import normalise, prunable
from vpcore.pruning import masks as pruning
from vpcore.pruning import methods, structures
from vpcore.pruning.after_training import obs, wanda
from vpcore.pruning.methods import METHODS
from vpcore.pruning.rounds import LOOKED_AT_ONCE
from vpcore.weights.tickets import read_ticket

STILL = replace(RECIPE, lr=1e-30, weight_decay=0.0)  # trains, but moves nothing
FROM_DENSE = ("oneshot", "2:4", "channels", "magnitude", "magnitude-bn", "reconstruction", "wanda", "obs")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tickets")
    make(folder, "imp", 1)
    make(folder, "imp", 2)
    make(folder, "imp-lr", 1)
    return folder


@pytest.fixture
def tickets(made: Path, tmp_path: Path) -> Path:
    """A folder with rounds 0 to 2 of imp and round 1 of imp-lr."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def load(folder: Path, method: str, number: int) -> dict[str, torch.Tensor]:
    return read_ticket(path_of(folder, method, number))[0]


def everything() -> pruning.Masks:
    model = tiny()
    return pruning.full(model, prunable(model))


def test_every_method_leads_back_to_the_dense_network_or_to_fresh_weights() -> None:
    expected = {
        "imp": [None, ("imp", 0), ("imp", 1), ("imp", 2)],
        "imp-lr": [None, ("imp", 0), ("imp-lr", 1), ("imp-lr", 2)],
        **dict.fromkeys(FROM_DENSE, [None, *[("imp", 0)] * 3]),
        **dict.fromkeys(("gmp", "acdc", "rigl", "snip", "random-uniform", "random-erk"), [None] * 4),
        **dict.fromkeys(("reinit", "imp-unmasked"), [None, ("imp", 1), ("imp", 2), ("imp", 3)]),
    }
    assert {method: [methods.parent(method, number) for number in range(4)] for method in expected} == expected


@pytest.mark.parametrize("method", METHODS)
def test_epochs_seen_are_those_that_were_trained(tickets: Path, method: str) -> None:
    """Counted from the losses: of the round, of the epochs it was rewound to, and of the parent whose weights go on."""

    def count(method: str, number: int) -> int:
        _, _, header = read_ticket(path_of(tickets, method, number))
        origin = methods.parent(method, number)
        before = count(*origin) if origin and method not in ("imp", "reinit") else 0
        assert header["epochs_seen"] == methods.epochs_seen(method, number, epochs=RECIPE.epochs)
        return len(header["history"]) + before + (method == "imp" and number > 0)  # rewound to epoch 1

    number = 1 if method == "2:4" else 2
    make(tickets, method, number, recipe=replace(STILL, epochs=3))
    assert count(method, number) == methods.epochs_seen(method, number, epochs=3)


@pytest.mark.parametrize("method", METHODS)
def test_where_the_weights_come_from(tickets: Path, method: str) -> None:
    """When training moves nothing, a network ends as it began, under its masks."""
    number = 1 if method == "2:4" else 2
    state, masks, _ = read_ticket(make(tickets, method, number, recipe=STILL))
    fresh, redrawn = tiny().state_dict(), tiny(methods.REDRAWN).state_dict()
    rewound, _, _ = read_ticket(tickets / "rewound.safetensors")
    ticket, kept, _ = read_ticket(path_of(tickets, "imp", 2))
    if method == "imp-unmasked":
        for name, mask in kept.items():
            assert torch.equal(state[name][mask], ticket[name][mask])
            assert torch.equal(state[name][~mask], rewound[name][~mask])
        assert all(torch.equal(state[name], ticket[name]) for name in state if name not in kept)  # batch norms, too
        assert methods.METHODS[method].train is None
        return
    source = {
        "imp": rewound,
        "imp-lr": load(tickets, "imp-lr", 1),
        "reinit": redrawn,
    }.get(method, load(tickets, "imp", 0) if methods.parent(method, number) == ("imp", 0) else fresh)
    for name, _ in tiny().named_parameters():
        if method == "rigl" and name in masks:  # what was grown began at zero
            assert bool(((state[name] == source[name]) | (state[name].abs() < 1e-20)).all())
        elif method in ("reconstruction", "obs") and name in masks:
            assert not state[name][~masks[name]].any()
            assert not torch.equal(state[name], source[name] * masks[name])
        else:
            torch.testing.assert_close(state[name], source[name] * masks[name] if name in masks else source[name])
    assert not torch.equal(redrawn["fc.weight"], fresh["fc.weight"])


def test_which_weights_are_kept(tickets: Path) -> None:
    model = tiny()
    model.load_state_dict(load(tickets, "imp", 0))
    full, sizes = everything(), pruning.magnitude(model, everything())
    random = structures.random_scores(full, seed=RECIPE.seed)
    order = torch.randperm(len(IMAGES), generator=torch.Generator().manual_seed(RECIPE.seed))
    batches = [normalise(IMAGES[rows].float() / 255) for rows in order.split(LOOKED_AT_ONCE)]
    expected = {
        ("wanda", 2): pruning.select(wanda(model, full, batches), full, density=0.25, scope="layer"),
        ("obs", 2): pruning.select(obs(model, full, batches), full, density=0.25, scope="layer"),
        ("oneshot", 2): pruning.select(sizes, full, density=0.25),
        ("magnitude", 2): pruning.select(sizes, full, density=0.25),
        ("magnitude-bn", 2): pruning.select(sizes, full, density=0.25),
        ("reconstruction", 2): pruning.select(sizes, full, density=0.25),
        ("2:4", 1): structures.two_of_four(sizes, full),
        ("channels", 2): structures.channels(sizes, full, density=0.25),
        ("random-uniform", 2): pruning.select(random, full, density=0.25, scope="layer"),
        ("random-erk", 2): pruning.select_counts(random, full, structures.erk(full, density=0.25)),
        ("reinit", 2): read_ticket(path_of(tickets, "imp", 2))[1],
    }
    for (method, number), masks in expected.items():
        _, found, _ = read_ticket(make(tickets, method, number, recipe=STILL))
        assert all(torch.equal(found[name], mask) for name, mask in masks.items()), method


def test_rigl_starts_from_random_erk_and_moves_on(tickets: Path) -> None:
    counts = structures.erk(everything(), density=0.25)
    _, masks, _ = read_ticket(make(tickets, "rigl", 2))
    _, start, _ = read_ticket(make(tickets, "random-erk", 2))
    assert {name: int(mask.sum()) for name, mask in masks.items()} == counts
    moved = sum(int((mask & ~start[name]).sum()) for name, mask in masks.items())
    assert 0.05 * sum(counts.values()) < moved < 0.95 * sum(counts.values())


def test_whole_filters_and_pairs_are_zero_after_training(tickets: Path) -> None:
    channels, pairs = (read_ticket(make(tickets, method, number))[0] for method, number in (("channels", 2), ("2:4", 1)))
    for name in prunable(tiny()):
        filters = (channels[name] != 0).flatten(1)
        assert bool((filters.all(1) | ~filters.any(1)).all())
        assert (pairs[name] != 0).unflatten(1, (-1, 4)).sum(2).unique().tolist() == [2]
    assert any(bool((channels[name] == 0).flatten(1).all(1).any()) for name in prunable(tiny()))


def test_the_layers_scope_reaches_the_methods_that_rank(tickets: Path) -> None:
    """imp and imp-lr: see test_rounds."""
    for method in ("oneshot", "gmp", "acdc", "magnitude", "magnitude-bn", "reconstruction"):
        _, masks, _ = read_ticket(make(tickets, method, 2, scope="layer", recipe=STILL))
        assert all(abs(int(mask.sum()) - 0.25 * mask.numel()) < 1 for mask in masks.values()), method


def test_bad_arguments(tickets: Path) -> None:
    with pytest.raises(InputError, match="unknown sparsifier 'one-shot'; did you mean 'oneshot'"):
        methods.parent("one-shot", 1)
    with pytest.raises(InputError, match="unknown sparsifier 'lth'"):
        methods.epochs_seen("lth", 0, epochs=3)
    with pytest.raises(InputError, match=r"`density` must be 0.5 for the sparsifier 2:4, got 0.25; use the round where"):
        make(tickets, "2:4", 2)
    with pytest.raises(InputError, match="`part` must leave out the classifier for the sparsifier channels"):
        make(tickets, "channels", 1, part="all")
