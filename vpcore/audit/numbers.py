"""The numbers of an audit as JSON can hold them, as text, and the command that gives them again."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from vpcore.audit.findings import EXIT, NO_POINTS, PRIMARY, Findings
from vpcore.audit.options import Options
from vpcore.audit.run import Audit
from vpcore.audit.tables import short
from vpcore.report.verdicts import Estimate


def numbers(found: Audit) -> dict[str, Any]:
    """Every number of an audit, as JSON can hold it; what is not defined is None."""
    whole = {
        "verdict": found.verdict,
        "exit_code": EXIT[found.verdict],
        "options": {**dataclasses.asdict(found.options), "data": None, "scheduler": ""},  # of this place
        "command": command(found),
        "design": dataclasses.asdict(found.design),
        "networks": [{"name": each.name, "no_gradients": each.no_gradients, **each.facts} for each in found.networks],
        "findings": [_finding(each) for each in found.findings],
        "own_task": [{name: dataclasses.asdict(e) for name, e in each.items()} for each in found.own],
        "warnings": found.warnings,
        "not_measured": found.not_measured,
        "runs": [{name: value for name, value in row.items() if name != "seconds"} for row in found.rows],
        "timing": {**found.timing, "runs": [row["seconds"] for row in found.rows]},
        "made": found.made,
    }
    return _plain(whole)


def _finding(found: Findings) -> dict[str, Any]:
    primary = [
        {
            "claim": f"compression {PRIMARY[each]}", "cost": each[0], "method": each[1], "verdict": judged.verdict,
            "p_adjusted": judged.p_adjusted, "detectable": judged.estimate.detectable(),
            **dataclasses.asdict(judged.estimate),
        }
        for each, judged in found.primary.items()
    ]  # fmt: skip
    return {
        "verdict": found.verdict,
        "primary": primary,
        "by_budget": [
            {"cost": c, "method": m, "budget": b, **dataclasses.asdict(e)} for (c, m, b), e in found.by_budget.items()
        ],
        "secondary": [{"cost": c, "method": m, **dataclasses.asdict(e)} for (c, m), e in found.secondary.items()],
        "levels": found.levels,
        "mapping_agreement": found.agreement,
        "left_out": found.left_out,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)


def command(found: Audit) -> str:
    """The command that measures the same again, whatever the time it takes."""
    options, design, given = found.options, found.design, Options("", ())
    parts = ["vpcore", "audit", "--dense", options.dense]
    for name in options.compressed:
        parts += ["--compressed", name]
    folders = {Path(name).name: name for name in options.tasks}
    parts += ["--tasks", ",".join(folders.get(name, name) for name in design.tasks)]
    parts += ["--shots", ",".join(map(str, design.shots)), "--seeds", str(len(design.seeds))]
    if options.data is not None:
        parts += ["--data", "DIR"]
    for name in ("model", "own_task", "margin", "canvas", "epochs", "lr", "test_images"):
        if getattr(options, name) != getattr(given, name):
            parts += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    if options.image_px is not None:
        parts += ["--px", str(options.image_px)]
    return shlex.join(parts)


def names_of(found: Audit) -> list[str]:
    """How the page calls the networks: the last part of a path, with a number where two are alike."""
    known = [short(each.name) for each in found.networks]
    return [f"{name} ({place})" if known.count(name) > 1 else name for place, name in enumerate(known)]


def points(e: Estimate, column: str = "") -> str:
    """An estimate in points with its interval, with a proper minus; a dash where there is none."""
    if not np.isfinite(e.mean):
        return "\N{EM DASH}"
    text = f"{e:.2f}" if column in NO_POINTS else f"{e.points():.1f}"
    return text.replace("-0.0 ", "0.0 ").replace("-", "\N{MINUS SIGN}")
