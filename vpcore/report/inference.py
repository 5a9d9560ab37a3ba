"""Inference: the mean cost, with an interval that says for what other networks and tasks it speaks.

A study measures C dense networks (chains) on T tasks. The same networks meet every task and the same tasks every network, so
costs are no independent sample; they are crossed,

    y[c, t] = mu + a[c] + b[t] + e[c, t],      Var = s_chain^2, s_task^2, s_rest^2.

y is the mean over the budgets of a cell, of the mean over its seeds: budgets are chosen, not drawn, and seeds lie within a
cell. e holds what a chain does on one task alone, the seeds, and the images that the test set happens to have; what these
images do to all chains alike is in b. The variance of the mean over all cells,

    V = s_chain^2 / C + s_task^2 / T + s_rest^2 / (C T),

is estimated by the method of moments (Henderson 1953, method 3): sums of squares of chains adjusted for tasks, of tasks
adjusted for chains, and of the rest, set equal to their expectations. A factor whose sum of squares is no larger than
chance alone makes it in 35 % of studies (F-test) counts as rest (Bancroft 1964, "sometimes pool"): a component that cannot
be told from zero would otherwise cost degrees of freedom that it does not deserve, and intervals up to three times too wide.
The interval is that of Student's t with the degrees of freedom of Satterthwaite (1946), 2 E[V]^2 / Var[V].

One chain tells nothing of other chains, and two hardly more: the spread of two values has one degree of freedom. With
fewer than three chains the interval is that of the tasks, mean +- t(T-1) s / sqrt(T) of their means over the chains there
are, and speaks for these chains only; with two tasks and more chains, the other way round. `scope` says for what it speaks.
`planning` shows by simulation how often these intervals cover the truth.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from vpcore.errors import InputError
from vpcore.report.pairs import check_unmixed
from vpcore.report.verdicts import CONTRADICTED, LEVEL, MARGIN, MARGINS, SUPPORTED, Estimate, verdict

Factor = tuple[int, ...]  # of each value, the number of its chain or task
POOLED = 0.35  # p-value of an F-test above which a factor counts as rest
FEW = 3  # fewer chains or tasks tell nothing of others


def estimate(
    differences: pd.DataFrame,
    column: str,
    *,
    axes: Sequence[str] = (),
    margin: float | None = None,
    harm_seen: bool = True,
) -> Estimate:
    """The mean of `column` over chains and tasks, each weighing the same, with its 95 % interval.

    Args:
        differences: costs or effects, one row a pair: `task`, `budget`, `column`, and where there are several, `seed` and
            `source_seed`.
        column: what is averaged; rows without a value are left out.
        axes: columns beside the budget whose values are averaged, each weighing the same.
        margin: effects below it are too small to matter; by default that of `MARGINS`.
        harm_seen: whether the control that must find harm did; if not, nothing is concluded from finding nothing over as few
            chains as it has, fewer than three (`Estimate.sensitive`).

    Returns:
        Its `scope` is "other tasks and chains", "other tasks, on this chain" (or "these chains"), "other chains, on this
        task" (or "these tasks"), "other seeds, on this chain and task", or "this value", which has no interval.

    Raises:
        InputError: when there is nothing to average, or something varies that is not asked about.

    >>> d = pd.DataFrame({"task": ["a", "b", "c"] * 2, "budget": [1] * 3 + [10] * 3, "loss": [0.1, 0.2, 0.3, 0.3, 0.4, 0.5]})
    >>> e = estimate(d, "loss")
    >>> f"{e:.2f}", round(e.df), e.n, e.scope
    ('0.30 (0.05 to 0.55)', 2, 6, 'other tasks, on this chain')
    """
    known = _known(differences, column, axes)
    values, chain, task = _cells(known, column, axes)
    scope, sensitive = _scope(len(set(chain)), len(set(task))), harm_seen or len(set(chain)) >= FEW
    if len(values) == 1:  # the seeds are all there is; what a budget does to all of them says nothing of their spread
        of_cell = known.groupby(["budget", *axes])[column]
        seed = known["seed"] if "seed" in known else of_cell.cumcount()
        values = values + (known[column] - of_cell.transform("mean")).groupby(seed).mean().to_numpy()
        chain, task = (0,) * len(values), tuple(range(len(values)))
        scope = "other seeds, on this chain and task" if len(values) > 1 else "this value"
    mean, variance, df = (float(each[0]) for each in crossed(values[None], chain, task))
    guesses = column.endswith("_rise") and "at_chance" in known and known["at_chance"].mean() > 0.5
    found = Estimate(
        mean, mean, mean, len(known), variance**0.5 if df else np.nan, df, scope,
        margin=MARGINS.get(column, MARGIN) if margin is None else margin, guesses=bool(guesses), sensitive=sensitive,
    )  # fmt: skip
    return found.at(LEVEL)


def verdicts_of(values: np.ndarray, chain: Factor, task: Factor, *, margin: float, level: float = LEVEL) -> list[str]:
    """The verdicts of R studies of the same design, whose (R, n) costs are those of `crossed`."""
    mean, variance, df = crossed(values, chain, task)
    half = stats.t.ppf((1 + level) / 2, df) * np.sqrt(variance)
    found = zip(mean, mean - half, mean + half, df, strict=True)
    return [verdict(Estimate(m, low, high, 1, df=free, margin=margin)) for m, low, high, free in found]


def flipped(differences: pd.DataFrame, column: str, *, axes: Sequence[str] = ()) -> float:
    """How often costs that are none give a verdict: a check of the intervals on the study's own spread.

    If compression did nothing, dense minus compressed would be as likely as compressed minus dense in every chain. The signs
    of the chains' costs are flipped in all 2^C ways, and each gets its verdict.

    Args:
        differences, column, axes: as in `estimate`; at least three chains.

    Returns:
        The share of the flips that are *supported* or *contradicted*. Much more than one in twenty: too narrow.

    >>> d = pd.DataFrame({"source_seed": [0, 1, 2, 3], "task": "a", "budget": 1, "loss": [0.1, 0.11, 0.12, 0.13]})
    >>> flipped(d, "loss")  # of 16, all plus and all minus
    0.125
    """
    values, chain, task = _cells(_known(differences, column, axes), column, axes)
    if (chains := len(set(chain))) < FEW:
        raise InputError(
            f"`differences` must have at least {FEW} chains to flip, got {chains}; other chains are other signs"
        )
    signs = np.array(list(itertools.product((1, -1), repeat=chains)))
    seen = verdicts_of(values * signs[:, list(chain)], chain, task, margin=MARGINS.get(column, MARGIN))
    return sum(each in (SUPPORTED, CONTRADICTED) for each in seen) / len(seen)


def linearised(differences: pd.DataFrame, numerator: str, denominator: str, *, axes: Sequence[str] = ()) -> pd.DataFrame:
    """The rows with `lost_share`: values whose mean is mean(x) / mean(y), and which vary as that does.

    A mean of ratios is ruled by the pairs with the smallest denominators; the ratio r of means is not. By the delta method
    it varies as r + (x - r y) / mean(y). NaN where the mean of y is not above zero: nothing above chance can be lost.

    >>> d = pd.DataFrame({"task": ["a", "b", "c"], "budget": 1, "loss": [0.1, 0.0, 0.2], "above": [0.2, 0.1, 0.3]})
    >>> f"{estimate(linearised(d, 'loss', 'above'), 'lost_share'):.2f}"
    '0.50 (-0.12 to 1.12)'
    """
    known = differences[differences[[numerator, denominator]].notna().all(axis=1)]
    if known.empty:
        return known.assign(lost_share=np.nan)
    over, under = (estimate(known, name, axes=axes).mean for name in (numerator, denominator))
    share = over / under if under > 0 else np.nan
    return known.assign(lost_share=share + (known[numerator] - share * known[denominator]) / under)


def spread(values: Iterable[float]) -> Estimate:
    """Mean of single values with their range, where there are too few for an interval.

    >>> f"{spread([0.1, 0.3]):.1f}"
    '0.2 (0.1 to 0.3)'
    """
    values = [float(value) for value in values]
    return Estimate(float(np.mean(values)), min(values), max(values), len(values), scope="the range of these values")


def crossed(values: np.ndarray, chain: Factor, task: Factor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over tasks of the means over chains, the variance of that mean, and its degrees of freedom.

    Args:
        values: (R, n), R studies of the same design.
        chain, task: of each of the n values; each pair occurs at most once.

    Returns:
        Three times (R,); degrees of freedom 0 where a single value has no variance.

    >>> mean, variance, df = crossed(np.array([[1.0, 2.0, 3.0]]), (0, 0, 0), (0, 1, 2))
    >>> float(mean[0]), round(float(variance[0]), 4), round(float(df[0]))
    (2.0, 0.3333, 2)
    """
    mean, chains, tasks = values @ _weights(task), len(set(chain)), len(set(task))
    if 1 < chains < FEW and tasks > 1:
        values, chain, task = _collapsed(values, task)
    elif 1 < tasks < FEW <= chains:
        values, chain, task = _collapsed(values, chain)
    if values.shape[1] == 1:
        return mean, np.zeros(len(mean)), np.zeros(len(mean))
    # an effect of which each value has a level of its own, or all have the same, cannot be told from the rest or the mean
    factors = tuple(factor for factor in (chain, task) if 1 < len(set(factor)) < len(factor))
    while len(factors) and _moments(factors, task).df[-1] < 0.5:
        factors = tuple(sorted(factors, key=lambda factor: len(set(factor)))[:-1])
    variance, df = _variance(values, factors, task)
    return mean, variance, df


