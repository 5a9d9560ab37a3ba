"""Inference: the mean cost, with an interval that says for what other networks and tasks it speaks.

A study measures C dense networks (chains) on T tasks. The same networks meet every task and the same tasks every network, so
costs are no independent sample; they are crossed,

    y[c, t] = mu + a[c] + b[t] + e[c, t],      Var = s_chain^2, s_task^2, s_rest^2.

y is the mean over the budgets of a cell, of the mean over its seeds: budgets are chosen, not drawn, and seeds lie within a
cell. e holds what a chain does on one task alone, the seeds, and the images that the test set happens to have; what these
images do to all chains alike is in b. The variance of the mean over all cells,

    V = s_chain^2 / C + s_task^2 / T + s_rest^2 / (C T),

is estimated by the method of moments (Henderson 1953, method 3): sums of squares of chains adjusted for tasks, of tasks
adjusted for chains, and of the rest, set equal to their expectations. A component that comes out negative is set to zero
and its sum of squares counts as rest, which in a balanced design is what restricted maximum likelihood does. The interval
is that of Student's t with the degrees of freedom of Satterthwaite (1946), 2 E[V]^2 / Var[V].

With one chain nothing can be known of other chains: the interval is that of the tasks, mean +- t(T-1) s / sqrt(T), and
speaks for this chain only; `scope` says so. `planning` shows by simulation how often these intervals cover the truth.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from vpcore.errors import InputError
from vpcore.report.pairs import check_unmixed
from vpcore.report.verdicts import LEVEL, MARGIN, MARGINS, Estimate

Factor = tuple[int, ...]  # of each value, the number of its chain or task


def estimate(differences: pd.DataFrame, column: str, *, axes: Sequence[str] = (), margin: float | None = None) -> Estimate:
    """The mean of `column` over chains and tasks, each weighing the same, with its 95 % interval.

    Args:
        differences: costs or effects, one row a pair: `task`, `budget`, `column`, and where there are several, `seed` and
            `source_seed`.
        column: what is averaged; rows without a value are left out.
        axes: columns beside the budget whose values are averaged, each weighing the same.
        margin: effects below it are too small to matter; by default that of `MARGINS`.

    Returns:
        Its `scope` is "other tasks and chains", "other tasks, on this chain", "other chains, on this task", "other seeds, on
        this chain and task", or "this value", which has no interval.

    Raises:
        InputError: when there is nothing to average, or something varies that is not asked about.

    >>> d = pd.DataFrame({"task": ["a", "b", "c"] * 2, "budget": [1] * 3 + [10] * 3, "loss": [0.1, 0.2, 0.3, 0.3, 0.4, 0.5]})
    >>> e = estimate(d, "loss")
    >>> f"{e:.2f}", round(e.df), e.n, e.scope
    ('0.30 (0.05 to 0.55)', 2, 6, 'other tasks, on this chain')
    """
    known = differences[differences[column].notna()]
    if known.empty:
        raise InputError(
            f"there are no values of {column} to average; the runs that it compares are missing: use vpcore run"
        )
    check_unmixed(known, [column, *axes])
    known = known.assign(**{column: known[column].astype(float)})
    known = known.assign(source_seed=known.get("source_seed", 0))
    of_cell = known.groupby(["source_seed", "task", "budget", *axes])[column]
    cells = of_cell.mean().groupby(level=["source_seed", "task"]).mean()
    chain, task = (tuple(pd.factorize(cells.index.get_level_values(name))[0].tolist()) for name in cells.index.names)
    scope, values = _scope(len(set(chain)), len(set(task))), cells.to_numpy()
    if len(values) == 1:  # the seeds are all there is; what a budget does to all of them says nothing of their spread
        seed = known["seed"] if "seed" in known else of_cell.cumcount()
        values = values + (known[column] - of_cell.transform("mean")).groupby(seed).mean().to_numpy()
        chain, task = (0,) * len(values), tuple(range(len(values)))
        scope = "other seeds, on this chain and task" if len(values) > 1 else "this value"
    mean, variance, df = (float(each[0]) for each in crossed(values[None], chain, task))
    guesses = column.endswith("_rise") and "at_chance" in known and known["at_chance"].mean() > 0.5
    found = Estimate(
        mean, mean, mean, len(known), variance**0.5 if df else np.nan, df, scope,
        margin=MARGINS.get(column, MARGIN) if margin is None else margin, guesses=bool(guesses),
    )  # fmt: skip
    return found.at(LEVEL)


def ratio(
    differences: pd.DataFrame, numerator: str, denominator: str, *, axes: Sequence[str] = (), margin: float | None = None
) -> Estimate:
    """The ratio of two means, such as the share of the accuracy above chance that is lost, with its interval.

    A mean of ratios is ruled by the pairs with the smallest denominators; this is mean(x) / mean(y). Its interval is by the
    delta method: that of the mean of the linearised values r + (x - r y) / mean(y).

    >>> d = pd.DataFrame({"task": ["a", "b", "c"], "budget": 1, "loss": [0.1, 0.0, 0.2], "above": [0.2, 0.1, 0.3]})
    >>> f"{ratio(d, 'loss', 'above'):.2f}"
    '0.50 (-0.12 to 1.12)'
    """
    return estimate(linearised(differences, numerator, denominator, axes=axes), "lost_share", axes=axes, margin=margin)


def linearised(differences: pd.DataFrame, numerator: str, denominator: str, *, axes: Sequence[str] = ()) -> pd.DataFrame:
    """The rows with `lost_share`, values whose mean is the ratio of means and which vary as it does (delta method)."""
    known = differences[differences[[numerator, denominator]].notna().all(axis=1)]
    if known.empty:
        return known.assign(lost_share=np.nan)
    over, under = (estimate(known, name, axes=axes).mean for name in (numerator, denominator))
    share = over / under if under > 0 else np.nan  # nothing above chance: no share of it can be lost
    return known.assign(lost_share=share + (known[numerator] - share * known[denominator]) / under if under > 0 else np.nan)


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
    mean = values @ _weights(task)
    if values.shape[1] == 1:
        return mean, np.zeros(len(mean)), np.zeros(len(mean))
    # an effect of which each value has a level of its own, or all have the same, cannot be told from the rest or the mean
    factors = tuple(factor for factor in (chain, task) if 1 < len(set(factor)) < len(factor))
    while len(factors) and _moments(factors, task).rest < 1:
        factors = tuple(sorted(factors, key=lambda factor: len(set(factor)))[:-1])
    variance, df = _variance(values, factors, task)
    return mean, variance, df


def _scope(chains: int, tasks: int) -> str:
    of_chains = "chains" if chains > 1 else ""
    if chains > 1 and tasks > 1:
        return f"other tasks and {of_chains}"
    return "other tasks, on this chain" if tasks > 1 else f"other {of_chains}, on this task"


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
        self.rest = float(np.trace(squares[-1]))
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
    moments = _moments(factors, task)
    squares = np.einsum("ri,kij,rj->rk", values, moments.squares, values, optimize=True)
    return np.linalg.solve(moments.expected, squares.T).T


def _variance(values: np.ndarray, factors: tuple[Factor, ...], task: Factor) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the mean and its degrees of freedom; without the factors whose component is not positive."""
    moments, found = _moments(factors, task), components(values, factors, task)
    variance = found @ moments.share
    noise = np.einsum("ri,ij,rj->r", found, moments.curvature, found)
    df = np.divide(variance**2, noise, out=np.full(len(values), moments.rest), where=noise > 0)
    if factors:
        lowest = found[:, :-1].argmin(axis=1)
        for i in range(len(factors)):
            rows = (lowest == i) & (found[:, i] <= 0)
            if rows.any():
                variance[rows], df[rows] = _variance(values[rows], factors[:i] + factors[i + 1 :], task)
    return np.maximum(variance, 0), np.maximum(df, 1)
