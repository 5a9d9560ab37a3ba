"""Figures of what changes along an axis: density, budget, bits, layers, or the accuracy on another task."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from vpcore.report.plots import (
    LOOKS,
    MARKERS,
    PERCENT,
    POINTS,
    Look,
    arms,
    curve,
    density_axis,
    error_bars,
    legend,
    legend_right,
    panels,
    shades,
    style,
)  # fmt: skip
from vpcore.report.verdicts import Estimate

LINES = ("-", "--", "-.", ":")


@style()
def accuracy_by_task(shown: pd.DataFrame) -> Figure:
    """Test accuracy against density, a panel for each task, a curve for each method, and chance as a dotted line."""
    tasks = sorted(shown["task"].unique())
    columns = min(2, len(tasks))
    rows = -(-len(tasks) // columns)
    figure, axes = panels(rows, columns, size=(2.9 * columns + 0.5, 2.1 * rows + 0.3), sharey=True)
    for ax, task in zip(axes.flat, tasks, strict=False):
        mine = shown[shown["task"] == task]
        for method, look in LOOKS.items():
            curve(ax, mine[mine["method"] == method], "accuracy", look)
        ax.axhline(1 / len(mine.iloc[0]["classes"]), color="0.4", linestyle=":", linewidth=1)
        ax.set(title=task, ylim=(0, 1))
        ax.tick_params(axis="x", labelsize=8)
    for ax in axes.flat[: len(tasks) - columns]:
        ax.set_xlabel("")
    for ax in axes.flat[len(tasks) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("test accuracy")
    legend(figure, axes.flat[0])
    return figure


@style()
def cost_by_density(
    ax: Axes, found: Mapping[tuple[Any, ...], Estimate], density: Mapping[int, float], *, column: str, methods: Iterable[str]
) -> Axes:
    """A cost, (method, round, column) -> estimate, against the density of the round, with a line at zero."""
    for method in methods:
        mine = {number: e for (m, number, c), e in found.items() if (m, c) == (method, column)}
        error_bars(ax, [density[number] for number in mine], list(mine.values()), LOOKS[method])
    if found:
        ax.axhline(0, color="0.3", linewidth=0.8)
        ax.yaxis.set_major_formatter(POINTS)
        density_axis(ax, [density[number] for number in {key[1] for key in found}])
    return ax


@style()
def cost_by_budget(
    ax: Axes,
    found: Mapping[tuple[Hashable, int], Estimate],
    density: Mapping[int, float],
    *,
    budgets: Mapping[Hashable, str],
    colour: object,
) -> Axes:
    """A cost against density, a line with its intervals for each budget.

    Args:
        ax: where to draw.
        found: (budget, round) -> estimate.
        density: of each round.
        budgets: budget -> label, in their order; lines and marks tell them apart.
        colour: of the method.
    """
    drawn = 0
    for (size, label), marker, line in zip(budgets.items(), MARKERS, itertools.cycle(LINES), strict=False):
        mine = {number: e for (budget, number), e in found.items() if budget == size}
        if mine:
            x = [density[number] * 1.04 ** (drawn - 2) for number in mine]  # side by side
            look = {"color": colour, "marker": marker, "linestyle": line, "label": label, "linewidth": 1.2, "markersize": 5}
            ax.errorbar(x, [e.mean for e in mine.values()], yerr=arms(list(mine.values())), capsize=2.5, **look)
            drawn += 1
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.yaxis.set_major_formatter(POINTS)
    if drawn:
        density_axis(ax, [density[number] for number in {number for _, number in found}])
        ax.set_xlim(ax.get_xlim()[0] * 1.1, ax.get_xlim()[1] / 1.1)
        legend_right(ax)
    return ax


@style()
def series_by_place(
    ax: Axes, means: pd.DataFrame, series: Mapping[Hashable, Look], *, ticks: Sequence[str], line: str = "-"
) -> Axes:
    """A line for each column of a table whose rows stand side by side, with a tick for each."""
    for name, look in series.items():
        if name in means:
            ax.plot(range(len(means)), means[name], linestyle=line, **look.line)
    ax.set_xticks(range(len(means)), ticks)
    ax.yaxis.set_major_formatter(PERCENT)
    return ax


@style()
def band_by_place(ax: Axes, table: pd.DataFrame, look: Look, *, ticks: Sequence[str]) -> Axes:
    """The mean over the columns of a table as a line, and their range as a band; its rows stand side by side."""
    places = range(len(table))
    ax.fill_between(places, table.min(axis=1), table.max(axis=1), color=look.colour, alpha=0.15, linewidth=0)
    return series_by_place(ax, table.mean(axis=1).to_frame("mean"), {"mean": look}, ticks=ticks)


@style()
def cost_by_bits(
    ax: Axes, found: Mapping[tuple[str, int], Estimate], upstream: pd.Series, *, bits: list[int], methods: Sequence[str]
) -> Axes:
    """A cost against bits: (method, bits) -> estimate of the transfers, and the same on the source task, by bits."""
    for method, shift in zip(methods, np.linspace(-0.08, 0.08, len(methods)), strict=True):
        at = [b for b in bits if (method, b) in found]
        error_bars(ax, [bits.index(b) + shift for b in at], [found[method, b] for b in at], LOOKS[method])
    ax.plot([bits.index(b) for b in upstream.index], upstream, linestyle="--", **LOOKS["source"].line)
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.set_xticks(range(len(bits)), [str(b) for b in bits])
    ax.yaxis.set_major_formatter(POINTS)
    return ax


@style()
def layer_densities(ax: Axes, names: Sequence[str], densities: pd.DataFrame) -> Axes:
    """Density of every layer, a line for each round.

    Args:
        ax: where to draw.
        names: of the layers, first to last.
        densities: one row a round (its index the overall density), one column a layer.
    """
    looks = shades(LOOKS["source"].colour, {overall: f"{100 * overall:.3g}%" for overall in densities.index})
    for (_, row), look in zip(densities.iterrows(), looks.values(), strict=True):
        ax.plot(range(len(names)), row, markersize=4, **look.line)
    ax.set_yscale("log")
    ax.set_xticks(range(len(names)), [n.removesuffix(".weight") for n in names], rotation=60, ha="right", fontsize=8)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{100 * value:g}"))
    ax.set(ylabel="weights kept in the layer, %")
    ax.legend(title="all layers", ncols=1, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


@style()
def transfer_against_source(axes: Sequence[Axes], networks: pd.DataFrame, *, ticks: Sequence[float]) -> None:
    """Accuracy after transfer against accuracy on the source task: a dot a network, in the colour of its density.

    Args:
        axes: one for each method that `networks` has, in the order of `LOOKS`.
        networks: columns method, way ("dense", "imp", ...), accuracy (on the source task), transfer, density.
        ticks: densities that the colour bar names.
    """
    shown = [method for method in LOOKS if method in set(networks["method"])]
    scale = {"vmin": np.log10(networks["density"].min()), "vmax": 0}
    for ax, method in zip(axes, shown, strict=True):
        mine = networks[networks["method"] == method]
        ticket = mine["way"].isin(["imp", "dense"])
        scale["cmap"] = sns.light_palette(LOOKS[method].colour, as_cmap=True, reverse=True)  # the sparsest darkest
        for part, marker, size, label in (
            (mine[~ticket], "o", 28, "other ways"),
            (mine[ticket], "*", 90, "dense and tickets"),
        ):
            look = {"marker": marker, "s": size, "edgecolors": "0.2", "linewidths": 0.5, "label": label}
            dots = ax.scatter(part["accuracy"], part["transfer"], c=np.log10(part["density"]), **scale, **look)
        ax.set(title=LOOKS[method].label, xlabel="accuracy on the source task")
        ax.xaxis.set_major_formatter(PERCENT)
        ax.yaxis.set_major_formatter(PERCENT)
    axes[0].set_ylabel("accuracy after transfer\n(mean over tasks and budgets)")
    legend(axes[0].figure, axes[-1], place="lower center")
    bar = axes[0].figure.colorbar(dots, ax=list(axes), label="weights kept, %")
    bar.set_ticks(np.log10(ticks), labels=[f"{100 * d:.3g}" for d in ticks])
