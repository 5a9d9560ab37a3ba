"""Whatever is wrong in a call of a public function of pruning, weights or quantization, the error names the argument."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.wrong_calls import bad_calls
from vpcore import InputError
from vpcore.networks.backbones import build, normalise
from vpcore.networks.training import Recipe
from vpcore.pruning.after_training import obs, wanda
from vpcore.pruning.iterative import iterative_magnitude_pruning
from vpcore.pruning.masks import (
    apply_,
    density,
    density_of_round,
    full,
    magnitude,
    measure,
    prune,
    select,
)
from vpcore.pruning.reconstruction import reconstruct_, reestimate_batch_norm_
from vpcore.pruning.saliency import sensitivity
from vpcore.quantization.layers import quantize
from vpcore.quantization.training import finish_lsq, load_lsq, prepare_lsq
from vpcore.weights.checkpoints import load_checkpoint
from vpcore.weights.published import frozen_backbone, pretrained
from vpcore.weights.tickets import load_ticket_, read_ticket, save_ticket, write_ticket

IMAGES = torch.randint(256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
LABELS = torch.arange(8) % 3
X = normalise(IMAGES / 255)


def network(*, change: Callable[[nn.Module], None] = lambda model: None) -> nn.Module:
    model = build("resnet8", classes=3, seed=0).eval()
    change(model)
    return model


MODEL = network()
MASKS = prune(MODEL, density=0.5)
apply_(MODEL, MASKS)
NAME = next(iter(MASKS))
SCORES = magnitude(MODEL, MASKS)
RECIPE = Recipe(epochs=1, batch=4, lr=0.1, weight_decay=0.0, augment="none", precision="float32", seed=0)
BITS = {"weight_bits": 4, "activation_bits": 4}
LSQ = prepare_lsq(MODEL, [X], **BITS)


def to_other_numbers(dtype: torch.dtype) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        model.layer1[0].conv1.weight = nn.Parameter(torch.ones(16, 16, 3, 3, dtype=dtype), requires_grad=False)

    return change


def to_nan(model: nn.Module) -> None:
    model.fc.weight.data[0, 0] = torch.nan


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ticket, and beside it files that are none."""
    path = tmp_path_factory.mktemp("files") / "ticket.safetensors"
    save_ticket(path, MODEL, MASKS)
    (path.parent / "empty.pth").touch()
    (path.parent / "damaged.pth").write_bytes(b"PK" + bytes(100))
    torch.save({0: torch.ones(2)}, path.parent / "numbers.pth")
    torch.save(MODEL.state_dict(), path.parent / "dense.pth")
    return path


PATH = Path("ticket.safetensors")  # stands for that file

# name -> a public function, and arguments that it takes
CALLS: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
    "prune": (prune, {"model": MODEL, "density": 0.2, "scope": "global", "part": "body", "scores": None, "weights": None,
                      "within": MASKS}),
    "prune, named": (prune, {"model": MODEL, "density": 0.2, "scores": SCORES, "weights": [NAME]}),
    "select": (select, {"scores": SCORES, "masks": MASKS, "density": 0.2, "scope": "layer"}),
    "full": (full, {"model": MODEL, "names": [NAME]}),
    "magnitude": (magnitude, {"model": MODEL, "masks": [NAME]}),
    "apply_": (apply_, {"model": MODEL, "masks": MASKS}),
    "density": (density, {"masks": MASKS}),
    "measure": (measure, {"model": MODEL, "names": [NAME]}),
    "density_of_round": (density_of_round, {"number": 1, "rate": 0.2}),
    "iterative": (
        lambda model, recipe, **rest: list(iterative_magnitude_pruning(model, IMAGES, LABELS, recipe, **rest)),
        {"model": MODEL, "recipe": RECIPE, "rounds": 0, "rate": 0.2, "rewind": 0, "scope": "global", "part": "body",
         "weights": None},
    ),
    "sensitivity": (sensitivity, {"model": MODEL, "masks": MASKS, "batches": [(X, LABELS)]}),
    "wanda": (wanda, {"model": MODEL, "masks": MASKS, "batches": [X], "positions": 2, "seed": 0}),
    "obs": (obs, {"model": MODEL, "masks": MASKS, "batches": [X], "positions": 2, "ridge": 0.1, "seed": 0}),
    "reconstruct_": (reconstruct_, {"model": network(), "masks": {NAME: MASKS[NAME]}, "batches": [X], "positions": 2,
                                    "ridge": 0.1, "seed": 0}),
    "reestimate_batch_norm_": (reestimate_batch_norm_, {"model": network(), "batches": [X]}),
    "save_ticket": (save_ticket, {"path": PATH, "model": MODEL, "masks": MASKS, "header": None}),
    "write_ticket": (write_ticket, {"path": PATH, "state": MODEL.state_dict(), "masks": MASKS, "header": {}}),
    "load_ticket_": (load_ticket_, {"path": PATH, "model": network()}),
    "read_ticket": (read_ticket, {"path": PATH}),
    "load_checkpoint": (load_checkpoint, {"path": PATH, "model": MODEL}),
    "pretrained": (pretrained, {"model": "resnet8", "weights": "random", "round": 0, "classes": 1000}),
    "frozen_backbone": (frozen_backbone, {"model": "resnet8", "weights": "random", "precision": "float32"}),
    "quantize": (quantize, {"model": MODEL, "batches": [X], **BITS, "quant_range": "minmax", "batch_norm": "folded"}),
    "prepare_lsq": (prepare_lsq, {"model": MODEL, "batches": [X], **BITS}),
    "finish_lsq": (finish_lsq, {"model": LSQ, "batch_norm": "folded"}),
    "load_lsq": (load_lsq, {"model": MODEL, "state": LSQ.state_dict()}),
}  # fmt: skip

