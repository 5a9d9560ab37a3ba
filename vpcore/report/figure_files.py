"""The files of a figure: pictures for light and dark pages, its data as a table, and what it shows in words.

    NAME.svg  NAME-dark.svg  NAME.pdf  NAME-data.csv  NAME.txt

Data and words are read back from what is drawn, so that they say the same. Everything that is drawn with a label is data:
lines, marks, bars with their intervals, and the cells of a heat map. What has no label is a guide: zero, chance, a margin.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from vpcore.files import write_atomically

COLUMNS = ("panel", "series", "x", "y", "low", "high")
MOST = 12  # values that a description names


def save(figure: Figure, path: Path, *, words: str = "", data: str = "") -> None:
    """Write the files of a figure beside each other, the same bytes for the same data.

    Args:
        figure: in our look.
        path: of the files, without a suffix.
        words: what it shows; "" for its `description`.
        data: its data as CSV; "" for `data_of` it.
    """
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None}, transparent=True)
    write_atomically(path.with_suffix(".svg"), picture.getvalue())
    write_atomically(path.with_name(f"{path.name}-dark.svg"), dark(picture.getvalue()))
    pdf = functools.partial(figure.savefig, format="pdf", metadata={"CreationDate": None})
    write_atomically(path.with_suffix(".pdf"), pdf)
    data = data or data_of(figure).to_csv(index=False, float_format="%.6g")
    write_atomically(path.with_name(f"{path.name}-data.csv"), data)
    write_atomically(path.with_suffix(".txt"), words or description(figure))


def dark(svg: str) -> str:
    """The same picture for a dark page: greys are turned round, dark colours lightened; photographs stay as they are.

    >>> dark('<svg a="b"><path style="fill: #262626"/><path style="stroke: #de8f05"/></svg>')
    '<svg fill="#ffffff" a="b"><path style="fill: #d9d9d9"/><path style="stroke: #de8f05"/></svg>'
    """

    def turned(match: re.Match[str]) -> str:
        red, green, blue = parts = [int(match[1][place : place + 2], 16) for place in (0, 2, 4)]
        if red == green == blue:
            return f"#{255 - red:02x}" + f"{255 - red:02x}" * 2
        faint = 0.3 * red + 0.59 * green + 0.11 * blue < 110
        return "#" + "".join(f"{part + (255 - part) * 2 // 5 if faint else part:02x}" for part in parts)

    return re.sub(r"#([0-9a-f]{6})\b", turned, svg).replace("<svg ", '<svg fill="#ffffff" ', 1)


def data_of(figure: Figure) -> pd.DataFrame:
    """The data of a figure, one row a mark: panel, series, x, y, and the ends of its interval, `low` and `high`.

    Places with a name on the axis, such as the rows of a forest, bear it.
    """
    rows = [(title_of(ax), *row) for ax in _panels(figure) for row in _marks(ax)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.dropna(axis=1, how="all")


def description(figure: Figure) -> str:
    """What a figure shows, in words: the axes of each panel, and its series with their first and last values."""
    parts = []
    for ax in _panels(figure):
        axes = f"{ax.get_ylabel()} against {ax.get_xlabel()}" if ax.get_ylabel() and ax.get_xlabel() else ""
        head = ": ".join(part for part in (title_of(ax), axes or ax.get_xlabel()) if part)
        found = _sentences(ax)
        shown = found[:MOST] + [f"and {len(found) - MOST} more"] * (len(found) > MOST)
        parts.append(f"{head}. {'; '.join(shown)}" if shown else head)
    return " ".join(". ".join(filter(None, parts)).split()) or "Pictures, which the caption describes"


def title_of(ax: Axes) -> str:
    """The title of a panel, wherever it stands."""
    return next((text for side in ("center", "left", "right") if (text := ax.get_title(side))), "").replace("\n", ", ")


def _panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]


def _sentences(ax: Axes) -> list[str]:
    """A sentence for each series: where it begins and ends; of the rows of a forest, every value."""
    table = pd.DataFrame(list(_marks(ax)), columns=COLUMNS[1:])
    if table.empty:
        return []
    told = []
    named = all(isinstance(y, str) for y in table["y"])
    for series, mine in table.groupby("series", sort=False):
        values = [
            (row["y"], _value(ax.xaxis, row["x"])) if named else (_value(ax.xaxis, row["x"]), _value(ax.yaxis, row["y"]))
            for _, row in mine.iterrows()
        ]
        if named:
            told += [f"{place}: {value}{f' ({series})' if series else ''}" for place, value in values]
        elif len(values) > 1:
            told.append(f"{series} from {values[0][1]} at {values[0][0]} to {values[-1][1]} at {values[-1][0]}".strip())
        else:
            told.append(f"{series} {values[0][1]} at {values[0][0]}".strip())
    return told


def _value(axis: Axis, value: object) -> str:
    """A value as its axis writes it."""
    if isinstance(value, str):
        return value
    form, value = axis.get_major_formatter(), float(f"{value:.3g}")
    text = form(value, 0) if isinstance(form, FuncFormatter) and not _names(axis) else f"{value:.3g}"
    return str(text).replace("-", "\N{MINUS SIGN}")


def _marks(ax: Axes) -> Iterator[tuple[str, object, object, float, float]]:
    """Series, x, y, low and high of all that is drawn with a label."""
    for bars in ax.containers:
        if isinstance(bars, ErrorbarContainer) and not str(bars.get_label()).startswith("_"):
            across = bool(bars.has_xerr)
            for (x, y), segment in zip(bars.lines[0].get_xydata(), _segments(bars), strict=True):
                yield str(bars.get_label()), *_places(ax, x, y), *segment[:, 0 if across else 1]
    for line in ax.get_lines():
        if not str(line.get_label()).startswith("_"):
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
                yield str(line.get_label()), *_places(ax, x, y), np.nan, np.nan
    for drawn in ax.collections:
        if isinstance(drawn, QuadMesh):
            cells: np.ndarray = np.ma.filled(np.ma.asarray(drawn.get_array(), dtype=float), np.nan)
            rows, columns = ([label.get_text() for label in axis.get_ticklabels()] for axis in (ax.yaxis, ax.xaxis))
            cells = cells.reshape(len(cells) if cells.ndim == 2 else max(1, len(rows)), -1)
            if cells.shape == (len(rows), len(columns)):
                for row, values in zip(rows, cells, strict=True):
                    for column, value in zip(columns, values, strict=True):
                        if np.isfinite(value):
                            yield f"{ax.get_ylabel()} {row}", column, float(value), np.nan, np.nan
        elif isinstance(drawn, PathCollection) and not str(drawn.get_label()).startswith("_"):
            for x, y in np.ma.filled(np.ma.asarray(drawn.get_offsets(), dtype=float), np.nan):
                yield str(drawn.get_label()), *_places(ax, x, y), np.nan, np.nan


def _segments(bars: ErrorbarContainer) -> list[np.ndarray]:
    """The ends of each interval, as (2, 2) points."""
    _, _, collections = bars.lines
    return [np.asarray(segment) for segment in collections[0].get_segments()]


def _places(ax: Axes, x: float, y: float) -> tuple[object, object]:
    """A point, with the names of places on axes that have names."""
    return _place(ax.xaxis, x), _place(ax.yaxis, y)


def _place(axis: Axis, value: float) -> object:
    names = _names(axis)
    nearest = min(names, key=lambda place: abs(place - float(value)), default=np.inf)
    return names[nearest] if abs(nearest - float(value)) < 0.5 else float(value)


def _names(axis: Axis) -> dict[float, str]:
    """Place -> name, of a linear axis whose places have names (`set_ticks` keeps them as a dict inside a formatter)."""
    inside = getattr(getattr(axis.get_major_formatter(), "func", None), "args", ())
    if not inside or axis.get_scale() != "linear":
        return {}
    return {float(place): name for place, name in inside[0].items() if name}
