"""The specification curve: every defensible analysis of the same records, and what it would have said.

A claim leaves choices open: at which density, of which budgets, by which measure, without which tasks, how tasks weigh, and
with which seeds. Each combination is an analysis that someone could have stated beforehand (Simonsohn, Simmons & Nelson
2020); one of them is that of the protocol. A verdict that depends on the combination speaks of the analysis.

With weights w of the tasks the mean is sum(w x) / sum(w), and varies as `inference.linearised` says. Analyses that come to
the same, since there is one seed, say, count once. Left out are measures of another scale, to which the margin of one point
does not fit (class-wise ECE), and of another question (ECE after temperature scaling). Costs are given in margins, so that
those of different units can stand on one axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from vpcore.calibration.all_metrics import METRICS
from vpcore.report.claims import NEAR_CHANCE, near_chance
from vpcore.report.inference import crossed
from vpcore.report.pairs import costs
from vpcore.report.verdicts import LEVEL, MARGIN, MARGINS, VERDICTS, Estimate, verdict

ACCURACIES = {"points": "accuracy_loss", "share above chance": "lost_share"}
CALIBRATION = ("ece", "ece_mass", "ece_debiased", "ece_smooth", "ece_toplabel", "ks")
CHOICES = ("density", "measure", "budgets", "tasks", "weights", "seeds")
PROTOCOL = {"budgets": "all", "tasks": "1.5 x chance", "weights": "tasks alike", "seeds": "all"}


def specifications(table: pd.DataFrame, claim: str) -> pd.DataFrame:
    """Every analysis of C1 or C3 by visual prompting.

    Args:
        table: records of the grid `main`, with those on the source task.
        claim: "C1", loss of accuracy, or "C3", rise of a calibration error.

    Returns:
        One row an analysis: `CHOICES`; `mean`, `low` and `high` in margins; `verdict`; and `stated`, whether it differs from
        the protocol in density alone.
    """
    cost = costs(table[table["method"].isin(["vp", "source"])], also=["images"])
    left_out = {f"{times:g} x chance": near_chance(table, times=times) for times in (NEAR_CHANCE, 2.0)}
    left_out["none left out"] = []
    measures = ACCURACIES if claim == "C1" else {METRICS[name].label: f"{name}_rise" for name in CALIBRATION}
    measures = {label: column for label, column in measures.items() if column in cost or column == "lost_share"}
    chains, rows, seen = cost["source_seed"].nunique(), [], set()
    for number, mine in cost.groupby("round"):
        if mine["source_seed"].nunique() < chains:
            continue
        density = f"{100 * mine['density'].mean():.2g}%"
        for (budgets, few), (tasks, out), (seeds, kept) in itertools.product(_budgets(mine), left_out.items(), _seeds(mine)):
            chosen = few.loc[few.index.intersection(kept.index)]
            chosen = chosen[~chosen["task"].isin(out)]
            for weights, weight in _weights(chosen):
                same = (number, tuple(chosen.index), tuple((weight / weight.mean()).round(9)))
                if chosen.empty or same in seen:
                    continue
                seen.add(same)
                choice = {"budgets": budgets, "tasks": tasks, "weights": weights, "seeds": seeds}
                for measure, found in zip(measures, _analyses(chosen, weight, list(measures.values())), strict=True):
                    stated = choice == PROTOCOL and measure == next(iter(measures))
                    rows.append({"density": density, "measure": measure, **choice, **found, "stated": stated})
    return pd.DataFrame(rows, columns=[*CHOICES, "mean", "low", "high", "verdict", "stated"])


def _budgets(mine: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    size = mine["budget"].replace("all", np.inf).astype(float)
    yield "all", mine
    for name, end in (("smallest", "min"), ("largest", "max")):
        yield name, mine[size == size.groupby(mine["task"]).transform(end)]


def _seeds(mine: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "all", mine
    yield "one a chain", mine[mine["seed"] == mine.groupby("source_seed")["seed"].transform("min")]


def _weights(chosen: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """Weights of the tasks in their mean, for each row: 1, the number of budgets, the number of test images."""
    yield "tasks alike", pd.Series(1.0, index=chosen.index)
    yield "budgets alike", chosen.groupby("task")["budget"].transform("nunique").astype(float)
    if "images" in chosen:
        yield "test images alike", chosen["images"].astype(float)


def _analyses(chosen: pd.DataFrame, weight: pd.Series, columns: Sequence[str]) -> Iterator[dict[str, float | str]]:
    """Estimate and verdict for each of some costs, in margins: as `linearised` and `estimate` give them, in one go."""
    share = [column == "lost_share" for column in columns]
    over = chosen[["accuracy_loss" if part else column for column, part in zip(columns, share, strict=True)]]
    under = pd.DataFrame({i: chosen["above_chance"] if part else 1.0 for i, part in enumerate(share)}, index=chosen.index)
    both = pd.concat([over.set_axis(range(len(columns)), axis=1).mul(weight, axis=0), under.mul(weight, axis=0)], axis=1)
    cells = both.groupby([chosen[name] for name in ("source_seed", "task", "budget")]).mean()
    cells = cells.groupby(level=["source_seed", "task"]).mean()
    chain, task = (tuple(pd.factorize(cells.index.get_level_values(name))[0].tolist()) for name in cells.index.names)
    x, y = np.split(cells.to_numpy().T, 2)
    above = crossed(y, chain, task)[0]
    ratio = (crossed(x, chain, task)[0] / above)[:, None]
    mean, variance, df = crossed(ratio + (x - ratio * y) / above[:, None], chain, task)
    guesses = bool(chosen["at_chance"].mean() > 0.5)
    for i, column in enumerate(columns):
        e = Estimate(
            float(mean[i]), float(mean[i]), float(mean[i]), len(chosen), float(variance[i] ** 0.5), float(df[i]),
            margin=MARGINS.get(column, MARGIN), guesses=guesses and column.endswith("_rise"),
        )  # fmt: skip
        e = e.at(LEVEL).margins()
        yield {"mean": e.mean, "low": e.low, "high": e.high, "verdict": verdict(e)}


def counted(found: pd.DataFrame, by: str) -> pd.DataFrame:
    """How many analyses give each verdict: a row for each value of a choice, a column for each verdict.

    >>> found = pd.DataFrame({"density": ["16%", "16%", "40%"], "verdict": ["supported", "inconclusive", "supported"]})
    >>> counted(found, "density")[["supported", "inconclusive"]].to_dict("index")
    {'16%': {'supported': 1, 'inconclusive': 1}, '40%': {'supported': 1, 'inconclusive': 0}}
    """
    return pd.crosstab(found[by], found["verdict"]).reindex(columns=list(VERDICTS), fill_value=0)


def numbers(found: pd.DataFrame, key: str) -> dict[str, int]:
    """For the prose: how many analyses there are, and how many give each verdict, KEY_supported, KEY_no_relevant_effect, ...

    >>> numbers(pd.DataFrame({"verdict": ["supported", "not testable: at chance"]}), "c1")["c1_not_testable"]
    1
    """
    told = {f"{key}_{name.partition(':')[0].replace(' ', '_')}": int((found["verdict"] == name).sum()) for name in VERDICTS}
    return {f"{key}_analyses": len(found), **told}