def _known(differences: pd.DataFrame, column: str, axes: Sequence[str]) -> pd.DataFrame:
    """The rows that have a value, once it is sure that nothing else varies."""
    known = differences[differences[column].notna()]
    if known.empty:
        raise InputError(
            f"there are no values of {column} to average; the runs that it compares are missing: use vpcore run"
        )
    check_unmixed(known, [column, *axes])
    return known.assign(**{column: known[column].astype(float)}, source_seed=known.get("source_seed", 0))


def _cells(known: pd.DataFrame, column: str, axes: Sequence[str]) -> tuple[np.ndarray, Factor, Factor]:
    """(n,) means over the budgets of the means over the seeds, and the chain and the task of each."""
    of_cell = known.groupby(["source_seed", "task", "budget", *axes])[column]
    means = of_cell.mean().groupby(level=["source_seed", "task"]).mean()
    chain, task = (tuple(pd.factorize(means.index.get_level_values(name))[0].tolist()) for name in means.index.names)
    return means.to_numpy(), chain, task


def _collapsed(values: np.ndarray, factor: Factor) -> tuple[np.ndarray, Factor, Factor]:
    """The means of each level of a factor, each a task of its own."""
    level = np.eye(max(factor) + 1)[list(factor)]
    means = values @ (level / level.sum(axis=0))
    return means, (0,) * means.shape[1], tuple(range(means.shape[1]))


