"""The numbers of an audit as JSON can hold them, and the command that gives them again."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from vpcore.audit.findings import EXIT, PRIMARY, Findings
from vpcore.audit.options import Options
from vpcore.audit.run import Audit
from vpcore.files import as_json


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
    return as_json(whole)


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


def command(found: Audit) -> str:
    """The command that measures the same again, whatever the time it takes."""
    options, design, given = found.options, found.design, Options("", ())
    folders = {Path(name).resolve().name: name for name in options.tasks}
    parts = ["vpcore", "audit", "--dense", options.dense]
    parts += [part for name in options.compressed for part in ("--compressed", name)]
    parts += ["--tasks", ",".join(folders.get(name, name) for name in design.tasks)]
    parts += ["--shots", ",".join(map(str, design.shots)), "--seeds", str(len(design.seeds))]
    parts += ["--data", "DIR"] if options.data is not None else []
    for name in ("model", "own_task", "margin", "canvas", "image_px", "epochs", "lr", "test_images"):
        if (value := getattr(options, name)) != getattr(given, name):
            parts += ["--px" if name == "image_px" else f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(parts)
