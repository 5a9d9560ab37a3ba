"""What every figure must keep: all data lie inside the axes, and nothing that is written is cut off."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

PIXELS = 2.0  # a line that lies on the frame is inside


def check(figure: Figure) -> None:
    """Both, of a figure that is drawn for it."""
    figure.draw_without_rendering()
    check_data(figure)
    check_labels(figure)


def check_data(figure: Figure) -> None:
    """All marks, curves and ends of intervals lie inside their axes."""
    for ax in figure.axes:
        if not ax.get_visible() or not ax.axison:
            continue
        bars = [drawn for container in ax.containers for drawn in getattr(container, "lines", ())[2:] or ()]
        points = [line.get_xydata() for line in ax.get_lines() if line.get_transform() == ax.transData]
        points += [drawn.get_offsets() for drawn in ax.collections if isinstance(drawn, PathCollection)]
        points += [segment for group in bars for part in group for segment in _segments(part)]
        for data in points:
            seen = np.ma.filled(np.ma.asarray(data, dtype=float), np.nan)
            seen = ax.transData.transform(seen[np.isfinite(seen).all(axis=1)])
            inside = (seen >= ax.bbox.min - PIXELS).all() and (seen <= ax.bbox.max + PIXELS).all()
            assert inside, f"{ax.get_title()!r}: data outside of the axes, {np.asarray(data)[:4].tolist()} ..."


def _segments(part: object) -> list[np.ndarray]:
    return part.get_segments() if isinstance(part, LineCollection) else []


def check_labels(figure: Figure) -> None:
    """Everything that is written lies on the figure."""
    page = figure.bbox
    for text in [text for ax in figure.axes if ax.get_visible() for text in _written(ax)] + figure.findobj(Legend):
        box = text.get_window_extent()
        cut = min(box.x0 - page.x0, box.y0 - page.y0, page.x1 - box.x1, page.y1 - box.y1) < -PIXELS
        assert not cut, f"{getattr(text, 'get_text', lambda: 'the legend')()!r} is cut"


def _written(ax: Axes) -> list[Text]:
    """Titles, labels, notes, and the names of those ticks that are drawn."""
    texts = [*ax.texts, ax.title, ax._left_title, ax._right_title]
    for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
        ticks = "".join(label.get_text() for label in axis.get_ticklabels())
        assert not ("points" in axis.get_label_text() and "%" in ticks), "one unit on the axis and another on its ticks"
        low, high = sorted(axis.get_view_interval())
        ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
        texts += [axis.label, *(label for place, label in ticks if low <= place <= high)]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]
