"""Figures of pictures: images, prompts, and the label mappings that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from torch import Tensor

from vpcore.report.plots import LOOKS, style


@style()
def picture(ax: Axes, image: Tensor, *, title: str = "") -> Axes:
    """A (3, H, W) image in [0, 1] without axes; values outside are cut."""
    ax.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title, fontsize=9, fontweight="normal")
    return ax


@style()
def gallery(axes: np.ndarray, columns: Mapping[str, Sequence[Tensor | None]], *, rows: Sequence[str]) -> None:
    """Images in columns with a title, (3, H, W) each; rows have names, and the place of None stays empty."""
    for column, (title, images) in zip(axes.T, columns.items(), strict=False):  # of no images there is an empty column
        for ax, image in zip(column, images, strict=True):
            if image is not None:
                picture(ax, image)
        column[0].set_title(title, fontsize=9, fontweight="normal")
    for ax, label in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(label)


@style()
def mapping_matrices(axes: Sequence[Axes], maps: Mapping[str, Tensor]) -> None:
    """Matrices (T, S) with their numbers: counts, or the weights of a label mapping."""
    for ax, (name, values) in zip(axes, maps.items(), strict=True):
        form = "d" if values.dtype == torch.int64 else ".2f"
        scale = {"cmap": "Blues", "vmin": 0, "vmax": 1.3 * float(values.max()), "cbar": False}
        sns.heatmap(values.numpy(), ax=ax, annot=True, fmt=form, linewidths=1, **scale)
        ax.set(title=name, xlabel="source class s")
        ax.tick_params(length=0)
    axes[0].set_ylabel("target class t")


@style()
def mapping_lists(axes: Sequence[Axes], rows: pd.DataFrame, *, most: int = 12) -> None:
    """Lists of target classes beside the source classes that stand for them, bold where two networks agree.

    Args:
        axes: a list, as many as there are tasks, or more.
        rows: columns task, "target class", dense, sparsest.
        most: how many classes of a task are listed.
    """
    if rows.empty:
        return
    for ax in axes:
        ax.axis("off")
    for ax, (task, listed) in zip(axes, rows.groupby("task"), strict=False):
        mine = listed.head(most).reset_index(drop=True)
        for y, row in mine.iterrows():
            ax.text(0, y, row["target class"], ha="left", va="center", fontsize=9)
            weight = "bold" if row["dense"] == row["sparsest"] else "normal"
            for x, label, method in ((1.45, row["dense"], "vp"), (2.2, row["sparsest"], "lp")):
                look = {"fontweight": weight, "color": LOOKS[method].colour}
                ax.text(x, y, label, ha="center", va="center", fontsize=9, **look)
        for x, label in ((1.45, "dense"), (2.2, "sparse")):
            ax.text(x, -1, label, ha="center", va="center", fontsize=8)
        ax.set(xlim=(-0.1, 2.6), ylim=(len(mine) - 0.4, -1.6), title=task)
