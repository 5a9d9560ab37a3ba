from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import prune

from vpcore import InputError
from vpcore.networks.backbones import build, prunable
from vpcore.pruning import masks as pruning
from vpcore.weights.tickets import save_ticket

SHAPES = {"a": (4, 3, 3, 3), "b": (7,), "c": (5, 11)}


def random_scores(seed: int, *, ties: bool) -> pruning.Scores:
    generator = torch.Generator().manual_seed(seed)
    if ties:
        return {name: torch.randint(3, shape, generator=generator).float() for name, shape in SHAPES.items()}
    return {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}


def everything(scores: pruning.Scores) -> pruning.Masks:
    return {name: torch.ones_like(value, dtype=torch.bool) for name, value in scores.items()}


def kept(masks: pruning.Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


@pytest.mark.parametrize("scope", pruning.SCOPES)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_exactly_the_number_asked_for_is_kept_nested_and_best(seed: int, ties: bool, scope: str) -> None:
    scores = random_scores(seed, ties=ties)
    masks, total = everything(scores), sum(s.numel() for s in scores.values())
    for density in (1.0, 0.8, 0.51, 0.5, 0.2, 0.013):
        before = {name: mask.clone() for name, mask in masks.items()}
        chosen = pruning.select(scores, masks, density=density, scope=scope)
        assert kept(chosen) == round(density * total)
        assert all(bool((~chosen[name] | masks[name]).all()) for name in chosen)
        for rivals in [[name] for name in chosen] if scope == "layer" else [list(chosen)]:
            worst = min((float(scores[n][chosen[n]].min()) for n in rivals if chosen[n].any()), default=9)
            gone = [scores[n][masks[n] & ~chosen[n]] for n in rivals]
            assert worst >= max((float(g.max()) for g in gone if len(g)), default=-1)
        if scope == "layer":
            assert all(abs(int(mask.sum()) - density * mask.numel()) < 1 for mask in chosen.values())
        assert all(torch.equal(masks[name], before[name]) for name in masks)  # the caller's masks are as they were
        masks = chosen


def test_among_ties_the_first_are_kept() -> None:
    scores = {"a": torch.ones(2, 3), "b": torch.ones(6)}
    assert pruning.select(scores, everything(scores), density=0.5)["a"].all()
    layers = pruning.select(scores, everything(scores), density=0.5, scope="layer")
    assert layers["a"].flatten().tolist() == layers["b"].tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("density", [0.9, 0.5, 0.07])
def test_selection_agrees_with_torch(density: float) -> None:
    """torch.nn.utils.prune counts what it removes and rounds it in each layer, so densities are chosen that divide."""
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Linear(20, 10, bias=False), nn.Conv2d(10, 20, 1, bias=False)]
    for layer in layers:
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
    model = nn.Sequential(*layers)
    masks = pruning.full(model, ["0.weight", "1.weight"])
    ours = {
        scope: pruning.select(pruning.magnitude(model, masks), masks, density=density, scope=scope)
        for scope in pruning.SCOPES
    }
    for layer, name in zip(layers, masks, strict=True):
        prune.l1_unstructured(layer, "weight", amount=1 - density)
        assert torch.equal(layer.weight_mask.bool(), ours["layer"][name])
        prune.remove(layer, "weight")
    generator.manual_seed(0)
    for layer in layers:
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
    prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=1 - density)
    assert all(torch.equal(layers[i].weight_mask.bool(), ours["global"][name]) for i, name in enumerate(masks))


def test_what_is_gone_stays_gone_even_with_the_best_score() -> None:
    masks = {"w": torch.tensor([False, True, True])}
    chosen = pruning.select({"w": torch.tensor([9.0, 1.0, 2.0])}, masks, density=1 / 3)
    assert chosen["w"].tolist() == [False, False, True]


def test_a_layer_gives_no_more_than_it_has() -> None:
    """After a global round a layer may have less left than its share; the others make up for it, and the count is exact."""
    masks = {"a": torch.tensor([True, False, False, False]), "b": torch.ones(4, dtype=torch.bool)}
    chosen = pruning.select({"a": torch.ones(4), "b": torch.ones(4)}, masks, density=0.5, scope="layer")
    assert (int(chosen["a"].sum()), int(chosen["b"].sum())) == (1, 3)


