import itertools

import pytest
import torch

from vpcore import InputError
from vpcore.mapping import frequencies, greedy, priorities, target_logits


def brute_force(counts: torch.Tensor, priority: torch.Tensor) -> list[int]:
    """The definition, with loops: take the largest pair that is left, ties by priority."""
    targets, sources = counts.shape
    pairs = sorted(
        itertools.product(range(targets), range(sources)), key=lambda p: (int(counts[p]), float(priority[p])), reverse=True
    )
    mapping, used = {}, set()
    for target, source in pairs:
        if target not in mapping and source not in used:
            mapping[target] = source
            used.add(source)
    return [mapping[t] for t in range(targets)]


@pytest.mark.parametrize("seed", range(20))
def test_greedy_agrees_with_its_definition(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(4, (3, 5, 9), generator=generator)  # many ties
    before = counts.clone()
    priority = priorities([seed, seed + 1, seed + 2], targets=5, sources=9)
    mapping = greedy(counts, priority)
    assert mapping.tolist() == [brute_force(c, p) for c, p in zip(counts, priority, strict=True)]
    assert all(len(set(row)) == 5 for row in mapping.tolist())
    assert torch.equal(counts, before)


def test_frequencies_count() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 40, 6, generator=generator), torch.randint(3, (2, 40), generator=generator)
    counts = frequencies(logits, labels, targets=4)  # class 3 is absent
    for k, t, s in itertools.product(range(2), range(4), range(6)):
        assert counts[k, t, s] == sum(
            1 for x, y in zip(logits[k], labels[k], strict=True) if y == t and int(x.argmax()) == s
        )


def test_ties_do_not_go_to_the_lowest_index() -> None:
    """With equal counts every source class is as likely as any other, and the draw depends on the seed alone."""
    counts = torch.zeros(400, 2, 10, dtype=torch.int64)
    mapping = greedy(counts, priorities(list(range(400)), targets=2, sources=10))
    share = torch.bincount(mapping[:, 0], minlength=10) / 400
    assert float(share.min()) > 0.05
    assert float(share.max()) < 0.17
    assert torch.equal(mapping, greedy(counts, priorities(list(range(400)), targets=2, sources=10)))


def test_priorities_never_beat_a_count() -> None:
    counts = torch.tensor([[[1, 0], [0, 0]]])
    for seed in range(50):
        assert greedy(counts, priorities([seed], targets=2, sources=2)).tolist() == [[0, 1]]


def test_target_logits_pick_the_mapped_classes() -> None:
    logits = torch.arange(12.0).view(1, 3, 4)
    assert target_logits(logits, torch.tensor([[3, 0]])).tolist() == [[[3, 0], [7, 4], [11, 8]]]


def test_too_few_source_classes() -> None:
    with pytest.raises(InputError, match="at least as many source classes as the task has classes, 3; the network has 2"):
        greedy(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2))
