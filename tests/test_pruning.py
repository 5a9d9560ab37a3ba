import pytest
import torch

from vpcore import InputError, pruning
from vpcore.models import build, prunable


def random_scores(seed: int, *, ties: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (4, 3, 3, 3), "b": (7,), "c": (5, 11)}
    draw = (
        (lambda s: torch.randint(3, s, generator=generator).float())
        if ties
        else (lambda s: torch.rand(s, generator=generator))
    )
    return {name: draw(shape) for name, shape in shapes.items()}


def everything(scores: dict[str, torch.Tensor]) -> pruning.Masks:
    return {name: torch.ones_like(value, dtype=torch.bool) for name, value in scores.items()}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_exactly_the_number_asked_for_is_kept_nested_and_best(seed: int, ties: bool) -> None:
    scores = random_scores(seed, ties=ties)
    masks, total = everything(scores), sum(s.numel() for s in scores.values())
    for density in (1.0, 0.8, 0.51, 0.2, 0.013):
        before = {name: mask.clone() for name, mask in masks.items()}
        kept = pruning.select(scores, masks, density=density)
        assert sum(int(mask.sum()) for mask in kept.values()) == round(density * total)
        assert all(bool((~kept[name] | masks[name]).all()) for name in kept)
        worst = min(float(scores[n][kept[n]].min()) for n in kept if kept[n].any())
        gone = [scores[n][masks[n] & ~kept[n]] for n in kept]
        assert worst >= max((float(g.max()) for g in gone if len(g)), default=-1)
        assert all(torch.equal(masks[name], before[name]) for name in masks)  # the caller's masks are as they were
        masks = kept


def test_what_is_gone_stays_gone_even_with_the_best_score() -> None:
    masks = {"w": torch.tensor([False, True, True])}
    kept = pruning.select({"w": torch.tensor([9.0, 1.0, 2.0])}, masks, density=1 / 3)
    assert kept["w"].tolist() == [False, False, True]


def test_apply_and_measure_agree_with_the_masks() -> None:
    model = build("resnet8", classes=3, seed=0)
    masks = pruning.full(model, prunable(model))
    masks = pruning.select(pruning.magnitude(model, masks), masks, density=0.1)
    pruning.apply_(model, masks)
    shares = pruning.measure(model, masks)
    assert shares == pytest.approx({name: float(mask.float().mean()) for name, mask in masks.items()})
    assert pruning.density(masks) == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize(
    ("density", "message"), [(20, "got 20; percent\\? use 0.2"), (0, "got 0"), (-0.1, "got -0.1"), (1e-9, "keeps 0 of 170")]
)
def test_bad_density(density: float, message: str) -> None:
    scores = random_scores(0, ties=False)
    with pytest.raises(InputError, match=message):
        pruning.select(scores, everything(scores), density=density)


def test_density_cannot_grow() -> None:
    scores = random_scores(0, ties=False)
    half = pruning.select(scores, everything(scores), density=0.5)
    with pytest.raises(InputError, match="between 1 and 85 can be kept"):
        pruning.select(scores, half, density=0.6)


def test_bad_schedule() -> None:
    with pytest.raises(InputError, match="`rate` must be in .*, got 20; percent\\? use 0.2"):
        pruning.density_of_round(1, rate=20)
    with pytest.raises(InputError, match="`round` must be 0"):
        pruning.density_of_round(-1, rate=0.2)
