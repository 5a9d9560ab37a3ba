"""The ECE that the authors' code computes, so that a reader can see what it does to a claim. Use `binned` instead.

The original experiments (github.com/landskape-ai/model-transferability) hand every test batch of **logits** z, not of
probabilities, to `get_ece` of the package uncertainty-calibration, add the results up, and divide by the number of test
**samples**. With M batches of size n_m, and bins (b-1)/15 < max_t z_it <= b/15 of which the first and the last are open,

    legacy = (1/N) sum_m ECE(z of batch m),   ECE = sum_b |sum_{i in b} (max_t z_it - r_i)| / n_m

A logit is no confidence: most maxima are above 14/15, so that the value is about (mean max logit - accuracy) / batch size.
It has no upper bound, changes when a constant is added to all logits, which changes no prediction, and halves when the batch
is twice as large. The ranking of two networks by it can be the opposite of their calibration.

From probabilities a mean over batches is wrong too: `batch_ece`, biased upwards, since the noise of few samples counts as
error (Kumar et al. 2019, arXiv 1909.10155; Guo et al. 2017, arXiv 1706.04599, for the ECE of all predictions at once).
"""

from __future__ import annotations

import torch

from vpcore.calibration.binned import BINS, reliability
from vpcore.calibration.predictions import Predictions, labels_of, real_matrix
from vpcore.checks import Array, whole_number


def legacy_ece(logits: Array, labels: Array, *, batch: int = 128) -> float:
    """The number that the authors' code reports as ECE, from logits and over batches in the order given.

    Args:
        logits: (N, T).
        labels: (N,) classes.
        batch: samples in a batch; the last one may be smaller. The authors' code: 128 for prompts, 64 for OxfordPets, the
            batch of the training for linear probes.

    Returns:
        A number without bounds and unit, proportional to 1 / batch.

    Raises:
        InputError: for logits that are not (N, T) finite numbers, labels that do not fit, or no whole number as `batch`.

    >>> logits = torch.tensor([[12.0, 10.0]]).repeat(100, 1)  # 88 % sure
    >>> labels = torch.tensor([0] * 88 + [1] * 12)  # 88 % right
    >>> round(legacy_ece(logits, labels, batch=50), 3), round(legacy_ece(logits - 10, labels, batch=50), 3)
    (0.222, 0.022)
    """
    logits = real_matrix(logits, name="logits")
    labels, batch = labels_of(logits, labels), whole_number(batch, name="batch")
    largest, predicted = logits.double().max(1)
    group = torch.arange(len(labels)) // batch
    number = torch.bucketize(largest, torch.arange(1, BINS, dtype=torch.float64) / BINS)
    sizes = torch.bincount(group)
    gaps = torch.bincount(group * BINS + number, largest - (predicted == labels).double(), len(sizes) * BINS)
    return float((gaps.view(-1, BINS).abs().sum(1) / sizes).sum() / len(labels))


def batch_ece(predictions: Predictions, *, batch: int = 128) -> float:
    """The mean over batches of each batch's ECE, in [0, 1]: from probabilities, and still too large.

    Args:
        predictions: N predictions, in the order of the batches.
        batch: predictions in a batch; the last one may be smaller and counts as much.

    Raises:
        InputError: for a batch that is no whole number of at least 1.
    """
    rows = torch.arange(len(predictions.labels)).split(whole_number(batch, name="batch"))
    return sum(reliability(predictions.take(part)).ece for part in rows) / len(rows)
