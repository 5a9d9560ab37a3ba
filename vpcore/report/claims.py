"""The statistics: what a compressed network loses against the dense one, with its spread, and a verdict on each claim.

Everything is paired. For equal task, budget and seed the two networks see the same training images, start from the same
prompt and break ties alike, so a cost is a difference of two runs,

    loss of accuracy = accuracy(dense) - accuracy(compressed)       rise of ECE = ECE(compressed) - ECE(dense),

both positive when compression harms. Means are taken over tasks and budgets with equal weight. Intervals are bootstrap
percentiles (scipy) over the seeds within each task and budget: they say how sure the mean over these tasks is, not what
another task, or another dense network, would show. With three to five seeds they are somewhat too narrow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from vpcore.errors import InputError

# what a pair has in common, as far as the table tells; and what tells compressed networks apart
PAIR = [
    "source_seed",
    "method",
    "task",
    "budget",
    "seed",
    "prompt",
    "mapping",
    "ties",
    "last_mapping",
    "selection",
    "probe",
    "view",
]
NETWORK = ["sparsifier", "scope", "part", "round", "density", "weight_bits", "activation_bits", "quant_range", "batch_norm"]
# measures of which more is worse; those that the table has are compared
WORSE = [
    "ece", "ece_mass", "ece_debiased", "ece_smooth", "ece_classwise", "ece_toplabel", "mce", "ks", "nll", "brier", "aurc",
    "legacy_ece", "ece_temperature", "nll_temperature",
]  # fmt: skip
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its bootstrap interval and the number of paired differences behind it."""

    mean: float
    low: float
    high: float
    n: int


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """What each compressed run costs against the dense float run of the same transfer.

    Args:
        table: records with one dense network, transfers among them (`method`, `task`, `budget`, `seed`, `round`, `density`,
            `accuracy`, `ece`, `classes`, and of `PAIR` and `NETWORK` what varies).

    Returns:
        One row a compressed run: the columns of `PAIR` and `NETWORK` that the table has, `accuracy_loss`, `relative_loss`
        (share of the dense accuracy above chance that is lost; NaN where the dense run is at chance), `ece_rise`, and the
        rise of every other measure of `WORSE` that the table has.

    Raises:
        InputError: when a dense run occurs twice.
    """
    runs = table[table["method"] != "source"].assign(
        budget=lambda t: t["budget"].astype(object).where(t["budget"].notna(), "all")
    )
    pair, network = ([name for name in names if name in runs] for names in (PAIR, NETWORK))
    whole = runs["round"] == 0
    for name in ("weight_bits", "activation_bits"):
        whole &= runs[name] == 32 if name in runs else True
    worse = [name for name in WORSE if name in runs]
    dense = runs.loc[whole, [*pair, "accuracy", "classes", *worse]]
    if dense.duplicated(pair).any():
        raise InputError("`table` must hold one chain of tickets, but some dense runs occur twice; select one chain")
    pairs = runs[~whole].merge(dense, on=pair, suffixes=("", "_dense"))
    above_chance = pairs["accuracy_dense"] - 1 / pairs["classes_dense"].str.len()
    loss = pairs["accuracy_dense"] - pairs["accuracy"]
    return pairs[[*pair, *network]].assign(
        accuracy_loss=loss,
        relative_loss=(loss / above_chance).where(above_chance > 0.02),
        **{f"{name}_rise": pairs[name] - pairs[f"{name}_dense"] for name in worse},
    )


def effects(table: pd.DataFrame, field: str, base: object) -> pd.DataFrame:
    """What another value of one field changes, everything else being equal: the network, the task, the images, the draws.

    Args:
        table: records of transfers.
        field: a column, such as "mapping".
        base: the value that the others are compared with.

    Returns:
        One row a run with another value: the columns of `PAIR` and `NETWORK` that the table has, `accuracy_gain`, and the
        rise of every measure of `WORSE` that the table has, each the run minus its counterpart.

    Raises:
        InputError: when no run has the base value.
    """
    runs = table.assign(budget=lambda t: t["budget"].astype(object).where(t["budget"].notna(), "all"))
    key = [name for name in (*PAIR, *NETWORK) if name in runs and name not in (field, "density")]
    measured = ["accuracy", *(name for name in WORSE if name in runs)]
    reference = runs.loc[runs[field] == base, [*key, *measured]]
    if reference.empty:
        raise InputError(f"`base` must be a value of {field} in the table, got {base!r}")
    pairs = runs[runs[field] != base].merge(reference, on=key, suffixes=("", "_base"), validate="many_to_one")
    changes = {
        "accuracy_gain" if name == "accuracy" else f"{name}_rise": pairs[name] - pairs[f"{name}_base"] for name in measured
    }
    return pairs[[*key, field]].assign(**changes)


