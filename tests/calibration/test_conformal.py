"""Conformal sets: the coverage that is promised, on exchangeable draws, and the sets against a loop."""

import math

import numpy as np
import pytest
import torch

from tests.calibration.cases import random_logits
from vpcore import InputError
from vpcore.calibration.conformal import SCORES, conformal_sets


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_label_is_covered_as_often_as_promised(score: str, level: float, temperature: float) -> None:
    """Over draws of 39 validation and 60 test images, coverage is ceil(40 level) / 40, however badly calibrated."""
    logits, labels = random_logits(0, n=39 * 300, classes=5, temperature=temperature)
    tests, answers = random_logits(1, n=60 * 300, classes=5, temperature=temperature)
    coverage = []
    for draw in range(300):
        val, test = slice(39 * draw, 39 * (draw + 1)), slice(60 * draw, 60 * (draw + 1))
        sets = conformal_sets(logits[val], labels[val], tests[test], level=level, score=score)
        coverage.append(float(sets.covered(answers[test]).double().mean()))
    error = 3.5 * np.std(coverage) / math.sqrt(len(coverage))
    assert np.mean(coverage) >= level - error
    if score == "lac":  # no two scores are equal, so that the coverage is known exactly
        assert np.mean(coverage) == pytest.approx(math.ceil(40 * level - 1e-9) / 40, abs=error)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("n", [8, 9, 19, 20, 100])
def test_the_sets_are_those_of_a_loop(score: str, n: int) -> None:
    logits, labels = random_logits(2, n=n, classes=4)
    tests, _ = random_logits(3, n=50, classes=4)

    def badness(row: torch.Tensor, label: int) -> float:
        probs = torch.softmax(row, 0)
        return float(1 - probs[label] if score == "lac" else probs[probs >= probs[label]].sum())

    ordered = sorted(badness(row, int(label)) for row, label in zip(logits, labels, strict=True))
    enough = [q for q in ordered if sum(s <= q for s in ordered) >= 0.9 * (n + 1)]
    threshold = enough[0] if enough else math.inf
    sets = conformal_sets(logits, labels, tests, level=0.9, score=score)
    assert sets.threshold == pytest.approx(threshold, abs=1e-12)
    expected = [[badness(row, label) <= threshold + 1e-12 for label in range(4)] for row in tests]
    assert sets.members.tolist() == expected
    assert sets.size.tolist() == [sum(row) for row in expected]


def test_equal_probabilities_enter_an_adaptive_set_together() -> None:
    sets = conformal_sets([[2.0, 0.0, 0.0]] * 9, [1] * 9, [[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]], level=0.5, score="aps")
    assert sets.members.tolist() == [[True, True, True], [True, True, True]]


def test_with_too_few_validation_images_every_class_is_in_every_set() -> None:
    logits, labels = random_logits(4, n=9, classes=3)
    sets = conformal_sets(logits[:8], labels[:8], logits, level=0.9)
    assert sets.threshold == math.inf
    assert sets.size.tolist() == [3] * 9
    assert math.isfinite(conformal_sets(logits, labels, logits, level=0.9).threshold)


def test_the_rank_is_exact_where_floats_are_not() -> None:
    """0.55 * 100 is 55.000000000000007 in floats: the 55th smallest of 99 scores, not the 56th."""
    logits = torch.stack([torch.arange(99.0) / 10 + 0.1, torch.zeros(99)], 1)
    sets = conformal_sets(logits, torch.zeros(99, dtype=torch.long), logits, level=0.55)
    assert sets.threshold == float((1 - logits.double().softmax(1)[:, 0]).sort().values[54])


def test_arrays_and_lists_give_the_sets_of_tensors() -> None:
    logits, labels = random_logits(5, n=40, classes=3)
    ours = conformal_sets(logits, labels, logits)
    for form in (np.asarray, torch.Tensor.tolist):
        theirs = conformal_sets(form(logits), form(labels), form(logits))
        assert torch.equal(theirs.members, ours.members)
        assert torch.equal(theirs.covered(form(labels)), ours.covered(labels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 90}, r"`level` must be in \(0, 1\), got 90; percent\? use 0.9"),
        ({"level": 1.0}, r"`level` must be in \(0, 1\), got 1.0"),
        ({"level": 0.0}, r"`level` must be in \(0, 1\), got 0.0"),
        ({"score": "apss"}, "unknown conformal score 'apss'; did you mean 'aps'"),
        ({"test_logits": torch.randn(4, 3)}, "`test_logits` must have the 2 classes of the validation logits, got 3"),
        ({"val_logits": torch.full((4, 2), 0.5)}, "`val_logits` must be logits.*probabilities"),
        ({"test_logits": torch.full((4, 2), torch.nan)}, "`test_logits` must be finite"),
        ({"val_labels": [0, 1, 2, 0]}, r"`val_labels` must lie in 0\.\.1, got 0\.\.2"),
    ],
)
def test_bad_arguments(change: dict, message: str) -> None:
    logits = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 4.0], [2.0, 0.0]])
    given = {"val_logits": logits, "val_labels": [0, 1, 1, 0], "test_logits": logits, "level": 0.5, "score": "lac"} | change
    with pytest.raises(InputError, match=message):
        conformal_sets(
            given["val_logits"], given["val_labels"], given["test_logits"], level=given["level"], score=given["score"]
        )
    with pytest.raises(InputError, match=r"`labels` must have the shape \(4,\), got \(3,\)"):
        conformal_sets(logits, [0, 1, 1, 0], logits, level=0.5).covered([0, 1, 0])
