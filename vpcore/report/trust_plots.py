"""A reader's headline numbers beside ours, as a figure and a table: each within what another dense network would explain."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vpcore.report.plots import LOOKS, POINTS, style
from vpcore.report.reference import LABELS, NUMBERS


@style()
def beside_ours(ax: Axes, found: pd.DataFrame) -> Axes:
    """The difference of each number, yours minus ours, in percentage points; the grey bar is its tolerance.

    Args:
        ax: where to draw.
        found: of `reference.compare`, of one measure.
    """
    found = found.sort_values(["method", "network"], ascending=[False, True], ignore_index=True)
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.barh(found.index, 2 * found["tolerance"], left=-found["tolerance"], height=0.55, color="0.82")
    for method in [method for method in LOOKS if method in set(found["method"])]:
        mine = found[found["method"] == method]
        ax.plot(mine["difference"], mine.index, linestyle="none", markersize=6, **LOOKS[method].line)
    reach = 1.1 * np.maximum(found["tolerance"], found["difference"].abs()).max()
    ax.set(xlim=(-reach, reach), ylim=(len(found) - 0.4, -0.6), xlabel="yours minus ours, points")
    ax.set_yticks(found.index, found["network"])
    ax.xaxis.set_major_formatter(POINTS)
    ax.grid(axis="y", visible=False)
    return ax


def rows(found: pd.DataFrame) -> list[dict[str, str]]:
    """What `reference.compare` found as the rows of a table, in per cent and percentage points."""
    units = dict(zip(NUMBERS, ("%", "%", "points", "points"), strict=True))
    return [
        {"measure": LABELS[row["measure"]], "method": LOOKS[row["method"]].label, "network": row["network"]}
        | {f"{name}, {unit}": f"{100 * row[name]:.2f}" for name, unit in units.items()}
        | {"verdict": row["verdict"]}
        for row in found.to_dict("records")
    ]
