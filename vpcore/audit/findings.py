"""What an audit finds: costs with their intervals, and verdicts by the rule of the study (`report.verdicts`).

The primary contrasts of a compressed network are one family, held to 5 % together (Holm): the loss of accuracy and the rise
of the ECE, by visual prompting and by linear probing, over all tasks and budgets. Each claims that compression harms. A task
on which the dense network is near chance, by validation images at the largest budget, is left out of a method's contrasts.
All other numbers have a 95 % interval each and no verdict.

    cost found          3    some primary contrast of some network is supported
    no relevant cost    0    all are without relevant effect, or contradicted: compression helps
    inconclusive        4    anything else
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vpcore.audit.measuring import COVERAGE, Row
from vpcore.calibration.all_metrics import METRICS
from vpcore.calibration.predictions import Predictions
from vpcore.report.claims import scarcity
from vpcore.report.inference import estimate
from vpcore.report.pairs import costs
from vpcore.report.verdicts import (
    CONTRADICTED,
    MARGIN,
    MARGINS,
    NO_EFFECT,
    SUPPORTED,
    Estimate,
    Judged,
    holm,
)

NEAR_CHANCE = 1.5  # times chance, see book/protocol.md
UNTESTED = Estimate(np.nan, np.nan, np.nan, 0, guesses=True)
COST, CLEAN, OPEN = "a cost was found", "no relevant cost", "inconclusive"
EXIT = {CLEAN: 0, COST: 3, OPEN: 4}
METHODS = {"vp": "visual prompting", "lp": "linear probing"}
# the primary contrasts: (column of the costs, method) -> what is claimed of compression
PRIMARY = {
    ("accuracy_loss", "vp"): "lowers the accuracy of visual prompting",
    ("accuracy_loss", "lp"): "lowers the accuracy of linear probing",
    ("ece_rise", "vp"): "worsens the calibration of visual prompting (ECE)",
    ("ece_rise", "lp"): "worsens the calibration of linear probing (ECE)",
}
# column of the costs -> what the table of all costs calls it; those of METRICS after temperature scaling are added below
SCARCITY = "scarcity_loss"
SECONDARY = {
    "accuracy_loss": "accuracy, loss",
    SCARCITY: "accuracy, loss with the fewest images minus that with the most",
    **{f"{name}_rise": f"{metric.label}, rise" for name, metric in METRICS.items() if metric.worse},
    "gap_rise": "confidence minus accuracy, rise",
    "corrupted_accuracy_loss": "accuracy on corrupted images, loss",
    "corrupted_ece_rise": "ECE on corrupted images, rise",
    "set_size_rise": f"classes in conformal sets of {COVERAGE:.0%}, rise",
    "set_coverage_loss": "coverage of conformal sets, loss",
    **{
        f"{name}_temperature_rise": f"{METRICS[name].label} after temperature scaling, rise"
        for name in ("ece", "ece_debiased", "ece_smooth", "ece_classwise", "nll", "brier")
    },
}
NO_POINTS = ("nll_rise", "nll_temperature_rise", "set_size_rise")  # are not in percent
ALSO = ("confidence", "accuracy", "corrupted_accuracy", "corrupted_ece", "set_size", "set_coverage")


@dataclass(frozen=True)
class Findings:
    """What was found of one compressed network.

    Attributes:
        primary: (column, method) -> judged, in the order of `PRIMARY`.
        by_budget: (column, method, budget) -> its estimate.
        secondary: (column, method) -> its estimate.
        levels: method -> mean accuracy and ECE of the dense network and of this one, over all tasks and budgets.
        agreement: share of the classes of the tasks for which both networks read the same source class; NaN without prompts.
        left_out: method -> the tasks on which the dense network is near chance.
        verdict: `COST`, `CLEAN` or `OPEN`.
    """

    primary: dict[tuple[str, str], Judged]
    by_budget: dict[tuple[str, str, int], Estimate]
    secondary: dict[tuple[str, str], Estimate]
    levels: dict[str, dict[str, float]]
    agreement: float
    left_out: dict[str, list[str]]
    verdict: str


def judge(rows: Sequence[Row], network: int, *, margin: float = MARGIN) -> Findings:
    """The findings of one compressed network against the dense one.

    Args:
        rows: of `measure`, for all tasks.
        network: the number of the compressed network.
        margin: the largest cost of accuracy, and the largest rise of the ECE, that is too small to matter.
    """
    table = pd.DataFrame([row for row in rows if row["network"] in (0, network)])
    table = table.assign(gap=table["confidence"] - table["accuracy"])
    found: dict[str, pd.DataFrame] = {}
    left_out: dict[str, list[str]] = {}
    for method, mine in table.groupby("method", sort=False):
        if set(mine["network"]) == {0, network}:
            left_out[str(method)] = near_chance(mine)
            kept = mine[~mine["task"].isin(left_out[str(method)])]
            found[str(method)] = _costs(kept) if len(kept) else pd.DataFrame()
    family: dict[str, Estimate] = {}
    by_budget: dict[tuple[str, str, int], Estimate] = {}
    secondary: dict[tuple[str, str], Estimate] = {}
    for column, method in PRIMARY:
        if method in found:
            family[f"{column} {method}"] = _estimate(found[method], column, margin)
            for budget, mine in found[method].groupby("budget") if len(found[method]) else ():
                by_budget[column, method, int(budget)] = _estimate(mine, column, margin)
    for method, pairs in found.items():
        secondary |= {(column, method): _estimate(pairs, column) for column in SECONDARY if column in pairs}
        if len(pairs) and pairs["budget"].nunique() > 1:
            scarce = scarcity(pairs, "accuracy_loss", round=1).rename(columns={"accuracy_loss": SCARCITY})
            secondary[SCARCITY, method] = _estimate(scarce, SCARCITY)
    judged_by_name = holm(family)
    judged = {each: one for each in PRIMARY if (one := judged_by_name.get(" ".join(each)))}
    agreement = _agreement(table)
    levels = {
        str(method): {f"{name}_{round}": float(_mean(one, name)) for round, one in mine.groupby("round") for name in LEVELS}
        for method, mine in table[table["method"].isin(list(found))].groupby("method", sort=False)
    }
    return Findings(judged, by_budget, secondary, levels, agreement, left_out, verdict_of(judged))


LEVELS = ("accuracy", "ece", "confidence")


def _mean(rows: pd.DataFrame, column: str) -> float:
    """The mean over tasks of the means over budgets and seeds."""
    return rows.groupby("task")[column].mean().mean()


def near_chance(table: pd.DataFrame) -> list[str]:
    """The tasks of one method on which the dense network is near chance at the largest budget, by validation images."""
    if "val_accuracy" not in table:
        return []
    dense = table[(table["round"] == 0) & (table["budget"] == table["budget"].max())]
    accuracy, chance = dense.groupby("task")["val_accuracy"].mean(), 1 / dense.groupby("task")["classes"].first().map(len)
    return sorted(accuracy[accuracy < NEAR_CHANCE * chance].index)


def _costs(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs with all that `SECONDARY` names, as far as it was measured."""
    pairs = costs(table, also=(*ALSO, "gap")).assign(step=1 / table["images"].min())
    for name in ("set_size", "corrupted_ece", "gap"):
        if name in pairs:
            pairs[f"{name}_rise"] = pairs[name] - pairs[f"{name}_dense"]
    for name in ("set_coverage", "corrupted_accuracy"):
        if name in pairs:
            pairs[f"{name}_loss"] = pairs[f"{name}_dense"] - pairs[name]
    return pairs


