"""Figures of pictures: images, prompts, and the matrices of label mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from torch import Tensor

from vpcore.report.plots import style


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
