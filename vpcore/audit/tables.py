"""Tables of audits, of this one or of those that were kept: rows from their numbers, as `numbers.json` holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpcore.audit.findings import METHODS

Numbers = Mapping[str, Any]  # of one audit


def kept(folder: Path) -> dict[str, Numbers]:
    """The numbers of the audits that lie in a folder, by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))}


def claims(audits: Mapping[str, Numbers]) -> list[dict[str, object]]:
    """A row for each primary contrast that could be tested: name of the audit -> numbers."""
    return [
        {
            **({"audit": name} if name else {}),
            "network": short(network["name"]),
            "compression": claim["claim"].removeprefix("compression "),
            "verdict": claim["verdict"],
            "points": ", ".join(f"{100 * claim[end]:.1f}" for end in ("mean", "low", "high")).replace(", ", " (", 1) + ")",
            "detectable": "" if claim["detectable"] is None else f"{100 * claim['detectable']:.1f}",
        }
        for name, whole in audits.items()
        for network, finding in zip(whole["networks"][1:], whole["findings"], strict=True)
        for claim in finding["primary"]
        if claim["mean"] is not None
    ]


def networks(audits: Mapping[str, Numbers]) -> list[dict[str, object]]:
    """A row for each network: what it weighs, how it reads other tasks in the mean, and the verdict."""
    rows = []
    for name, whole in audits.items():
        verdicts = ["", *(finding["verdict"] for finding in whole["findings"])]
        for number, (network, verdict) in enumerate(zip(whole["networks"], verdicts, strict=True)):
            levels = whole["findings"][max(0, number - 1)]["levels"]
            end = f"accuracy_{int(number > 0)}"
            rows.append({
                **({"audit": name} if name else {}),
                "network": short(network["name"]),
                "weights": f"{network['weights']:,}",
                "not zero, %": f"{100 * network['weights_left'] / network['weights']:.1f}",
                "bits": network["bits"] or "?",
                "KiB": f"{network['bytes'] / 1024:,.0f}",
                **{f"{METHODS[m]}, %": f"{100 * found[end]:.1f}" for m, found in levels.items()},
                "verdict": verdict,
            })  # fmt: skip
    return rows


def short(name: str) -> str:
    """The last part of a network's name: of a path the file, of a function its own name.

    >>> short("mynets:pruned"), short("nets/pruned.pth"), short("resnet50@torchvision:IMAGENET1K_V2")
    ('pruned', 'pruned.pth', 'resnet50@torchvision:IMAGENET1K_V2')
    """
    last = name.rpartition("/")[2]
    return last if "@" in name else last.rpartition(":")[2]