SHARES = (0, -0.1, 20, math.nan, math.inf, "0.2", None, True, torch.tensor([0.2]))
NAMES = ("nonsense", 3, None, ["global"])
WHOLE = (-1, 2.5, "1", None, True)
NETWORKS = (None, "resnet8", PATH, MASKS, MODEL.state_dict())
ONE = MASKS[NAME]
WRONG_MASKS = (
    None, {}, MODEL, ONE, [NAME], {NAME: ONE.int()}, {NAME: ONE.float()}, {NAME: ONE.numpy()}, {NAME: None},
    {NAME: torch.zeros_like(ONE)},
)  # fmt: skip
OTHERS = ({"nonsense": ONE}, {0: ONE}, {NAME: ONE[:1]}, {**MASKS, "nonsense": ONE})  # which need the network to be noticed
WRONG_BATCHES = (None, X, MODEL, "images", [IMAGES], [(X, LABELS)], [X[:0]], [X[:, :1]], [X[0, 0]], [X.double()])
WRONG_STATES = (None, MODEL, [1], {**MODEL.state_dict(), "epoch": 3}, {**MODEL.state_dict(), 0: ONE})

# name of an argument -> what it must not be, whatever the function
WRONG: dict[str, tuple[object, ...]] = {
    "model": (*NETWORKS, network(change=to_nan)),
    "density": (*SHARES, 1e-9),
    "rate": (1.0, *SHARES),
    "scope": NAMES,
    "part": NAMES,
    "quant_range": NAMES,
    "recipe": (None, vars(RECIPE)),
    "batch_norm": NAMES,
    "precision": NAMES[:3],
    "scores": (MODEL, {NAME: None}, {NAME: SCORES[NAME][:1]}, {NAME: SCORES[NAME] * 1j}, {NAME: SCORES[NAME] * math.nan}),
    "weights": ([], "nonsense", ["nonsense"], [0], 3),
    "names": ("nonsense", [NAME, "nonsense"], [None], 3),
    "masks": (*WRONG_MASKS, *OTHERS),
    "within": (*WRONG_MASKS[1:], *OTHERS),
    "number": WHOLE,
    "rounds": WHOLE,
    "round": WHOLE,
    "rewind": (1, *WHOLE),
    "classes": (0, -1, 2.5, "3", True),
    "positions": (0, *WHOLE),
    "seed": (-1, 0.5, "0", None),
    "ridge": (0, -1, math.nan, "1", None),
    "batches": ([], *WRONG_BATCHES),
    "path": (None, MODEL, MASKS, ""),
    "header": ([1], "text", {"x": Path()}, {"x": torch.ones(1)}),
    "state": WRONG_STATES,
    "weight_bits": (0, 1, 9, 4.0, "4", None, True, math.nan),
    "activation_bits": (0, 1, 9, 4.0, "4", None, True, math.nan),
}
# the same for an argument of one function
REAL = (network(change=to_other_numbers(torch.int8)), network(change=to_other_numbers(torch.complex64)))
WRONG_HERE: dict[tuple[str, str], tuple[object, ...]] = {
    ("prune", "density"): (*WRONG["density"], 0.6),  # above that of `within`
    ("prune", "weights"): ([NAME],),  # beside `within`
    ("prune, named", "scores"): WRONG["scores"],
    ("select", "density"): (*WRONG["density"], 0.6),
    ("density", "masks"): WRONG_MASKS,
    ("select", "masks"): WRONG_MASKS,
    ("full", "model"): NETWORKS,
    ("magnitude", "model"): NETWORKS,
    ("magnitude", "masks"): WRONG["names"],
    ("measure", "model"): NETWORKS,
    ("iterative", "model"): NETWORKS,
    ("sensitivity", "model"): NETWORKS,
    ("wanda", "model"): NETWORKS,
    ("obs", "model"): NETWORKS,
    ("sensitivity", "batches"): (None, [], MODEL, [X], X, [(X, LABELS + 1)], [(X, LABELS[:2])], [(X, LABELS / 2)], [(1, 2)],
                                 [(IMAGES, LABELS)]),
    ("write_ticket", "masks"): (*WRONG_MASKS[:1], *WRONG_MASKS[2:], *OTHERS),  # none are those of a dense network
    ("write_ticket", "state"): WRONG_STATES,
    ("write_ticket", "header"): (None, *WRONG["header"]),
    ("load_ticket_", "model"): NETWORKS,
    ("load_checkpoint", "model"): NETWORKS,
    ("load_lsq", "model"): NETWORKS,
    ("pretrained", "model"): NAMES,
    ("frozen_backbone", "model"): NAMES,
    ("pretrained", "weights"): NAMES,
    ("frozen_backbone", "weights"): NAMES,
}  # fmt: skip


