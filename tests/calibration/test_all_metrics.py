import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.calibration.cases import GRID, random_logits, random_predictions
from vpcore import InputError
from vpcore.calibration.all_metrics import METRICS, metrics
from vpcore.calibration.authors_ece import legacy_ece
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.scores import interval


@pytest.mark.parametrize("case", GRID)
def test_a_record_holds_finite_numbers_in_their_ranges(case: dict) -> None:
    found = metrics(*random_logits(**case))
    scalars = {name: value for name, value in found.items() if not name.startswith("bin_")}
    assert set(scalars) == {*METRICS, "legacy_ece", "images"}
    assert all(math.isfinite(value) for value in scalars.values())
    for name in (
        "accuracy",
        "confidence",
        "ece",
        "ece_mass",
        "mce",
        "ece_classwise",
        "ece_toplabel",
        "ece_smooth",
        "ks",
        "aurc",
    ):
        assert 0 <= found[name] <= 1, name
    assert json.loads(json.dumps(found)) == found
    parts = found["brier_reliability"] - found["brier_resolution"] + found["brier_uncertainty"]
    assert parts == pytest.approx(found["brier"], abs=1e-12)
    assert found["ks"] <= found["ece"] + 2 / 15 + 1e-9  # a cumulative sum is at most all bins before, and a part of one


def test_bins_give_the_ece_that_is_reported() -> None:
    found = metrics(*random_logits(0, n=500, classes=7))
    bins = list(zip(found["bin_count"], found["bin_accuracy"], found["bin_confidence"], strict=True))
    assert sum(n * abs(a - c) for n, a, c in bins) / 500 == pytest.approx(found["ece"])
    assert max(abs(a - c) for n, a, c in bins if n) == pytest.approx(found["mce"])
    assert sum(n * c for n, _, c in bins) / 500 == pytest.approx(found["confidence"])
    assert sum(n * a for n, a, _ in bins) / 500 == pytest.approx(found["accuracy"])
    assert sum(found["bin_count"]) == found["images"] == 500


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_has_an_interval(name: str) -> None:
    found = interval(random_predictions(0, n=200, classes=4, temperature=0.4), METRICS[name], seed=0, resamples=30)
    assert found.low <= found.high
    assert found.low < found.high or name == "brier_uncertainty"


def test_a_shift_of_the_logits_changes_the_legacy_number_alone() -> None:
    logits, labels = random_logits(0, n=300, classes=5)
    before, after = metrics(logits, labels), metrics(logits + 8, labels)
    changed = {name for name in before if before[name] != pytest.approx(after[name], abs=1e-9)}
    assert changed == {"legacy_ece"}
    assert metrics(logits, labels, legacy_batch=7)["legacy_ece"] == legacy_ece(logits, labels, batch=7)


def test_one_sample_one_class_absent_classes() -> None:
    one = metrics(torch.zeros(1, 1), torch.tensor([0]))
    assert {
        one[name] for name in ("ece", "mce", "ece_classwise", "ece_toplabel", "ece_smooth", "ks", "brier", "nll", "aurc")
    } == {0}
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    found = metrics(logits, torch.zeros(50, dtype=torch.long))
    assert sum(found["bin_count"]) == found["images"] == 50
    assert found["brier_uncertainty"] == 0


def test_bad_logits() -> None:
    with pytest.raises(InputError, match="`logits` must be finite.*the network or its training is broken"):
        metrics(torch.tensor([[torch.nan, 0.0]]), torch.tensor([0]))
    with pytest.raises(InputError, match=r"probabilities\? use from_probs"):
        metrics(torch.tensor([[0.2, 0.8]]), torch.tensor([0]))


def test_float32_and_other_layouts_give_the_same_numbers() -> None:
    logits, labels = random_logits(0, n=100, classes=6)
    logits = logits.float()
    turned = logits.T.contiguous().T
    assert not turned.is_contiguous()
    assert metrics(turned, labels.int()) == metrics(logits, labels)
    probs = Predictions.from_probs(logits.double().softmax(1), labels)
    assert METRICS["nll"](probs) == metrics(logits, labels)["nll"]


def test_each_metric_says_which_direction_is_worse() -> None:
    """Sure and right, against half as often right as it is sure: of the same labels, so that they are as uncertain."""
    labels = torch.arange(200) % 2
    right = Predictions.from_probs(torch.eye(2)[labels], labels)
    wrong = Predictions.from_probs(torch.eye(2)[labels * (torch.arange(200) % 4 < 2)], labels)
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)
    for name, metric in METRICS.items():
        change = metric(wrong) - metric(right)
        assert {True: change > 1e-9, False: change < -1e-9, None: abs(change) < 1e-9}[metric.worse], name


@pytest.mark.parametrize("form", [np.asarray, torch.Tensor.tolist, torch.Tensor.float, torch.Tensor.bfloat16])
def test_ones_own_logits_in_whatever_form(form: Callable[[torch.Tensor], object]) -> None:
    logits, labels = random_logits(7, n=60, classes=4)
    logits = logits.bfloat16().double()  # what every form holds exactly
    assert metrics(form(logits), labels.tolist()) == metrics(logits, labels)
