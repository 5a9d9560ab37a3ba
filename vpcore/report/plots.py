"""The look of all figures, and what they are put together from: axes, curves, intervals, heat maps, pictures.

Results and axes in, axes out; nothing is computed here that a table does not already say. One look throughout: seaborn's
colour-blind palette, one colour a method, density on a logarithmic axis that runs from dense (left) to sparse (right),
accuracies and ECE in percent on the axes only. Series are told apart by a `Look`: label, colour and marker.

The figures of one subject are drawn by `curve_plots`, `calibration_plots`, `image_plots`, `protocol_plots`, `speed_plots`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter

from vpcore.report.verdicts import Estimate

PALETTE = sns.color_palette("colorblind")
MARKERS = "oDs^v<>"


class Look(NamedTuple):
    """How a series is drawn, and what the legend calls it."""

    label: str
    colour: object
    marker: str = "o"

    @property
    def line(self) -> dict[str, Any]:
        """The same as arguments of matplotlib's `plot` and `errorbar`."""
        return {"label": self.label, "color": self.colour, "marker": self.marker}


LOOKS = {
    "vp": Look("visual prompting", PALETTE[0], "o"),
    "lp": Look("linear probing", PALETTE[1], "s"),
    "lp-canvas": Look("linear probing, canvas", PALETTE[4], "v"),
    "ft": Look("full fine-tuning", PALETTE[3], "^"),
    "source": Look("source task", PALETTE[2], "D"),
}
VERDICT_COLOURS = {
    "supported": "#5e35b1", "contradicted": "#c51b7d", "no relevant effect": "#595959", "inconclusive": "#8c8c8c",
}  # fmt: skip
SHAPES = {"letters": "o", "Tiny-ImageNet": "D", "ImageNet": "s", "the pre-stated study": "*"}  # of a study
PERCENT = FuncFormatter(lambda value, position: _number(100 * value) + "%")
POINTS = FuncFormatter(lambda value, position: _number(100 * value))  # percentage points
NUMBER = FuncFormatter(lambda value, position: _number(value))


def _number(value: float) -> str:
    return f"{round(value, 6):.6g}".replace("-", "\N{MINUS SIGN}")


def label_of(name: str, registry: Mapping[str, object]) -> str:
    """What figures and tables call an entry of a registry: its `label`; the name itself where it has none."""
    return getattr(registry.get(name), "label", "") or name


def looks(labels: Mapping[Hashable, str], *, palette: str = "viridis", markers: str = MARKERS) -> dict[Hashable, Look]:
    """A look for each of some series that have an order, from the first colour of a palette to its last."""
    colours = sns.color_palette(palette, len(labels))
    return {
        key: Look(label, colour, marker)
        for (key, label), colour, marker in zip(labels.items(), colours, itertools.cycle(markers), strict=False)
    }


def shades(colour: object, labels: Mapping[Hashable, str], *, markers: str = MARKERS) -> dict[Hashable, Look]:
    """A look for each density of a method, in shades of its colour: the first of the labels lightest, the last darkest."""
    mixed = sns.blend_palette([sns.light_palette(colour, 10)[4], colour, sns.dark_palette(colour, 10)[4]], len(labels))
    if len(labels) == 1:
        mixed = [colour]
    return {
        key: Look(label, shade, marker)
        for (key, label), shade, marker in zip(labels.items(), mixed, itertools.cycle(markers), strict=False)
    }


def kept(method: str, densities: Mapping[int, float]) -> dict[Hashable, Look]:
    """The `shades` of a method for the densities of some rounds, dense to sparse."""
    labels: dict[Hashable, str] = {number: f"{100 * density:.3g}% kept" for number, density in densities.items()}
    return shades(LOOKS[method].colour, labels, markers="Dos^v<>")


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


@style()
def panels(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float], sharex: bool | str = False, sharey: bool | str = False
) -> tuple[Figure, np.ndarray]:
    """A figure in our look with a (rows, columns) array of axes; `size` in inches."""
    return plt.subplots(rows, columns, figsize=size, sharex=sharex, sharey=sharey, squeeze=False)


@style()
def title(ax: Axes, text: str, *, side: str = "center") -> None:
    """A title in our look; matplotlib gives a title the look of the moment at which it is set."""
    ax.set_title(text, loc=side)


@style()
def legend(figure: Figure, axes: Axes | np.ndarray, *, place: str = "upper center", columns: int = 4) -> None:
    """One legend outside of all axes of a figure, of what some of them show; what several show stands in it once."""
    shown: dict[str, Artist] = {}
    for ax in np.ravel(axes):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    if shown:
        figure.legend(shown.values(), shown, loc=f"outside {place}", ncols=columns)


@style()
def legend_right(ax: Axes, *, title: str = "") -> None:
    """A legend to the right of the axes, if they show anything that has a label."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), title=title or None)


@style()
def legend_inside(ax: Axes, place: str) -> None:
    """A legend in a corner of the axes, such as "upper left", if they show anything that has a label."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc=place)


@style()
def legend_above(ax: Axes, *, columns: int = 1) -> None:
    """A legend above the title of the axes."""
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.12), ncols=columns)


@style()
def nothing(ax: Axes, text: str) -> Axes:
    """A sentence in the place of results that there are not."""
    ax.axis("off")  # ticks would be gone from the axes that share them
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=9, color="0.35", wrap=True)
    return ax


