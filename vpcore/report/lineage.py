"""Lineage: what each page comes from, from the images to the prose.

    data  ->  networks  ->  records  ->  notebook  ->  page

A page names the notebooks whose figures, tables and numbers it shows; a notebook leaves beside its numbers which records it
has read, and these say which network they measured, on which images, and by which commit. Nothing is drawn that these do not
say, so the graph cannot go out of date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Line

from vpcore.report import figure_files
from vpcore.report.overview import CLAIMS
from vpcore.report.plots import PALETTE, panels, style
from vpcore.report.prose import study_of

KINDS = ("data", "networks", "records", "notebook", "page")
HERE = "made in the notebook"  # of notebooks that read no records
PLACES = (0.0, 0.12, 0.41, 0.64, 0.86)  # of the columns, from left to right
LETTER = 0.0061  # the width of a letter, on the same scale
TINTS = (PALETTE[0], PALETTE[3], PALETTE[4], PALETTE[5], PALETTE[2], PALETTE[1])  # of the studies


def adapted(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(image set, network) of all records: a network is named by its architecture and where its weights come from.

    >>> row = {"source": "glyphs", "task": "digits", "model": "resnet8", "weights": "trained"}
    >>> adapted(pd.DataFrame([row]))
    [('digits', 'resnet8, trained on glyphs'), ('glyphs', 'resnet8, trained on glyphs')]
    """
    found = set()
    for row in table[["source", "task", "model", "weights"]].drop_duplicates().to_dict("records"):
        whence = f"trained on {row['source']}" if row["weights"] == "trained" else f"weights: {row['weights']}"
        found |= {(row[images], f"{row['model']}, {whence}") for images in ("source", "task")}
    return sorted(found)


def notebooks_of(text: str) -> set[str]:
    """The notebooks from which a page has figures, tables, numbers or words, by the folders of their output.

    >>> sorted(notebooks_of("{num}`tickets:kept|.1%` and {across}`C5`, in generated/small/claims/claims.csv"))
    ['imagenet', 'quantization', 'real/claims', 'small/claims', 'tickets']
    """
    found = set(re.findall(r"\{(?:num|said|verdict)\}`([\w/]+):", text))
    found |= set(re.findall(r"generated/((?:\w+/)?\w+)/[\w-]+\.\w+", text))
    found |= set(re.findall(r"\{provenance\} (\S+)", text))
    asked = set(re.findall(r"\{across\}`(\w+)`", text)) | (set(CLAIMS) if "verdicts" in found else set())
    found |= {place.partition(":")[0] for claim in asked for place in CLAIMS[claim].found_in}
    return found - {"verdicts", "lineage"}


def edges(pages: Mapping[str, str], folder: Path) -> pd.DataFrame:
    """The graph, one row an edge: what something is made from (`source`, of the `source_kind`), and it (`target`).

    Args:
        pages: title -> text, in the order of the book.
        folder: of the output of the notebooks, such as `book/generated`.
    """
    rows: list[tuple[str, str, str, str]] = []
    origins = {
        path.parent.relative_to(folder).as_posix(): json.loads(path.read_text())["provenance"]
        for path in sorted(folder.glob("**/numbers.json"))
        if (path.with_name(f"{path.parent.name}.ipynb")).exists()
    }
    for title, text in pages.items():
        rows += [("notebook", place, "page", title) for place in sorted(notebooks_of(text) & origins.keys())]
    for place, origin in origins.items():
        study = HERE if origin["profile"] == "none" else f"{study_of(origin['profile'])} ({origin['profile']})"
        rows.append(("records", study, "notebook", place))
        for images, network in origin["adapted"]:
            rows += [("networks", network, "records", study), ("data", images, "networks", network)]
    table = pd.DataFrame(rows, columns=["source_kind", "source", "target_kind", "target"])
    return table.drop_duplicates(ignore_index=True)


def commits(folder: Path) -> dict[str, list[str]]:
    """The commits of the code that computed the records of each study, as `edges` calls them."""
    found: dict[str, set[str]] = {}
    for path in folder.glob("**/numbers.json"):
        origin = json.loads(path.read_text()).get("provenance", {"profile": "none"})
        if origin["profile"] != "none":
            found.setdefault(f"{study_of(origin['profile'])} ({origin['profile']})", set()).update(origin["commits"])
    return {study: sorted(mine) for study, mine in found.items()}


