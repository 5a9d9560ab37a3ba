from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.calibration.cases import random_logits
from vpcore import InputError
from vpcore.calibration.predictions import Predictions


def test_logits_become_their_softmax_in_float64() -> None:
    logits, labels = random_logits(0, n=50, classes=4)
    made = Predictions.from_logits(logits.float(), labels)
    by_hand = logits.float().double().exp() / logits.float().double().exp().sum(1, keepdim=True)
    torch.testing.assert_close(made.probs, by_hand, rtol=1e-12, atol=0)
    assert made.probs.dtype == made.confidence.dtype == torch.float64
    assert made.labels.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_probabilities_of_every_precision_are_taken_as_they_are(dtype: torch.dtype) -> None:
    logits, labels = random_logits(1, n=200, classes=8)
    probs = logits.softmax(1).to(dtype)
    made = Predictions.from_probs(probs, labels.int())
    assert torch.equal(made.probs.double(), probs.double())
    assert torch.equal(made.confidence, probs.double().amax(1))


def test_the_first_of_equal_probabilities_is_predicted() -> None:
    probs = torch.tensor([[0.2, 0.4, 0.4], [0.5, 0.0, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    made = Predictions.from_probs(probs, torch.tensor([1, 0, 2]))
    assert made.predicted.tolist() == [1, 0, 0]
    assert made.right.tolist() == [1, 1, 0]


def test_taken_rows_are_the_predictions_made_from_those_rows() -> None:
    logits, labels = random_logits(2, n=30, classes=5)
    rows = torch.tensor([3, 3, 29, 0])
    taken, made = Predictions.from_logits(logits, labels).take(rows), Predictions.from_logits(logits[rows], labels[rows])
    for name in ("probs", "labels", "predicted", "confidence"):
        assert torch.equal(getattr(taken, name), getattr(made, name))


def test_one_sample_and_one_class() -> None:
    assert Predictions.from_logits(torch.zeros(1, 1), torch.tensor([0])).probs.tolist() == [[1.0]]
    assert Predictions.from_logits(torch.ones(3, 1), torch.zeros(3, dtype=torch.long)).confidence.tolist() == [1, 1, 1]
    assert Predictions.from_probs(torch.ones(1, 1), torch.tensor([0])).right.tolist() == [1.0]


def test_one_row_that_looks_like_probabilities_does_not_make_logits_of_them() -> None:
    made = Predictions.from_logits(torch.tensor([[1.0, 0.0], [1.0, 0.5]]), torch.tensor([0, 0]))
    assert made.probs[0, 0] == pytest.approx(torch.e / (1 + torch.e))


def test_there_is_no_third_way_to_make_predictions() -> None:
    with pytest.raises(TypeError):
        Predictions(torch.randn(3, 2), torch.zeros(3, dtype=torch.long))


def test_inputs_stay_as_they_are_and_need_no_gradient() -> None:
    logits, labels = random_logits(3, n=10, classes=3)
    before = logits.clone()
    Predictions.from_logits(logits.requires_grad_(), labels)
    Predictions.from_probs(logits.softmax(1), labels)
    assert torch.equal(logits.detach(), before)


@pytest.mark.parametrize(
    "form", [np.asarray, torch.Tensor.tolist, lambda t: np.asarray(t).astype(np.asarray(t).dtype.newbyteorder(">"))]
)
def test_arrays_and_lists_are_what_tensors_are(form: Callable[[torch.Tensor], object]) -> None:
    logits, labels = random_logits(4, n=20, classes=3)
    ours, theirs = Predictions.from_logits(logits, labels), Predictions.from_logits(form(logits), form(labels))
    assert torch.equal(theirs.probs, ours.probs)
    assert torch.equal(theirs.labels, ours.labels)
    assert torch.equal(Predictions.from_probs(form(ours.probs), form(labels)).predicted, ours.predicted)


def test_a_read_only_array_is_read_and_a_reversed_one_too() -> None:
    logits, labels = (np.asarray(part) for part in random_logits(5, n=20, classes=3))
    logits.flags.writeable = labels.flags.writeable = False
    ours = Predictions.from_logits(logits, labels)
    assert torch.equal(Predictions.from_logits(logits[::-1], labels[::-1]).probs, ours.probs.flip(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8, torch.uint8])
def test_short_numbers_are_widened_before_the_softmax(dtype: torch.dtype) -> None:
    logits, labels = (5 * torch.rand(30, 4, generator=torch.Generator().manual_seed(6))).to(dtype), torch.zeros(30).long()
    made = Predictions.from_logits(logits, labels)
    assert torch.equal(made.probs, Predictions.from_logits(logits.double(), labels).probs)


ONE = torch.tensor([0])


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (
            torch.tensor([[0.5, 0.5], [2.0, -1.0]]),
            torch.tensor([0, 0]),
            r"`probs`.*row 1 is in -1\.\.2.*Predictions.from_logits",
        ),
        (torch.tensor([[2.0, 1.0]]), ONE, r"row 0 is in 1\.\.2 and sums to 3; logits\? use Predictions.from_logits"),
        (torch.tensor([[0.5, 0.4]]), ONE, "sums to 0.9"),
        (torch.tensor([[torch.nan, 1.0]]), ONE, "`probs` must be finite.*NaN"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([2]), r"`labels` must lie in 0\.\.1, got 2\.\.2"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([-1]), r"`labels` must lie in 0\.\.1, got -1\.\.-1"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([0, 1]), r"`labels` must have the shape \(1,\), got \(2,\)"),
        (
            torch.tensor([[0.5, 0.5]]),
            torch.tensor([0.0]),
            r"`labels` must be whole numbers, got torch.float32; use labels.long",
        ),
        (torch.zeros(0, 2), torch.zeros(0), r"`probs` must have the shape \(N, T\) with N >= 1 and T >= 1, got \(0, 2\)"),
        (torch.zeros(1, 0), ONE, r"got \(1, 0\)"),
        (torch.zeros(3), torch.zeros(3), r"got \(3,\)"),
        (torch.ones(1, 1, dtype=torch.complex64), ONE, "`probs` must be real numbers, got torch.complex64"),
        (torch.ones(1, 1, dtype=torch.bool), ONE, "`probs` must be real numbers, got torch.bool"),
        (
            torch.tensor([[0.5, 0.5]]),
            torch.tensor([[0, 1]]),
            r"`labels` .*\(1,\), got \(1, 2\); one-hot\? use labels.argmax\(1\)",
        ),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([0j]), "`labels` must be whole numbers, got torch.complex64"),
        ([[0.5, 0.5], [1.0]], ONE, "`probs` must be a tensor, an array, or lists of numbers of equal length"),
        ([["a", "b"]], ONE, "`probs` must be a tensor, an array, or lists"),
        ([[0.5, 0.5]], ["cat"], "`labels` must be a tensor, an array, or lists"),
        (None, ONE, "`probs` must be a tensor, an array, or lists"),
    ],
)
def test_what_cannot_be_probabilities_is_refused(probs: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Predictions.from_probs(probs, labels)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (
            torch.tensor([[0.3, 0.7], [1.0, 0.0]]),
            torch.tensor([0, 1]),
            r"`logits` must be logits.*probabilities\? use from_probs",
        ),
        (torch.tensor([[torch.inf, 0.0]]), ONE, "`logits` must be finite.*the network or its training is broken"),
        (torch.tensor([[-torch.inf, 0.0]]), ONE, "`logits` must be finite"),
        (torch.tensor([[0.0, 9.0]]), torch.tensor([2]), "`labels` must lie in"),
    ],
)
def test_what_cannot_be_logits_is_refused(logits: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Predictions.from_logits(logits, labels)