def density_axis(ax: Axes, densities: list[float]) -> Axes:
    """A logarithmic axis of density, dense on the left, with a tick for each density that was measured."""
    ticks = sorted(set(densities), reverse=True)
    ax.set_xscale("log")
    ax.set_xlim(max(ticks) * 1.15, min(ticks) / 1.15)
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{100 * value:.3g}"))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, position: ""))
    ax.minorticks_off()
    ax.set_xlabel("weights kept, %")
    return ax


@style()
def curve(ax: Axes, table: pd.DataFrame, metric: str, look: Look) -> Axes:
    """A metric against density: the mean over rows as a line, every row as a dot, the range as a band."""
    grouped = table.groupby("round").agg(
        density=("density", "mean"), mean=(metric, "mean"), low=(metric, "min"), high=(metric, "max")
    )
    if grouped.empty:
        return ax
    ax.fill_between(grouped["density"], grouped["low"], grouped["high"], color=look.colour, alpha=0.15, linewidth=0)
    ax.plot(grouped["density"], grouped["mean"], markersize=5, **look.line)
    ax.scatter(table["density"], table[metric], color=look.colour, s=6, alpha=0.5, linewidths=0)
    ax.yaxis.set_major_formatter(PERCENT)
    return density_axis(ax, table["density"].tolist())


def arms(estimates: Sequence[Estimate]) -> list[list[float]]:
    """How far the intervals reach below and above the means, for the error bars of matplotlib.

    >>> arms([Estimate(0.5, 0.25, 1.0, 3), Estimate(0.1, 0.1 + 1e-17, 0.1, 2)])
    [[0.25, 0.0], [0.5, 0.0]]
    """
    # equal values have an interval without width, whose ends rounding may put on the wrong side of their mean
    return [[max(0.0, e.mean - e.low) for e in estimates], [max(0.0, e.high - e.mean) for e in estimates]]


@style()
def error_bars(ax: Axes, x: Sequence[float], estimates: Sequence[Estimate], look: Look, *, join: bool = True) -> Axes:
    """Estimates at places on the x axis with their intervals, joined by a line or not; a line at zero is the caller's."""
    if estimates:
        line = {} if join else {"linestyle": "none"}
        ax.errorbar(x, [e.mean for e in estimates], yerr=arms(estimates), capsize=3, **look.line, **line)
    ax.yaxis.set_major_formatter(PERCENT)
    return ax


@style()
def forest(ax: Axes, positions: Sequence[float], estimates: Sequence[Estimate], look: Look) -> Axes:
    """Estimates as dots with their intervals, one a row, and a line at zero; rows count downwards from the top.

    Args:
        ax: where to draw.
        positions: row of each estimate; series that are shifted a little stand side by side.
        estimates: of a cost, in [0, 1].
        look: of the series.
    """
    means = [estimate.mean for estimate in estimates]
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.errorbar(
        means, positions, xerr=arms(estimates), capsize=2.5, markersize=5, linewidth=1.2, linestyle="none", **look.line
    )
    ax.xaxis.set_major_formatter(PERCENT)
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    return ax


@style()
def forests(
    axes: Iterable[Axes],
    found: Mapping[tuple[Any, ...], Estimate],
    *,
    panels: Mapping[Hashable, str],
    rows: Mapping[Hashable, str],
    series: Mapping[Hashable, Look],
    spread: float = 0.14,
    places: Sequence[float] | None = None,
    form: Formatter = PERCENT,
) -> None:
    """A forest for each panel, with the same rows: the series of a row stand side by side, in the order given.

    Args:
        axes: one for each panel.
        found: (panel, row, series) -> estimate; what is not in it is not drawn.
        panels: panel -> label of its x axis.
        rows: row -> its label.
        series: series -> its look.
        spread: how far the first and the last series of a row are from its middle.
        places: of the rows; None for 0, 1, 2, ...
        form: of the x axis, unless its label says that it is in points.
    """
    places = range(len(rows)) if places is None else places
    shifts = np.linspace(-spread, spread, len(series)) if len(series) > 1 else [0.0]
    for ax, (panel, label) in zip(axes, panels.items(), strict=True):
        for (name, look), shift in zip(series.items(), shifts, strict=True):
            drawn = [
                (place + shift, found[panel, row, name])
                for place, row in zip(places, rows, strict=True)
                if (panel, row, name) in found
            ]
            if drawn:
                forest(ax, [place for place, _ in drawn], [estimate for _, estimate in drawn], look)
        ax.set_yticks(places, rows.values())
        ax.xaxis.set_major_formatter(POINTS if "points" in label else form)
        ax.locator_params(axis="x", nbins=5)
        ax.set_xlabel(label)


@style()
def heatmap(ax: Axes, grid: pd.DataFrame, *, label: str, limit: float) -> Axes:
    """A grid of costs, budgets down and densities across; blue is harm, orange is gain, white is none."""
    shown = grid.set_axis([f"{100 * d:.3g}" for d in grid.columns], axis=1)
    colours = sns.diverging_palette(40, 245, s=85, l=55, as_cmap=True)
    values = (100 * shown).round(1) + 0.0  # no minus before a zero
    sns.heatmap(
        values,
        ax=ax,
        cmap=colours,
        vmin=-100 * limit,
        vmax=100 * limit,
        annot=values.map(lambda value: "" if np.isnan(value) else f"{value:.1f}".replace("-", "\N{MINUS SIGN}")),
        fmt="",
        linewidths=1,
        cbar_kws={"label": label},
    )
    ax.set(xlabel="weights kept, %", ylabel="images per class")
    ax.tick_params(axis="y", rotation=0)
    return ax