def called(call: str, file: Path, **other: object) -> object:
    function, arguments = CALLS[call]
    arguments = {**arguments, **other}
    return function(**{name: file if value is PATH and name == "path" else value for name, value in arguments.items()})


@pytest.mark.parametrize("call", CALLS)
def test_the_arguments_are_right_but_for_the_one_that_is_wrong(call: str, file: Path) -> None:
    called(call, file)
    assert [name for name in CALLS[call][1] if not WRONG_HERE.get((call, name), WRONG.get(name))] == []


@pytest.mark.parametrize(("call", "name", "value"), bad_calls(CALLS, WRONG, WRONG_HERE))
def test_a_wrong_argument_is_named(call: str, name: str, value: object, file: Path) -> None:
    known_as = {"number": "round", "names": "weights", "within": "within"}.get(name, name)
    if call == "magnitude" and name == "masks":
        known_as = "weights"
    before = {path: path.read_bytes() for path in file.parent.iterdir()}
    with pytest.raises(InputError, match=rf"^(`{known_as}[`.]|unknown {known_as} )") as caught:
        called(call, file, **{name: value})
    assert re.search(r"; |There are: |must be a whole number", str(caught.value))  # the way out
    assert {path: path.read_bytes() for path in file.parent.iterdir()} == before


@pytest.mark.parametrize("name", ["empty.pth", "damaged.pth", "numbers.pth", "nowhere.pth", "dense.pth", "."])
def test_files_that_are_no_tickets_or_no_weights_are_refused(name: str, file: Path) -> None:
    for load in (load_ticket_, load_checkpoint):
        if load is load_ticket_ or name != "dense.pth":
            with pytest.raises(
                InputError, match=re.escape(name if name != "." else str(file.parent)) + ".*(copy|copied|alone)"
            ):
                load(file.parent / name, network())


def test_arguments_that_are_swapped_are_named() -> None:
    for call, message in (
        (lambda: load_ticket_(MODEL, PATH), "`path` must be a path, got a ResNet; use text or"),
        (lambda: save_ticket(MODEL, PATH, MASKS), "`path` must be a path, got a ResNet"),
        (lambda: apply_(MASKS, MODEL), "`masks` must be a dict, .* got a ResNet"),
        (lambda: save_ticket(PATH, MASKS, MODEL), "`masks` must be a dict, .* got a ResNet"),
        (lambda: load_checkpoint(MODEL, PATH), "`path` must be a path, got a ResNet"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_weights_that_are_no_real_numbers_are_refused() -> None:
    for model, kind in zip(REAL, ("int8", "complex64"), strict=True):
        with pytest.raises(InputError, match=f"`weights` must be real .*, but {NAME} is torch.{kind}; leave it out"):
            prune(model, density=0.5)
        for make in (quantize, prepare_lsq):
            with pytest.raises(InputError, match=rf"`model` must have .*{NAME}.*torch.{kind}"):
                make(model, [X], **BITS)


def test_a_quantized_network_is_not_quantized_again() -> None:
    for model in (quantize(MODEL, [X], **BITS), LSQ):
        for make in (quantize, prepare_lsq):
            with pytest.raises(InputError, match="`model` must be a float network, but it is quantized already; take"):
                make(model, [X], **BITS)


def test_the_density_that_is_possible_is_told() -> None:
    with pytest.raises(
        InputError, match=r"`density` must be at most 0\.5, .* pruned stays pruned, got 0\.6; use a lower one"
    ):
        prune(MODEL, density=0.6, within=MASKS)
    with pytest.raises(InputError, match=r"`density` must keep a weight, but 1e-09 of \d+ is none; use 1.\de-05 or more"):
        prune(MODEL, density=1e-9)
    with pytest.raises(InputError, match="`density` must be in .*, got 20; percent\\? use 0.2"):
        prune(MODEL, density=20)