@pytest.mark.parametrize("seed", range(50))
def test_apportionment_against_bisection(seed: int) -> None:
    """The one e with sum min(most, e share) = total is found by bisection; each count is its quota rounded up or down."""
    generator = torch.Generator().manual_seed(seed)
    layers = int(torch.randint(1, 9, (), generator=generator))
    shares = torch.randint(1, 50, (layers,), generator=generator).tolist()
    most = torch.randint(0, 400, (layers,), generator=generator).tolist()
    total = int(torch.randint(0, sum(most) + 1, (), generator=generator))
    low, high = 0.0, 400.0
    for _ in range(100):
        e = (low + high) / 2
        low, high = (e, high) if sum(min(m, e * s) for m, s in zip(most, shares, strict=True)) < total else (low, e)
    quota = [min(m, high * s) for m, s in zip(most, shares, strict=True)]
    counts = pruning.apportion(total, shares=shares, most=most)
    assert sum(counts) == total
    assert all(abs(count - q) < 1 + 1e-9 and count <= m for count, q, m in zip(counts, quota, most, strict=True))
    up = [q % 1 for count, q in zip(counts, quota, strict=True) if count > q + 1e-9]
    down = [q % 1 for count, q in zip(counts, quota, strict=True) if count < q - 1e-9]
    assert min(up, default=1) >= max(down, default=0) - 1e-9  # the largest remainders are rounded up


def test_apply_and_measure_agree_with_the_masks() -> None:
    model = build("resnet8", classes=3, seed=0)
    masks = pruning.full(model, prunable(model))
    masks = pruning.select(pruning.magnitude(model, masks), masks, density=0.1)
    pruning.apply_(model, masks)
    shares = pruning.measure(model, masks)
    assert shares == pytest.approx({name: float(mask.float().mean()) for name, mask in masks.items()})
    assert pruning.density(masks) == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("scope", pruning.SCOPES)
@pytest.mark.parametrize(
    ("density", "message"),
    [
        (20, "got 20; percent\\? use 0.2"),
        (1.5, "got 1.5; percent\\? use 0.015"),
        (100, "got 100; use 0.2 for a fifth"),
        (0, "got 0"),
        (-0.1, "got -0.1"),
        (1e-9, "1e-09 of 170 is none; use 0.0059 or more"),
    ],
)
def test_bad_density(density: float, message: str, scope: str) -> None:
    scores = random_scores(0, ties=False)
    with pytest.raises(InputError, match=message):
        pruning.select(scores, everything(scores), density=density, scope=scope)


def test_density_cannot_grow() -> None:
    scores = random_scores(0, ties=False)
    half = pruning.select(scores, everything(scores), density=0.5)
    with pytest.raises(
        InputError, match=r"`density` must be at most 0\.5, .* keep 85 of 170 weights .* got 0\.6; use a lower one"
    ):
        pruning.select(scores, half, density=0.6)


def test_no_layer_gets_back_what_is_pruned() -> None:
    scores = {"a": torch.ones(3), "b": torch.ones(4)}
    masks = {"a": torch.tensor([True, False, True]), "b": torch.ones(4, dtype=torch.bool)}
    assert kept(pruning.select_counts(scores, masks, {"a": 2, "b": 0})) == 2
    for count in (3, -1):
        with pytest.raises(InputError, match=rf"`count` must be in 0\.\.2, which is what a has left, got {count}"):
            pruning.select_counts(scores, masks, {"a": count, "b": 0})


@pytest.mark.parametrize("scope", pruning.SCOPES)
def test_scores_that_are_no_numbers_are_refused(scope: str) -> None:
    scores, masks = {"w": torch.tensor([1.0, torch.nan, 2.0])}, {"w": torch.ones(3, dtype=torch.bool)}
    where = "w" if scope == "layer" else "the network"
    with pytest.raises(
        InputError, match=f"`scores` of {where} must be numbers, but 1 of 3 are NaN; .* smaller learning rate"
    ):
        pruning.select(scores, masks, density=1 / 3, scope=scope)
    masks["w"][1] = False  # what is pruned is not ranked, whatever its score
    assert pruning.select(scores, masks, density=1 / 3, scope=scope)["w"].tolist() == [False, False, True]


