"""The claims at one glance: every verdict of every study in one figure, from the numbers of the notebooks.

    C1  Pruning lowers accuracy
        letters        ---o---            supported
        Tiny-ImageNet    --D--            inconclusive

What a study says of a claim is what its notebooks left in `numbers.json`; a claim that a study does not test has no mark.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from vpcore.files import write_atomically
from vpcore.report.figure_files import save
from vpcore.report.plots import NUMBER, SHAPES, VERDICT_COLOURS, panels, style
from vpcore.report.prose import across, study_of, tidy
from vpcore.report.verdicts import INCONCLUSIVE, VERDICTS

PREVIEW_DPI = 200  # of the picture that other sites show beside a link to the book


class Claim(NamedTuple):
    """A claim: what it says, and where studies say something of it, as NOTEBOOK:KEY."""

    says: str
    found_in: tuple[str, ...]


CLAIMS = {
    "C1": Claim("Pruning lowers accuracy", ("real/claims:c1", "small/claims:c1", "claims:c1")),
    "C2": Claim("... most of all when data is scarce", ("real/claims:c2_in_points", "small/claims:c2", "claims:c2")),
    "C3": Claim("Pruning worsens calibration", ("real/claims:c3", "small/claims:c3_vp", "claims:c3_vp")),
    "C4": Claim("A ticket as good as dense transfers worse", ("real/claims:c4", "small/claims:c4", "claims:c4")),
    "C5": Claim("Quantization lowers accuracy", ("real/claims:c5", "imagenet:c5_matching", "quantization:c5_matching")),
    "C6": Claim("... but does not harm calibration", ("real/claims:c6", "imagenet:c6_matching", "quantization:c6_matching")),
}


def found(folder: Path) -> pd.DataFrame:
    """What the studies say of the claims, one row a claim and study: in percentage points, with margin and verdict.

    Args:
        folder: of the output of the notebooks, such as `book/generated`.
    """
    rows = []
    for claim, (says, places) in CLAIMS.items():
        for place in places:
            notebook, _, key = place.partition(":")
            path = folder / notebook / "numbers.json"
            content = json.loads(path.read_text()) if path.exists() else {"numbers": {}}
            numbers: Mapping[str, float] = content["numbers"]
            if numbers.get(key) is not None:
                study = study_of(content["provenance"]["profile"])
                row = {"claim": claim, "says": says, "study": study, "verdict": numbers[f"{key}_verdict"]}
                for part in ("", "_low", "_high", "_margin"):
                    row[part.strip("_") or "points"] = 100 * numbers[f"{key}{part}"]
                rows.append(row)
    table = pd.DataFrame(rows, columns=["claim", "says", "study", "points", "low", "high", "margin", "verdict"])
    return table.drop_duplicates(["claim", "study"], ignore_index=True)  # a book of another profile may show one twice


@style()
def forest_of_claims(table: pd.DataFrame) -> Figure:
    """A mark for each study of each claim: its shape is the study, its colour the verdict, the field the margin.

    Args:
        table: of `found`.
    """
    places, place = [], 0.0
    for number, claim in enumerate(table["claim"]):
        place += 1.0 if number == 0 or claim != table["claim"].iloc[number - 1] else 0.0
        places.append(place)
        place += 0.8
    figure, [[ax]] = panels(size=(5.4, 0.28 * (place + 2)))
    ax.axvline(0, color="0.3", linewidth=0.8)
    for at, row in zip(places, table.to_dict("records"), strict=True):
        colour = VERDICT_COLOURS.get(row["verdict"], VERDICT_COLOURS[INCONCLUSIVE])
        arms = [[row["points"] - row["low"]], [row["high"] - row["points"]]]
        shape = SHAPES.get(row["study"].partition(",")[0], "o")
        ax.fill_betweenx([at - 0.4, at + 0.4], -row["margin"], row["margin"], color="0.9", linewidth=0, zorder=0)
        marks = {
            "color": colour,
            "marker": shape,
            "markerfacecolor": colour if row["verdict"] in VERDICTS[:2] else "white",
            "label": row["verdict"],
        }
        ax.errorbar([row["points"]], [at], xerr=arms, capsize=2.5, markersize=6, linewidth=1.4, **marks)
        aside = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 10, "color": "0.2"}
        ax.annotate(row["verdict"], (1.02, at), fontweight="bold" if row["verdict"] in VERDICTS[:2] else "normal", **aside)
    for claim, mine in table.assign(at=places).groupby("claim"):
        text = f"{claim}  {mine['says'].iloc[0]}"
        where = {"xycoords": ("axes fraction", "data"), "xytext": (-88, 0), "textcoords": "offset points"}
        ax.annotate(text, (0, mine["at"].iloc[0] - 0.85), va="center", fontsize=10, fontweight="bold", **where)
    ax.set_yticks(places, table["study"])
    ax.set_ylim(place + 0.1, -0.3)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter(NUMBER)
    ax.set_xlabel("cost of compression, percentage points")
    ax.grid(axis="y", visible=False)
    return figure


def answers(table: pd.DataFrame, claim: str) -> list[tuple[str, str]]:
    """(verdict, studies) of a claim, for the prose; see `prose.across`."""
    mine = table[table["claim"] == claim]
    return across(list(zip(mine["study"], mine["verdict"], strict=True)))


def write(folder: Path) -> None:
    """Draw the figure of `found` into the folder "verdicts" of the output of the notebooks, with its numbers."""
    table = found(folder)
    told = [
        f"{row['claim']}, {row['says'].removeprefix('... ')}, {row['study']}: "
        + "{} points ({} to {}), ".format(*(tidy(f"{row[part]:.1f}") for part in ("points", "low", "high")))
        + row["verdict"]
        for row in table.to_dict("records")
    ]
    figure = forest_of_claims(table)
    save(figure, folder / "verdicts" / "claims", words="; ".join(told))
    write_atomically(folder / "verdicts" / "preview.png", functools.partial(figure.savefig, format="png", dpi=PREVIEW_DPI))
