import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from torch import nn

from vpcore import InputError
from vpcore.networks.augmentations import AUGMENTATIONS
from vpcore.networks.backbones import build, normalise
from vpcore.networks.training import Recipe, _draw, fit, one_cycle, predict

RECIPE = Recipe(epochs=4, batch=16, lr=0.1, weight_decay=1e-3, augment="none", precision="float32", seed=3)


def blobs(n: int = 64, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose class is their grey level."""
    labels = torch.arange(n) % classes
    noise = torch.randint(40, (n, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    return (noise + 80 * labels[:, None, None, None]).to(torch.uint8), labels


def test_it_learns(cpu: torch.device) -> None:
    images, labels = blobs()
    model = build("resnet8", classes=3, seed=0)
    losses = []
    fit(model, images, labels, replace(RECIPE, epochs=5), after_epoch=lambda e, loss, s: losses.append(loss))
    assert losses[-1] < 0.2 < losses[0]
    assert not model.training
    logits = predict(lambda x: model((x - 0.45) / 0.225), images, device=cpu)
    assert float((logits.argmax(1) == labels).float().mean()) > 0.9


def test_a_killed_run_goes_on_as_if_it_had_not_been() -> None:
    images, labels = blobs()
    whole, cut = (build("resnet8", classes=3, seed=0) for _ in range(2))
    recipe = replace(RECIPE, augment="shift+flip")
    fit(whole, images, labels, recipe)
    saved = {}

    class Kill(Exception):
        pass

    def stop(epoch: int, loss: float, state: dict) -> None:
        if epoch == 2:
            saved.update(model={k: v.clone() for k, v in cut.state_dict().items()}, optimizer=state)
            raise Kill

    with pytest.raises(Kill):
        fit(cut, images, labels, recipe, after_epoch=stop)
    resumed = build("resnet8", classes=3, seed=9)
    resumed.load_state_dict(saved["model"])
    fit(resumed, images, labels, recipe, first_epoch=2, optimizer_state=saved["optimizer"])
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_a_step_is_taken_as_one_says() -> None:
    """It gets the optimizer with the gradients, and counts the steps of the schedule, also when training begins later."""
    images, labels = blobs()
    model, seen = build("resnet8", classes=3, seed=0), []
    before = {name: value.clone() for name, value in model.named_parameters()}

    def stay(optimizer: torch.optim.Optimizer, step: int) -> None:
        assert all(p.grad is not None and bool(p.grad.any()) for group in optimizer.param_groups for p in group["params"])
        seen.append(step)

    fit(model, images, labels, RECIPE, first_epoch=2, take_step=stay)
    assert seen == list(range(2 * 4, 4 * 4))
    assert RECIPE.steps(len(images)) == 4 * 4
    assert RECIPE.steps(79) == 4 * 4  # the last, smaller batch of an epoch is left out
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())  # nobody took a step


def test_images_are_normalised_with_the_statistics_given() -> None:
    seen = []

    class Spy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return super().forward(x.flatten(1)[:, :4])

    images = torch.full((16, 3, 4, 4), 51, dtype=torch.uint8)  # 0.2
    statistics = (0.2, 0.1, 0.6), (1.0, 0.5, 0.2)
    fit(Spy(4, 2), images, torch.zeros(16).long(), replace(RECIPE, epochs=1), statistics=statistics)
    assert seen[0].mean((0, 2, 3)).tolist() == pytest.approx([0.0, 0.2, -2.0], abs=1e-6)


def test_weight_decay_spares_biases_and_norms() -> None:
    """With a loss that ignores the weights only decay moves them."""

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :2] + 0 * self.weight.sum() + 0 * self.bias.sum()

    model = Constant()
    fit(model, *blobs(classes=2), replace(RECIPE, epochs=1, weight_decay=0.1))
    assert bool((model.weight < 1).all())
    assert model.bias.tolist() == [1, 1]


def varied(name: str, images: torch.Tensor) -> torch.Tensor:
    kind = AUGMENTATIONS[name]
    return kind.apply(images, *kind.draw(len(images), images.shape[2], torch.Generator().manual_seed(0)))


def test_augmentation_moves_and_flips_but_does_not_invent() -> None:
    images = torch.arange(8, dtype=torch.uint8).repeat(50, 3, 8, 1)  # columns 0..7
    moved = varied("shift", images)
    starts = moved[:, 0, 0, 0].long()
    assert set(starts.tolist()) == {0, 1}  # a shift of at most one column, an eighth of the side; edges repeat
    flipped = varied("shift+flip", images)
    falling = flipped[:, 0, 0, 2] > flipped[:, 0, 0, 5]
    assert 10 < int(falling.sum()) < 40
    assert torch.equal(varied("none", images), images)


def plain_fit(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe) -> None:
    """One step at a constant batch, as one writes it with targets that are distributions."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003)
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr * one_cycle(0.5), momentum=0.9, nesterov=True)
    rows = torch.randperm(len(images), generator=generator)
    x, classes = normalise(images[rows].float() / 255), 3
    target = torch.nn.functional.one_hot(labels[rows], classes).float()
    target = target * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
    if recipe.mixup:
        seed = int(torch.randint(2**62, (), generator=generator))
        share = np.random.default_rng(seed).beta(recipe.mixup, recipe.mixup)
        other = torch.randperm(len(images), generator=generator)
        x, target = share * x + (1 - share) * x[other], share * target + (1 - share) * target[other]
    model.train()
    (-target * model(x).log_softmax(1)).sum(1).mean().backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize("regularised", [{}, {"label_smoothing": 0.2}, {"mixup": 0.4}, {"label_smoothing": 0.1, "mixup": 1}])
