"""Scores, parts, curves and intervals, against loops, scikit-learn, scipy, torchmetrics and uncertainty-calibration."""

import numpy as np
import pytest
import torch
from calibration.utils import get_selective_stats
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_accuracy

from tests.calibration.cases import GRID, random_logits, random_predictions
from vpcore import InputError
from vpcore.calibration.all_metrics import METRICS
from vpcore.calibration.binned import reliability
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.scores import accuracy, brier, brier_parts, interval, nll, risk_coverage


@pytest.mark.parametrize("case", GRID)
def test_scores_agree_with_scikit_learn_and_torchmetrics(case: dict) -> None:
    predictions = random_predictions(**case)
    probs, labels, classes = predictions.probs.numpy(), predictions.labels.numpy(), np.arange(case["classes"])
    assert accuracy(predictions) == pytest.approx(accuracy_score(labels, predictions.predicted.numpy()), abs=1e-12)
    theirs = multiclass_accuracy(predictions.probs, predictions.labels, num_classes=len(classes), average="micro")
    assert accuracy(predictions) == pytest.approx(float(theirs), abs=1e-6)
    if len(classes) > 2:
        theirs = brier_score_loss(labels, probs, labels=classes, scale_by_half=False)
    else:  # scikit-learn takes the probability of class 1 and counts one of the two squares
        theirs = 2 * brier_score_loss(labels, probs[:, 1], labels=classes)
    assert brier(predictions) == pytest.approx(theirs, abs=1e-12)
    if "certain" not in case:  # scikit-learn takes a probability of 0 for 2.2e-16, we for 2.2e-308
        assert nll(predictions) == pytest.approx(log_loss(labels, probs, labels=classes), abs=1e-12)


def test_certain_and_right_certain_and_wrong() -> None:
    right, wrong = (Predictions.from_probs(torch.eye(3), labels) for labels in (torch.arange(3), torch.tensor([1, 2, 0])))
    assert (accuracy(right), brier(right), nll(right)) == (1, 0, 0)
    assert (accuracy(wrong), brier(wrong)) == (0, 2)
    assert 700 < nll(wrong) < 710  # finite, though the label had probability 0


def test_base_rates_score_the_entropy() -> None:
    """Closed forms: constant predictions p that are the base rates have NLL H(p) and Brier 1 - |p|^2, all uncertainty."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    predictions = Predictions.from_probs(p.expand(10, 3), torch.tensor([0] * 5 + [1] * 3 + [2] * 2))
    assert nll(predictions) == pytest.approx(float(-(p * p.log()).sum()))
    assert brier(predictions) == pytest.approx(float(1 - (p**2).sum()))
    assert accuracy(predictions) == 0.5
    parts = brier_parts(predictions)
    assert (parts.reliability, parts.resolution) == pytest.approx((0, 0), abs=1e-12)
    assert parts.uncertainty == pytest.approx(brier(predictions))


def loop_parts(predictions: Predictions, bins: int) -> tuple[float, float, float, float, float]:
    """Murphy's three terms and the two within bins of Stephenson et al. (2008), class by class and bin by bin."""
    terms = np.zeros(5)
    size, classes = predictions.probs.shape
    for label in range(classes):
        p, y = predictions.probs[:, label].numpy(), (predictions.labels == label).double().numpy()
        number = np.digitize(p, np.arange(1, bins) / bins, right=True)
        for b in np.unique(number):
            inside = number == b
            dp, dy = p[inside] - p[inside].mean(), y[inside] - y[inside].mean()
            terms[0] += inside.sum() / size * (p[inside].mean() - y[inside].mean()) ** 2
            terms[1] += inside.sum() / size * (y[inside].mean() - y.mean()) ** 2
            terms[3] += (dp**2).sum() / size
            terms[4] += 2 * (dp * dy).sum() / size
        terms[2] += y.mean() * (1 - y.mean())
    return tuple(terms.tolist())


@pytest.mark.parametrize("case", GRID)
@pytest.mark.parametrize("bins", [1, 15])
def test_brier_parts_are_murphys_with_the_terms_within_bins(case: dict, bins: int) -> None:
    predictions = random_predictions(**case)
    cost, gain, worth, variance, covariance = loop_parts(predictions, bins)
    parts = brier_parts(predictions, bins=bins)
    assert parts.reliability == pytest.approx(cost, abs=1e-12)
    assert parts.resolution == pytest.approx(gain - variance + covariance, abs=1e-12)
    assert parts.uncertainty == pytest.approx(worth, abs=1e-12)
    assert parts.reliability - parts.resolution + parts.uncertainty == pytest.approx(brier(predictions), abs=1e-12)


