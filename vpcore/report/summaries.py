"""What notebooks make of costs: estimates of many groups at once, networks beside their dense ones, numbers as text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from vpcore.report.inference import estimate
from vpcore.report.verdicts import Estimate


def estimates(
    differences: pd.DataFrame,
    by: Sequence[str],
    columns: Iterable[str],
    *,
    totals: Mapping[str, str] | None = None,
    axes: Sequence[str] = (),
) -> dict[tuple[Any, ...], Estimate]:
    """An `estimate` of each column for each group of rows; groups without values are left out.

    Args:
        differences: columns task, budget and what follows.
        by: columns that tell the groups apart.
        columns: what is averaged.
        totals: columns of `by` -> what the estimate over all their values is called, which is made beside those of each.
        axes: columns over whose values the means are meant to be taken, see `estimate`.

    Returns:
        (*group, column) -> estimate.

    >>> d = pd.DataFrame({"method": ["vp", "lp"], "task": "a", "budget": 1, "loss": [0.1, float("nan")]})
    >>> list(estimates(d, ["method", "budget"], ["loss"], totals={"budget": "all"}))
    [('vp', 1, 'loss'), ('vp', 'all', 'loss')]
    """
    totals, columns, found = totals or {}, list(columns), {}
    for pooled in itertools.chain(*(itertools.combinations(totals, n) for n in range(len(totals) + 1))):
        apart = [name for name in by if name not in pooled]
        for key, mine in differences.groupby(apart) if apart else [((), differences)]:
            group = dict(zip(apart, key, strict=True)) | {name: totals[name] for name in pooled}
            for column in columns:
                if mine[column].notna().any():
                    found[*(group[name] for name in by), column] = estimate(mine, column, axes=axes)
    return found


def beside_dense(source: pd.DataFrame) -> pd.DataFrame:
    """Pruned networks, each beside the dense one of its chain: its `loss` of accuracy and its `size`, a share of the file.

    Args:
        source: records of networks on their source task, with one dense network for each `source_seed`.
    """
    pruned = source[source["round"] > 0]
    dense = source[source["round"] == 0].set_index("source_seed")
    beside = dense.loc[pruned["source_seed"]].set_index(pruned.index)
    return pruned.assign(loss=beside["accuracy"] - pruned["accuracy"], size=pruned["ticket_bytes"] / beside["ticket_bytes"])


def mean_and_sd(values: Iterable[float]) -> str:
    """Mean and standard deviation in percent, for a table; of a single value there is no deviation.

    >>> mean_and_sd([0.1, 0.2, 0.3]), mean_and_sd([0.25]), mean_and_sd([])
    ('20.0 ± 10.0', '25.0', '')
    """
    found = 100 * pd.Series(list(values), dtype=float)
    return "" if found.empty else f"{found.mean():.1f}" + (f" ± {found.std():.1f}" if len(found) > 1 else "")