def _scope(chains: int, tasks: int) -> str:
    if chains >= FEW and tasks >= FEW:
        return "other tasks and chains"
    if tasks > 1 and chains < FEW:
        return f"other tasks, on {'this chain' if chains == 1 else 'these chains'}"
    return f"other chains, on {'this task' if tasks == 1 else 'these tasks'}"


def _weights(task: Factor) -> np.ndarray:
    counts = np.bincount(task)
    return 1 / (counts[list(task)] * len(counts))


class _Moments:
    """What the method of moments needs to know of a design, see `_moments`."""

    def __init__(self, factors: tuple[Factor, ...], task: Factor) -> None:
        n, weights = len(task), _weights(task)
        levels = [np.eye(max(factor) + 1)[list(factor)] for factor in factors]
        one = np.full((n, n), 1 / n)
        whole = _projection(np.hstack(levels)) if levels else one
        others = [
            _projection(np.hstack(levels[:i] + levels[i + 1 :])) if len(levels) > 1 else one for i in range(len(levels))
        ]
        squares = [*(whole - other for other in others), np.eye(n) - whole]  # sums of squares y'By
        sources = [*(level @ level.T for level in levels), np.eye(n)]  # Cov y = sum of s^2 Z
        self.df = np.array([np.trace(b) for b in squares])
        self.expected = np.array([[np.sum(b * z) for z in sources] for b in squares])
        share = np.array([weights @ z @ weights for z in sources])  # V = sum of s^2 share
        coefficients = np.linalg.lstsq(self.expected.T, share, rcond=None)[0]
        form = np.einsum("i,ijk->jk", coefficients, np.stack(squares))  # V is estimated by y'Fy
        products = [form @ z for z in sources]
        self.squares, self.share = np.stack(squares), share
        self.curvature = np.array([[np.sum(a * b.T) for b in products] for a in products])  # Var V = 2 s^2' curvature s^2


def _projection(x: np.ndarray) -> np.ndarray:
    return x @ np.linalg.pinv(x)


@functools.lru_cache(maxsize=256)
def _moments(factors: tuple[Factor, ...], task: Factor) -> _Moments:
    return _Moments(factors, task)


def components(values: np.ndarray, factors: tuple[Factor, ...], task: Factor) -> np.ndarray:
    """(R, len(factors) + 1) unbiased estimates of the variances of each factor and of the rest, negative ones too."""
    return np.linalg.solve(_moments(factors, task).expected, _squares(values, factors, task).T).T


def _squares(values: np.ndarray, factors: tuple[Factor, ...], task: Factor) -> np.ndarray:
    return np.einsum("ri,kij,rj->rk", values, _moments(factors, task).squares, values, optimize=True)


def _variance(values: np.ndarray, factors: tuple[Factor, ...], task: Factor) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the mean and its degrees of freedom; without the factors that chance explains, the weakest first."""
    moments, found = _moments(factors, task), np.maximum(components(values, factors, task), 0)
    variance = found @ moments.share
    noise = np.einsum("ri,ij,rj->r", found, moments.curvature, found)
    df = np.divide(variance**2, noise, out=np.full(len(values), moments.df[-1]), where=noise > 0)
    if factors:
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_squares = _squares(values, factors, task) / moments.df
            p = stats.f.sf(mean_squares[:, :-1] / mean_squares[:, -1:], moments.df[:-1], moments.df[-1])
        p = np.nan_to_num(p, nan=1.0)  # no spread at all
        weakest = p.argmax(axis=1)
        for i in range(len(factors)):
            rows = (weakest == i) & (p[:, i] > POOLED)
            if rows.any():
                variance[rows], df[rows] = _variance(values[rows], factors[:i] + factors[i + 1 :], task)
    return variance, np.maximum(df, 1)
