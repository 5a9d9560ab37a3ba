import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore import InputError
from vpcore.prompting.label_mapping import (
    MAPPINGS,
    bayesian,
    frequencies,
    linear_start,
    strongest,
    target_logits,
    top_probabilities,
)
from vpcore.prompting.one_to_one import TIES, assignment, greedy, lowest_first, priorities, random_index
from vpcore.prompting.prompts import PROMPTS

ONE_TO_ONE = ("random", "frequency", "ilm", "ilm-running", "assignment")
MATRICES = ("blm", "blm+", "full")


def few_shots(seed: int, *, targets: int, sources: int, cohort: int = 2, count: int = 14) -> tuple[Tensor, Tensor]:
    """Logits in float64 and labels; the last target class is absent."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(cohort, count, sources, generator=generator, dtype=torch.float64)
    orders = [torch.randperm(count, generator=generator) for _ in range(cohort)]
    return logits, torch.stack(orders) % (targets - 1)


def found(name: str, logits: Tensor, labels: Tensor, *, targets: int, ties: str = "random") -> Tensor:
    """The mapping of a registry name, as the training makes it."""
    rule, seeds, sizes = MAPPINGS[name], list(range(len(logits))), {"targets": targets, "sources": logits.shape[2]}
    drawn = rule.start(seeds, **sizes)
    return rule.update(logits, labels, TIES[ties].priorities(seeds, **sizes)) if drawn is None else drawn


def brute_force(counts: Tensor, priority: Tensor) -> list[int]:
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


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("targets", "sources"), [(4, 6), (5, 5), (1, 3)])
def test_assignment_is_the_best_of_all_one_to_one_mappings(seed: int, targets: int, sources: int) -> None:
    """Among all of them, tried one by one: the most images, and among these the largest sum of priorities."""
    counts = torch.randint(3, (2, targets, sources), generator=torch.Generator().manual_seed(seed))  # many ties
    before, rows = counts.clone(), torch.arange(targets)
    priority = priorities([seed, seed + 1], targets=targets, sources=sources)
    mapping = assignment(counts, priority)
    for k in range(2):
        everything = [
            (int(counts[k, rows, torch.tensor(p)].sum()), float(priority[k, rows, torch.tensor(p)].double().sum()), list(p))
            for p in itertools.permutations(range(sources), targets)
        ]
        assert mapping[k].tolist() == max(everything)[2]
        assert int(counts[k, rows, mapping[k]].sum()) >= int(counts[k, rows, greedy(counts, priority)[k]].sum())
    assert torch.equal(counts, before)


@pytest.mark.parametrize("seed", range(20))
def test_index_ties_are_those_of_the_authors_code(seed: int) -> None:
    """Their greedy loop: a source by target matrix, flattened; the first of the largest entries wins."""
    counts = torch.randint(3, (2, 4, 7), generator=torch.Generator().manual_seed(seed))
    mapping = greedy(counts, lowest_first([0, 1], targets=4, sources=7))
    for k in range(2):
        matrix, expected = counts[k].T.clone().numpy(), [-1] * 4
        for _ in range(4):
            source, target = divmod(int(matrix.argmax()), 4)  # numpy: the first one
            expected[target] = source
            matrix[source, :] = matrix[:, target] = -1
        assert mapping[k].tolist() == expected


def test_index_ties_without_counts_map_to_the_first_classes() -> None:
    """Defect 11: what is left of a network that has seen nothing."""
    counts = torch.zeros(1, 5, 9, dtype=torch.int64)
    lowest, drawn = lowest_first([0], targets=5, sources=9), priorities([0], targets=5, sources=9)
    assert greedy(counts, lowest).tolist() == [[0, 1, 2, 3, 4]]
    assert sorted(assignment(counts, lowest)[0].tolist()) == [0, 1, 2, 3, 4]
    assert max(greedy(counts, drawn)[0].tolist()) > 4
    assert max(assignment(counts, drawn)[0].tolist()) > 4


@pytest.mark.parametrize("ties", TIES)
def test_priorities_are_in_range_and_differ(ties: str) -> None:
    priority = TIES[ties].priorities([3, 4], targets=5, sources=9)
    assert priority.shape == (2, 5, 9)
    assert float(priority.min()) >= 0
    assert float(priority.max()) < 1
    assert all(len(set(member.flatten().tolist())) == 45 for member in priority)


def loop_bayesian(counts: Tensor) -> Tensor:
    """The definition, with loops, of one member: (T, S) -> (S, T)."""
    targets, sources = counts.shape
    weights = torch.zeros(sources, targets, dtype=torch.float64)
    for t, s in itertools.product(range(targets), range(sources)):
        weights[s, t] = float(counts[t, s]) / (sum(float(counts[u, s]) for u in range(targets)) + 1)
    for t in range(targets):
        total = sum(float(weights[s, t]) for s in range(sources))
        for s in range(sources):
            weights[s, t] = float(weights[s, t]) / total if total else 1 / sources
    return weights


def official_bayesian(logits: Tensor, labels: Tensor, *, most: int | None) -> Tensor:
    """The steps of Cai et al.'s code for one member; with `most`, those of BLM+. No class may be absent."""
    probabilities = logits.softmax(1)
    values, places = probabilities.topk(most or 1, dim=1)
    seen = torch.zeros_like(probabilities).scatter_(1, places, values if most else torch.ones_like(values))
    matrix = torch.stack([seen[labels == t].sum(0) for t in range(int(labels.max()) + 1)], dim=1)
    matrix = matrix / (matrix.sum(1, keepdim=True) + 1)
    return matrix / matrix.sum(0)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("targets", "sources"), [(3, 8), (14, 20), (9, 4)])
