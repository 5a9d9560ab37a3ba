import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from vpcore import InputError, calibration


def random_case(seed: int, n: int = 500, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits.softmax(1), torch.randint(classes, (n,), generator=generator)


def loop_ece(probs: torch.Tensor, labels: torch.Tensor, bins: int) -> float:
    """The definition, one prediction at a time."""
    rows: dict[int, list[tuple[float, bool]]] = {}
    for p, y in zip(probs, labels, strict=True):
        confidence, predicted = float(p.max()), int(p.argmax())
        b = next(b for b in range(bins) if confidence <= (b + 1) / bins)
        rows.setdefault(b, []).append((confidence, predicted == int(y)))
    return sum(abs(sum(c for c, _ in r) - sum(a for _, a in r)) for r in rows.values()) / len(probs)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_agrees_with_its_definition_and_with_torchmetrics(seed: int, bins: int) -> None:
    probs, labels = random_case(seed)
    ours = calibration.reliability(probs, labels, bins=bins).ece
    assert ours == pytest.approx(loop_ece(probs, labels, bins), abs=1e-12)
    theirs = multiclass_calibration_error(probs, labels, num_classes=7, n_bins=bins, norm="l1")
    assert ours == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_confidences_on_an_edge_fall_into_the_bin_below(confidence: float) -> None:
    probs = torch.tensor([[confidence, 1 - confidence]], dtype=torch.float64)
    count = calibration.reliability(probs, torch.tensor([0]), bins=10).count
    assert int(count.argmax()) == round(confidence * 10) - 1


def test_certain_and_right_certain_and_wrong() -> None:
    probs = torch.eye(3)
    assert calibration.reliability(probs, torch.arange(3)).ece == 0
    assert calibration.reliability(probs, torch.tensor([1, 2, 0])).ece == 1
    assert calibration.brier(probs, torch.tensor([1, 2, 0])) == 2
    assert calibration.nll(probs, torch.arange(3)) == 0
    assert 700 < calibration.nll(probs, torch.tensor([1, 2, 0])) < 710  # finite, though the label had probability 0


def test_base_rates_are_calibrated_and_score_the_entropy() -> None:
    """Closed forms: constant predictions p that are the base rates have ECE 0, NLL H(p) and Brier 1 - |p|^2."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    probs = p.expand(10, 3)
    assert calibration.reliability(probs, labels).ece == pytest.approx(0, abs=1e-12)
    assert calibration.nll(probs, labels) == pytest.approx(float(-(p * p.log()).sum()))
    assert calibration.brier(probs, labels) == pytest.approx(float(1 - (p**2).sum()))
    assert calibration.accuracy(probs, labels) == 0.5


def test_pooled_is_not_the_mean_over_batches() -> None:
    """A calibrated model, measured batch by batch, looks miscalibrated: the reason why all predictions are pooled."""
    generator = torch.Generator().manual_seed(0)
    probs = (3 * torch.randn(20_000, 10, generator=generator)).softmax(1).double()
    labels = torch.multinomial(probs, 1, generator=generator)[:, 0]
    pooled = calibration.reliability(probs, labels).ece
    batched = sum(calibration.reliability(p, y).ece for p, y in zip(probs.split(128), labels.split(128), strict=True))
    assert pooled < 0.015
    assert batched / len(probs.split(128)) > 4 * pooled


def test_one_class_one_sample_absent_classes() -> None:
    assert calibration.metrics(torch.zeros(1, 1), torch.tensor([0]))["ece"] == 0
    found = calibration.metrics(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(50))
    assert sum(found["bin_count"]) == found["images"] == 50


def test_bins_give_the_ece_that_is_reported() -> None:
    probs, labels = random_case(0)
    found = calibration.metrics(probs.log(), labels)
    bins = zip(found["bin_count"], found["bin_accuracy"], found["bin_confidence"], strict=True)
    assert sum(n * abs(a - c) for n, a, c in bins) / 500 == pytest.approx(found["ece"])
    mean = sum(n * c for n, c in zip(found["bin_count"], found["bin_confidence"], strict=True)) / 500
    assert mean == pytest.approx(found["confidence"])


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (torch.tensor([[2.0, -1.0]]), torch.tensor([0]), "each row must sum to 1; .*logits\\? use logits.softmax"),
        (torch.tensor([[2.0, 1.0]]), torch.tensor([0]), "row 0 sums to 3"),
        (torch.tensor([[torch.nan, 1.0]]), torch.tensor([0]), "NaN"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([2]), r"`labels` must lie in 0\.\.1, got 2\.\.2"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([0, 1]), r"`labels` must have the shape \(1,\), got \(2,\)"),
        (torch.zeros(0, 2), torch.zeros(0), r"shape \(N, T\) with N >= 1"),
    ],
)
def test_bad_arguments(probs: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibration.reliability(probs, labels)


def test_bad_logits() -> None:
    with pytest.raises(InputError, match="`logits` must be finite"):
        calibration.metrics(torch.tensor([[torch.nan, 0.0]]), torch.tensor([0]))
