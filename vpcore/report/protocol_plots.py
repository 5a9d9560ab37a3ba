"""Figures of what is wrong with the original protocol: its ECE, and budgets beyond what a class has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes

from vpcore.report.plots import LOOKS, PERCENT, POINTS, Look, style

FACES = ("none", None)  # open marks for the dense network, filled ones for the compressed


@style()
def legacy_levels(ax: Axes, runs: pd.DataFrame, networks: Mapping[int, str], *, pair: pd.Series) -> Axes:
    """The authors' ECE against ECE, a mark a run: open for the dense network, filled for the compressed.

    Args:
        ax: where to draw.
        runs: columns method, round, ece, legacy_ece.
        networks: round -> name, the dense network first.
        pair: two runs that are joined by a line, A and B: ece_a, legacy_ece_a, ece_b, legacy_ece_b.
    """
    for method in [method for method in LOOKS if method in set(runs["method"])]:
        label, colour, marker = LOOKS[method]
        for (number, name), face in zip(networks.items(), FACES, strict=False):
            mine = runs[(runs["method"] == method) & (runs["round"] == number)]
            look = {"s": 22, "marker": marker, "facecolors": face or colour, "edgecolors": [colour], "linewidths": 0.9}
            ax.scatter(mine["ece"], mine["legacy_ece"], label=f"{label}, {name}", **look)
    ends = [pair[["ece_a", "ece_b"]], pair[["legacy_ece_a", "legacy_ece_b"]]]
    ax.plot(*ends, color="black", linewidth=1, linestyle="--", zorder=0)
    for letter in "ab":
        at = pair[f"ece_{letter}"], pair[f"legacy_ece_{letter}"]
        ax.annotate(letter.upper(), at, xytext=(6, 5), textcoords="offset points", fontweight="bold")
    ax.set(title="Every run", xlabel="ECE", ylabel="legacy ECE (no unit)")
    ax.set(xlim=(0, 1.08 * runs["ece"].max()), ylim=(0, 1.08 * runs["legacy_ece"].max()))
    ax.xaxis.set_major_formatter(PERCENT)
    return ax


@style()
def legacy_rises(ax: Axes, pairs: pd.DataFrame) -> Axes:
    """The rise of the authors' ECE against that of ECE; in the grey fields one falls where the other rises."""
    for method in [method for method in LOOKS if method in set(pairs["method"])]:
        mine = pairs[pairs["method"] == method]
        label, colour, marker = LOOKS[method]
        look = {"s": 22, "marker": marker, "color": colour, "alpha": 0.8, "label": label}
        ax.scatter(mine["ece_rise"], mine["legacy_ece_rise"], **look)
    wide, high = 1.1 * pairs[["ece_rise", "legacy_ece_rise"]].abs().max()
    ax.axhspan(0, high, xmax=0.5, color="0.93", zorder=0)
    ax.axhspan(-high, 0, xmin=0.5, color="0.93", zorder=0)
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set(title="Sparsest minus dense", xlabel="rise of ECE, points", ylabel="rise of legacy ECE")
    ax.set(xlim=(-wide, wide), ylim=(-high, high))
    ax.xaxis.set_major_formatter(POINTS)
    ax.locator_params(nbins=6)
    return ax


@style()
def saturation(axes: Sequence[Axes], runs: pd.DataFrame, networks: Mapping[int, Look]) -> None:
    """Accuracy, and the images per class that a run really had, against the nominal budget.

    Args:
        axes: two.
        runs: columns round, shots (infinite for all images), accuracy, per_class and saturated: whether at least one class
            cannot fill the budget; such budgets have open marks.
        networks: round -> its look.
    """
    finite = runs[runs["shots"] < float("inf")]
    for number, look in networks.items():
        mine = finite[finite["round"] == number]
        mean = mine.groupby("shots").agg(value=("accuracy", "mean"), saturated=("saturated", "any"))
        _open_where_saturated(axes[0], mean, look)
        axes[0].scatter(mine["shots"], mine["accuracy"], color=look.colour, s=6, alpha=0.5, linewidths=0)
        whole = runs[(runs["shots"] == float("inf")) & (runs["round"] == number)]
        if len(whole):
            axes[0].axhline(whole["accuracy"].mean(), color=look.colour, linestyle=":", linewidth=1.2)
    used = finite.groupby("shots").agg(value=("per_class", "mean"), saturated=("saturated", "any"))
    axes[1].plot(used.index, used.index, color="0.4", linestyle="--", linewidth=1)
    _open_where_saturated(axes[1], used, Look("not saturated", "black", "D"), open_label="saturated")
    axes[1].set_yscale("log")
    axes[1].set_yticks(used.index, [f"{size:g}" for size in used.index])
    for ax in axes:
        ax.set_xscale("log")
        ax.set_xticks(used.index, [f"{size:g}" for size in used.index])
        ax.minorticks_off()
        ax.set_xlabel("nominal budget, images per class")
    axes[0].yaxis.set_major_formatter(PERCENT)
    axes[0].set(ylabel="test accuracy")
    axes[1].set(title="What the budget gives", ylabel="images per class in training")
    axes[1].legend(loc="upper left")


def _open_where_saturated(ax: Axes, values: pd.DataFrame, look: Look, *, open_label: str = "") -> None:
    ax.plot(values.index, values["value"], color=look.colour, linewidth=1.2)
    for saturated, face, label in (
        (False, look.colour, look.label),
        (True, "white", open_label or f"{look.label}, saturated"),
    ):
        mine = values["value"][values["saturated"] == saturated]
        ax.plot(mine.index, mine, look.marker, color=look.colour, markerfacecolor=face, label=label)
