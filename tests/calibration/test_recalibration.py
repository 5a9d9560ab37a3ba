"""Recalibration against scipy's minimiser, torch's, scikit-learn and netcal, and by its properties."""

import numpy as np
import pytest
import torch
from netcal.binning import HistogramBinning
from scipy.optimize import minimize_scalar
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from tests.calibration.cases import GRID, random_logits
from vpcore import InputError
from vpcore.calibration.binned import classwise, reliability
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.recalibration import (
    COLDEST,
    HOTTEST,
    RECALIBRATIONS,
    fit,
    isotonic,
    optimal_temperature,
    temperature,
    vector,
)
from vpcore.calibration.scores import nll


def halves(case: dict) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Validation logits and labels, and others of the same network."""
    logits, labels = random_logits(**case)
    others, answers = random_logits(**{**case, "seed": case["seed"] + 1000})
    return logits, labels, others, answers


class Scores(ClassifierMixin, BaseEstimator):
    """For scikit-learn: a classifier that is its inputs, logits or probabilities."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Scores":
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x.argmax(1)


def scikit_learns(method: str, scores: Tensor, labels: Tensor, others: Tensor) -> np.ndarray:
    model = CalibratedClassifierCV(FrozenEstimator(Scores(scores.shape[1])), method=method, ensemble=False)
    return model.fit(scores.numpy(), labels.numpy()).predict_proba(others.numpy())


def mean_nll(logits: Tensor, labels: Tensor, tau: float) -> float:
    return float(torch.nn.functional.cross_entropy(logits / tau, labels))


@pytest.mark.parametrize("name", sorted(RECALIBRATIONS))
@pytest.mark.parametrize("case", GRID)
def test_probabilities_come_out(name: str, case: dict) -> None:
    logits, labels, others, answers = halves(case)
    before = logits.clone(), labels.clone(), others.clone()
    probs = fit(name, logits, labels)(others)
    assert all(torch.equal(a, b) for a, b in zip(before, (logits, labels, others), strict=True))
    assert float((probs.sum(1) - 1).abs().max()) < 1e-12
    assert Predictions.from_probs(probs, answers).probs.dtype == torch.float64
    assert torch.equal(fit(name, logits, labels)(others[:3]), probs[:3])  # row by row, whatever comes with it


@pytest.mark.parametrize("case", GRID)
def test_temperature_is_at_the_optimum_of_scipys_minimiser(case: dict) -> None:
    logits, labels = random_logits(**case)
    tau = optimal_temperature(logits, labels)
    theirs = minimize_scalar(
        lambda x: mean_nll(logits, labels, np.exp(x)), bounds=(np.log(COLDEST), np.log(HOTTEST)), options={"xatol": 1e-10}
    )
    assert mean_nll(logits, labels, tau) <= theirs.fun + 1e-12
    if COLDEST < tau < HOTTEST / 2:  # at the bounds the NLL is flat
        assert tau == pytest.approx(np.exp(theirs.x), rel=1e-4)


@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("tau", [0.4, 1.0, 3.0])
def test_temperature_is_that_of_scikit_learn(classes: int, tau: float) -> None:
    logits, labels, others, _ = halves({"seed": 3, "n": 300, "classes": classes, "temperature": tau})
    theirs = scikit_learns("temperature", logits, labels, others)
    np.testing.assert_allclose(temperature(logits, labels)(others), theirs, atol=1e-6)


@pytest.mark.parametrize("put_in", [0.3, 0.7, 1.0, 1.9, 6.0])
def test_temperature_recovers_the_one_that_was_put_in(put_in: float) -> None:
    logits, labels = random_logits(0, n=10_000, classes=10)
    assert optimal_temperature(put_in * logits, labels) == pytest.approx(put_in, rel=0.05)  # as far as samples can tell
    ratio = optimal_temperature(put_in * logits, labels) / optimal_temperature(logits, labels)
    assert ratio == pytest.approx(put_in, rel=1e-9)  # exactly, for the same samples
    assert optimal_temperature(put_in * logits + 50, labels) == pytest.approx(optimal_temperature(put_in * logits, labels))


@pytest.mark.parametrize("case", GRID)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_temperature_never_changes_the_argmax(case: dict, dtype: torch.dtype) -> None:
    logits, labels, others, _ = halves(case)
    others = others.to(dtype)
    assert torch.equal(temperature(logits, labels)(others).argmax(1), others.argmax(1))


def test_temperature_where_there_is_no_optimum() -> None:
    logits, labels = random_logits(0, n=50, classes=4)
    assert optimal_temperature(logits, logits.argmax(1)) == COLDEST  # all right
    assert optimal_temperature(logits, logits.argmin(1)) == HOTTEST  # worse than chance
    assert optimal_temperature(torch.full((5, 3), 2.0), torch.tensor([0, 1, 2, 0, 1])) == 1  # no matter
    assert optimal_temperature(torch.full((5, 1), 2.0), torch.zeros(5).long()) == 1
    assert temperature(logits[:1], logits[:1].argmax(1))(logits).isfinite().all()