def test_with_one_probability_in_a_bin_the_resolution_is_murphys() -> None:
    forecasts = torch.tensor([[0.1, 0.9], [0.3, 0.7], [0.8, 0.2]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    predictions = Predictions.from_probs(
        forecasts[torch.randint(3, (400,), generator=generator)], torch.randint(2, (400,), generator=generator)
    )
    cost, gain, worth, variance, covariance = loop_parts(predictions, 10)
    assert variance == pytest.approx(0, abs=1e-12)
    assert brier_parts(predictions, bins=10).resolution == pytest.approx(gain, abs=1e-12)
    assert cost - gain + worth == pytest.approx(brier(predictions), abs=1e-12)


@pytest.mark.parametrize("case", GRID)
def test_risk_coverage_is_the_mean_over_random_orders_of_equal_confidences(case: dict) -> None:
    predictions = random_predictions(**case)
    curve = risk_coverage(predictions)
    assert float(curve.risk[-1]) == pytest.approx(1 - accuracy(predictions), abs=1e-12)
    assert float(curve.coverage[-1]) == 1
    if "certain" not in case:  # no ties
        area, _ = get_selective_stats(predictions.confidence.numpy(), predictions.right.numpy())
        assert curve.aurc == pytest.approx(1 - area, abs=1e-12)
    else:
        generator, errors = np.random.default_rng(0), 1 - predictions.right.numpy()
        areas = []
        for _ in range(300):
            order = np.lexsort((generator.random(len(errors)), -predictions.confidence.numpy()))
            areas.append(np.mean(errors[order].cumsum() / np.arange(1, len(errors) + 1)))
        assert curve.aurc == pytest.approx(np.mean(areas), abs=4 * np.std(areas) / 300**0.5 + 1e-12)


def test_equal_confidences_have_the_risk_of_all() -> None:
    predictions = Predictions.from_probs(torch.tensor([[0.6, 0.4]] * 4), torch.tensor([0, 0, 0, 1]))
    assert risk_coverage(predictions).risk.tolist() == [0.25] * 4


def test_interval_is_scipys_percentile_bootstrap() -> None:
    predictions = random_predictions(0, n=200, classes=5)

    def measured(rows: np.ndarray) -> float:
        return accuracy(predictions.take(torch.from_numpy(rows)))

    theirs = bootstrap(
        (np.arange(200),), measured, vectorized=False, method="percentile", n_resamples=2000, rng=np.random.default_rng(1)
    ).confidence_interval
    ours = interval(predictions, accuracy, seed=0, resamples=2000)
    assert ours.value == accuracy(predictions)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.011)  # two of the steps of 1 / 200


def test_interval_of_accuracy_is_the_binomial_one() -> None:
    """The bootstrap of a share is a binomial: its quantiles are known, and so is the width."""
    predictions = random_predictions(1, n=2000, classes=5)
    found, p = interval(predictions, accuracy, seed=0, level=0.9, resamples=2500), accuracy(predictions)
    half = 1.645 * (p * (1 - p) / 2000) ** 0.5
    assert (found.low, found.high) == pytest.approx((p - half, p + half), abs=0.06 * half)


def test_interval_follows_from_the_seed_and_pairs_networks() -> None:
    predictions = random_predictions(0, n=60, classes=5)
    logits, labels = random_logits(0, n=60, classes=5)
    hotter = Predictions.from_logits(logits / 2, labels)

    def ece(predictions: Predictions) -> float:
        return reliability(predictions).ece

    state = torch.random.get_rng_state()
    assert interval(predictions, ece, seed=3, resamples=20) == interval(predictions, ece, seed=3, resamples=20)
    assert interval(predictions, ece, seed=3, resamples=20) != interval(predictions, ece, seed=4, resamples=20)
    assert torch.equal(torch.random.get_rng_state(), state)
    # the same rows for both: the argmax is the same, and so must be the interval of the accuracy
    pair = [interval(p, accuracy, seed=3, resamples=20) for p in (predictions, hotter)]
    assert pair[0] == pair[1]


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("case", GRID[::4])
def test_every_metric_has_an_interval(name: str, case: dict) -> None:
    predictions = random_predictions(**case)
    found = interval(predictions, METRICS[name], seed=0, resamples=20)
    assert found.value == METRICS[name](predictions)
    assert np.isfinite([found.low, found.high]).all()
    assert found.low <= found.high


def test_one_sample_one_class() -> None:
    one = Predictions.from_logits(torch.zeros(1, 1), torch.tensor([0]))
    assert (accuracy(one), nll(one), brier(one), risk_coverage(one).aurc) == (1, 0, 0, 0)
    assert brier_parts(one).uncertainty == brier_parts(one).resolution == 0
    found = interval(one, accuracy, seed=0, resamples=5)
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_bad_arguments() -> None:
    predictions = random_predictions(0, n=5, classes=2)
    with pytest.raises(InputError, match=r"`level` must be in \(0, 1\), got 95; percent\? use 0.95"):
        interval(predictions, accuracy, seed=0, level=95)
    with pytest.raises(InputError, match="`resamples` must be a whole number of at least 1, got 0"):
        interval(predictions, accuracy, seed=0, resamples=0)
