import pytest
import torch

from vpcore import InputError
from vpcore.data.drawn import TASKS, draw


@pytest.mark.parametrize("task", TASKS)
def test_images_are_determined_by_the_seed(task: str) -> None:
    first, labels = draw(task, per_class=3, px=32, seed=1)
    again, _ = draw(task, per_class=3, px=32, seed=1)
    other, _ = draw(task, per_class=3, px=32, seed=2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert labels.bincount().tolist() == [3] * len(TASKS[task][0])


@pytest.mark.parametrize("task", TASKS)
def test_no_class_is_blank_and_none_is_another(task: str) -> None:
    """The mean image of a class differs from the mean image of every other class: no font draws a box for a letter."""
    from vpcore.data.drawn import _masks

    means = _masks(task).float().mean(1).flatten(1)
    assert bool((means.std(1) > 5).all())
    assert float(torch.cdist(means, means).fill_diagonal_(torch.inf).min()) > 100


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw("shapes", per_class=1, px=32, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_unknown_task() -> None:
    with pytest.raises(InputError, match="unknown drawn task 'shape'; did you mean 'shapes'"):
        draw("shape", per_class=1, px=32, seed=0)