@pytest.mark.parametrize("case", [case for case in GRID if case.values[0]["n"] > 100])
def test_vector_scaling_is_at_the_optimum_of_its_loss(case: dict) -> None:
    """Found again by Newton's way: LBFGS of torch on the automatic gradient; and the gradient there is zero."""
    logits, labels, others, _ = halves(case)
    tau, classes = optimal_temperature(logits, labels), case["classes"]
    factor = torch.ones(classes, dtype=torch.float64, requires_grad=True)
    offset = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [factor, offset], max_iter=150, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        fitted = torch.nn.functional.cross_entropy(factor * logits / tau + offset, labels, reduction="sum")
        value = fitted + ((factor - 1) ** 2).sum() / 2 + (offset**2).sum() / 2
        value.backward()
        return value

    optimiser.step(loss)
    expected = (factor * others / tau + offset).softmax(1).detach()
    torch.testing.assert_close(vector(logits, labels)(others), expected, rtol=0, atol=1e-5)


def test_vector_scaling_recovers_what_was_put_in() -> None:
    logits, labels = random_logits(0, n=30_000, classes=5)
    factor, offset = torch.tensor([0.5, 1.0, 2.0, 1.5, 0.7]).double(), torch.tensor([1.0, -1.0, 0.0, 2.0, -2.0]).double()
    recalibrated = vector((logits - offset) / factor, labels)((logits - offset) / factor)
    assert float((recalibrated - logits.softmax(1)).abs().max()) < 0.04
    assert reliability(Predictions.from_probs(recalibrated, labels)).ece < 0.01


@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("ties", [False, True])
def test_isotonic_is_scikit_learns(classes: int, ties: bool) -> None:
    """One class against the rest; and all classes together, as long as no class is absent and no row is all zeros."""
    logits, labels, others, _ = halves({"seed": 5, "n": 600, "classes": classes, "temperature": 0.5})
    if ties:  # the squares of whole numbers: some rows come much more often than others
        logits = logits[torch.arange(600) ** 2 % 97]
    probs, fitted = logits.softmax(1).numpy(), isotonic(logits, labels)(others).numpy()
    raw = np.stack(
        [
            IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1)
            .fit(probs[:, label], labels == label)
            .predict(others.softmax(1)[:, label].numpy())
            for label in range(classes)
        ],
        1,
    )
    np.testing.assert_allclose(fitted, raw / raw.sum(1, keepdims=True), atol=1e-9)
    theirs = scikit_learns("isotonic", logits.softmax(1), labels, others.softmax(1))
    np.testing.assert_allclose(fitted, theirs, atol=1e-9)


def test_isotonic_keeps_the_order_of_each_class_before_normalising() -> None:
    """With two classes a rising function of p and one of 1 - p: so is their quotient."""
    logits, labels, others, _ = halves({"seed": 0, "n": 200, "classes": 2, "temperature": 0.4})
    order = others.softmax(1)[:, 0].argsort()
    assert bool((isotonic(logits, labels)(others)[order, 0].diff() >= -1e-12).all())


@pytest.mark.parametrize(
    "case", [case for case in GRID if not case.values[0].keys() & {"absent", "certain"} and "60" not in case.id]
)
def test_histogram_binning_is_netcals(case: dict) -> None:
    """On the validation data itself, where all bins are known; netcal fills unknown ones with their middle."""
    logits, labels = random_logits(**case)
    probs = logits.softmax(1).numpy()
    if case["classes"] > 2:
        theirs = HistogramBinning(15).fit_transform(probs, labels.numpy())
    else:
        theirs = HistogramBinning(15).fit_transform(probs[:, 1], labels.numpy())
        theirs = np.stack([1 - theirs, theirs], 1)
    np.testing.assert_allclose(fit("histogram", logits, labels)(logits), theirs, atol=1e-12)


def test_histogram_binning_of_two_classes_is_calibrated_on_its_own_data() -> None:
    logits, labels = random_logits(0, n=500, classes=2, temperature=0.3)
    assert classwise(Predictions.from_logits(logits, labels)).ece > 0.05
    recalibrated = Predictions.from_probs(fit("histogram", logits, labels)(logits), labels)
    assert classwise(recalibrated).ece == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", sorted(RECALIBRATIONS))
def test_an_overconfident_network_gets_better_on_other_data(name: str) -> None:
    logits, labels, others, answers = halves({"seed": 0, "n": 4000, "classes": 5, "temperature": 0.3})
    before = Predictions.from_logits(others, answers)
    after = Predictions.from_probs(fit(name, logits, labels)(others), answers)
    assert reliability(before).ece > 0.1
    assert reliability(after).ece < reliability(before).ece / 4
    assert nll(after) < nll(before)


