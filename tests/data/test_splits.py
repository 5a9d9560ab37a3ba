"""Budgets and held-out images."""

import numpy as np
import pytest
import torch

from vpcore import InputError
from vpcore.data.splits import hold_out, saturated, shots


def test_budgets_are_nested_balanced_and_drawn_by_seed() -> None:
    labels = torch.arange(60) % 3
    for seed in range(3):
        previous: set[int] = set()
        for budget in (1, 4, 10):
            index = shots(labels, budget, task="t", seed=seed)
            assert labels[index].bincount().tolist() == [budget] * 3
            assert previous < set(index.tolist())
            previous = set(index.tolist())
    assert shots(labels, None, task="t", seed=0).tolist() == list(range(60))
    assert not torch.equal(shots(labels, 4, task="t", seed=0), shots(labels, 4, task="t", seed=1))


def test_saturation() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1])
    assert not saturated(labels, 2)
    assert saturated(labels, 3)
    assert not saturated(labels, None)
    assert len(shots(labels, 3, task="t", seed=0)) == 5


def test_hold_out_takes_a_fifth_of_each_class_at_most_fifty() -> None:
    labels = torch.cat([torch.zeros(10), torch.ones(1000)]).long()
    train, val = hold_out(labels, "t")
    assert labels[val].bincount().tolist() == [2, 50]
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(1010))


def test_budgets_with_absent_and_single_classes() -> None:
    """A class without images gives none and saturates nothing; one with a single image gives it at every budget."""
    labels = torch.tensor([4, 4, 4, 1, 4, 4])  # classes 0, 2 and 3 are absent
    for budget in (1, 2, 5, 6, None):
        index = shots(labels, budget, task="t", seed=3)
        assert index.tolist() == sorted(set(index.tolist()))
        assert labels[index].bincount(minlength=5).tolist() == [0, 1, 0, 0, min(budget or 5, 5)]
    assert not saturated(labels, 1)
    assert saturated(labels, 2)  # of class 1
    empty = torch.zeros(0, dtype=torch.int64)
    assert shots(empty, 3, task="t", seed=0).tolist() == []
    assert not saturated(empty, 3)
    assert [part.tolist() for part in hold_out(empty, "t")] == [[], []]


def test_saturation_is_a_loop_over_classes() -> None:
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 12, (30,), generator=generator)
        for budget in range(1, 8):
            counts = [sum(label == c for label in labels.tolist()) for c in set(labels.tolist())]
            assert saturated(labels, budget) == any(count < budget for count in counts)
            index = shots(labels, budget, task="t", seed=seed)
            assert len(index) == sum(min(count, budget) for count in counts)


def test_budgets_never_move() -> None:
    """Pinned: saved results were computed on these images."""
    labels = torch.arange(40) % 4
    assert shots(labels, 2, task="cifar10", seed=1).tolist() == [2, 10, 11, 13, 21, 24, 32, 39]
    assert hold_out(labels, "cifar10")[1].tolist() == [1, 3, 12, 22, 27, 30, 32, 33]


def test_a_share_is_held_out_of_each_class() -> None:
    for seed in range(20):
        labels = torch.randint(0, 5, (60,), generator=torch.Generator().manual_seed(seed))
        kept, out = hold_out(labels, f"t{seed}", share=0.3, most=None)
        assert sorted([*kept.tolist(), *out.tolist()]) == list(range(60))
        for c in range(5):
            assert int((labels[out] == c).sum()) == int(int((labels == c).sum()) * 0.3 + 0.5)


@pytest.mark.parametrize(("share", "least"), [(0.2, 3), (0.1, 5), (0.3, 2), (1.0, 1)])
def test_small_classes_hold_nothing_out(share: float, least: int) -> None:
    """The least number of images a class that gives a val, as the docstring has it."""
    for each in (least - 1, least):
        kept, out = hold_out(torch.arange(3).repeat(each), "t", share=share)
        assert len(out) == (0 if each < least else 3)
        assert len(kept) == 3 * each - len(out)


def test_bad_arguments() -> None:
    for budget in (0, -1, 2.0, 0.5, "1"):
        with pytest.raises(InputError, match=f"`budget` must be a whole number of images a class.*, got {budget!r}"):
            shots(torch.zeros(3).long(), budget, task="t", seed=0)
    assert len(shots(torch.zeros(3).long(), np.int64(2), task="t", seed=0)) == 2
    for share in (2, -0.5, float("nan")):
        with pytest.raises(InputError, match=rf"`share` must be in \[0, 1\], got {share}"):
            hold_out(torch.zeros(3), "t", share=share)
