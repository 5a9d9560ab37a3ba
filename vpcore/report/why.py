"""Why: what goes along with the costs of compression.

Each pair of runs gets what may explain its cost:

    dense_gap       confidence minus accuracy of the dense run, on validation images; above zero it is over-confident
    gap_shift       what compression adds to that gap, on test images
    upstream_loss   the accuracy that the network has lost on its own task
    same_mapping    share of the target classes that both runs read through the same source class
    cka             how alike the two networks see the images of the task (`networks.similarity`)
    set_rise        growth of the conformal sets of nominal 90 % coverage, as a share of the classes

ECE is close to the absolute gap |g|. If compression shifts all gaps by s, then

    rise of ECE = |g + s| - |g|,

which is s for an over-confident network and -s for one that is not confident enough (as long as the sign stays): one and the
same shift raises the ECE of the one and lowers that of the other. g is taken from validation images, because the noise of g
on test images is a part of the rise, and would go along with it for no reason.

What is called an explanation here is a correlation between networks or tasks that were not drawn to show it: exploratory.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from vpcore.report.inference import estimate
from vpcore.report.pairs import costs
from vpcore.report.summaries import beside_dense
from vpcore.report.verdicts import Estimate

CORRUPTED = ("corrupted_accuracy", "corrupted_ece")
MEASURED = ("accuracy", "confidence", "val_accuracy", "val_confidence", "mapped", "classes", "set_size", "set_coverage")
EXPLANATIONS = {
    "upstream_loss": "loss on the source task, points",
    "cka": "CKA of the features",
    "same_mapping": "same source class",
}
LEAST = 4  # networks, below which a correlation says nothing


def explained(table: pd.DataFrame) -> pd.DataFrame:
    """The costs of compression, each with what may explain it.

    Args:
        table: records of the grid `main`, with those on the source task: tickets.

    Returns:
        `pairs.costs` with the columns above; `set_dense`, `coverage` and `coverage_dense` of the conformal sets;
        `over_confident`, which says whether the dense networks are over-confident at this task and budget, in the mean over
        chains and seeds; and the results on corrupted images. What the table does not tell is NaN.
    """
    cost = costs(table, also=[*MEASURED, "corruption", *CORRUPTED])
    for name in MEASURED:
        for end in (name, f"{name}_dense"):
            if end not in cost:
                cost[end] = np.nan
    chain = ["source_seed", "round"]
    lost = beside_dense(table[table["method"] == "source"]).set_index(chain)["loss"]
    gap = {end: cost[f"confidence{end}"] - cost[f"accuracy{end}"] for end in ("", "_dense")}
    number = cost["classes"].map(len, na_action="ignore")
    cost = cost.assign(
        dense_gap=cost["val_confidence_dense"] - cost["val_accuracy_dense"],
        gap_shift=gap[""] - gap["_dense"],
        upstream_loss=lost.reindex(pd.MultiIndex.from_frame(cost[chain])).to_numpy(),
        same_mapping=[_agreement(*two) for two in zip(cost["mapped"], cost["mapped_dense"], strict=True)],
        cka=_of_networks(table, cost, "cka"),
        set_rise=(cost["set_size"] - cost["set_size_dense"]) / number,
        set_dense=cost["set_size_dense"] / number,
        coverage=cost["set_coverage"],
        coverage_dense=cost["set_coverage_dense"],
    )
    of_cell = cost.groupby(["method", "task", "budget"])["dense_gap"].transform("mean")
    dropped = [end for name in MEASURED for end in (name, f"{name}_dense")]
    return cost.drop(columns=dropped).assign(over_confident=of_cell > 0)


def _agreement(compressed: object, dense: object) -> float:
    """Share of the targets with the same source; NaN where there is no mapping."""
    if not isinstance(compressed, list | np.ndarray) or not isinstance(dense, list | np.ndarray):
        return np.nan
    return float(np.mean(np.asarray(compressed) == np.asarray(dense)))


def _of_networks(table: pd.DataFrame, cost: pd.DataFrame, name: str) -> np.ndarray | float:
    """What was measured of a network on the images of a task in one of its runs, for all pairs of this network and task."""
    if name not in table:
        return np.nan
    key = ["source_seed", "round", "task"]
    known = table[table[name].notna()].groupby(key)[name].mean()
    return known.reindex(pd.MultiIndex.from_frame(cost[key])).to_numpy()


def between_networks(cost: pd.DataFrame, what: str, column: str = "accuracy_loss") -> Estimate | None:
    """Spearman's correlation between networks, at equal task and budget: its mean over both, with an interval over tasks.

    Args:
        cost: of one method and round; seeds are averaged.
        what, column: what is correlated.

    Returns:
        None where no task has at least four networks that differ in both.
    """
    rows = []
    for (task, budget), mine in cost.groupby(["task", "budget"]):
        of_chain = mine.groupby("source_seed")[[what, column]].mean().dropna()
        if len(of_chain) >= LEAST and of_chain.nunique().min() > 1:
            rows.append({"task": task, "budget": budget, "rho": of_chain.corr(method="spearman").iloc[0, 1]})
    return estimate(pd.DataFrame(rows), "rho") if rows else None


def between_tasks(cost: pd.DataFrame, what: str, column: str = "accuracy_loss") -> float:
    """Spearman's correlation between tasks, each the mean over its budgets, chains and seeds; NaN below four tasks."""
    of_task = cost.groupby("task")[[what, column]].mean().dropna()
    return float(of_task.corr(method="spearman").iloc[0, 1]) if len(of_task) >= LEAST else np.nan


def corrupted(cost: pd.DataFrame) -> pd.DataFrame:
    """The costs on corrupted images: one row a pair, corruption and severity, and one of severity 0, the clean images.

    Args:
        cost: of `explained`.

    Returns:
        `cost` with `kind`, `severity`, and `accuracy_loss` and `ece_rise` on the images so corrupted; empty when the records
        have no corrupted images.
    """
    names = ["corruption", *(name + end for name in CORRUPTED for end in ("", "_dense"))]
    if "corruption" not in cost:
        return cost.iloc[:0].assign(kind="", severity=0)
    shown = cost[cost["corruption"].notna()]
    long = shown.explode(names)
    kinds = long["corruption"].str.rsplit(" ", n=1, expand=True)
    accuracy, accuracy_dense, ece, ece_dense = (long[name].astype(float) for name in names[1:])
    severe = long.assign(
        kind=kinds[0], severity=kinds[1].astype(int), accuracy_loss=accuracy_dense - accuracy, ece_rise=ece - ece_dense
    )
    clean = [shown.assign(kind=kind, severity=0) for kind in severe["kind"].unique()]
    return pd.concat([*clean, severe], ignore_index=True).drop(columns=[*names, "corruption_dense"])