def _estimate(pairs: pd.DataFrame, column: str, margin: float | None = None) -> Estimate:
    if pairs.empty or column not in pairs or not pairs[column].notna().any():
        return UNTESTED
    found = estimate(pairs, column, margin=MARGINS.get(column, MARGIN) if margin is None else margin)
    if "step" in pairs and found.mean and found.se < 1e-12:  # all lose the same, which is known to a step of accuracy alone
        se = pairs["step"].max() / (6 * found.n) ** 0.5  # of rounding, each of two accuracies
        found = dataclasses.replace(found, se=float(se)).at(found.level)
    return found


def _agreement(table: pd.DataFrame) -> float:
    """How often the mappings of two networks agree, over classes, budgets, seeds and tasks."""
    if "mapped" not in table:
        return float("nan")
    prompts = table[table["method"] == "vp"].set_index(["task", "budget", "seed", "round"])["mapped"]
    both = prompts.unstack("round").dropna()
    if both.shape[1] < 2:
        return float("nan")
    return float(np.mean([np.equal(a, b).mean() for a, b in zip(both[0], both[1], strict=True)]))


def verdict_of(judged: Mapping[tuple[str, str], Judged]) -> str:
    """The verdict on a family of primary contrasts; see the head of this module."""
    words = [one.verdict for one in judged.values()]
    if SUPPORTED in words:
        return COST
    return CLEAN if words and set(words) <= {NO_EFFECT, CONTRADICTED} else OPEN


def worst(verdicts: Sequence[str]) -> str:
    """The verdict on several networks: a cost, if one has any; inconclusive, if one is; else none.

    >>> worst([CLEAN, OPEN]), worst([OPEN, COST])
    ('inconclusive', 'a cost was found')
    """
    return next((word for word in (COST, OPEN) if word in verdicts), CLEAN)


def own_costs(dense: Predictions, other: Predictions) -> dict[str, Estimate]:
    """What a network loses on its own task, image by image: accuracy, and confidence minus accuracy."""
    gaps = [each.confidence - each.right.double() for each in (other, dense)]
    found = {}
    for name, each in {"accuracy_loss": dense.right.double() - other.right.double(), "gap_rise": gaps[0] - gaps[1]}.items():
        n, se = len(each), float(each.std() / len(each) ** 0.5)
        found[name] = Estimate(float(each.mean()), 0.0, 0.0, n, se, n - 1, "other images of its own task").at(0.95)
    return found
