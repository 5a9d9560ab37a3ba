"""Figures of speed and memory: what `vpcore bench` measured, and what the runs of a study took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vpcore.report.plots import LOOKS, style

COLOUR = LOOKS["vp"].colour
GUIDE = {"color": "0.6", "linestyle": "--"}


@style()
def ratios(ax: Axes, rows: pd.DataFrame) -> Axes:
    """How many times as fast (`ratio`) we are as something else (`label`), on a logarithmic axis."""
    places = np.arange(len(rows))
    ax.axvline(1, color="0.3", linewidth=0.8)
    ax.hlines(places, 1, rows["ratio"], color="0.75", linewidth=1.2, zorder=1)
    ax.scatter(rows["ratio"], places, color=COLOUR, zorder=2)
    for place, ratio in zip(places, rows["ratio"], strict=True):
        side, aligned = (7, "left") if ratio >= 1 else (-7, "right")
        where = {"xytext": (side, 0), "textcoords": "offset points", "va": "center", "ha": aligned, "fontsize": 9}
        ax.annotate(f"{ratio:.3g}", (ratio, place), **where)
    ax.set_yticks(places, rows["label"])
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.margins(x=0.15)
    ax.set_xlabel("times as fast (logarithmic)")
    ax.grid(axis="y", visible=False)
    return ax


@style()
def growth(axes: Iterable[Axes], rows: pd.DataFrame, names: Mapping[str, str]) -> None:
    """Milliseconds of a step against what there is more of, beside a line in proportion to it.

    Args:
        axes: one for each name.
        rows: columns axis, value and seconds.
        names: of `axis` -> label; a "canvas" grows with its square.
    """
    axes = list(axes)
    for ax, (axis, name) in zip(axes, names.items(), strict=True):
        mine = rows[rows["axis"] == axis]
        power = 2 if axis == "canvas" else 1
        like = mine["seconds"].iloc[0] * (mine["value"] / mine["value"].iloc[0]) ** power
        ax.plot(mine["value"], 1000 * like, label="in proportion", **GUIDE)
        ax.plot(mine["value"], 1000 * mine["seconds"], marker="o", color=COLOUR, label="measured")
        ax.set_xticks(mine["value"])
        ax.set_xlabel(name)
        ax.set_ylim(bottom=0)
    axes[0].set_ylabel("a step takes, ms")
    axes[0].legend(loc="upper left")


@style()
def memory(axes: Sequence[Axes], of_runs: pd.DataFrame, of_images: pd.DataFrame, *, side: int) -> None:
    """Most memory held (`megabytes`) against the number (`value`) of runs, and of images of `side` px."""
    for ax, mine in zip(axes, (of_runs, of_images), strict=True):
        ax.plot(mine["value"], mine["megabytes"], marker="o", color=COLOUR, label="measured")
        ax.set_xticks(mine["value"])
    axes[0].set_ylim(0, 1.1 * max(of_runs["megabytes"].max(), of_images["megabytes"].max()))
    pixels = 3 * side**2 * (of_images["value"] - of_images["value"].iloc[0]) / 1e6
    axes[1].plot(of_images["value"], of_images["megabytes"].iloc[0] + pixels, label="one byte a number", **GUIDE)
    axes[0].set(xlabel="visual prompts, one after the other", ylabel="most memory held, MB")
    axes[1].set_xlabel(f"images of {side} px, decoded")
    axes[1].legend(loc="lower right")


@style()
def seconds(ax: Axes, transfers: pd.DataFrame) -> Axes:
    """Seconds of a run against its budget, mean and range, for each method."""
    sizes = sorted(transfers["shots"].unique())
    for method, mine in transfers.groupby("method"):
        taken = mine.groupby("shots")["seconds"].agg(["mean", "min", "max"])
        arms = [taken["mean"] - taken["min"], taken["max"] - taken["mean"]]
        ax.errorbar([sizes.index(size) for size in taken.index], taken["mean"], yerr=arms, capsize=2.5, **LOOKS[method].line)
    ax.set_xticks(range(len(sizes)), ["all" if size == float("inf") else f"{size:g}" for size in sizes])
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="images per class", ylabel="seconds a run")
    ax.legend()
    return ax