def test_bad_scope() -> None:
    scores = random_scores(0, ties=False)
    with pytest.raises(InputError, match="unknown scope 'layers'; did you mean 'layer'"):
        pruning.select(scores, everything(scores), density=0.5, scope="layers")


def test_bad_schedule() -> None:
    with pytest.raises(InputError, match="`rate` must be in .*, got 20; percent\\? use 0.2"):
        pruning.density_of_round(1, rate=20)
    with pytest.raises(InputError, match="`round` must be a whole number of at least 0, 0 for dense, got -1"):
        pruning.density_of_round(-1, rate=0.2)


class Own(nn.Module):
    """A network as one may write it: two convolutions, a shared linear layer, attention, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem, self.body = nn.Conv2d(3, 4, 3), nn.Conv1d(4, 8, 3)
            self.mix, self.attention = nn.Linear(8, 8), nn.MultiheadAttention(8, 2)
            self.mix_again = nn.Linear(8, 8)
            self.mix_again.weight = self.mix.weight
            self.head = nn.Linear(8, 2)


BODY = ["body.weight", "mix.weight", "attention.in_proj_weight", "attention.out_proj.weight"]


@pytest.mark.parametrize("scope", pruning.SCOPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_any_network_is_pruned_by_magnitude(dtype: torch.dtype, scope: str) -> None:
    model = Own().to(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = pruning.prune(model, density=0.25, scope=scope)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # it is left as it is
    assert sorted(masks) == sorted(BODY)
    assert kept(masks) == round(0.25 * sum(before[name].numel() for name in BODY))
    for rivals in [[name] for name in masks] if scope == "layer" else [BODY]:
        kept_weights = torch.cat([before[name][masks[name]] for name in rivals])
        assert kept_weights.abs().min() >= torch.cat([before[name][~masks[name]] for name in rivals]).abs().max()
    pruning.apply_(model, masks)
    for name, value in model.state_dict().items():
        name = "mix.weight" if name == "mix_again.weight" else name  # the layer that shares its weight is pruned with it
        assert torch.equal(value, before[name] * masks[name] if name in masks else before[name])


def test_a_backbone_is_pruned_as_the_study_prunes_it() -> None:
    model = build("resnet8", classes=3, seed=0)
    full = pruning.full(model, prunable(model, "all"))
    expected = pruning.select(pruning.magnitude(model, full), full, density=0.1)
    found = pruning.prune(model, density=0.1, part="all")
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], mask) for name, mask in expected.items())


def test_scores_and_weights_of_ones_own() -> None:
    model = Own()
    scores = {"head.weight": torch.arange(16).view(2, 8), "body.weight": torch.full((8, 4, 3), -1)}
    masks = pruning.prune(model, density=8 / 112, scores=scores)
    assert masks["head.weight"].tolist() == [[False] * 8, [True] * 8]
    assert not masks["body.weight"].any()
    assert list(pruning.prune(model, density=0.5, scores=scores, weights=["head.weight"])) == ["head.weight"]
    assert list(pruning.prune(model, density=0.5, weights="head.weight")) == ["head.weight"]
    squeeze = torchvision.models.squeezenet1_1(num_classes=3)  # its classifier is no linear layer
    with pytest.raises(InputError, match="must end in a linear layer; SqueezeNet has none; .*`weights`, what is pruned"):
        pruning.prune(squeeze, density=0.5)
    named = prunable(squeeze, "all")[1:-1]
    assert pruning.density(pruning.prune(squeeze, density=0.5, weights=named)) == pytest.approx(0.5, abs=1e-5)


def test_what_cannot_be_pruned_is_refused() -> None:
    def refused(message: str, model: object, **options: object) -> None:
        with pytest.raises(InputError, match=message):
            pruning.prune(model, **{"density": 0.5, **options})

    refused("`model` must be a torch.nn.Module, got an? OrderedDict", Own().state_dict())
    refused("must be in .* got 20; percent", Own(), density=20)
    refused("unknown scope 'row'", Own(), scope="row")
    refused("unknown part 'legs'", Own(), part="legs")
    refused(
        r"(?s)must have names of parameters of Own, such as stem.weight; these are none:.*\+ tail.weight",
        Own(),
        weights=["tail.weight"],
    )
    refused(r"(?s)must have names of parameters of Own, .*\+ mix_again.weight", Own(), weights=["mix_again.weight"])
    refused("`part` body of Linear", nn.Linear(2, 2))
    refused("`model` must have convolutions or linear layers, but ReLU has none", nn.ReLU())
    half = {"head.weight": torch.ones(2, 8), "body.weight": torch.ones(8, 4)}
    refused(
        r"`scores` of body.weight must be .* of shape \(8, 4, 3\), got a tensor of \(8, 4\) torch.float32",
        Own(),
        scores=half,
    )
    refused("`scores` of mix.weight must be .* got None", Own(), scores=half, weights=["mix.weight"])
    complex_scores = {"head.weight": torch.ones(2, 8, dtype=torch.complex64)}
    refused(
        "`scores` of head.weight must be real numbers, .* got a tensor of .* torch.complex64", Own(), scores=complex_scores
    )
    unknown = torch.ones(2, 8)
    unknown[1, 1] = torch.nan
    refused("`scores` .* 1 of 16 are NaN", Own(), scores={"head.weight": unknown})
    for dtype in (torch.int8, torch.complex64):
        model = Own()
        model.mix.weight = nn.Parameter(torch.ones(8, 8, dtype=dtype), requires_grad=False)
        refused(f"must be real floating-point numbers, but mix.weight is {dtype}", model)
    for value in (torch.nan, torch.inf):
        model = Own()
        model.head.bias.data[0] = value
        refused("must have finite weights, but head.bias holds NaN or infinite ones", model)
    prune.l1_unstructured(model.body, "weight", 3)
    refused("must have weights of its own, but body.weight is computed .*prune.remove", model)


WRONG = {
    "none": ({}, "must be a dict, name of a weight -> bool tensor, with at least one, got {}"),
    "no dict": (torch.ones(2).bool(), "must be a dict"),
    "unknown": ({"tail.weight": torch.ones(2).bool()}, r"(?s)must be named as weights of the network.*\+ tail.weight"),
    "a number for a name": ({0: torch.ones(2).bool()}, r"(?s)must be named as weights of the network.*\+ 0"),
    "float": ({"head.weight": torch.ones(2, 8)}, "must be bool tensors, .* of head.weight is a tensor of .* torch.float32"),
    "array": ({"head.weight": torch.ones(2, 8).numpy()}, "must be bool tensors, .* of head.weight is a ndarray"),
    "shape": ({"head.weight": torch.ones(2, 1).bool()}, r"\(2, 8\) for head.weight, got \(2, 1\)"),
    "nothing": ({"head.weight": torch.zeros(2, 8).bool()}, "must keep at least one weight, but all are False"),
}


@pytest.mark.parametrize("name", WRONG)
def test_masks_that_are_not_those_of_the_network_are_refused(name: str, tmp_path: Path) -> None:
    """By whatever takes masks; nothing is changed, and no file is left."""
    masks, message = WRONG[name]
    model = Own()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        pruning.apply_(model, masks)
    with pytest.raises(InputError, match=message):
        save_ticket(tmp_path / "t.safetensors", model, masks)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_numbers_are_not_masked_away() -> None:
    model = Own()
    masks = pruning.prune(model, density=0.5)
    model.mix.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="must have finite weights, but mix.weight"):
        pruning.apply_(model, masks)


def test_a_later_round_stays_within_the_masks_of_an_earlier_one() -> None:
    model = Own()
    half = pruning.prune(model, density=0.5)
    for value in model.parameters():
        value.data = torch.rand_like(value)  # the order is another now
    quarter = pruning.prune(model, density=0.25, within=half)
    assert kept(quarter) == round(0.25 * sum(mask.numel() for mask in half.values()))
    assert all(bool((half[name] | ~mask).all()) for name, mask in quarter.items())
    with pytest.raises(InputError, match=r"`density` must be at most 0\.5, as the masks .* got 0\.6"):
        pruning.prune(model, density=0.6, within=half)
    with pytest.raises(InputError, match="must be a dict, name of a weight -> bool tensor"):
        pruning.prune(model, density=0.6, within={})
