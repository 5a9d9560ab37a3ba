"""Errors without bins, against their definitions in brute force, closed forms, and relplot."""

import numpy as np
import pytest
import relplot
import torch

from tests.calibration.cases import GRID, random_logits, random_predictions
from vpcore import InputError
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.smooth_ece import GRID as POINTS
from vpcore.calibration.smooth_ece import cumulative_gap, ks, smooth


def brute_gap(predictions: Predictions, width: float, points: np.ndarray) -> np.ndarray:
    """g(t): a Gaussian and its mirror images in 0 and 1, prediction by prediction, without a grid or a transform."""
    c, r = predictions.confidence.numpy(), predictions.right.numpy()
    gap = np.zeros_like(points)
    for image in [2 * k + sign * c for k in range(-6, 7) for sign in (1, -1)]:
        kernel = np.exp(-((points[:, None] - image) ** 2) / (2 * width**2)) / (width * np.sqrt(2 * np.pi))
        gap += (kernel * (r - c)).mean(1)
    return gap


@pytest.mark.parametrize("case", GRID[::2])
@pytest.mark.parametrize("width", [0.02, 0.1, 0.5, 2.0])
def test_the_smoothed_gap_is_a_sum_of_mirrored_gaussians(case: dict, width: float) -> None:
    predictions = random_predictions(**case)
    found = smooth(predictions, width=width)
    every = slice(None, None, POINTS // 256)
    gap = brute_gap(predictions, width, found.confidence[every].numpy())
    np.testing.assert_allclose(found.gap[every], gap, atol=2e-4)
    assert found.ece == pytest.approx(np.trapezoid(np.abs(gap), dx=1 / 256), abs=2e-4)
    assert float(torch.trapezoid(found.density, dx=1 / POINTS)) == pytest.approx(1, abs=1e-9)
    assert float(torch.trapezoid(found.gap, dx=1 / POINTS)) == pytest.approx(
        float((predictions.right - predictions.confidence).mean()), abs=1e-9
    )


@pytest.mark.parametrize("case", GRID)
def test_smooth_ece_is_the_width_at_which_it_is_measured(case: dict) -> None:
    predictions = random_predictions(**case)
    found = smooth(predictions)
    assert found.ece == pytest.approx(found.width, abs=1e-7)
    finer, coarser = smooth(predictions, width=found.width / 2).ece, smooth(predictions, width=2 * found.width).ece
    assert finer + 1e-9 >= found.ece >= coarser - 1e-9


@pytest.mark.parametrize("case", GRID)
def test_smooth_ece_agrees_with_relplot(case: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where relplot is exact: it loses half of what lies within a thousandth of 0 or 1, so confidences are kept below 0.995;
    it measures on 200 points, here on 2,001; it cuts the kernel off at a distance of 0.5, so widths are 0.15 at most; and it
    halves the interval of the width ten times, which leaves 1e-3. Beyond that, there is the brute force above."""
    monkeypatch.setattr(relplot.config, "smECE_mesh_pts", 2001)
    logits, labels = random_logits(**case)
    predictions = Predictions.from_probs(0.99 * logits.softmax(1) + 0.01 / case["classes"], labels)
    c, r = predictions.confidence.numpy(), predictions.right.numpy()
    for width in (0.03, 0.1):
        theirs = relplot.smECE_sigma(c, r, width)
        assert smooth(predictions, width=width).ece == pytest.approx(theirs, abs=2e-3)
    if smooth(predictions).width <= 0.15:
        assert smooth(predictions).ece == pytest.approx(relplot.smECE(c, r), abs=1e-3)


@pytest.mark.parametrize("case", GRID)
def test_ks_is_the_largest_gap_of_the_cumulative_sums(case: dict) -> None:
    predictions = random_predictions(**case)
    c, r = predictions.confidence.numpy(), predictions.right.numpy()
    largest = max(abs(((r - c) * (c <= u)).sum()) for u in c) / len(c)
    assert ks(predictions) == pytest.approx(largest, abs=1e-12)
    assert abs((r - c).mean()) - 1e-12 <= ks(predictions) <= 1
    rows = torch.randperm(len(c), generator=torch.Generator().manual_seed(0))
    assert ks(predictions.take(rows)) == pytest.approx(ks(predictions), abs=1e-12)


def test_equal_confidences_enter_together() -> None:
    """One by one, in this order, the sums would reach 2 * 0.5 / 4."""
    probs = torch.tensor([[0.5, 0.5]] * 4)
    predictions = Predictions.from_probs(probs, torch.tensor([1, 1, 0, 0]))
    assert ks(predictions) == 0
    assert [part.tolist() for part in cumulative_gap(predictions)] == [[0.5], [0.0]]


def test_certain_and_right_certain_and_wrong() -> None:
    right, wrong = (Predictions.from_probs(torch.eye(3), labels) for labels in (torch.arange(3), torch.tensor([1, 2, 0])))
    assert smooth(right).ece == ks(right) == 0
    assert smooth(wrong).ece == pytest.approx(1, abs=1e-8)
    assert ks(wrong) == 1


def test_one_sample_and_one_class() -> None:
    assert smooth(Predictions.from_logits(torch.zeros(1, 1), torch.tensor([0]))).ece == 0
    sample = Predictions.from_probs(torch.tensor([[0.75, 0.25]], dtype=torch.float64), torch.tensor([1]))
    assert ks(sample) == 0.75
    assert smooth(sample).ece == pytest.approx(0.75, abs=1e-6)  # one sign everywhere, so the integral is the residual


def test_a_calibrated_network_has_small_errors_that_shrink_with_n() -> None:
    few, many = (random_predictions(0, n=n, classes=10) for n in (300, 30_000))
    assert smooth(many).ece < 0.02 < smooth(few).ece
    assert ks(many) < 0.01 < ks(few)


def test_a_width_below_the_grid_is_refused() -> None:
    with pytest.raises(InputError, match="`width` must be a number of at least 1 / 4096, got 0"):
        smooth(random_predictions(0, n=5, classes=2), width=0)
