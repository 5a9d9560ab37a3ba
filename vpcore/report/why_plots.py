"""Figures of the answer: protocols side by side, what goes along with a cost, and the specification curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vpcore.data.corruptions import CORRUPTIONS
from vpcore.report.contrasts import Beside
from vpcore.report.plots import LOOKS, POINTS, VERDICT_COLOURS, Look, error_bars, forest, legend, looks, panels, style, title
from vpcore.report.specifications import CHOICES
from vpcore.report.verdicts import VERDICTS, Estimate

GREY = "0.93"
CLAIMS = {"C1": "loss of accuracy", "C2": "scarce minus plenty", "C3": "rise of ECE"}
COLOURS = {verdict: VERDICT_COLOURS.get(verdict, "0.85") for verdict in VERDICTS}


@style()
def verdicts_beside(axes: Sequence[Axes], found: Mapping[tuple[str, str], Beside], *, rows: Mapping[str, str]) -> None:
    """What each claim comes to by each protocol: ours, an open grey mark, and theirs, filled, in the colour of its verdict.

    Args:
        axes: one for each claim, C1, C2, C3; costs are in margins, the grey field is what is too small to matter.
        found: (protocol, claim) -> both, of one method.
        rows: protocol -> label.
    """
    for ax, (claim, label) in zip(axes, CLAIMS.items(), strict=True):
        title(ax, f"{claim}: {label}")
        ax.axvspan(-1, 1, color=GREY, zorder=0)
        for place, name in enumerate(rows):
            if both := found.get((name, claim)):
                forest(ax, [place - 0.17], [both.ours.margins()], Look("ours, the same cells", "0.45", "o"))
                forest(ax, [place + 0.17], [both.theirs.margins()], Look(both.verdict, COLOURS[both.verdict], "D"))
                if both.flips:
                    ax.annotate("flips", (1.01, place), xycoords=("axes fraction", "data"), fontsize=8, va="center")
        ax.set_yticks(range(len(rows)), rows.values())
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlabel("cost, in margins")


@style()
def rise_against_gap(axes: Sequence[Axes], cells: pd.DataFrame, shift: Mapping[str, float]) -> None:
    """The rise of ECE against the confidence gap of the dense network: a dot for each task and budget.

    Args:
        axes: one for each method of `cells`.
        cells: columns method, budget, dense_gap and ece_rise.
        shift: method -> the mean shift s of the gap; the line is |g + s| - |g|.
    """
    sizes = sorted(cells["budget"].unique(), key=lambda size: np.inf if size == "all" else size)
    series = looks({size: "all images" if size == "all" else f"{size} per class" for size in sizes})
    wide = 1.1 * cells["dense_gap"].abs().max() if len(cells) else 1.0
    for ax, (method, s) in zip(axes, shift.items(), strict=True):
        mine = cells[cells["method"] == method]
        for size, look in series.items():
            few = mine[mine["budget"] == size]
            dots = {"color": LOOKS[method].colour, "marker": look.marker, "s": 26, "label": look.label}
            ax.scatter(few["dense_gap"], few["ece_rise"], **dots)
        g = np.linspace(-wide, wide, 201)
        ax.plot(g, np.abs(g + s) - np.abs(g), color="black", linestyle="--", linewidth=1, label="a shift of all gaps alike")
        ax.axhline(0, color="0.3", linewidth=0.8)
        ax.axvline(0, color="0.3", linewidth=0.8)
        ax.set(xlim=(-wide, wide), xlabel="gap of dense, points", title=LOOKS[method].label)
        ax.xaxis.set_major_formatter(POINTS)
        ax.yaxis.set_major_formatter(POINTS)
    axes[0].set_ylabel("rise of ECE, points")


@style()
def loss_against(
    axes: Sequence[Axes], cells: pd.DataFrame, what: Mapping[str, str], *, column: str = "accuracy_loss"
) -> None:
    """A cost against what may explain it: a panel for each, a dot for each network and task, in the colour of the method."""
    for ax, (name, label) in zip(axes, what.items(), strict=True):
        for method in [method for method in LOOKS if method in set(cells["method"])]:
            mine = cells[(cells["method"] == method) & cells[name].notna()]
            if len(mine):
                look = LOOKS[method]
                ax.scatter(
                    mine[name], mine[column], color=look.colour, marker=look.marker, s=16, alpha=0.6, label=look.label
                )
                ax.axhline(0, color="0.3", linewidth=0.8)
        ax.yaxis.set_major_formatter(POINTS)
        ax.set_xlabel(label)
        if name == "upstream_loss":
            ax.xaxis.set_major_formatter(POINTS)
    for ax in axes[:1]:
        ax.set_ylabel("loss of accuracy, points")


@style()
def by_severity(axes: np.ndarray, found: Mapping[tuple[str, str, int, str], Estimate], *, methods: Sequence[str]) -> None:
    """Costs on corrupted images against severity, 0 being the clean ones.

    Args:
        axes: (2, methods): loss of accuracy above, rise of ECE below.
        found: (method, kind, severity, column) -> estimate.
        methods: in the order of the columns.
    """
    series = looks({name: entry.label for name, entry in CORRUPTIONS.items()}, palette="colorblind")
    labels = {"accuracy_loss": "loss of accuracy, points", "ece_rise": "rise of ECE, points"}
    for row, (column, label) in zip(axes, labels.items(), strict=True):
        for ax, method in zip(row, methods, strict=True):
            for (kind, look), shift in zip(series.items(), np.linspace(-0.12, 0.12, len(series)), strict=True):
                mine = {s: e for (m, k, s, c), e in found.items() if (m, k, c) == (method, kind, column)}
                error_bars(ax, [s + shift for s in mine], list(mine.values()), look)
            if found:
                ax.axhline(0, color="0.3", linewidth=0.8)
            ax.set_xticks(range(4), ["clean", "1", "2", "3"])
            ax.set_xlabel("severity")
            ax.yaxis.set_major_formatter(POINTS)
        row[0].set_ylabel(label)
    for ax, method in zip(axes[0], methods, strict=True):
        title(ax, LOOKS[method].label)


@style()
def specification_curve(found: pd.DataFrame) -> Figure:
    """The analyses of a claim, sorted by their estimates, above the choices that each of them made.

    Args:
        found: of `specifications`.
    """
    options = [(choice, value) for choice in CHOICES for value in dict.fromkeys(found[choice])]
    found = found.sort_values("mean", ignore_index=True)
    figure, [[top], [below]] = panels(2, size=(9, 3 + 0.19 * len(options)), sharex=True)
    figure.get_layout_engine().set(hspace=0.01)
    top.get_subplotspec().get_gridspec().set_height_ratios([2.6, 0.19 * len(options)])
    top.axhspan(-1, 1, color=GREY, zorder=0)
    top.axhline(0, color="0.3", linewidth=0.8)
    for name, colour in COLOURS.items():
        mine = found[found["verdict"] == name]
        if len(mine):
            _strokes(top, mine.index, mine["low"], mine["high"], colour=colour, alpha=0.5)
            top.plot(mine.index, mine["mean"], ".", color=colour, markersize=4, label=f"{name}: {len(mine)}", zorder=3)
    stated = found[found["stated"]]
    top.scatter(
        stated.index,
        stated["mean"],
        marker="D",
        facecolors="none",
        edgecolors="black",
        s=55,
        zorder=5,
        label="the protocol's",
    )
    reach = 1.05 * max(found[["low", "high"]].abs().max().max(), 1.2)
    top.set(ylabel="cost, in margins", ylim=(-reach, reach))
    for place, (choice, value) in enumerate(options):
        for name, mine in found[found[choice] == value].groupby("verdict"):
            _strokes(below, mine.index, place - 0.35, place + 0.35, colour=COLOURS[name])
    for place in range(1, len(options)):
        if options[place][0] != options[place - 1][0]:
            below.axhline(place - 0.5, color="0.6", linewidth=0.6)
    below.set_yticks(range(len(options)), [f"{choice}: {value}" for choice, value in options], fontsize=8)
    below.set_ylim(len(options) - 0.5, -0.5)
    below.set_xlabel("analyses, by their estimate")
    below.grid(visible=False)
    legend(figure, top, columns=3)
    return figure


def _strokes(ax: Axes, x: pd.Index, low: ArrayLike, high: ArrayLike, *, colour: object, alpha: float = 1.0) -> None:
    """Upright strokes as one line with gaps, which takes a tenth of the bytes of as many lines."""
    ends = np.array(np.broadcast_arrays(low, high, np.full(len(x), np.nan)), dtype=float)
    ax.plot(np.repeat(x, 3), ends.T.ravel(), color=colour, linewidth=0.8, alpha=alpha)
