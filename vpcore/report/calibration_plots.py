"""Figures of calibration: reliability diagrams and their relatives, of `Reliability` objects and of predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes

from vpcore.calibration.binned import Reliability, reliability
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.scores import risk_coverage
from vpcore.calibration.smooth_ece import cumulative_gap, smooth
from vpcore.report.plots import PALETTE, PERCENT, shades, style

# colour, marker and line of a dense network, and of a compressed one
_DENSE, _SPARSE = shades(PALETTE[0], {0: "", 1: ""}).values()
PAIR = ((_DENSE.colour, "o", "-"), (_SPARSE.colour, "s", "--"))


def pooled(records: pd.DataFrame) -> Reliability:
    """The bins of several records (`bin_count`, `bin_confidence`, `bin_accuracy`) as if of all their predictions."""
    counts = np.stack(records["bin_count"])
    total = torch.tensor(counts.sum(0), dtype=torch.float64)
    means = (
        torch.tensor((counts * np.stack(records[f"bin_{what}"])).sum(0)) / total.clamp(min=1)
        for what in ("confidence", "accuracy")
    )
    return Reliability(torch.linspace(0, 1, len(total) + 1, dtype=torch.float64), total, *means)


@style()
def reliability_diagram(ax: Axes, bins: Reliability, *, title: str, colour: object) -> Axes:
    """Accuracy against confidence, bin by bin, with the share of predictions in each bin below.

    Args:
        ax: where to draw.
        bins: (B,) bins, such as `reliability` gives; their edges are drawn as they are.
        title: of the axes.
        colour: of the bars.

    The bar of a bin is its accuracy, its black tick the mean confidence: where the bar ends below the tick, the network is
    over-confident. The plain mean over the grey bars' shares of these gaps is the ECE.
    """
    full = (bins.count > 0).numpy()
    left, right = bins.edges[:-1].numpy(), bins.edges[1:].numpy()
    centre, width = (left + right) / 2, 0.92 * (right - left)
    share = (bins.count / bins.count.sum().clamp(min=1)).numpy()
    ax.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1)
    ax.bar(centre[full], bins.accuracy.numpy()[full], width=width[full], color=colour, alpha=0.85)
    for x, half, confidence, accuracy in zip(
        centre[full], width[full] / 2, bins.confidence.numpy()[full], bins.accuracy.numpy()[full], strict=True
    ):
        ax.plot([x - half, x + half], [confidence] * 2, color="black", linewidth=1.2)
        ax.plot([x, x], [accuracy, confidence], color="black", linewidth=0.7)
    ax.bar(centre, -0.22 * share / max(share.max(), 1e-9), width=width, color="0.65")
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.set(xlim=(0, 1), ylim=(-0.25, 1), title=title, xlabel="confidence")
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    ax.xaxis.set_major_formatter(PERCENT)
    ax.yaxis.set_major_formatter(PERCENT)
    return ax


@style()
def four_views(axes: Iterable[Axes], networks: Mapping[str, Predictions]) -> None:
    """The confidences of two networks seen four ways: bins of equal mass, smoothed, cumulative, and risk against coverage.

    Args:
        axes: four.
        networks: label -> its predictions.
    """
    masses, kernel, sums, risks = axes = list(axes)
    for (label, predictions), (colour, marker, line) in zip(networks.items(), PAIR, strict=False):
        bins = reliability(predictions, binning="mass")
        some = bins.count > 0
        x, low, high = (part[some] for part in (bins.confidence, bins.edges[:-1], bins.edges[1:]))
        ends = predictions.confidence.aminmax()  # no bar is wider than its predictions
        low, high = (part.clamp(*map(float, ends)) for part in (low, high))
        look = {"color": colour, "markersize": 5, "linewidth": 1, "label": f"{label}: ECE {bins.ece:.1%}"}
        masses.errorbar(x, bins.accuracy[some], xerr=torch.stack([x - low, high - x]), fmt=marker, **look)
        curve = smooth(predictions)
        seen = curve.density > 0.1 * curve.density.max()
        x = curve.confidence[seen]
        y = x + curve.gap[seen] / curve.density[seen]
        kernel.plot(x, y, line, color=colour, label=f"{label}: smooth ECE {curve.ece:.1%}")
        share = -0.22 * curve.density / curve.density.max()
        kernel.fill_between(curve.confidence, share, color=colour, alpha=0.35, linewidth=0)
        x, y = cumulative_gap(predictions)
        sums.step(x, y, line, where="post", color=colour, label=f"{label}: KS {y.abs().max():.1%}")
        sums.plot(x[y.abs().argmax()], y[y.abs().argmax()], marker, color=colour)
        risk = risk_coverage(predictions)
        risks.plot(risk.coverage, risk.risk, line, color=colour, label=f"{label}: AURC {risk.aurc:.1%}")
    masses.set(title="Bins of equal mass", xlabel="confidence", ylabel="accuracy", ylim=(0, 1))
    top = max(1.0, 1.02 * kernel.dataLim.ymax) if networks else 1.0  # what a kernel makes of accuracy may lie above 1
    kernel.set(title="Kernel-smoothed", xlabel="confidence", ylabel="accuracy", ylim=(-0.25, top))
    sums.set(title="Cumulative gap", xlabel="confidence", ylabel="sum of accuracy minus confidence")
    risks.set(title="Risk and coverage", xlabel="coverage", ylabel="risk")
    if not networks:
        return
    for ax in (masses, kernel):
        ax.plot([0, 1], [0, 1], color="0.4", linestyle=":", linewidth=1)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    for ax in (kernel, sums):
        ax.axhline(0, color="0.3", linewidth=0.8)
    for ax in axes:
        ax.xaxis.set_major_formatter(PERCENT)
        ax.yaxis.set_major_formatter(PERCENT)
        ax.set_xlim(0, 1)
        ax.legend()


@style()
def class_maps(axes: Iterable[Axes], bins: Mapping[str, Reliability], *, kind: str, confidence: str) -> None:
    """What each bin of each class adds to a class-wise or top-label error, in points: orange too sure, blue not sure enough.

    Args:
        axes: one for each network.
        bins: label of a network -> (T, B) bins.
        kind: of the error, "class-wise" or "top-label".
        confidence: what is binned.
    """
    axes = list(axes)
    parts = {name: 100 * b.count / b.count.sum() * (b.accuracy - b.confidence) for name, b in bins.items()}
    limit = max((float(part.abs().max()) for part in parts.values()), default=1)
    palette = sns.diverging_palette(40, 245, s=85, l=55, as_cmap=True)
    for ax, (label, part) in zip(axes, parts.items(), strict=False):
        extent = (0, 1, len(part) - 0.5, -0.5)
        look = {"cmap": palette, "vmin": -limit, "vmax": limit, "aspect": "auto", "interpolation": "nearest"}
        image = ax.imshow(part.numpy(), extent=extent, **look)
        ax.set_title(f"{label}:\n{kind} ECE {bins[label].ece:.1%}")
        ax.set_xticks([0, 0.25, 0.5, 0.75], ["0%", "25%", "50%", "75%"])
        ax.yaxis.get_major_locator().set_params(integer=True)
    if parts:
        axes[0].figure.colorbar(image, ax=axes, label="percentage points")
    axes[0].set_ylabel("class")
    for ax in axes:
        ax.set_xlabel(confidence)
        ax.grid(visible=False)
