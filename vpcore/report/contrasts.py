"""Contrasts: what the costs become when one thing is done otherwise, everything else being equal.

Two questions are asked of the same control networks and tasks.

*The authors' protocol beside ours* (`protocols`): the claims are estimated from runs in which one thing is done as in the
authors' code, or all of it, and from our runs of the same chains, tasks, budgets and seeds. A verdict that differs has
flipped, and what is done as theirs has flipped it.

*Other networks, other prompts* (`contrast`): the costs of each way to compress, to train or to prompt, each way against its
own counterpart, with the loss on the source task beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vpcore.prompting.prompts import PROMPTS
from vpcore.pruning.methods import METHODS
from vpcore.report.claims import UNTESTED, near_chance, scarcity
from vpcore.report.inference import estimate, spread
from vpcore.report.pairs import costs
from vpcore.report.plots import LOOKS, label_of
from vpcore.report.summaries import estimates
from vpcore.report.verdicts import Estimate, verdict
from vpcore.study.run import FIELDS

SWITCHES = {"ties": "random", "last_mapping": "fresh", "selection": "last"}  # field -> how we do it
DEFECTS = {  # values of these -> what is done as the authors do it, or, "val", neither way
    ("random", "fresh", "last"): "none",
    ("index", "fresh", "last"): "ties",
    ("random", "stale", "last"): "stale",
    ("random", "fresh", "test"): "test",
    ("random", "fresh", "val"): "val",
    ("random", "stale", "test"): "stale-test",
    ("index", "stale", "test"): "all",
}
LABELS = {  # of `DEFECTS`, and of tickets whose masks were undone
    "none": "the right way",
    "ties": "ties by index",
    "stale": "stale mapping",
    "test": "epoch picked on test images",
    "val": "epoch picked on validation images (no defect)",
    "stale-test": "epoch picked on test images, stale mapping",
    "all": "ties, mapping and epoch together",
    "unmasked": "masks undone",
}
PROTOCOLS = {
    "logits": "ECE from logits",
    **{name: LABELS[name] for name in ("ties", "stale", "test")},
    "batch128": "batch of 128, 50 epochs",
    "undone": "masks undone",
    "whole": "all of the first four",
}
CELL = ["method", "task", "budget", "source_seed", "seed"]
COSTS = {"accuracy_loss": "loss of accuracy, points", "ece_rise": "rise of ECE, points"}
CLAIMS = {"C1": "accuracy_loss", "C2": "lost_share", "C3": "ece_rise"}


@dataclass(frozen=True)
class Section:
    """A grid of controls: what is asked of it, the fields that tell its ways apart, and what they are compared with."""

    question: str
    fields: tuple[str, ...]
    against: str = "dense"


SECTIONS = {  # of the profile `real`
    "sparsifiers": Section("Ticket or sparsity? Other ways to 16%", ("sparsifier",)),
    "untrained": Section("Newcomers: masks without training, at 40%", ("sparsifier",)),
    "recipe": Section("Recipe? Label smoothing and mixup", ("label_smoothing",)),
    "quantized": Section("Quantized in training", ("weight_bits",), "float"),
    "bits": Section("Quantized in training, other bits", ("weight_bits",), "float"),
    "after": Section("Quantized after training", ("weight_bits", "quant_range", "batch_norm"), "float"),
    "finetuned": Section("Full fine-tuning", ()),
    "steps": Section("Equal steps at every budget", ("budget", "steps")),
    "newcomers": Section("Newcomers: low-rank prompts", ("prompt",)),
}


@dataclass(frozen=True)
class Beside:
    """What a claim comes to by a protocol of the authors, and by ours on the same cells, with both verdicts."""

    theirs: Estimate
    ours: Estimate

    @property
    def verdict(self) -> str:
        """By theirs."""
        return verdict(self.theirs)

    @property
    def ours_verdict(self) -> str:
        """By ours."""
        return verdict(self.ours)

    @property
    def flips(self) -> bool:
        """Whether the two verdicts differ."""
        return self.verdict != self.ours_verdict


def defects(runs: pd.DataFrame) -> pd.Series:
    """Which of `DEFECTS` each run has; a probe has no mapping, and so none of the defects of one."""
    values = [runs[name].fillna(usual) if name in runs else pd.Series(usual, runs.index) for name, usual in SWITCHES.items()]
    choices = zip(*values, strict=True)
    return pd.Series([DEFECTS.get(choice, " ".join(choice)) for choice in choices], runs.index, dtype=object)


def protocols(tables: Mapping[str, pd.DataFrame], *, harm_seen: bool = True) -> dict[tuple[str, str, str], Beside]:
    """The claims C1, C2 (as a share) and C3 by each protocol of the authors, beside ours.

    Args:
        tables: grid -> its records with those on the source task: `authors`, and perhaps `batch128` and `undone`.
        harm_seen: whether the control that must find harm did, see `estimate`.

    Returns:
        (method, key of `PROTOCOLS`, claim) -> both. "logits" has C3 alone, "whole" has it by the ECE from logits; a probe,
        which has no mapping, is whole when its epoch is picked on test images. A protocol with one budget has no C2.
    """
    runs, kind = tables["authors"], defects(tables["authors"])
    source = runs["method"] == "source"
    whole = (kind == "all") | ((kind == "test") & (runs["method"] == "lp"))
    ours, found = runs[(kind == "none") | source], {}
    theirs = {"logits": ours, "whole": runs[whole | source]}
    theirs |= {name: runs[(kind == name) | source] for name in ("ties", "stale", "test")}
    theirs |= {name: tables[name] for name in ("batch128", "undone") if name in tables}
    for method in ("vp", "lp"):
        out = near_chance(ours, method=method)
        usual_cost = _costs_of(ours, method, out)
        for name in PROTOCOLS:
            cost = _costs_of(theirs[name], method, out) if name in theirs else usual_cost.iloc[:0]
            same = usual_cost.merge(cost[CELL].drop_duplicates(), on=CELL)
            legacy = {"C3": "legacy_ece_rise"}
            columns = legacy if name == "logits" else CLAIMS | (legacy if name == "whole" else {})
            for claim, column in columns.items():
                pairs = (cost, column), (same, CLAIMS[claim])
                two = [_claim(rows, measure, harm_seen=harm_seen) for rows, measure in pairs]
                if all(e is not UNTESTED for e in two):
                    found[method, name, claim] = Beside(*two)
    return found


def _costs_of(table: pd.DataFrame, method: str, out: Sequence[str]) -> pd.DataFrame:
    """The costs of a method, without some tasks; of sparse networks alone."""
    mine = table[table["method"].isin([method, "source"])]
    if not (mine["method"] == method).any():
        return pd.DataFrame(columns=[*CELL, "round"])
    cost = costs(mine)
    return cost[~cost["task"].isin(out)]


def _claim(cost: pd.DataFrame, column: str, *, harm_seen: bool) -> Estimate:
    if cost.empty:
        return UNTESTED
    if column == "lost_share":
        cost = scarcity(cost, column, round=int(cost["round"].max()))
    known = column in cost and cost[column].notna().any()
    return estimate(cost, column, harm_seen=harm_seen) if known else UNTESTED


def beside_rows(found: Mapping[tuple[str, str, str], Beside]) -> list[dict[str, str]]:
    """The table of `protocols`: a row for each method and protocol; an arrow leads from our verdict to theirs."""
    rows = []
    for method, name in dict.fromkeys(key[:2] for key in found):
        row = {"method": LOOKS[method].label, "as the authors do": PROTOCOLS[name]}
        for claim in CLAIMS:
            both = found.get((method, name, claim))
            row[claim] = row[f"{claim} verdict"] = ""
            if both:
                small = both.theirs.margin < 0.001  # the ECE from logits has no unit
                row[claim] = f"{both.theirs:.4f}" if small else f"{both.theirs.points():.1f}"
                before = f"{both.ours_verdict} \N{RIGHTWARDS ARROW} " if both.flips else ""
                row[f"{claim} verdict"] = before + both.verdict
        rows.append(row)
    return rows


def beside_numbers(found: Mapping[tuple[str, str, str], Beside]) -> dict[str, object]:
    """The same for the prose: METHOD_PROTOCOL_CLAIM with its ends, METHOD_CLAIM_flipped_by, and flips."""
    numbers: dict[str, object] = {"flips": sum(both.flips for both in found.values()), "compared": len(found)}
    for method in ("vp", "lp"):
        for claim in CLAIMS:
            mine = {name: both for (m, name, c), both in found.items() if (m, c) == (method, claim)}
            for name, both in mine.items():
                key = f"{method}_{name}_{claim.lower()}"
                numbers |= both.theirs.numbers(key) | {f"{key}_ours": both.ours_verdict, f"{key}_flips": both.flips}
            flips = [PROTOCOLS[name] for name, both in mine.items() if both.flips]
            numbers[f"{method}_{claim.lower()}_flipped_by"] = ", ".join(flips) or "nothing"
    return numbers


def way_estimates(cost: pd.DataFrame) -> dict[tuple[str, str, str], Estimate]:
    """(column, way, method) -> the mean cost of a way: with its interval, on the source task with the range over chains."""
    own = cost["method"] == "source"
    of_way = estimates(cost[~own], ["method", "way"], COSTS)
    found = {(column, way, method): e for (method, way, column), e in of_way.items()}
    for way, mine in cost[own].groupby("way"):
        found |= {(column, str(way), "source"): spread(mine[column]) for column in COSTS}
    return found


def way_rows(cost: pd.DataFrame, found: Mapping[tuple[str, str, str], Estimate]) -> list[dict[str, str]]:
    """The table of `way_estimates`, with the accuracy of the counterpart."""
    before = cost.groupby(["way", "method"])["accuracy_dense"].mean()
    rows = []
    for way in cost["way"].unique():
        row = {"way": way}
        for method in [method for method in LOOKS if ("accuracy_loss", way, method) in found]:
            row[f"{LOOKS[method].label}: accuracy before, %"] = f"{100 * before[way, method]:.1f}"
            row |= {f"{LOOKS[method].label}: {label}": f"{found[c, way, method].points():.1f}" for c, label in COSTS.items()}
        rows.append(row)
    return rows


def contrast(table: pd.DataFrame, fields: Sequence[str], *, against: str = "dense") -> pd.DataFrame:
    """The costs of each way, in transfer and on the source task.

    Args:
        table: records of a grid with those on the source task.
        fields: the fields of `Run` that tell the ways apart; several rounds of a way are ways of their own.
        against: see `pairs.costs`.

    Returns:
        `pairs.costs` with `way`, its name, and `accuracy_dense`, the accuracy of the counterpart; rows on the source task
        have the method "source". Of several rates of fine-tuning that one counts which does best on validation images.
    """
    tuned = table["method"] == "ft"
    if tuned.any():
        best = table[tuned].groupby("lr")["val_accuracy"].mean().idxmax()
        table = table[~tuned | (table["lr"] == best)]
    if "train_images" in table:
        steps = np.ceil(table["train_images"] / table["batch"].astype(float)) * table["epochs"].astype(float)
        table = table.assign(steps=steps)
    found = [costs(table, against=against, also=["accuracy", "steps"])]
    source = table[table["method"] == "source"]
    if set(fields) <= set(FIELDS["source"]):  # what is done to the network, and not in transfer
        classes = [range(round(1 / (1 - u))) for u in source["brier_uncertainty"]]  # which are equally frequent
        found.append(costs(source.assign(method="own", classes=classes), against=against, also=["accuracy"]))
    cost = pd.concat(found, ignore_index=True)
    if "weight_bits" in fields:
        cost = cost.sort_values("weight_bits", ascending=False, kind="stable", ignore_index=True)
    several = cost["round"].nunique() > 1
    ways = [_way(row, fields, several) for row in cost.to_dict("records")]
    return cost.assign(way=ways, method=cost["method"].replace("own", "source"))


def controls(tables: Mapping[str, pd.DataFrame], grid: str) -> pd.DataFrame:
    """The costs of one of `SECTIONS`; those of equal steps stand beside the usual steps on the same networks and tasks."""
    table, section = tables[grid], SECTIONS[grid]
    if grid == "steps" and "main" in tables:
        usual = tables["main"]
        for name in ("method", "task", "source_seed", "round", "budget"):
            usual = usual[usual[name].isin(table[name])]
        seeds = table.loc[table["method"] != "source", "seed"]
        table = pd.concat([table, usual[usual["seed"].isin(seeds)]]).drop_duplicates("id")
    return contrast(table, section.fields, against=section.against)


def _way(row: Mapping[str, object], fields: Sequence[str], several: bool) -> str:
    labels = {
        "sparsifier": label_of(str(row.get("sparsifier")), METHODS),
        "prompt": label_of(str(row.get("prompt")), PROMPTS),
        "label_smoothing": "label smoothing and mixup" if row.get("label_smoothing") else "plain labels",
        "weight_bits": f"{row.get('weight_bits')} bits",
        "batch_norm": f"batch norm {row.get('batch_norm')}",
        "budget": f"{row.get('budget')} per class",
        "steps": f"{row.get('steps'):.0f} steps of {row.get('batch')}" if "steps" in fields else "",
    }
    parts = [labels.get(name, str(row.get(name))) for name in fields]
    kept = [f"{100 * row['density']:.2g}% kept"] if several and isinstance(row["density"], float) else []
    return ", ".join([*parts, *kept])