def spread(values: Iterable[float]) -> Estimate:
    """Mean of single values with their range, where there are too few for an interval.

    >>> spread([0.1, 0.3])
    Estimate(mean=0.2, low=0.1, high=0.3, n=2)
    """
    values = [float(value) for value in values]
    return Estimate(float(np.mean(values)), min(values), max(values), len(values))


def estimate(differences: pd.DataFrame, column: str, *, seed: int = 0) -> Estimate:
    """Mean of `column` over tasks and budgets, each weighing the same, with a bootstrap interval over seeds.

    Where the table has several dense networks (`source_seed`), the seeds of a task and budget are those of all of them.

    >>> d = pd.DataFrame({"task": ["a"] * 3 + ["b"] * 3, "budget": [1] * 6, "loss": [0.1, 0.2, 0.3, 0.3, 0.4, 0.5]})
    >>> e = estimate(d, "loss")
    >>> round(e.mean, 3), e.low < 0.3 < e.high, e.n
    (0.3, True, 6)
    """
    groups = [g[column].dropna().to_numpy(float) for _, g in differences.groupby(["task", "budget"], sort=True)]
    groups = [g for g in groups if len(g)]
    if not groups:
        raise InputError(
            f"there are no values of {column} to average; the runs that it compares are missing: use vpcore run"
        )

    def mean(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean([np.mean(s, axis=axis) for s in samples], axis=0)

    centre, count = float(mean(*groups)), sum(map(len, groups))
    if all(len(g) == 1 for g in groups) or all(np.ptp(g) == 0 for g in groups):
        return Estimate(centre, centre, centre, count)
    groups = [g if len(g) > 1 else np.repeat(g, 2) for g in groups]  # scipy wants two; a lone value has no spread
    interval = stats.bootstrap(
        groups, mean, n_resamples=2000, confidence_level=LEVEL, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Estimate(centre, float(interval.low), float(interval.high), count)


def budgets(differences: pd.DataFrame) -> list[int | str]:
    """The budgets that occur, smallest first, "all" last."""
    return sorted(differences["budget"].unique(), key=lambda budget: float("inf") if budget == "all" else budget)


def scarcity(differences: pd.DataFrame, column: str, *, round: int) -> pd.DataFrame:
    """The interaction of claim C2: cost at the smallest budget minus cost at the largest, paired by task and seed.

    Returns:
        One row a method, task and seed, with `budget` = "scarce - plenty" and `column` = the difference of the two costs.
    """
    at = differences[differences["round"] == round]
    rows = []
    for (method, task), group in at.groupby(["method", "task"], sort=True):
        sizes = budgets(group)
        wide = group.pivot_table(index="seed", columns="budget", values=column, dropna=False)
        if len(sizes) > 1:
            gap = (wide[sizes[0]] - wide[sizes[-1]]).dropna()
            rows += [
                {"method": method, "task": task, "budget": "scarce - plenty", "seed": seed, column: value}
                for seed, value in gap.items()
            ]
    return pd.DataFrame(rows, columns=["method", "task", "budget", "seed", column])


def matching_round(source: pd.DataFrame, *, margin: float = 0.01) -> int:
    """The sparsest round whose accuracy on the source task is at most `margin` below dense: a winning ticket, if any.

    Args:
        source: the records of method "source" of one chain.
        margin: tolerated loss of accuracy.

    Returns:
        The number of the round; 0 when no compressed network keeps up.
    """
    accuracy = source.set_index("round")["accuracy"]
    return int(max(r for r in accuracy.index if accuracy[r] >= accuracy[0] - margin))


def verdict(e: Estimate) -> str:
    """What an interval says of a claim "compression raises this cost".

    >>> verdict(Estimate(0.05, 0.02, 0.08, 9)), verdict(Estimate(0.01, -0.02, 0.04, 9))
    ('supported', 'not seen')
    >>> verdict(Estimate(-0.1, -0.2, -0.05, 9))
    'the opposite'
    """
    return "supported" if e.low > 0 else "the opposite" if e.high < 0 else "not seen"
