"""The explorer: every committed measurement of transfer as one JSON, small enough to lie in a page.

    {"metrics": {...}, "groups": [{"study", "compressed", "axis", "networks", "tasks", "budgets", ..., "points"}, ...]}

A group is a study with one way to compress: its networks run from dense to the most compressed along an axis. A point is one
method on one network, task and budget; numbers are [mean, low, high] with a 95 % interval over seeds, or over chains where
there are several, and over tasks for the mean of all tasks (`inference.estimate` says for what they speak). Losses and rises
are paired with the dense network (`pairs.costs`). Shares are in per cent, so that the page need not know their unit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.typing import SeriesGroupBy
from scipy import stats

from vpcore.data import imagenet
from vpcore.errors import InputError
from vpcore.files import write_atomically
from vpcore.pruning.methods import METHODS
from vpcore.report.inference import crossed
from vpcore.report.pairs import ALL, budgets, costs
from vpcore.report.plots import label_of
from vpcore.report.prose import study_of
from vpcore.report.verdicts import LEVEL
from vpcore.study.profile import load_profile
from vpcore.study.store import Store

EVERY = "mean of all tasks"
METRICS = {  # column -> its label, its unit, and whether it is of a pair
    "accuracy": ("Accuracy", "%", False),
    "ece": ("Expected calibration error (ECE)", "%", False),
    "accuracy_loss": ("Loss of accuracy against dense", "points", True),
    "ece_rise": ("Rise of ECE against dense", "points", True),
    "nll": ("Negative log-likelihood", "nats", False),
    "set_size": ("Size of conformal sets (90%)", "classes", False),
}
UNITS = {"%": 100.0, "points": 100.0, "nats": 1.0, "classes": 1.0}
BINS = ("bin_confidence", "bin_accuracy")
KEY = ["task", "budget", "method"]
BITS, KEPT = "bits of weights and activations", "weights kept, %"


class Part(NamedTuple):
    """What of a profile a group shows: a grid, and along which field its networks are compressed."""

    profile: str
    grid: str
    axis: str = KEPT


PARTS = (
    Part("small", "main"),
    Part("mini", "main"),
    Part("imagenet", "quantization", BITS),
    Part("imagenet", "sparsity"),
    Part("methods", "quantization", BITS),
    Part("methods", "ways"),
)


def groups(results: Path, parts: Sequence[Part] = PARTS, *, toy: bool = False) -> list[dict[str, Any]]:
    """The groups of all parts that have records.

    Args:
        results: the folder of all results.
        parts: what is shown, in order.
        toy: whether to show the toy of `mini` in its place.
    """
    found = []
    for profile, grid, axis in parts:
        card = load_profile(profile, toy=toy and profile == "mini")
        table = Store(results, card.name).table(card.grid(grid)) if grid in card.grids else pd.DataFrame()
        if table.empty:
            continue
        table = table[table["method"].isin(["vp", "lp", "source"])]
        if axis == BITS:
            whole = (table["round"] == 0) & (table["weight_bits"] == table["activation_bits"])
            found.append(group(table[whole], study_of(card.name), "quantized after training", axis))
            continue
        dense = table["round"] == 0
        for way in table.loc[~dense, "sparsifier"].unique():
            mine = table[dense | (table["sparsifier"] == way)]
            found.append(group(mine, study_of(card.name), label_of(way, METHODS), axis))
    return found


def group(table: pd.DataFrame, study: str, compressed: str, axis: str) -> dict[str, Any]:
    """One group, of records that differ in method, task, budget, seed, chain and network alone.

    Args:
        table: records of transfers, and perhaps of the source task, which tell which networks are at chance.
        study, compressed, axis: what the page calls the study, the way to compress, and the axis.

    Returns:
        The lists that points are numbered by, and `points`: [task, budget, method, network, runs, numbers, bins, mapped],
        where numbers follow `METRICS`, bins are [number, per mille of the images, confidence, accuracy] of each bin that
        holds some, and mapped are places in `names`: which source class stands for each target class at the first seed.
    """
    along = "weight_bits" if axis == BITS else "round"
    runs = table[table["method"] != "source"]
    runs = runs.assign(budget=[ALL if pd.isna(size) else int(size) for size in runs["budget"]])
    chains = runs["source_seed"].nunique()
    density = runs.groupby("round")["density"].mean()
    order = sorted((int(n) for n in runs[along].unique()), reverse=axis == BITS)
    networks = order if axis == BITS else [100.0 if n == 0 else float(f"{100 * density[n]:.3g}") for n in order]
    tasks, sizes, methods = [EVERY, *sorted(runs["task"].unique())], budgets(runs), ["vp", "lp"]
    names = sorted({name for mine in runs.get("mapped_names", []) if isinstance(mine, list) for name in mine})
    english = _english()
    paired, points = costs(table), []
    numbers = {name: intervals(paired if METRICS[name][2] else runs, name, [*KEY, along]) for name in METRICS}
    for (task, size, method, network), mine in _cells(runs, along):
        found = [numbers[name].get((task, size, method, network)) for name in METRICS]
        place = [tasks.index(task), sizes.index(size), methods.index(method), order.index(network), len(mine)]
        pictures = _pictures(mine, names) if task != EVERY and chains == 1 else []
        points.append([*place, [_rounded(ends, name) for name, ends in zip(METRICS, found, strict=True)], *pictures])
    classes = [[], *(runs.loc[runs["task"] == task, "classes"].iloc[0] for task in tasks[1:])]
    return {
        "study": study + f", {chains} dense networks" * (chains > 1),
        "compressed": compressed,
        "axis": axis,
        "networks": networks,
        "tasks": tasks,
        "methods": methods,
        "budgets": [str(size) for size in sizes],
        "names": [english.get(name, name) for name in names],
        "classes": classes,
        "points": points,
    }


def _cells(runs: pd.DataFrame, along: str) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The runs of each task, budget, method and network, and of all tasks together."""
    for key, mine in runs.groupby([*KEY, along], sort=True):
        yield key, mine
    for (size, method, network), mine in runs.groupby([*KEY[1:], along], sort=True):
        yield (EVERY, size, method, network), mine


