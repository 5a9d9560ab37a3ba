"""Outcomes: the result for each test image, small enough to be committed with a table.

Later questions about correctness, confidence, conformal sets or corrupted images can be answered from these, without the
logits: a bit for each image that says whether it was classified correctly, its confidence in 65,535ths, the size of its
conformal set, correctness and confidence on corrupted images (in 255ths), and the learned border in 255ths.

    column                  of each                        bytes
    images                  run                            number of test images N
    right                   test image                     1/8
    confidence              test image                     2
    set_size, covered       test image                     1, 1/8
    corrupted_right         corruption, severity, image    1/8
    corrupted_confidence    corruption, severity, image    1
    program                 pixel of the border            1
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

WIDE, NARROW = 65_535, 255  # steps of a confidence; of a pixel, and of a confidence on corrupted images


def compact(arrays: dict[str, Tensor]) -> dict[str, int | bytes]:
    """The outcomes of a run as a row of bytes.

    Args:
        arrays: of the run, see `measurement`: `logits` (N, T) and `labels` (N,); perhaps `set_size` and `covered` (N,),
            `corrupted_right` and `corrupted_confidence` (C, L, n), and `program` (3, H, H) of a padded prompt.
    """
    probs = arrays["logits"].double().softmax(1)
    highest, read = probs.max(1)
    row: dict[str, int | bytes] = {
        "images": len(read),
        "right": _bits(read == arrays["labels"]),
        "confidence": _steps(highest, WIDE),
    }
    if "set_size" in arrays:
        row["set_size"] = arrays["set_size"].clamp(max=255).to(torch.uint8).numpy().tobytes()
        row["covered"] = _bits(arrays["covered"])
    if "corrupted_right" in arrays:
        row["corrupted_right"] = _bits(arrays["corrupted_right"])
        row["corrupted_confidence"] = _steps(arrays["corrupted_confidence"], NARROW)
    if "program" in arrays:
        row["program"] = _steps(arrays["program"].sigmoid(), NARROW)
    return row


def right(row: dict[str, Any]) -> np.ndarray:
    """(N,) bool: which test images were classified correctly.

    >>> row = compact({"logits": torch.tensor([[2.0, 0.0], [0.0, 1.0]]), "labels": torch.tensor([0, 0])})
    >>> right(row).tolist(), confidence(row).round(3).tolist()
    ([True, False], [0.881, 0.731])
    """
    return np.unpackbits(np.frombuffer(row["right"], np.uint8), count=row["images"]).astype(bool)


def confidence(row: dict[str, Any]) -> np.ndarray:
    """(N,) confidences, to 1 / 131,070."""
    return np.frombuffer(row["confidence"], np.uint16) / WIDE


def corrupted(row: dict[str, Any], shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(corruptions, severities, images) bool of what was classified correctly, and confidences to 1 / 510."""
    count = int(np.prod(shape))
    read = np.unpackbits(np.frombuffer(row["corrupted_right"], np.uint8), count=count).astype(bool)
    return read.reshape(shape), (np.frombuffer(row["corrupted_confidence"], np.uint8) / NARROW).reshape(shape)


def _bits(values: Tensor) -> bytes:
    return np.packbits(values.numpy().ravel()).tobytes()


def _steps(values: Tensor, steps: int) -> bytes:
    kind = np.uint16 if steps == WIDE else np.uint8
    return (values.double().numpy() * steps).round().astype(kind).tobytes()
