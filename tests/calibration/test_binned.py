"""The bins and their errors, against a loop, torchmetrics, scikit-learn, netcal and uncertainty-calibration."""

import calibration as uncertainty_calibration
import numpy as np
import pytest
import torch
from calibration import utils
from netcal.metrics import ECE as NetcalECE
from netcal.metrics import MCE as NetcalMCE
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from tests.calibration.cases import GRID, random_logits, random_predictions
from vpcore import InputError
from vpcore.calibration.binned import BINS, Reliability, classwise, reliability, toplabel
from vpcore.calibration.predictions import Predictions


def loop_ece(confidence: torch.Tensor, right: torch.Tensor, edges: list[float]) -> tuple[float, float]:
    """ECE and MCE by definition, one prediction at a time; `edges` are the upper ones."""
    rows: dict[int, list[tuple[float, float]]] = {}
    for c, r in zip(confidence.tolist(), right.tolist(), strict=True):
        rows.setdefault(next(b for b, edge in enumerate(edges) if c <= edge), []).append((c, r))
    gaps = [(len(pairs), abs(sum(c for c, _ in pairs) - sum(r for _, r in pairs)) / len(pairs)) for pairs in rows.values()]
    return sum(n * gap for n, gap in gaps) / len(confidence), max(gap for _, gap in gaps)


@pytest.mark.parametrize("case", GRID)
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_and_mce_agree_with_their_definition_and_with_four_libraries(case: dict, bins: int) -> None:
    predictions = random_predictions(**case)
    ours = reliability(predictions, bins=bins)
    ece, mce = loop_ece(predictions.confidence, predictions.right, [(b + 1) / bins for b in range(bins)])
    assert ours.ece == pytest.approx(ece, abs=1e-12)
    assert ours.mce == pytest.approx(mce, abs=1e-12)
    probs, labels = predictions.probs.numpy(), predictions.labels.numpy()
    theirs = uncertainty_calibration.get_ece(probs, labels, num_bins=bins, mode="top-label")
    assert ours.ece == pytest.approx(theirs, abs=1e-12)
    # scikit-learn: the accuracies and confidences of the bins that are not empty
    accuracy, confidence = calibration_curve(predictions.right.numpy(), predictions.confidence.numpy(), n_bins=bins)
    some = ours.count > 0
    np.testing.assert_allclose(ours.accuracy[some], accuracy, atol=1e-12)
    np.testing.assert_allclose(ours.confidence[some], confidence, atol=1e-12)
    # The bins of netcal and torchmetrics are left-closed, which matters on an edge only, and no random case lies on one but
    # at 1: netcal closes its last bin, torchmetrics opens one more for 1 itself. It gets a 1 that is a little smaller.
    confidence, right = predictions.confidence.numpy(), predictions.right.numpy()
    assert ours.ece == pytest.approx(NetcalECE(bins).measure(confidence, right), abs=1e-12)
    assert ours.mce == pytest.approx(NetcalMCE(bins).measure(confidence, right), abs=1e-12)
    below = predictions.probs.clamp(max=1 - 1e-7)  # in float32, in which torchmetrics computes
    for norm, value in (("l1", ours.ece), ("max", ours.mce)):
        theirs = multiclass_calibration_error(below, predictions.labels, num_classes=case["classes"], n_bins=bins, norm=norm)
        assert value == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_confidences_on_an_edge_fall_into_the_bin_below(confidence: float) -> None:
    probs = torch.tensor([[confidence, 1 - confidence]], dtype=torch.float64)
    count = reliability(Predictions.from_probs(probs, torch.tensor([0])), bins=10).count
    assert int(count.argmax()) == round(confidence * 10) - 1