def intervals(rows: pd.DataFrame, column: str, key: Sequence[str]) -> dict[tuple[Any, ...], tuple[float, ...]]:
    """Mean of a column with its 95 % interval, for each group of rows and for all tasks together, as `estimate` has it.

    Args:
        rows: runs or costs, with `task`, `seed` and `source_seed`.
        column: what is averaged; nothing is found where the rows lack it.
        key: columns that tell the groups apart, the task first.

    >>> rows = pd.DataFrame({"task": "a", "source_seed": 0, "seed": [0, 1, 2], "loss": [0.1, 0.2, 0.3]})
    >>> [round(end, 3) for end in intervals(rows, "loss", ["task"])["a",]]
    [0.2, -0.048, 0.448]
    """
    if column not in rows or rows[column].isna().all():
        return {}
    rows, apart = rows[rows[column].notna()], list(key[1:])
    several = rows["source_seed"].nunique() > 1
    of_cell = rows.groupby([*key, "source_seed"])[column].mean().astype(float)
    found = _spread((of_cell if several else rows.groupby([*key, "seed"])[column].mean()).groupby(level=list(key)))
    if apart:
        wide = of_cell.unstack(["source_seed", key[0]])
        for _, mine in wide.groupby(wide.notna().astype(int).astype(str).agg("".join, axis=1)):  # the same tasks and chains
            cells = wide.columns[mine.iloc[0].notna()]
            places = [tuple(pd.factorize(cells.get_level_values(level))[0].tolist()) for level in (0, 1)]
            mean, variance, df = crossed(mine[cells].to_numpy(), *places)
            reach = np.where(df > 0, stats.t.ppf((1 + LEVEL) / 2, np.maximum(df, 1e-9)) * variance**0.5, 0.0)
            ends = zip(mean, mean - reach, mean + reach, strict=True)
            found |= {(EVERY, *group): end for group, end in zip(mine.index, ends, strict=True)}
    return found


def _spread(values: SeriesGroupBy) -> dict[tuple[Any, ...], tuple[float, ...]]:
    of_group = values.agg(["mean", "std", "count"])
    reach = stats.t.ppf((1 + LEVEL) / 2, of_group["count"] - 1) * of_group["std"] / of_group["count"] ** 0.5
    ends = pd.concat([of_group["mean"], of_group["mean"] - reach.fillna(0), of_group["mean"] + reach.fillna(0)], axis=1)
    places = [key if isinstance(key, tuple) else (key,) for key in ends.index]
    return dict(zip(places, ends.itertuples(index=False, name=None), strict=True))


def _english() -> dict[str, str]:
    """WordNet id -> the English name of a class of ImageNet, where timm is installed."""
    try:
        return dict(zip(imagenet.wnids(), imagenet.classes(), strict=True))
    except InputError:
        return {}


def _rounded(ends: Sequence[float] | None, name: str) -> list[float]:
    unit = UNITS[METRICS[name][1]]
    return [round(unit * float(end), 2 if unit == 1 else 1) for end in ends or ()]


def _pictures(runs: pd.DataFrame, names: Sequence[str]) -> list[list[Any]]:
    """The reliability bins of all seeds together, and the mapping of the first."""
    counts = np.stack(list(runs["bin_count"]))
    total = counts.sum(0)
    shown = [1000 * total / total.sum()]
    shown += [100 * (counts * np.stack(list(runs[name]))).sum(0) / np.maximum(total, 1) for name in BINS]
    kept = [[int(n), *(round(float(each[n])) for each in shown)] for n in np.flatnonzero(total)]
    mapped = runs.sort_values("seed").iloc[0].get("mapped_names")
    return [kept, [names.index(name) for name in mapped]] if isinstance(mapped, list) else [kept]


def write(results: Path, path: Path, *, toy: bool = False) -> None:
    """Write the JSON of the explorer."""
    metrics = {name: {"label": label, "unit": unit} for name, (label, unit, _) in METRICS.items()}
    content = {"metrics": metrics, "groups": groups(results, toy=toy)}
    write_atomically(path, json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
