"""The page of an audit: one HTML file that needs nothing else, its numbers as JSON, and a badge.

    DIR/index.html      the verdict, what was saved, what it costs, figures, and what was not measured
    DIR/numbers.json    every number of the page, and every run that it is made of
    DIR/badge.svg       the verdict in a line, for a README

The same numbers give the same bytes, apart from what `Audit.timing` and `Audit.made` say of time and place.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vpcore.audit import tables
from vpcore.audit.design import expected
from vpcore.audit.figures import budget_figure, contrast_figure, reliability_figure
from vpcore.audit.findings import CLEAN, COST, METHODS, OPEN, PRIMARY, Findings
from vpcore.audit.numbers import numbers
from vpcore.audit.run import Audit
from vpcore.files import write_atomically
from vpcore.report import plots

COLOURS = {CLEAN: "#1a7f37", COST: "#c0392b", OPEN: "#8a6d00"}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin-bottom: .3rem } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem }
table { border-collapse: collapse; width: 100%; font-size: .92rem } caption { text-align: left; font-weight: 600 }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #ddd;
         vertical-align: top; font-variant-numeric: tabular-nums }
.verdict { color: #fff; border-radius: .4rem; padding: .7rem 1rem; margin: 1rem 0 } .verdict b { font-size: 1.15rem }
.note { background: #fff6dd; border-left: 4px solid #d8a200; padding: .4rem .8rem; margin: .4rem 0 }
.wide { overflow-x: auto } .wide svg { max-width: 100%; min-width: 34rem; height: auto }
code, pre { font-size: .87rem; background: #f4f4f4 }
pre { padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere }
p.small, details { font-size: .88rem; color: #555 } summary { cursor: pointer }
"""


def write_page(found: Audit, folder: Path) -> Path:
    """Write the page of an audit, its numbers and its badge.

    Args:
        found: the audit.
        folder: is made.

    Returns:
        The page.

    Raises:
        WriteError: when the folder cannot be written.
    """
    write_atomically(folder / "numbers.json", json.dumps(numbers(found), indent=1, allow_nan=False))
    write_atomically(folder / "badge.svg", badge(found.verdict))
    write_atomically(folder / "index.html", page(found))
    return folder / "index.html"


def badge(verdict: str) -> str:
    """A badge in the usual form, as SVG."""
    left, width = 92, 92 + 12 + 7 * len(verdict)
    text = "fill='#fff' font-family='Verdana,sans-serif' font-size='11'"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='20' role='img' "
        f"aria-label='vpcore audit: {verdict}'>"
        f"<rect width='{left}' height='20' fill='#555'/><rect x='{left}' width='{width - left}' height='20' "
        f"fill='{COLOURS[verdict]}'/><text x='6' y='14' {text}>vpcore audit</text>"
        f"<text x='{left + 6}' y='14' {text}>{verdict}</text></svg>\n"
    )


def page(found: Audit) -> str:
    """The page as HTML."""
    whole = numbers(found)
    names, speeds = tables.labels(whole), whole["timing"]["images_a_second"]
    parts = [
        f"<h1>Audit of {_e(', '.join(names[1:]))} against {_e(names[0])}</h1>",
        f"<p class='small'>What did compression cost, once the frozen network is adapted to other tasks? Design: "
        f"{_e(_designed(found))}.</p>",
        *(_verdict_box(name, each, found) for name, each in zip(names[1:], found.findings, strict=True)),
        *(f"<p class='note'>{_e(note)}</p>" for note in found.warnings),
        "<h2>What is claimed, and what was found</h2>",
        _table(tables.claims({"": whole})) + f"<p class='small'>{_e(_scope(found))}</p>",
        "<p class='small'>Positive is harm, negative is gain. The claims of a network are held to an error of 5 % together "
        "(Holm), its intervals to what that makes of 95 %. <i>Supported</i>: harm is shown. <i>No relevant effect</i>: the "
        f"whole interval lies within &plusmn;{100 * found.options.margin:g} points. <i>Contradicted</i>: compression helps. "
        "<i>Detectable</i>: the effect that would have been seen with 80 % power.</p>",
        _svg(contrast_figure(found, names)),
        "<h2>What was saved</h2>",
        _table(
            [
                {**row, "images/s here": f"{speed:.0f}"}
                for row, speed in zip(tables.networks({"": whole}), speeds, strict=True)
            ]
        ),
        "<p class='small'>KiB: as stored with one bit a weight and what is kept, where that is shorter. Multiplications: of "
        "convolutions and linear layers, for one image; zeros save time only where the hardware skips them.</p>",
        "<h2>By budget</h2>",
        _svg(budget_figure(found, names)),
        "<h2>Can its confidence be trusted?</h2>",
        _svg(reliability_figure(found, names)),
        "<h2>All costs</h2>",
        *(
            f"<details><summary>{_e(name)}: every cost with its interval and without a verdict</summary>"
            f"{_table(tables.costs(each))}</details>"
            for name, each in zip(names[1:], whole["findings"], strict=True)
        ),
        *_own_table(whole, names),
        "<h2>What was not measured</h2>",
        _list(found.not_measured),
        "<h2>How it was made</h2>",
        f"<p class='small'>The same numbers again:</p><pre>{_e(whole['command'])}</pre>",
        f"<p class='small'>{_e(_made(found))}</p>",
    ]
    title = f"vpcore audit: {found.verdict}"
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{_e(title)}</title><style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _e(text: object) -> str:
    return html.escape(str(text))