@pytest.mark.parametrize("case", GRID)
@pytest.mark.parametrize("bins", [1, 5, 7, 15])
def test_equal_mass(case: dict, bins: int) -> None:
    """Against the loop with the edges as they are defined, and a library whose edges lie halfway to the next prediction."""
    predictions = random_predictions(**case)
    ours = reliability(predictions, bins=bins, binning="mass")
    ranked = sorted(predictions.confidence.tolist())
    edges = [ranked[-(-b * len(ranked) // bins) - 1] for b in range(1, bins)] + [1.0]
    ece, mce = loop_ece(predictions.confidence, predictions.right, edges)
    assert ours.ece == pytest.approx(ece, abs=1e-12)
    assert ours.mce == pytest.approx(mce, abs=1e-12)
    quantiles = np.quantile(ranked, np.arange(1, bins) / bins, method="inverted_cdf")
    np.testing.assert_allclose(ours.edges[1:-1], quantiles, atol=0)
    if "certain" not in case and bins != 7:  # no ties, and sizes that are multiples of the number of bins
        assert ours.count.tolist() == [case["n"] / bins] * bins
        theirs = uncertainty_calibration.utils.get_ece_em(
            predictions.probs.numpy(), predictions.labels.numpy(), num_bins=bins
        )
        assert ours.ece == pytest.approx(theirs, abs=1e-12)


def test_equal_mass_differs_by_one_at_most_and_never_tears_ties_apart() -> None:
    assert (
        sorted(reliability(random_predictions(0, n=103, classes=10), bins=10, binning="mass").count.tolist())
        == [10] * 7 + [11] * 3
    )
    probs = torch.tensor([[0.6, 0.4]] * 3 + [[0.9, 0.1]] * 2, dtype=torch.float64)
    table = reliability(Predictions.from_probs(probs, torch.tensor([0, 0, 1, 0, 1])), bins=5, binning="mass")
    assert table.count.tolist() == [3, 0, 0, 2, 0]
    assert table.ece == pytest.approx((3 * abs(2 / 3 - 0.6) + 2 * abs(1 / 2 - 0.9)) / 5)
    shuffled = torch.tensor([4, 1, 3, 0, 2])
    again = reliability(Predictions.from_probs(probs, torch.tensor([0, 0, 1, 0, 1])).take(shuffled), bins=5, binning="mass")
    assert again.ece == pytest.approx(table.ece, abs=1e-15)


@pytest.mark.parametrize("case", GRID)
@pytest.mark.parametrize("bins", [1, 4, 15, 200])
def test_classwise_agrees_with_uncertainty_calibration_and_a_loop_over_classes(case: dict, bins: int) -> None:
    predictions = random_predictions(**case)
    table = classwise(predictions, bins=bins)
    theirs = uncertainty_calibration.get_ece(
        predictions.probs.numpy(), predictions.labels.numpy(), num_bins=bins, mode="marginal"
    )
    assert table.ece == pytest.approx(theirs, abs=1e-12)
    assert table.count.sum(1).tolist() == [case["n"]] * case["classes"]
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    for label in range(0, case["classes"], 7):
        probs, hit = predictions.probs[:, label].contiguous(), (predictions.labels == label).double()
        for b in range(bins):
            inside = torch.bucketize(probs, edges) == b
            assert int(table.count[label, b]) == int(inside.sum())
            if inside.any():
                assert float(table.confidence[label, b]) == pytest.approx(float(probs[inside].mean()), abs=1e-12)
                assert float(table.accuracy[label, b]) == pytest.approx(float(hit[inside].mean()), abs=1e-12)


@pytest.mark.parametrize("case", [case for case in GRID if "certain" not in case.id])
def test_toplabel_is_the_ece_of_each_predicted_class(case: dict) -> None:
    predictions = random_predictions(**case)
    total = 0.0
    for label in predictions.predicted.unique():
        inside = predictions.predicted == label
        ece = binary_calibration_error(predictions.confidence[inside], predictions.right[inside].long(), n_bins=15)
        total += float(inside.double().mean()) * float(ece)
    assert toplabel(predictions).ece == pytest.approx(total, abs=1e-6)
    assert toplabel(predictions).ece >= reliability(predictions).ece - 1e-12  # errors of classes cannot cancel


@pytest.mark.parametrize("case", GRID)
def test_debiased_agrees_with_uncertainty_calibration(case: dict) -> None:
    predictions = random_predictions(**case)
    table = reliability(predictions)
    data = list(zip(predictions.confidence.numpy(), predictions.right.numpy(), strict=True))
    binned = utils.bin(data, utils.get_equal_prob_bins(None, num_bins=15))
    assert table.squared_debiased == pytest.approx(utils.unbiased_square_ce(binned), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_debiased_ece_is_what_its_simulation_converges_to(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference draws accuracies from NumPy's global generator; it refuses bins with fewer than two predictions."""
    predictions = random_predictions(0, n=600, classes=3, temperature=temperature)
    table = reliability(predictions, bins=5, binning="mass")
    binned = [
        np.stack([predictions.confidence[part], predictions.right[part]], 1)
        for part in predictions.confidence.argsort().split(120)
    ]
    monkeypatch.setattr(utils.np.random, "normal", np.random.default_rng(0).normal)
    theirs = utils.normal_debiased_ce(binned, power=1, resamples=10_000)
    assert table.ece_debiased == pytest.approx(theirs, abs=5e-4)
    assert temperature != 1 or table.ece - table.ece_debiased > 5e-3  # the noise that it takes out


def test_debiasing_takes_the_noise_out_of_a_calibrated_network() -> None:
    """Closed form: where the gap g is nothing but noise, normal with variance s^2, E[2|g| - E|g*|] = (2 - sqrt 2) E|g|."""
    tables = [reliability(random_predictions(seed, n=200, classes=10)) for seed in range(60)]
    ece, debiased = (np.mean([getattr(table, name) for table in tables]) for name in ("ece", "ece_debiased"))
    assert ece > 0.06
    assert debiased / ece == pytest.approx(2 - 2**0.5, abs=0.05)
    assert abs(np.mean([table.squared_debiased for table in tables])) < 1e-3  # this one is unbiased
    assert np.mean([(table.count * (table.accuracy - table.confidence) ** 2).sum() / 200 for table in tables]) > 8e-3


def test_the_ece_of_few_is_too_large_as_its_docstring_says() -> None:
    for n, ece in ((100, 0.12), (10_000, 0.01)):
        tables = [reliability(random_predictions(seed, n=n, classes=10)) for seed in range(40)]
        assert np.mean([table.ece for table in tables]) == pytest.approx(ece, abs=0.005)
        assert np.mean([table.ece_debiased for table in tables]) < 0.7 * ece


def test_certain_and_right_certain_and_wrong() -> None:
    for labels, error in ((torch.arange(3), 0), (torch.tensor([1, 2, 0]), 1)):
        predictions = Predictions.from_probs(torch.eye(3), labels)
        for binning in ("width", "mass"):
            table = reliability(predictions, binning=binning)
            assert (table.ece, table.mce, table.ece_debiased) == (error, error, error)
        assert toplabel(predictions).ece == error
        assert classwise(predictions).ece == pytest.approx(
            2 * error / 3
        )  # each class: one wrong yes, one wrong no, of three


def test_base_rates_are_calibrated() -> None:
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    predictions = Predictions.from_probs(p.expand(10, 3), torch.tensor([0] * 5 + [1] * 3 + [2] * 2))
    for table in (
        reliability(predictions),
        reliability(predictions, binning="mass"),
        toplabel(predictions),
        classwise(predictions),
    ):
        assert table.ece == pytest.approx(0, abs=1e-12)


def test_wrong_for_every_class_and_right_on_average() -> None:
    """Class 0 is over-confident and class 1 under-confident by the same 0.2: only the finer errors see it."""
    probs = torch.tensor([[0.7, 0.3]] * 10 + [[0.3, 0.7]] * 10)
    predictions = Predictions.from_probs(probs, torch.tensor([0] * 5 + [1] * 5 + [1] * 9 + [0]))
    assert reliability(predictions).ece == pytest.approx(0, abs=1e-6)
    assert toplabel(predictions).ece == pytest.approx(0.2, abs=1e-6)
    assert classwise(predictions).ece == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_one_sample_one_class_absent_classes(binning: str) -> None:
    one = Predictions.from_logits(torch.zeros(1, 1), torch.tensor([0]))
    sample = Predictions.from_logits(torch.tensor([[3.0, 0.0]]), torch.tensor([1]))
    absent = Predictions.from_logits(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(50).long())
    assert reliability(one, binning=binning).ece == toplabel(one).ece == classwise(one).ece == 0
    assert reliability(sample, binning=binning).ece == pytest.approx(float(sample.confidence))
    for predictions in (one, sample, absent):
        table = reliability(predictions, binning=binning)
        assert int(table.count.sum()) == len(predictions.labels)
        assert np.isfinite([table.ece, table.mce, table.ece_debiased, table.squared_debiased]).all()


def test_float32_probabilities_are_added_up_in_float64() -> None:
    logits, labels = random_logits(0, n=3000, classes=20)
    probs = logits.softmax(1).float()
    narrow, wide = Predictions.from_probs(probs, labels), Predictions.from_probs(probs.double(), labels)
    for measure in (reliability, toplabel, classwise):
        assert measure(narrow).ece == pytest.approx(measure(wide).ece, abs=1e-12)


def test_pooled_is_not_the_mean_of_halves() -> None:
    """The error of a calibrated network shrinks as predictions are pooled."""
    predictions = random_predictions(0, n=20_000, classes=10)
    halves = [reliability(predictions.take(rows)).ece for rows in torch.arange(20_000).split(128)]
    assert reliability(predictions).ece < 0.015
    assert np.mean(halves) > 4 * reliability(predictions).ece


def test_bad_arguments() -> None:
    predictions = random_predictions(0, n=5, classes=3)
    for measure in (reliability, toplabel, classwise):
        with pytest.raises(InputError, match="`bins` must be a whole number of at least 1, got 0"):
            measure(predictions, bins=0)
    with pytest.raises(InputError, match="unknown binning 'widht'; did you mean 'width'"):
        reliability(predictions, binning="widht")


def test_bins_are_what_a_diagram_draws() -> None:
    table = reliability(random_predictions(0, n=500, classes=7))
    assert isinstance(table, Reliability)
    assert table.edges.tolist() == [b / BINS for b in range(BINS + 1)]
    some = table.count > 0
    assert bool((table.confidence[some] <= table.edges[1:][some]).all())
    assert bool((table.confidence[some] > table.edges[:-1][some]).all())
    assert float((table.count * table.confidence).sum() / 500) == pytest.approx(
        float(random_predictions(0, n=500, classes=7).confidence.mean())
    )
