"""The claims: what the paper says of compression, asked of a table of records.

`costs` pairs each compressed run with its dense counterpart (`pairs`), `estimate` gives a mean cost with its interval
(`inference`), and `verdict` says what that means for a claim (`verdicts`). Here are the questions that need more than that:

C2  Is the cost largest when data is scarce? `scarcity`: cost at the smallest budget minus cost at the largest, in points of
    accuracy or, free of scale, as shares of what the dense network has above chance.
C4  Can a ticket that keeps up on its own task be worse at another? `matching_round`: the sparsest that keeps up.
C5  The same of bits: `matching_bits`.

What keeps up is judged on validation images, since the choice of a network is part of the measurement.

`primary` puts them together: the six claims as one family with their verdicts, as book/protocol.md states them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from vpcore.errors import InputError
from vpcore.report.inference import estimate, flipped, linearised, spread
from vpcore.report.pairs import budgets, check_unmixed, costs, effects
from vpcore.report.verdicts import LEVEL, MARGIN, NO_TICKET, ROUNDING, SUPPORTED, VERDICTS, Estimate, Judged, holm, verdict
from vpcore.study.run import NETWORK

__all__ = [
    "LEVEL", "STATEMENTS", "VERDICTS", "Estimate", "budgets", "costs", "effects", "estimate", "finds_harm", "flipped",
    "holm", "kept_costs", "matching_bits", "matching_round", "near_chance", "of_sparsity", "primary", "scarcity",
    "secondary", "shown_harm", "spread", "verdict",
]  # fmt: skip

NEAR_CHANCE = 1.5  # times chance: a dense network below that has no accuracy worth losing
SHOTS = 10  # images a class at which that is judged
UNTESTED = Estimate(np.nan, np.nan, np.nan, 0, guesses=True)  # there is nothing to average
STATEMENTS = {
    "C1": "Sparsity lowers the accuracy of VP",
    "C2": "... most of all when data is scarce",
    "C3": "Sparsity worsens the calibration of VP",
    "C4": "A ticket as good as dense upstream is worse for VP",
    "C5": "Quantization lowers the accuracy of VP",
    "C6": "... but does not harm calibration",
}


def scarcity(differences: pd.DataFrame, column: str, *, round: int) -> pd.DataFrame:
    """The interaction of claim C2: cost at the smallest budget minus cost at the largest of the same chain, task and seed.

    Args:
        differences: costs.
        column: a cost, or "lost_share": the share of the mean accuracy above chance that is lost at each end, a ratio of
            means over all tasks and chains of a method; its rows are linearised (`inference.linearised`), so that their mean
            is the difference of the two shares.
        round: of the compressed networks.

    Returns:
        One row a chain, method, task and seed that has both ends: `column`, the difference; `scarce` and `plenty`, the two
        costs that it is made of; `scarce_budget` and `plenty_budget`; `budget`, "scarce - plenty"; and what tells networks
        apart.

    Raises:
        InputError: when more than one kind of network has this round.
    """
    at = differences[differences["round"] == round]
    for _, mine in at.groupby("method"):
        check_unmixed(mine, [])
    network = [name for name in NETWORK if name in at]
    key = [name for name in ("source_seed", "method", "task", "seed") if name in at]
    share = column == "lost_share"
    values = ["accuracy_loss", "above_chance"] if share else [column]
    kept = [*key, *network, "budget", *values, *(["at_chance"] if "at_chance" in at else [])]
    ends = []
    for _, group in at.groupby(["method", "task"], sort=True):
        sizes = budgets(group[group[values].notna().all(axis=1)])
        if len(sizes) > 1:
            ends.append([group.loc[group["budget"] == size, kept].dropna(subset=values) for size in (sizes[0], sizes[-1])])
    names = [*key, *network, "budget", column, "scarce", "plenty", "scarce_budget", "plenty_budget"]
    if not ends:
        return pd.DataFrame(columns=names)
    scarce, plenty = (pd.concat(each) for each in zip(*ends, strict=True))
    both = scarce.merge(plenty[[*key, "budget", *values]], on=key, suffixes=("_scarce", "_plenty"))
    for end in ("scarce", "plenty"):
        if share:
            both[end] = np.nan
            for _, mine in both.assign(budget="").groupby("method"):
                found = linearised(mine, f"accuracy_loss_{end}", f"above_chance_{end}")
                both.loc[mine.index, end] = found["lost_share"]
        else:
            both[end] = both[f"{column}_{end}"]
    both = both.assign(**{column: both["scarce"] - both["plenty"]}, budget="scarce - plenty")
    both = both.rename(columns={"budget_scarce": "scarce_budget", "budget_plenty": "plenty_budget"})
    return both[[name for name in (*names, "at_chance") if name in both]]


def matching_round(source: pd.DataFrame, *, margin: float = MARGIN) -> int:
    """The sparsest round that keeps up on the source task: a winning ticket, if any.

    It keeps up when its accuracy on validation images, in the mean over chains, is at most `margin` below that of dense.
    Rounds that not every chain has are left out.

    Args:
        source: the records of method "source" of one way to prune, of one chain or several.
        margin: tolerated loss of accuracy.

    Returns:
        The number of the round; 0 when no compressed network keeps up.

    Raises:
        InputError: when there are several ways to prune, a chain without its dense network, or no accuracy on validation
            images.

    >>> matching_round(pd.DataFrame({"round": [0, 1, 2], "val_accuracy": [0.9, 0.895, 0.8]}))
    1
    """
    pruned = source[source["round"] > 0]
    for name in NETWORK:
        if name in source and name != "round":
            check_unmixed(pruned[[name]].assign(task="", budget=""), [])
    loss = _validation_loss(source, "round", whole=source["round"] == 0)
    return int(max((number for number, lost in loss.items() if lost <= margin + ROUNDING), default=0))


def matching_bits(source: pd.DataFrame, *, margin: float = MARGIN) -> int:
    """The fewest bits, of weights and activations alike, with which the dense network keeps up on its own task; see above.

    >>> bits = [32, 8, 4]
    >>> matching_bits(pd.DataFrame({"weight_bits": bits, "activation_bits": bits, "val_accuracy": [0.9, 0.9, 0.7]}))
    8

    Returns:
        The bits; 0 when no quantized network keeps up.
    """
    alike = source[source["weight_bits"] == source["activation_bits"]]
    alike = alike[alike["round"] == 0] if "round" in alike else alike
    for name in ("quant_range", "batch_norm"):
        if name in alike:
            check_unmixed(alike.loc[alike["weight_bits"] < 32, [name]].assign(task="", budget=""), [])
    loss = _validation_loss(alike, "weight_bits", whole=alike["weight_bits"] == 32)
    return int(min((bits for bits, lost in loss.items() if lost <= margin + ROUNDING), default=0))


def _validation_loss(source: pd.DataFrame, column: str, *, whole: pd.Series) -> pd.Series:
    """Loss of validation accuracy against the whole network of the same chain, mean over chains, by `column`.

    Only values that every chain has are there.
    """
    if "val_accuracy" not in source or source["val_accuracy"].isna().any():
        raise InputError(
            "`source` must have val_accuracy, the accuracy on validation images, in each record; measure it anew"
        )
    source = source.assign(source_seed=source.get("source_seed", 0))
    dense = source[whole]
    if dense["source_seed"].duplicated().any() or set(dense["source_seed"]) != set(source["source_seed"]):
        raise InputError(
            f"`source` must hold the dense network of each chain once, got {dense['source_seed'].tolist()} for the chains "
            f"{sorted(set(source['source_seed']))}; select one recipe"
        )
    accuracy = source["source_seed"].map(dense.set_index("source_seed")["val_accuracy"])
    loss = (accuracy - source["val_accuracy"])[~whole].groupby(source[column]).agg(["mean", "count"])
    return loss.loc[loss["count"] == len(dense), "mean"]


def near_chance(table: pd.DataFrame, *, method: str = "vp", times: float = NEAR_CHANCE) -> list[str]:
    """The tasks on which the dense networks are near chance by a method, and which its claims leave out.

    Their accuracy on validation images at 10 images a class, in the mean over chains, is below `times` chance.

    Args:
        table: records of transfers, with `val_accuracy`.
        method: "vp" or "lp".
        times: chance; the protocol says 1.5.
    """
    dense = table[(table["method"] == method) & (table["round"] == 0) & (table["budget"] == SHOTS)]
    dense = dense.assign(source_seed=dense.get("source_seed", 0))
    accuracy = dense.groupby(["task", "source_seed"])["val_accuracy"].mean().groupby("task").mean()
    chance = 1 / dense.groupby("task")["classes"].first().map(len)
    return sorted(accuracy[accuracy < times * chance - ROUNDING].index)


def kept_costs(table: pd.DataFrame, *, method: str = "vp") -> pd.DataFrame:
    """The costs that claims of a method are said of: without the tasks that are near chance.

    Args:
        table: records of the grid `main`, with those on the source task.
        method: "vp" or "lp".
    """
    cost = costs(table[table["method"].isin([method, "source"])])
    return cost[~cost["task"].isin(near_chance(table, method=method))]


def of_sparsity(table: pd.DataFrame, *, round: int, ece: str = "ece", harm_seen: bool = True) -> dict[str, Estimate]:
    """C1, C2 and C3 by visual prompting, at one round; see `kept_costs`.

    Args:
        table: records of the grid `main`, with those on the source task.
        round: of the tickets.
        ece: the measure of calibration, "ece" or "ece_debiased".
        harm_seen: whether the control that must find harm did, see `estimate`.
    """
    cost = kept_costs(table)
    at, gap = cost[cost["round"] == round], scarcity(cost, "lost_share", round=round)
    asked = {"C1": (at, "accuracy_loss"), "C2": (gap, "lost_share"), "C3": (at, f"{ece}_rise")}
    return {claim: _mean(rows, column, harm_seen=harm_seen) for claim, (rows, column) in asked.items()}


def _mean(differences: pd.DataFrame, column: str, *, harm_seen: bool) -> Estimate:
    """Its estimate; not testable where every task is left out."""
    return estimate(differences, column, harm_seen=harm_seen) if differences[column].notna().any() else UNTESTED


def primary(
    main: pd.DataFrame, quantized: pd.DataFrame, *, harm_seen: bool, round: int = 2, ece: str = "ece"
) -> dict[str, Judged]:
    """The verdicts on C1 to C6, one family.

    Args:
        main: records of the grid `main`, with those on the source task: tickets.
        quantized: records of the grid `quantized`: networks quantized in training, and the float ones trained on as long.
        harm_seen: whether the control that must find harm did (`finds_harm`, `estimate`). If not, claims over fewer than
            three chains, as C5 and C6 are, are *inconclusive* where *no relevant effect*, or support of no harm without a
            gain, would be all that there is to say.
        round: of the tickets; 2 are 16 % of the weights.
        ece: the measure of calibration; "ece_debiased" is the sensitivity analysis.

    Returns:
        Claim -> verdict. If the matching ticket is that of `round`, C4 is the same number as C1, is no claim of its own and
        has C1's verdict. If no ticket keeps up, C4 is not testable, has no numbers, and counts in the family.
    """
    family = of_sparsity(main, round=round, ece=ece, harm_seen=harm_seen)
    matching = matching_round(main[main["method"] == "source"])
    if 0 < matching != round:
        family["C4"] = of_sparsity(main, round=matching, harm_seen=harm_seen)["C1"]
    cost = costs(quantized[quantized["method"].isin(["vp", "source"])], against="float")
    cost = cost[~cost["task"].isin(near_chance(main))]
    for claim, column in (("C5", "accuracy_loss"), ("C6", f"{ece}_rise")):
        family[claim] = _mean(cost, column, harm_seen=harm_seen)
    judged = holm(family, harmless=("C6",), untested=int(not matching))
    if not matching:
        judged["C4"] = Judged(UNTESTED, 1.0, NO_TICKET)
    elif matching == round:
        judged["C4"] = judged["C1"]
    return dict(sorted(judged.items()))


def secondary(main: pd.DataFrame, *, harm_seen: bool, round: int) -> dict[str, Judged]:
    """What the protocol asks beside the primary family: C2 in points, C3 of linear probing, and C1 to C3 at other densities.

    Args:
        main, harm_seen: as of `primary`.
        round: of the primary family. The claims at each other round that all chains have are a family of their own.
    """
    gap, probes = scarcity(kept_costs(main), "accuracy_loss", round=round), kept_costs(main, method="lp")
    alone = {
        "C2, in points": _mean(gap, "accuracy_loss", harm_seen=harm_seen),
        "C3, linear probing": _mean(probes[probes["round"] == round], "ece_rise", harm_seen=harm_seen),
    }
    found = {name: holm({name: e})[name] for name, e in alone.items()}
    for number, mine in main[main["method"] == "source"].groupby("round"):
        if number not in (0, round):
            kept = f"{100 * mine['density'].mean():.2g}% kept"
            family = holm(of_sparsity(main, round=int(number), harm_seen=harm_seen))
            found |= {f"{name}, {kept}": one for name, one in family.items()}
    return found


def finds_harm(table: pd.DataFrame) -> bool:
    """Whether the control that must find harm did: whether the loss that `shown_harm` gives is *supported* by prompting.

    Args:
        table: as of `shown_harm`; records of other methods are left out.
    """
    return verdict(estimate(shown_harm(table[table["method"] == "vp"]), "accuracy_loss")) == SUPPORTED


def shown_harm(table: pd.DataFrame) -> pd.DataFrame:
    """What a network that was trained for less time loses against its twin: the control that must find harm.

    Args:
        table: records of the grid `quarter`: transfers of dense networks with two values of `source_epochs`.

    Returns:
        One row a pair, as of `effects`, with `accuracy_loss`: positive is harm.
    """
    found = effects(table, "source_epochs", table["source_epochs"].max())
    return found.assign(accuracy_loss=-found["accuracy_gain"])