def _designed(found: Audit) -> str:
    design = found.design
    shots, methods = ", ".join(map(str, design.shots)), " and ".join(METHODS[m] for m in design.methods)
    return (
        f"{tables.counted(len(design.tasks), 'task')} ({', '.join(design.tasks)}), {shots} images a class, "
        f"{tables.counted(len(design.seeds), 'seed')}, {methods}, images of {design.canvas} px"
    )


def _verdict_box(name: str, found: Findings, whole: Audit) -> str:
    harms = [PRIMARY[each] for each, judged in found.primary.items() if judged.verdict == "supported"]
    wide = [judged.estimate.detectable() for judged in found.primary.values() if judged.estimate.df]
    seen = f"It could have seen a loss of accuracy of {100 * wide[0]:.1f} points. " if wide else ""
    text = {
        COST: f"Compression {'; it '.join(harms)}.",
        CLEAN: f"Every interval lies within {100 * whole.options.margin:g} points, or shows a gain.",
        OPEN: f"{seen}More tasks, seeds or time would tell more.",
    }[found.verdict]
    return (
        f"<div class='verdict' style='background:{COLOURS[found.verdict]}'><b>{_e(name)}: {found.verdict}</b><br>"
        f"{_e(text)}</div>"
    )


def _scope(found: Audit) -> str:
    """For what the intervals speak."""
    scopes = [judged.estimate.scope for each in found.findings for judged in each.primary.values() if judged.estimate.scope]
    return f"The intervals speak for {scopes[0].replace('on this chain', 'for these networks')}." if scopes else ""


def _own_table(whole: tables.Numbers, names: list[str]) -> list[str]:
    rows = [
        {
            "network": name,
            "accuracy, loss, points": tables.points(each["accuracy_loss"]),
            "confidence minus accuracy, rise, points": tables.points(each["gap_rise"]),
        }
        for name, each in zip(names[1:], whole["own_task"], strict=False)
    ]
    return [f"<h2>On the networks&rsquo; own task, {_e(whole['options']['own_task'])}</h2>", _table(rows)] if rows else []


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    with pd.option_context("display.max_colwidth", None):
        table = pd.DataFrame(rows).fillna(tables.NOTHING).to_html(index=False, border=0, justify="left")
    return _wide(table)


def _wide(content: str) -> str:
    """What a narrow screen shows a part of, and moves."""
    return f"<div class='wide'>{content}</div>"


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_e(item)}</li>' for item in items)}</ul>" if items else "<p>Nothing is missing.</p>"


def _made(found: Audit) -> str:
    width = expected(found.design)
    planned = f"Expected half-width of the first interval: {100 * width:.1f} points. " if np.isfinite(width) else ""
    made = found.made
    return (
        f"{planned}Temperatures and conformal thresholds are from validation images; test images were looked at once. "
        f"{made.get('versions', '')}; {made.get('processor', '')}, {made.get('threads', '')} threads; code "
        f"{made.get('commit', '')}; "
        f"{float(found.timing['seconds']):.0f} s; {made.get('finished', '')}."  # type: ignore[arg-type]
    )


def _svg(figure: Any) -> str:
    """A figure as SVG within the page."""
    buffer = io.StringIO()
    with plots.style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return _wide(text[text.index("<svg") :])
