import pytest
import torch

from vpcore import InputError
from vpcore.networks.similarity import linear_cka


def draw(n: int, width: int, *, seed: int) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_hsic(k: torch.Tensor, other: torch.Tensor) -> float:
    """Song et al. 2012, eq. 4, over all tuples of different images."""
    n, total = len(k), 0.0
    different = [(i, j, q, r) for i in range(n) for j in range(n) for q in range(n) for r in range(n)]
    different = [t for t in different if len(set(t)) == 4]
    for i, j, q, r in different:
        total += float(k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]))
    return total / len(different)


def test_it_is_the_sum_over_all_tuples() -> None:
    x, y = draw(7, 3, seed=0), draw(7, 4, seed=1)
    k, other = x @ x.T, y @ y.T
    expected = plain_hsic(k, other) / (plain_hsic(k, k) * plain_hsic(other, other)) ** 0.5
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-10)


def test_rotation_scale_and_shift_do_not_matter_and_chance_is_zero() -> None:
    x = draw(200, 16, seed=0)
    rotation = torch.linalg.qr(draw(16, 16, seed=2))[0]
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-10)
    chance = [linear_cka(draw(60, 300, seed=s), draw(60, 300, seed=s + 100)) for s in range(20)]
    assert abs(sum(chance) / len(chance)) < 0.02  # the biased estimate is above 0.8 here


def test_different_images_are_refused() -> None:
    with pytest.raises(InputError, match="same images, at least 4, got 5 and 6"):
        linear_cka(draw(5, 2, seed=0), draw(6, 2, seed=0))
