"""Similarity of features: how much of what one network sees another one sees too.

With the centred features X (N, D) and Y (N, E) of the same N images, centred kernel alignment (CKA) is a correlation of
their similarities between images, in [0, 1]; it does not change when features are rotated or scaled (Kornblith et al. 2019,
arXiv 1905.00414):

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)),     K = X X^T,   L = Y Y^T

HSIC is here the estimate without bias (Song et al. 2012; Nguyen et al. 2021, arXiv 2010.15327, eq. 3), without which a few
hundred images of many features would look alike by chance. It can come out slightly below 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vpcore.errors import InputError
from vpcore.networks.inputs import check_features


def linear_cka(x: Tensor, y: Tensor) -> float:
    """CKA of two feature matrices with a linear kernel, unbiased.

    Args:
        x: (N, D) features of N images, at least 4.
        y: (N, E) features of the same images.

    Raises:
        InputError: when the images are not the same number, or fewer than 4, and for features that are not finite.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> round(linear_cka(x, 2 * x.flip(1)), 6)  # turned and scaled
    1.0
    """
    check_features(x, name="x")
    check_features(y, name="y")
    if len(x) != len(y) or len(x) < 4:
        raise InputError(f"`x` and `y` must be features of the same images, at least 4, got {len(x)} and {len(y)}")
    k, other = (_kernel(features.double()) for features in (x, y))
    return float(_hsic(k, other) / (_hsic(k, k) * _hsic(other, other)).sqrt())


def _kernel(features: Tensor) -> Tensor:
    """(N, N) similarities between images, without those of an image with itself."""
    kernel = features @ features.T
    return kernel - torch.diag(kernel.diagonal())


def _hsic(k: Tensor, other: Tensor) -> Tensor:
    n = len(k)
    whole = (k * other).sum() + k.sum() * other.sum() / ((n - 1) * (n - 2))
    return (whole - 2 / (n - 2) * (k.sum(0) @ other.sum(0))) / (n * (n - 3))