def test_smoothed_and_mixed_labels_are_those_of_their_papers(regularised: dict[str, float]) -> None:
    """Whose targets are distributions: (1 - s) one_hot + s / C, and the mixture of two of them."""
    images, labels = blobs()
    recipe = replace(RECIPE, epochs=1, batch=64, weight_decay=0.0, **regularised)
    ours, theirs = (build("resnet8", classes=3, seed=0) for _ in range(2))
    fit(ours, images, labels, recipe)
    plain_fit(theirs, images, labels, recipe)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    if regularised:
        untouched = build("resnet8", classes=3, seed=0)
        fit(untouched, images, labels, replace(recipe, label_smoothing=0.0, mixup=0.0))
        assert not torch.equal(untouched.fc.weight, ours.fc.weight)


def test_mixtures_follow_their_distribution_and_the_seed() -> None:
    recipe = replace(RECIPE, mixup=0.3, batch=5)
    shares, orders = zip(*(_draw(recipe, 16, torch.Generator().manual_seed(k)) for k in range(2000)), strict=True)
    assert kstest(torch.stack(shares), beta(0.3, 0.3).cdf).pvalue > 0.01
    assert all(sorted(order.tolist()) == [0, 1, 2, 3, 4] for order in orders)
    again = _draw(recipe, 16, torch.Generator().manual_seed(7))
    assert (again[0], again[1].tolist()) == (shares[7], orders[7].tolist())


@pytest.mark.parametrize(("wrong", "message"), [
    ({"label_smoothing": 1.0}, r"`label_smoothing` must be a number in \[0, 1\), got 1.0"),
    ({"label_smoothing": -0.1}, r"`label_smoothing` must be a number in \[0, 1\), got -0.1"),
    ({"mixup": -1.0}, r"`mixup` must be a number in \[0, 1e\+38\), got -1.0"),
    ({"mixup": math.nan}, r"`mixup` must be a number in \[0, 1e\+38\), got nan"),
])  # fmt: skip
def test_wrong_regularisation(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(RECIPE, **wrong)


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(
        InputError, match=r"loss must be a finite number, got (nan|inf) in epoch \d .* rate 1e\+20; use a lower"
    ):
        fit(build("resnet8", classes=3, seed=0), *blobs(), replace(RECIPE, lr=1e20))


def test_bad_arguments() -> None:
    model = build("resnet8", classes=3, seed=0)
    with pytest.raises(InputError, match="unknown augment 'flip'"):
        fit(model, *blobs(), replace(RECIPE, augment="flip"))
    with pytest.raises(InputError, match="`batch` must be at most the number of images, 64; got 65"):
        fit(model, *blobs(), replace(RECIPE, batch=65))


def test_prediction_does_not_depend_on_the_batch(cpu: torch.device) -> None:
    images, _ = blobs(10)
    outs = [predict(lambda x: x.mean((2, 3)), images, batch=b, device=cpu) for b in (1, 3, 500)]
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[1], outs[2])
    assert math.isclose(float(outs[0][0, 0]), float(images[0, 0].float().mean() / 255), rel_tol=1e-5)
