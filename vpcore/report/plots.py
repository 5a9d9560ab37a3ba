"""Figures: results and axes in, axes out. Nothing is computed here that a table does not already say.

One look throughout: seaborn's colour-blind palette, one colour a method or task, density on a logarithmic axis that runs
from dense (left) to sparse (right), accuracies and ECE in percent on the axes only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from vpcore.pruning.methods import METHODS
from vpcore.report.claims import Estimate

METHOD_NAMES = {
    "vp": "visual prompting", "lp": "linear probing", "source": "source task", "ft": "full fine-tuning",
}  # fmt: skip
METHOD_COLOURS = dict(zip(METHOD_NAMES, sns.color_palette("colorblind")[:4], strict=True))
METHOD_MARKERS = {"vp": "o", "lp": "s", "source": "D", "ft": "^"}
SPARSIFIER_NAMES = {name: method.label for name, method in METHODS.items()}
PERCENT = FuncFormatter(lambda value, position: f"{100 * value:.6g}%".replace("-", "\N{MINUS SIGN}"))


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look of all figures, for the time of a with-block."""
    look = {
        "figure.dpi": 110, "savefig.dpi": 160, "svg.fonttype": "path", "svg.hashsalt": "vpcore", "font.size": 10,
        "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.labelsize": 10, "legend.fontsize": 9,
        "legend.frameon": False,
        "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with sns.axes_style("whitegrid", {"grid.color": "0.9"}), plt.rc_context(look):
        yield


def density_axis(ax: Axes, densities: list[float]) -> Axes:
    """A logarithmic axis of density, dense on the left, with a tick for each density that was measured."""
    ticks = sorted(set(densities), reverse=True)
    ax.set_xscale("log")
    ax.set_xlim(max(ticks) * 1.15, min(ticks) / 1.15)
    ax.set_xticks(ticks, [f"{100 * d:.3g}" for d in ticks])
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, position: ""))
    ax.minorticks_off()
    ax.set_xlabel("weights kept, %")
    return ax


def curve(ax: Axes, table: pd.DataFrame, metric: str, *, label: str, colour: object, marker: str = "o") -> Axes:
    """A metric against density: the mean over rows as a line, every row as a dot, the range as a band."""
    grouped = table.groupby("round").agg(
        density=("density", "mean"), mean=(metric, "mean"), low=(metric, "min"), high=(metric, "max")
    )
    ax.fill_between(grouped["density"], grouped["low"], grouped["high"], color=colour, alpha=0.15, linewidth=0)
    ax.plot(grouped["density"], grouped["mean"], marker=marker, color=colour, label=label, markersize=5)
    ax.scatter(table["density"], table[metric], color=colour, s=6, alpha=0.5, linewidths=0)
    ax.yaxis.set_major_formatter(PERCENT)
    return density_axis(ax, table["density"].tolist())


def arms(estimates: list[Estimate]) -> list[list[float]]:
    """How far the intervals reach below and above the means, for the error bars of matplotlib.

    >>> arms([Estimate(0.5, 0.25, 1.0, 3), Estimate(0.1, 0.1 + 1e-17, 0.1, 2)])
    [[0.25, 0.0], [0.5, 0.0]]
    """
    # equal values have an interval without width, whose ends rounding may put on the wrong side of their mean
    return [[max(0.0, e.mean - e.low) for e in estimates], [max(0.0, e.high - e.mean) for e in estimates]]


def forest(
    ax: Axes, positions: list[float], estimates: list[Estimate], *, label: str, colour: object, marker: str = "o"
) -> Axes:
    """Estimates as dots with their intervals, one a row, and a line at zero; rows count downwards from the top.

    Args:
        ax: where to draw.
        positions: row of each estimate; series that are shifted a little stand side by side.
        estimates: of a cost, in [0, 1].
        label: of the series.
        colour, marker: of the series.
    """
    means = [estimate.mean for estimate in estimates]
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.errorbar(
        means,
        positions,
        xerr=arms(estimates),
        fmt=marker,
        color=colour,
        label=label,
        capsize=2.5,
        markersize=5,
        linewidth=1.2,
    )
    ax.xaxis.set_major_formatter(PERCENT)
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    return ax


def heatmap(ax: Axes, grid: pd.DataFrame, *, label: str, limit: float) -> Axes:
    """A grid of costs, budgets down and densities across; blue is harm, orange is gain, white is none."""
    shown = grid.set_axis([f"{100 * d:.3g}" for d in grid.columns], axis=1)
    colours = sns.diverging_palette(40, 245, s=85, l=55, as_cmap=True)
    sns.heatmap(
        (100 * shown).round(1) + 0.0,  # no minus before a zero
        ax=ax,
        cmap=colours,
        vmin=-100 * limit,
        vmax=100 * limit,
        annot=True,
        fmt=".1f",
        linewidths=1,
        cbar_kws={"label": label},
    )
    ax.set(xlabel="weights kept, %", ylabel="images per class")
    ax.tick_params(axis="y", rotation=0)
    return ax


def reliability_diagram(ax: Axes, bins: pd.DataFrame, *, title: str, colour: object) -> Axes:
    """Accuracy against confidence, bin by bin, with the share of predictions in each bin below.

    Args:
        ax: where to draw.
        bins: columns `count`, `confidence`, `accuracy`, one row a bin.
        title: of the axes.
        colour: of the bars.
    """
    width = 1 / len(bins)
    centre = (np.arange(len(bins)) + 0.5) * width
    full = bins["count"] > 0
    share = bins["count"] / bins["count"].sum()
    ax.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1)
    ax.bar(centre[full], bins["accuracy"][full], width=width * 0.92, color=colour, alpha=0.85)
    for x, confidence, accuracy in zip(centre[full], bins["confidence"][full], bins["accuracy"][full], strict=True):
        ax.plot([x - width * 0.46, x + width * 0.46], [confidence] * 2, color="black", linewidth=1.2)
        ax.plot([x, x], [accuracy, confidence], color="black", linewidth=0.7)
    ax.bar(centre, -0.22 * share / max(share.max(), 1e-9), width=width * 0.92, color="0.65")
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.set(xlim=(0, 1), ylim=(-0.25, 1), title=title, xlabel="confidence")
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    ax.xaxis.set_major_formatter(PERCENT)
    ax.yaxis.set_major_formatter(PERCENT)
    return ax


def layer_densities(ax: Axes, names: list[str], densities: pd.DataFrame) -> Axes:
    """Density of every layer, a line for each round.

    Args:
        ax: where to draw.
        names: of the layers, first to last.
        densities: one row a round (its index the overall density), one column a layer.
    """
    colours = sns.color_palette("viridis", len(densities))
    for colour, (overall, row) in zip(colours, densities.iterrows(), strict=True):
        ax.plot(range(len(names)), row, marker="o", markersize=3.5, color=colour, label=f"{100 * overall:.3g} %")
    ax.set_yscale("log")
    ax.set_xticks(range(len(names)), [n.removesuffix(".weight") for n in names], rotation=60, ha="right", fontsize=8)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{100 * value:g}"))
    ax.set(ylabel="weights kept in the layer, %")
    ax.legend(title="all layers", ncols=1, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def picture(ax: Axes, image: np.ndarray, *, title: str = "") -> Axes:
    """An (H, W, 3) image in [0, 1] without axes."""
    ax.imshow(image, interpolation="nearest", vmin=0, vmax=1)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title:
        ax.set_title(title, fontsize=9, fontweight="normal")
    return ax
