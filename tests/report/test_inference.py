import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vpcore import InputError
from vpcore.report.inference import POOLED, components, crossed, estimate, flipped, linearised
from vpcore.report.verdicts import verdict


def balanced(chains: int, tasks: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    pairs = list(itertools.product(range(chains), range(tasks)))
    return tuple(c for c, _ in pairs), tuple(t for _, t in pairs)


def table(values: np.ndarray) -> pd.DataFrame:
    """(chains, tasks, seeds) costs."""
    index = pd.MultiIndex.from_product([range(n) for n in values.shape], names=["source_seed", "task", "seed"])
    return pd.DataFrame({"x": values.ravel(), "budget": 1}, index=index).reset_index()


def test_components_are_those_of_the_analysis_of_variance() -> None:
    """In a balanced design, against the textbook's mean squares."""
    y = np.random.default_rng(0).normal(size=(5, 7)) + np.arange(7)
    chain, task = balanced(5, 7)
    rest = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
    of_chains, of_tasks, of_rest = 7 * y.mean(1).var(ddof=1), 5 * y.mean(0).var(ddof=1), (rest**2).sum() / 24
    found = components(y.reshape(1, -1), (chain, task), task)[0]
    assert found == pytest.approx([(of_chains - of_rest) / 7, (of_tasks - of_rest) / 5, of_rest])


def test_the_variance_of_a_balanced_mean_is_that_of_satterthwaite() -> None:
    y = np.random.default_rng(3).normal(size=(4, 6)) + 3 * np.arange(6) + 5 * np.arange(4)[:, None]
    chain, task = balanced(4, 6)
    mean, variance, df = (each[0] for each in crossed(y.reshape(1, -1), chain, task))
    rest = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
    squares = np.array([6 * y.mean(1).var(ddof=1), 4 * y.mean(0).var(ddof=1), -(rest**2).sum() / 15])
    assert mean == pytest.approx(y.mean())
    assert variance == pytest.approx(squares.sum() / 24)
    assert df == pytest.approx(squares.sum() ** 2 / (squares**2 / [3, 5, 15]).sum())


def test_a_factor_that_chance_explains_counts_as_rest() -> None:
    """Chains are told from the rest by the textbook's F-test, just on either side of its threshold."""
    chain, task = balanced(4, 6)
    noise = np.random.default_rng(0).normal(size=(4, 6))
    noise -= noise.mean(0) + noise.mean(1, keepdims=True) - noise.mean()
    rest = (noise**2).sum() / 15
    of_chain = np.array([1, -1, 1, -1]) * (rest * 3 / 4 / 6) ** 0.5  # a mean square of `rest`, an F of 1
    for p, pooled in ((POOLED + 0.01, True), (POOLED - 0.01, False)):
        y = noise + of_chain[:, None] * stats.f.isf(p, 3, 15) ** 0.5 + 10 * np.arange(6)
        _, variance, _ = (each[0] for each in crossed(y.reshape(1, -1), chain, task))
        of_tasks, of_chains = 4 * y.mean(0).var(ddof=1), 6 * y.mean(1).var(ddof=1)
        assert stats.f.sf(of_chains / rest, 3, 15) == pytest.approx(p)
        assert variance == pytest.approx((of_tasks + (0 if pooled else of_chains - rest)) / 24)


def test_components_of_an_unbalanced_design_are_unbiased() -> None:
    chain, task = balanced(4, 6)
    kept = [i for i in range(24) if i not in (3, 10, 11, 20)]
    chain, task = (tuple(np.array(each)[kept].tolist()) for each in (chain, task))
    rng, R = np.random.default_rng(5), 20000
    y = rng.normal(0, 1, (R, 4))[:, chain] + rng.normal(0, 2, (R, 6))[:, task] + rng.normal(0, 0.5, (R, len(chain)))
    assert components(y, (chain, task), task).mean(0) == pytest.approx([1, 4, 0.25], rel=0.05)


def test_one_chain_is_students_t_over_tasks_and_says_so() -> None:
    y = np.random.default_rng(1).normal(size=(1, 7, 3))
    e = estimate(table(y), "x")
    expected = stats.ttest_1samp(y.mean(axis=(0, 2)), 0).confidence_interval()
    assert (e.low, e.high) == pytest.approx(expected)
    assert (e.n, round(e.df), e.scope) == (21, 6, "other tasks, on this chain")


@pytest.mark.parametrize(
    ("shape", "scope"),
    [
        ((3, 4, 2), "other tasks and chains"),
        ((3, 1, 2), "other chains, on this task"),
        ((1, 1, 5), "other seeds, on this chain and task"),
        ((1, 1, 1), "this value"),
    ],
)
def test_the_scope_of_an_interval(shape: tuple[int, ...], scope: str) -> None:
    e = estimate(table(np.random.default_rng(2).normal(size=shape)), "x")
    assert e.scope == scope
    assert e.low <= e.mean <= e.high
    assert (e.df == 0) == (scope == "this value")


def test_chains_are_no_independent_sample_in_every_cell() -> None:
    """Costs that differ between chains alone: three chains say no more, however many tasks there are."""
    values = np.repeat(np.array([0.0, 0.1, 0.2])[:, None, None], 10, axis=1)
    e = estimate(table(values + np.random.default_rng(0).normal(0, 1e-4, (3, 10, 1))), "x")
    assert e.se == pytest.approx(0.1 / np.sqrt(3), rel=0.01)
    assert e.df == pytest.approx(2, rel=0.01)


def test_an_interval_holds_its_own_estimate_whatever_is_missing() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        d = table(rng.standard_t(2, size=(rng.integers(1, 4), rng.integers(1, 6), rng.integers(1, 4))))
        d = d.assign(budget=rng.choice([1, 10, "all"], len(d)).astype(object)).sample(frac=0.7, random_state=0)
        if len(d):
            e = estimate(d, "x")
            assert e.low <= e.mean <= e.high
            assert np.isfinite([e.low, e.high]).all()


def test_budgets_and_axes_weigh_the_same_in_a_cell_and_a_task_that_lacks_one_weighs_no_less() -> None:
    d = pd.DataFrame(
        {"task": ["a", "a", "a", "b"], "budget": [1, 1, 10, 1], "round": [0, 0, 0, 0], "x": [0.0, 0.2, 0.3, 1.0]}
    )
    assert estimate(d, "x").mean == pytest.approx(((0.1 + 0.3) / 2 + 1) / 2)
    other = pd.concat([d, d.assign(round=1, x=d["x"] + 1)])
    with pytest.raises(InputError, match="the mean would mix round 0, 1; select one, or name it in `axes`"):
        estimate(other, "x")
    assert estimate(other, "x", axes=["round"]).mean == pytest.approx(estimate(d, "x").mean + 0.5)


def test_a_budget_that_some_seeds_lack_is_no_spread_of_seeds() -> None:
    """Seed 2 lacks the budget whose cost is large; all seeds cost the same at each."""
    d = pd.DataFrame({"task": "a", "budget": [1, 1, 1, 10, 10], "seed": [0, 1, 2, 0, 1], "x": [0.1, 0.1, 0.1, 0.9, 0.9]})
    e = estimate(d, "x")
    assert (e.mean, e.low, e.high) == pytest.approx((0.5, 0.5, 0.5))


def test_a_rise_in_calibration_error_of_guessing_networks_is_marked() -> None:
    d = table(np.zeros((1, 4, 2))).rename(columns={"x": "ece_rise"}).assign(accuracy_loss=0.3)
    assert estimate(d.assign(at_chance=[True] * 6 + [False] * 2), "ece_rise").guesses
    assert not estimate(d.assign(at_chance=[True] * 2 + [False] * 6), "ece_rise").guesses
    assert not estimate(d.assign(at_chance=True), "accuracy_loss").guesses  # it has lost all it had


def test_a_ratio_of_means_is_one_and_its_interval_that_of_the_delta_method() -> None:
    rng = np.random.default_rng(6)
    under = rng.uniform(0.2, 0.4, 30)
    d = pd.DataFrame({"task": range(30), "budget": 1, "over": 0.3 * under + rng.normal(0, 0.02, 30), "under": under})
    e = estimate(linearised(d, "over", "under"), "lost_share")
    assert e.mean == pytest.approx(d["over"].sum() / d["under"].sum())
    r, (vx, vy, cov) = e.mean, (d["over"].var(), d["under"].var(), d[["over", "under"]].cov().iloc[0, 1])
    assert e.se == pytest.approx(np.sqrt((vx + r**2 * vy - 2 * r * cov) / 30) / d["under"].mean())
    assert linearised(d.assign(under=0.0), "over", "under")["lost_share"].isna().all()


def test_flipped_signs_are_every_study_that_the_chains_might_have_been() -> None:
    """Against a loop over all signs."""
    d = table(np.random.default_rng(8).normal(0.01, 0.005, size=(4, 3, 2))).rename(columns={"x": "accuracy_loss"})
    seen = []
    for signs in itertools.product((1, -1), repeat=4):
        flip = d.assign(accuracy_loss=d["accuracy_loss"] * d["source_seed"].map(dict(enumerate(signs))))
        seen.append(verdict(estimate(flip, "accuracy_loss")) in ("supported", "contradicted"))
    assert 0 < sum(seen) < 16
    assert flipped(d, "accuracy_loss") == sum(seen) / 16
    with pytest.raises(InputError, match="must have at least 3 chains to flip, got 2"):
        flipped(d[d["source_seed"] < 2], "accuracy_loss")


@pytest.mark.parametrize("effect", [0.0, 0.05])
def test_flipped_signs_are_as_rarely_definite_as_the_level_says_whatever_the_effect(effect: float) -> None:
    rng = np.random.default_rng(9)
    shares = []
    for _ in range(40):
        y = effect + rng.normal(0, 0.02, (8, 1, 1)) + rng.normal(0, 0.01, (1, 9, 1)) + rng.normal(0, 0.03, (8, 9, 1))
        shares.append(flipped(table(y).rename(columns={"x": "accuracy_loss"}), "accuracy_loss"))
    assert np.mean(shares) <= 0.07
