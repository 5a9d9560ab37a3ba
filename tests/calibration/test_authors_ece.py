"""The authors' number, against the very function that their code calls, and what is wrong with it."""

import calibration as uncertainty_calibration
import numpy as np
import pytest
import torch

from tests.calibration.cases import GRID, random_logits, random_predictions
from vpcore import InputError
from vpcore.calibration.authors_ece import batch_ece, legacy_ece
from vpcore.calibration.binned import reliability
from vpcore.calibration.predictions import Predictions


def authors(logits: torch.Tensor, labels: torch.Tensor, batch: int) -> float:
    """Their loop over test batches, with the library function that it calls."""
    error, total = 0.0, 0
    for fx, y in zip(logits.split(batch), labels.split(batch), strict=True):
        total += len(y)
        error += uncertainty_calibration.get_ece(fx.numpy(), y.numpy())
    return error / total


@pytest.mark.parametrize("case", GRID)
@pytest.mark.parametrize(("batch", "shift"), [(7, 0.0), (64, -3.0), (128, 10.0)])
def test_it_is_the_number_of_the_authors_code(case: dict, batch: int, shift: float) -> None:
    logits, labels = random_logits(**case)
    assert legacy_ece(logits + shift, labels, batch=batch) == pytest.approx(authors(logits + shift, labels, batch), rel=1e-9)
    narrow = (logits + shift).float()  # as their network gives them; they add up in float32, we in float64
    assert legacy_ece(narrow, labels, batch=batch) == pytest.approx(authors(narrow, labels, batch), rel=1e-5, abs=1e-6)


def test_of_probabilities_in_one_batch_it_is_an_ece_over_n() -> None:
    predictions = random_predictions(0, n=300, classes=10)
    found = legacy_ece(predictions.probs, predictions.labels, batch=300)
    assert found * 300 == pytest.approx(reliability(predictions).ece, abs=1e-12)


def test_the_ranking_inverts() -> None:
    """A calibrated network with its logits shifted by 10 scores worse than an over-confident one with small logits."""
    logits, labels = random_logits(0, n=20_000, classes=10)
    calibrated = logits + 10
    overconfident = 3 * logits
    overconfident = overconfident - overconfident.amax(1, keepdim=True) + 3
    ece = [reliability(Predictions.from_logits(z, labels)).ece for z in (calibrated, overconfident)]
    legacy = [legacy_ece(z, labels) for z in (calibrated, overconfident)]
    assert ece[0] < 0.01 < 0.2 < ece[1]
    assert legacy[0] > 0.09 > 0.03 > legacy[1]


def test_a_shift_changes_it_and_nothing_else() -> None:
    logits, labels = random_logits(0, n=1280, classes=10)
    before, after = (legacy_ece(z, labels) for z in (logits + 5, logits + 105))
    assert after - before == pytest.approx(100 / 128, rel=1e-6)
    assert torch.allclose((logits + 5).softmax(1), (logits + 105).softmax(1))


def test_it_is_the_mean_logit_less_the_accuracy_over_the_batch_size() -> None:
    logits, labels = random_logits(0, n=1024, classes=10)
    logits = logits + 10  # all maxima in the last bin
    expected = float(logits.amax(1).mean() - (logits.argmax(1) == labels).double().mean())
    for batch in (1, 16, 64, 128, 1024):
        assert legacy_ece(logits, labels, batch=batch) * batch == pytest.approx(expected, rel=1e-9)


def test_a_mean_over_batches_is_too_large_and_the_more_so_the_smaller_they_are() -> None:
    predictions = random_predictions(0, n=20_000, classes=10)
    pooled = reliability(predictions).ece
    small, large = batch_ece(predictions, batch=128), batch_ece(predictions, batch=2000)
    assert pooled < 0.015
    assert small > 3 * large > 3 * pooled
    by_hand = [
        reliability(Predictions.from_probs(p, y)).ece
        for p, y in zip(predictions.probs.split(128), predictions.labels.split(128), strict=True)
    ]
    assert small == pytest.approx(np.mean(by_hand), abs=1e-12)
    assert batch_ece(predictions, batch=20_000) == pytest.approx(pooled, abs=1e-15)


def test_one_sample_one_class() -> None:
    one = torch.tensor([[4.0]]), torch.tensor([0])
    assert legacy_ece(*one) == 3  # |4 - 1|, a number that no calibration error can be
    assert batch_ece(Predictions.from_logits(*one)) == 0


def test_bad_arguments() -> None:
    logits, labels = random_logits(0, n=5, classes=2)
    with pytest.raises(InputError, match="`batch` must be a whole number of at least 1, got 0"):
        legacy_ece(logits, labels, batch=0)
    with pytest.raises(InputError, match="`batch` must be a whole number of at least 1, got -1"):
        batch_ece(Predictions.from_logits(logits, labels), batch=-1)
    with pytest.raises(InputError, match="`logits` must be finite"):
        legacy_ece(logits * torch.nan, labels)