@pytest.mark.parametrize("name", sorted(RECALIBRATIONS))
def test_few_samples_absent_classes_one_class(name: str) -> None:
    logits, labels = random_logits(0, n=200, classes=6, temperature=0.5)
    for few in (slice(0, 1), slice(0, 3)):
        probs = fit(name, logits[few], labels[few])(logits)
        assert nll(Predictions.from_probs(probs, labels)) < 708  # no label is ruled out for want of samples alone
    assert fit(name, torch.zeros(3, 1), torch.zeros(3).long())(torch.ones(2, 1)).tolist() == [[1.0], [1.0]]
    absent = labels < 3
    probs = fit(name, logits[absent], labels[absent])(logits)
    assert bool((probs[:, 3:] > 0).all())


def test_a_class_without_samples_keeps_its_probability() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, 0.5]]).repeat(4, 1), torch.tensor([0, 0, 1, 1])
    own = logits.softmax(1)[0].double()
    for name in ("isotonic", "histogram"):  # half right, half wrong, and the third as it was; then normalised
        expected = torch.tensor([0.5, 0.5, float(own[2])]).double() / (1 + own[2])
        torch.testing.assert_close(fit(name, logits, labels)(logits)[0], expected, rtol=0, atol=1e-6)


def test_a_bin_without_validation_samples_keeps_its_probability() -> None:
    """Class 0 at 0.5 was right half of the time; class 1 has been seen at 0.45 alone."""
    logits = torch.tensor([[0.5, 0.45, 0.05]]).double().log().repeat(2, 1)
    row = torch.tensor([[0.5, 0.3, 0.2]]).double()
    torch.testing.assert_close(fit("histogram", logits, torch.tensor([0, 1]))(row.log()), row)


def test_a_row_in_which_nothing_is_left_keeps_its_probabilities() -> None:
    """A class at 0.6 was always right and at 0.4 never; at about 1/3 none is left."""
    logits = torch.tensor([[0.6, 0.4, 1e-9], [1e-9, 0.6, 0.4], [0.4, 1e-9, 0.6]]).double().log()
    row = torch.tensor([[0.34, 0.32, 0.34]]).double()
    torch.testing.assert_close(isotonic(logits, torch.arange(3))(row.log()), row)
    sure = isotonic(logits, torch.arange(3))(torch.tensor([[0.7, 0.2, 0.1]]).double().log())
    torch.testing.assert_close(sure, torch.tensor([[1.0, 0.0, 0.0]]).double())


def test_bad_arguments() -> None:
    logits, labels = random_logits(0, n=9, classes=3)
    with pytest.raises(InputError, match="unknown recalibration 'temprature'; did you mean 'temperature'"):
        fit("temprature", logits, labels)
    for name in RECALIBRATIONS:
        with pytest.raises(InputError, match="`labels` must lie in"):
            fit(name, logits, labels + 3)
        with pytest.raises(InputError, match="`logits` must be finite"):
            fit(name, logits * torch.inf, labels)


@pytest.mark.parametrize("name", sorted(RECALIBRATIONS))
def test_probabilities_are_refused_and_their_logarithm_is_not(name: str) -> None:
    logits, labels = random_logits(0, n=50, classes=3, temperature=0.5)
    probs, fitted = logits.softmax(1), fit(name, logits, labels)
    for refused in (lambda: fit(name, probs, labels), lambda: fit(name, probs.half(), labels), lambda: fitted(probs)):
        with pytest.raises(InputError, match="`logits` must be logits, .* probabilities\\? .* their logarithm"):
            refused()
    again = fit(name, probs.log(), labels)(probs.log())
    if name != "vector":  # its factors do not cancel what was added to all logits of a row
        torch.testing.assert_close(again, fitted(logits), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="`logits` must be logits"):
        optimal_temperature(probs, labels)


@pytest.mark.parametrize("name", sorted(RECALIBRATIONS))
def test_other_shapes_and_numbers_that_are_not_finite_are_refused_after_the_fit(name: str) -> None:
    logits, labels = random_logits(0, n=50, classes=3)
    fitted = fit(name, logits, labels)
    for other in (logits[:, :2], torch.cat([logits, logits], 1)):
        with pytest.raises(InputError, match=f"`logits` must have the 3 classes .*, got {other.shape[1]}"):
            fitted(other)
    for other in (logits[0], logits[None]):
        with pytest.raises(InputError, match=r"`logits` must have the shape \(N, T\) with .*, got \("):
            fitted(other)
    for value in (torch.nan, torch.inf):
        with pytest.raises(InputError, match="`logits` must be finite numbers"):
            fitted(logits.index_fill(0, torch.tensor([7]), value))
