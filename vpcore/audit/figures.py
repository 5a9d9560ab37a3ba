"""The figures of an audit: primary contrasts with the margin, accuracy by budget, and reliability."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vpcore.audit.findings import METHODS, PRIMARY
from vpcore.audit.run import Audit
from vpcore.report import calibration_plots, plots
from vpcore.report.plots import PALETTE, PERCENT, POINTS, Look

SHORT = {"accuracy_loss": "accuracy, loss", "ece_rise": "ECE, rise"}


def _looks(names: list[str]) -> list[Look]:
    """Grey for the dense network, and a colour for each compressed one."""
    colours = ["0.35", *PALETTE]
    return [Look(name, colours[n % len(colours)], plots.MARKERS[n % len(plots.MARKERS)]) for n, name in enumerate(names)]


def contrast_figure(found: Audit, names: list[str]) -> Figure:
    """A row for each primary contrast, a dot for each compressed network; the margin is shaded."""
    rows = [each for each in PRIMARY if any(each in one.primary for one in found.findings)]
    labels = [f"{SHORT[column]}\n{METHODS[method]}" for column, method in rows]
    figure, axes = plots.panels(1, 1, size=(8.2, 1.0 + 0.62 * max(1, len(rows))))
    ax, looks = axes[0, 0], _looks(names)
    margin = found.options.margin
    ax.axvspan(-margin, margin, color="0.9", zorder=0)
    shifts = np.linspace(-0.18, 0.18, len(found.findings)) if len(found.findings) > 1 else [0.0]
    for number, one in enumerate(found.findings):
        shown = [(place, one.primary[each].estimate) for place, each in enumerate(rows) if each in one.primary]
        shown = [(place, e) for place, e in shown if np.isfinite(e.mean)]
        plots.forest(ax, [place + shifts[number] for place, _ in shown], [e for _, e in shown], looks[number + 1])
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    low, high = ax.get_xlim()
    ax.set_xlim(max(low, -1.05), min(high, 1.05))  # no cost is larger, however wide its interval
    ax.xaxis.set_major_formatter(POINTS)
    ax.set_xlabel("cost of compression, percentage points; the margin is shaded")
    plots.legend(figure, axes)
    return figure


def budget_figure(found: Audit, names: list[str]) -> Figure:
    """Accuracy (above) and ECE (below) against the images a class, the mean over tasks with every task as a dot."""
    table = pd.DataFrame(found.rows)
    methods = [method for method in METHODS if method in set(table["method"])]
    figure, axes = plots.panels(2, len(methods), size=(4.3 * len(methods), 5.2), sharex=True, sharey="row")
    budgets, looks = sorted(table["budget"].unique()), _looks(names)
    places = {budget: place for place, budget in enumerate(budgets)}
    for column, method in enumerate(methods):
        plots.title(axes[0, column], METHODS[method])
        for row, (metric, label) in enumerate({"accuracy": "accuracy", "ece": "ECE"}.items()):
            ax = axes[row, column]
            for number, look in enumerate(looks):
                mine = table[(table["method"] == method) & (table["network"] == number)]
                cells = mine.groupby(["budget", "task"])[metric].mean()
                if cells.empty:
                    continue
                shift = 0.12 * (number - (len(looks) - 1) / 2)
                means = cells.groupby("budget").mean()
                ax.plot([places[b] + shift for b in means.index], means, markersize=6, **look.line)
                dots = [places[b] + shift for b in cells.index.get_level_values("budget")]
                ax.scatter(dots, cells, s=9, alpha=0.55, color=look.colour, linewidths=0)
            ax.set_xticks(range(len(budgets)), [str(b) for b in budgets])
            ax.set_xlim(-0.5, len(budgets) - 0.5)
            ax.yaxis.set_major_formatter(PERCENT)
            if column == 0:
                ax.set_ylabel(label)
        axes[1, column].set_xlabel("images a class")
    for ax in axes[:, 0]:
        ax.set_ylim(0, None)  # of the whole row
    plots.legend(figure, axes)
    return figure


def reliability_figure(found: Audit, names: list[str]) -> Figure:
    """Reliability diagrams of all networks, pooled over tasks, budgets and seeds."""
    table = pd.DataFrame(found.rows)
    methods = [method for method in METHODS if method in set(table["method"])]
    figure, axes = plots.panels(
        len(methods), len(names), size=(2.9 * len(names), 3.0 * len(methods)), sharex=True, sharey=True
    )
    for row, method in enumerate(methods):
        for column, look in enumerate(_looks(names)):
            mine, ax = table[(table["method"] == method) & (table["network"] == column)], axes[row, column]
            if mine.empty:
                plots.nothing(ax, "not measured")
                continue
            bins = calibration_plots.pooled(mine)
            title = f"{look.label if len(look.label) < 30 else look.label[:28] + '...'}\nECE of all together {bins.ece:.1%}"
            calibration_plots.reliability_diagram(ax, bins, title=title, colour=look.colour)
        axes[row, 0].set_ylabel(f"{METHODS[method]}\naccuracy")
    return figure