def test_bayesian_mapping_agrees_with_its_definition_and_the_authors_code(seed: int, targets: int, sources: int) -> None:
    logits, labels = few_shots(seed, targets=targets, sources=sources, count=60)
    for name, count in (("blm", frequencies), ("blm+", top_probabilities)):
        counts = count(logits, labels, targets=targets)
        before = counts.clone()
        weights = bayesian(counts)
        mapping = found(name, logits, labels, targets=targets)
        torch.testing.assert_close(mapping[:, :-1], weights, rtol=0, atol=0)
        assert bool((mapping[:, -1] == 0).all())
        torch.testing.assert_close(weights.sum(1), torch.ones(2, targets, dtype=torch.float64))
        assert bool((weights[:, :, -1] == 1 / sources).all())  # the absent class
        most = max(1, int(0.15 * targets)) if name == "blm+" else None
        for k in range(2):
            torch.testing.assert_close(weights[k], loop_bayesian(counts[k]), rtol=1e-12, atol=1e-12)
            assert labels[k].unique().tolist() == list(range(targets - 1))
            official = official_bayesian(logits[k], labels[k], most=most)
            torch.testing.assert_close(weights[k, :, :-1], official, rtol=1e-12, atol=1e-12)
        assert torch.equal(counts, before)


@pytest.mark.parametrize("targets", [2, 7, 12, 14, 40])
def test_top_probabilities_add_up_the_likeliest_classes(targets: int) -> None:
    logits, labels = few_shots(targets, targets=targets, sources=5)
    result = top_probabilities(logits, labels, targets=targets)
    most = {2: 1, 7: 1, 12: 1, 14: 2, 40: 5}[targets]  # int(0.15 T), in 1..S
    for k, t, s in itertools.product(range(2), range(targets), range(5)):
        expected = 0.0
        for x, label in zip(logits[k].softmax(1).tolist(), labels[k].tolist(), strict=True):
            if label == t and s in sorted(range(5), key=lambda j: -x[j])[:most]:
                expected += x[s]
        assert float(result[k, t, s]) == pytest.approx(expected, abs=1e-12)


def test_random_mappings_depend_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    mapping = random_index(list(range(300)), targets=4, sources=12)
    assert torch.equal(torch.get_rng_state(), state)
    assert mapping.shape == (300, 4)
    assert all(len(set(row)) == 4 for row in mapping.tolist())
    assert torch.equal(mapping[7:9], random_index([7, 8], targets=4, sources=12))
    share = torch.bincount(mapping.flatten(), minlength=12) / 1200
    torch.testing.assert_close(share, torch.full((12,), 1 / 12), rtol=0.35, atol=0)
    for name in ("frequency", "ilm", "assignment"):  # the others do look at the network
        one, other = (found(name, *few_shots(seed, targets=4, sources=12), targets=4) for seed in (0, 1))
        assert not torch.equal(one, other)


