"""What notebooks make of costs: estimates of many groups at once, networks beside their dense ones, numbers as text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vpcore.pruning.methods import METHODS
from vpcore.report.inference import estimate
from vpcore.report.plots import LOOKS, label_of
from vpcore.report.verdicts import Estimate, Judged


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


def texts(found: Mapping[tuple[Any, ...], Estimate], group: Sequence[object], columns: Mapping[str, str]) -> dict[str, str]:
    """Cells of a row of a table, in percentage points: what `estimates` found of a group, under the label of each column.

    >>> texts({("vp", "loss"): Estimate(0.1, 0.05, 0.15, 9)}, ["vp"], {"loss": "loss, points", "rise": "rise, points"})
    {'loss, points': '10.0 (5.0 to 15.0)', 'rise, points': ''}
    """
    of_group = {column: found.get((*group, column)) for column in columns}
    return {label: f"{e.points():.1f}" if (e := of_group[column]) else "" for column, label in columns.items()}


def judged_rows(judged: Mapping[str, Judged]) -> list[dict[str, str]]:
    """The rows of a table of verdicts: costs in percentage points, detectable at the level that the claim is held to."""
    rows = []
    for claim, one in judged.items():
        e = one.estimate.points()
        cells = {
            "points": f"{e.mean:.1f}",
            "interval": f"{e.low:.1f} to {e.high:.1f}",
            "level": f"{e.level:.1%}",
            "margin": f"{e.margin:.0f}",
            "p, adjusted": "below 0.001" if one.p_adjusted < 0.0005 else f"{one.p_adjusted:.3f}",
            "detectable": f"{e.detectable():.1f}",
            "pairs": str(e.n),
        }
        seen = bool(e.df)  # there is nothing to say of a claim that could not be tested
        rows.append(
            {"claim": claim} | {name: cell if seen else "" for name, cell in cells.items()} | {"verdict": one.verdict}
        )
    return rows


def judged_numbers(judged: Mapping[str, Judged]) -> dict[str, float | int | str]:
    """The same for the prose: as `Estimate.numbers`, with interval and verdict of the family, and KEY_p and KEY_said."""
    numbers: dict[str, float | int | str] = {}
    for claim, one in judged.items():
        key, e = claim.lower().replace(", ", "_").replace(" ", "_"), one.estimate
        said = f"{one.estimate.points():.1f} points" if e.df else "not estimated"
        numbers |= e.numbers(key) | {f"{key}_verdict": one.verdict, f"{key}_p": one.p_adjusted, f"{key}_said": said}
    return numbers


def beside_dense(source: pd.DataFrame) -> pd.DataFrame:
    """Pruned networks, each beside the dense one of its chain: its `loss` of accuracy and its `size`, a share of the file.

    Args:
        source: records of networks on their source task, with one dense network for each `source_seed`.
    """
    pruned = source[source["round"] > 0]
    dense = source[source["round"] == 0].set_index("source_seed")
    beside = dense.loc[pruned["source_seed"]].set_index(pruned.index)
    return pruned.assign(loss=beside["accuracy"] - pruned["accuracy"], size=pruned["ticket_bytes"] / beside["ticket_bytes"])


def beside_control(transfers: pd.DataFrame, control: pd.DataFrame) -> tuple[list[dict[str, str]], dict[str, float | str]]:
    """The accuracy of networks that are sparse without training, by task and method, with a row for a dense control.

    Args:
        transfers: records of the dense network and of every way and density, at one budget of each task.
        control: records of a network of which no weight is pruned, round 1; perhaps none, or of other budgets too.

    Returns:
        The rows of a table, in per cent, mean and standard deviation over seeds, or "missing"; and for the prose
        WAY_ROUND_TASK_METHOD, the way being "dense", "control" or a sparsifier.
    """
    if len(control):
        control = control[(control["round"] > 0) & control["budget"].isin(transfers["budget"])]
    known = pd.concat([transfers.assign(way=transfers["sparsifier"].fillna("dense")), control.assign(way="control")])
    cells = {key: mine["accuracy"] for key, mine in known.groupby(["way", "round", "task", "method"])}
    density, rows, numbers = known.groupby(["way", "round"])["density"].mean(), [], dict[str, float | str]()
    pruned = transfers[transfers["round"] > 0].groupby(["round", "sparsifier"]).groups
    labels = {"dense": "dense", "control": "dense, batch norm renewed"}
    for number, way in [(0, "dense"), (1, "control"), *pruned]:
        row = {"weights kept, %": "100" if way in labels else f"{100 * density[way, number]:.0f}"}
        row["network"] = labels.get(way) or label_of(way, METHODS)
        for task, method in itertools.product(sorted(transfers["task"].unique()), ("vp", "lp")):
            values = cells.get((way, number, task, method), [])
            row[f"{task}, {LOOKS[method].label}"] = mean_and_sd(values) or "missing"
            numbers[f"{way}_{number}_{task}_{method}"] = float(np.mean(values)) if len(values) else "missing"
        rows.append(row)
    return rows, numbers


def mean_and_sd(values: Iterable[float]) -> str:
    """Mean and standard deviation in percent, for a table; of a single value there is no deviation.

    >>> mean_and_sd([0.1, 0.2, 0.3]), mean_and_sd([0.25]), mean_and_sd([])
    ('20.0 ± 10.0', '25.0', '')
    """
    found = 100 * pd.Series(list(values), dtype=float)
    return "" if found.empty else f"{found.mean():.1f}" + (f" ± {found.std():.1f}" if len(found) > 1 else "")