@style()
def graph(table: pd.DataFrame, computed_by: Mapping[str, list[str]]) -> Figure:
    """The graph in five columns, pages in their order; the colour of a line is the study that it belongs to.

    Args:
        table: of `edges`.
        computed_by: of `commits`, which stand below the records.
    """
    columns = _ordered(table)
    most = max(map(len, columns.values()))
    places = {
        (kind, name): (PLACES[number], (row + 0.5) / len(names))
        for number, (kind, names) in enumerate(columns.items())
        for row, name in enumerate(names)
    }
    tint = {name: TINTS[n % len(TINTS)] for n, name in enumerate(sorted(columns["records"])) if name != HERE}
    figure, [[ax]] = panels(size=(11, 0.28 * most + 0.4))
    ax.set(xlim=(-0.09, 1.13), ylim=(1.02, -0.06))
    ax.axis("off")
    for row in table.to_dict("records"):
        (x0, y0), (x1, y1) = (places[row[f"{end}_kind"], row[end]] for end in ("source", "target"))
        label = "" if row["source_kind"] == "data" else _label(row["source_kind"], row["source"], computed_by)
        x0 += 0.015 + LETTER * max(map(len, label.split("\n")))
        middle = (x0 + x1) / 2
        curve = Line([(x0, y0), (middle, y0), (middle, y1), (x1 - 0.005, y1)], [Line.MOVETO, *[Line.CURVE4] * 3])
        colour = tint.get(_study(row, table), "0.6")
        ax.add_patch(PathPatch(curve, facecolor="none", edgecolor=colour, linewidth=0.9, alpha=0.65))
    for (kind, name), (x, y) in places.items():
        side = "right" if kind == "data" else "left"
        box = {"facecolor": "white", "alpha": 0.8, "pad": 0.6, "linewidth": 0}
        ax.plot([x], [y], "o", color="0.35", markersize=3)
        shift = -0.01 if side == "right" else 0.01
        ax.text(x + shift, y, _label(kind, name, computed_by), ha=side, va="center", fontsize=8.5, bbox=box)
    for kind, x in zip(KINDS, PLACES, strict=True):
        ax.text(x, -0.03, kind, ha="right" if kind == "data" else "left", fontweight="bold", fontsize=10)
    return figure


def _ordered(table: pd.DataFrame) -> dict[str, list[str]]:
    """The names of each column from the top; what is made of neighbours stands near them, so that few lines cross."""
    columns = {"page": list(dict.fromkeys(table.loc[table["target_kind"] == "page", "target"]))}
    for kind, after in (("notebook", "page"), ("records", "notebook"), ("networks", "records"), ("data", "networks")):
        rank = {name: (number + 0.5) / len(columns[after]) for number, name in enumerate(columns[after])}
        mine = table[(table["source_kind"] == kind) & (table["target_kind"] == after)]
        near = mine.assign(rank=mine["target"].map(rank)).groupby("source")["rank"].mean()
        columns[kind] = [str(name) for name in near.sort_values(kind="stable").index]
        if kind == "notebook":  # those that no page shows come last
            made = table.loc[table["target_kind"] == "notebook", "target"]
            columns[kind] += [name for name in dict.fromkeys(made) if name not in near.index]
    return {kind: columns[kind] for kind in KINDS}


def _study(row: Mapping[str, str], table: pd.DataFrame) -> str:
    """The study that an edge belongs to; "" for one of several."""
    if "records" in (row["source_kind"], row["target_kind"]):
        return row["source"] if row["source_kind"] == "records" else row["target"]
    middle, end = ("source", "target") if row["source_kind"] == "notebook" else ("target", "source")
    found = table.loc[(table[end] == row[middle]) & (table[f"{end}_kind"] == row[f"{middle}_kind"])]
    other = "source" if end == "target" else "target"
    studies = set(found.loc[found[f"{other}_kind"] == "records", other])
    return studies.pop() if len(studies) == 1 else ""


def _label(kind: str, name: str, computed_by: Mapping[str, list[str]]) -> str:
    by = computed_by.get(name, []) if kind == "records" else []
    lines = [" ".join(by[n : n + 2]) for n in range(0, len(by), 2)]
    return "\n".join([name.replace(", ", "\n") if kind == "networks" else name, *lines])


def write(pages: Mapping[str, str], folder: Path, *, anew: bool = False) -> None:
    """Draw the graph into the folder "lineage" of the output of the notebooks; if it is there already, only where `anew`."""
    table, computed_by = edges(pages, folder), commits(folder)
    told = "; ".join(
        f"the page {title} shows {', '.join(mine['source'])}"
        for title, mine in table[table["target_kind"] == "page"].groupby("target", sort=False)
    )
    made = folder / "lineage" / "lineage"
    lines = table.assign(commits=table["target"].map(lambda name: " ".join(computed_by.get(name, []))))
    content = lines.to_csv(index=False)
    data = made.with_name(f"{made.name}-data.csv")
    if anew or not data.exists() or data.read_text() != content:
        figure_files.save(graph(table, computed_by), made, words=f"What pages are made from: {told}", data=content)