def test_the_learned_mapping_is_a_linear_layer() -> None:
    """Values and gradients of K in one pass are those of K layers alone; it starts within the bounds of torch's own."""
    mapping = linear_start([0, 1, 2], targets=4, sources=9).double().requires_grad_()
    logits, labels = few_shots(0, targets=4, sources=9, cohort=3)
    F.cross_entropy(target_logits(logits, mapping).flatten(0, 1), labels.flatten(), reduction="sum").backward()
    for k in range(3):
        layer = nn.Linear(9, 4).double()
        assert float(mapping.detach()[k].abs().max()) <= 1 / 3
        assert float(mapping.detach()[k].abs().max()) > 0.8 / 3
        assert torch.equal(linear_start([k], targets=4, sources=9)[0].double(), mapping.detach()[k])
        layer.weight.data, layer.bias.data = mapping.detach()[k, :-1].T.clone(), mapping.detach()[k, -1].clone()
        out = layer(logits[k])
        torch.testing.assert_close(out, target_logits(logits, mapping)[k], rtol=1e-12, atol=1e-12)
        F.cross_entropy(out, labels[k], reduction="sum").backward()
        torch.testing.assert_close(layer.weight.grad.T, mapping.grad[k, :-1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.bias.grad, mapping.grad[k, -1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MAPPINGS)
def test_a_mapping_of_a_cohort_is_that_of_its_members(name: str) -> None:
    """Whichever it is: classes may be absent, the form is one of two, inputs stay as they are, members don't meet."""
    logits, labels = few_shots(3, targets=5, sources=8)
    copies = logits.clone(), labels.clone()
    mapping = found(name, logits, labels, targets=5)
    assert mapping.shape == ((2, 9, 5) if mapping.is_floating_point() else (2, 5))
    if name in (*ONE_TO_ONE, *MATRICES):
        assert mapping.is_floating_point() == (name in MATRICES)
    assert torch.equal(mapping[:1], found(name, logits[:1], labels[:1], targets=5))
    assert target_logits(logits, mapping.to(logits.dtype) if mapping.ndim == 3 else mapping).isfinite().all()
    assert torch.equal(logits, copies[0])
    assert torch.equal(labels, copies[1])
    if mapping.ndim == 2:
        assert all(len(set(row)) == 5 for row in mapping.tolist())
    rule = MAPPINGS[name]
    assert (rule.start([0], targets=5, sources=8) is None) == any(rule.due(epoch) for epoch in range(3))  # drawn or found


def test_every_entry_has_a_label_of_its_own() -> None:
    for registry in (MAPPINGS, TIES, PROMPTS):
        labels = [entry.label for entry in registry.values()]
        assert all(labels)
        assert len(set(labels)) == len(registry)


@pytest.mark.parametrize("name", MAPPINGS)
def test_when_a_mapping_is_found(name: str) -> None:
    """Never, once, or before every epoch; one that follows from the steps is found in them after the first."""
    rule = MAPPINGS[name]
    due = [rule.due(epoch) for epoch in range(3)]
    expected = {"random": [False] * 3, "full": [False] * 3, "frequency": [True, False, False]}
    assert due == expected.get(name, [True, not rule.running, not rule.running])
    assert rule.repeat == (name not in expected)


def test_names_stand_for_their_mappings() -> None:
    logits, labels = few_shots(16, targets=5, sources=8, count=25)  # where greedy is not optimal
    counts, priority = frequencies(logits, labels, targets=5), priorities([0, 1], targets=5, sources=8)
    expected = {
        "random": random_index([0, 1], targets=5, sources=8),
        "frequency": greedy(counts, priority),
        "ilm": greedy(counts, priority),
        "ilm-running": greedy(counts, priority),
        "assignment": assignment(counts, priority),
        "blm": F.pad(bayesian(counts), (0, 0, 0, 1)),
        "blm+": F.pad(bayesian(top_probabilities(logits, labels, targets=5)), (0, 0, 0, 1)),
        "full": linear_start([0, 1], targets=5, sources=8),
    }
    assert expected.keys() <= MAPPINGS.keys()
    assert all(torch.equal(found(name, logits, labels, targets=5), value) for name, value in expected.items())
    assert not torch.equal(expected["ilm"], expected["assignment"])


def test_both_forms_of_a_mapping_agree() -> None:
    logits, _ = few_shots(0, targets=3, sources=6)
    index = torch.tensor([[4, 0, 5], [2, 3, 1]])
    matrix = F.pad(F.one_hot(index, 6).double().transpose(1, 2), (0, 0, 0, 1))
    torch.testing.assert_close(target_logits(logits, matrix), target_logits(logits, index), rtol=0, atol=1e-12)
    assert torch.equal(strongest(matrix), index)
    assert torch.equal(strongest(index), index)


def test_target_logits_pick_the_mapped_classes() -> None:
    logits = torch.arange(12.0).view(1, 3, 4)
    assert target_logits(logits, torch.tensor([[3, 0]])).tolist() == [[[3, 0], [7, 4], [11, 8]]]


def test_too_few_source_classes() -> None:
    with pytest.raises(InputError, match="at least as many source classes as the task has classes, 3; the network has 2"):
        greedy(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2))


@pytest.mark.parametrize("name", MAPPINGS)
def test_only_one_to_one_mappings_need_enough_source_classes(name: str) -> None:
    logits, labels = few_shots(0, targets=9, sources=4)
    if name in MATRICES:
        assert found(name, logits, labels, targets=9).shape == (2, 5, 9)
        return
    with pytest.raises(InputError, match="at least as many source classes as the task has classes, 9; the network has 4"):
        found(name, logits, labels, targets=9)
