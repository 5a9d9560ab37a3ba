"""Tables of audits, of this one or of those that were kept: rows from their numbers, as `numbers.json` holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpcore.audit.findings import METHODS, NO_POINTS, SECONDARY

Numbers = Mapping[str, Any]  # of one audit
NOTHING = "\N{EM DASH}"


def kept(folder: Path) -> dict[str, Numbers]:
    """The numbers of the audits that lie in a folder, by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))}


def claims(audits: Mapping[str, Numbers]) -> list[dict[str, object]]:
    """A row for each primary contrast that could be tested: name of the audit -> numbers."""
    return [
        {
            **({"audit": name} if name else {}),
            "network": network,
            "compression": claim["claim"].removeprefix("compression "),
            "verdict": claim["verdict"],
            "points": points(claim),
            "detectable": "" if claim["detectable"] is None else f"{100 * claim['detectable']:.1f}",
        }
        for name, whole in audits.items()
        for network, finding in zip(labels(whole)[1:], whole["findings"], strict=True)
        for claim in finding["primary"]
        if claim["mean"] is not None
    ]


def networks(audits: Mapping[str, Numbers]) -> list[dict[str, object]]:
    """A row for each network: what it weighs and computes, how it reads other tasks in the mean, and the verdict."""
    rows = []
    for name, whole in audits.items():
        verdicts = ["", *(finding["verdict"] for finding in whole["findings"])]
        for number, (label, network) in enumerate(zip(labels(whole), whole["networks"], strict=True)):
            levels = whole["findings"][max(0, number - 1)]["levels"]
            end = f"accuracy_{int(number > 0)}"
            rows.append({
                **({"audit": name} if name else {}),
                "network": label,
                "weights": f"{network['weights']:,}",
                "not zero, %": f"{100 * network['weights_left'] / network['weights']:.1f}",
                "bits": network["bits"] or "?",
                "KiB": f"{network['bytes'] / 1024:,.0f}",
                "multiplications": _count(network["multiplications"]),
                "by weights not zero": _count(network["multiplications_left"]),
                **{f"{METHODS[m]}, %": f"{100 * found[end]:.1f}" for m, found in levels.items()},
                "verdict": verdicts[number],
            })  # fmt: skip
    return rows


def costs(finding: Numbers) -> list[dict[str, object]]:
    """A row for each cost of one compressed network, of `SECONDARY` and by budget, with a column for each method."""
    found: dict[str, dict[str, object]] = {}
    for each in (*finding["secondary"], *finding["by_budget"]):
        column = each["cost"]
        shots = f", with {counted(each['budget'], 'image')} a class" if "budget" in each else ""
        label = f"{SECONDARY[column]}{shots}{'' if column in NO_POINTS else ', points'}"
        found.setdefault(label, {"cost (95 % interval)": label})[METHODS[each["method"]]] = points(each)
    order = [f"{label}{'' if column in NO_POINTS else ', points'}" for column, label in SECONDARY.items()]
    rows = [found[label] for label in sorted(found, key=lambda label: order.index(label) if label in order else len(order))]
    if finding["mapping_agreement"] is not None:
        agree = f"{finding['mapping_agreement']:.0%}"
        rows.append({"cost (95 % interval)": "label mappings that agree", METHODS["vp"]: agree})
    return rows


def points(e: Numbers) -> str:
    """An estimate in points with its interval, with a proper minus; a dash where there is none.

    >>> points({"cost": "ece_rise", "mean": -0.01, "low": -0.02, "high": 0.0})
    '−1.0 (−2.0 to 0.0)'
    """
    if e["mean"] is None:
        return NOTHING
    factor, digits = (1, 2) if e.get("cost") in NO_POINTS else (100, 1)
    mean, low, high = (f"{factor * e[end]:z.{digits}f}" for end in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})".replace("-", "\N{MINUS SIGN}")


def labels(whole: Numbers) -> list[str]:
    """How tables call the networks of an audit: the last part of a path, with a number where two are alike."""
    known = [short(network["name"]) for network in whole["networks"]]
    return [f"{name} ({place})" if known.count(name) > 1 else name for place, name in enumerate(known)]


def short(name: str) -> str:
    """The last part of a network's name: of a path the file, of a function its own name.

    >>> short("mynets:pruned"), short("nets/pruned.pth"), short("resnet50@torchvision:IMAGENET1K_V2")
    ('pruned', 'pruned.pth', 'resnet50@torchvision:IMAGENET1K_V2')
    """
    last = name.rpartition("/")[2]
    return last if "@" in name else last.rpartition(":")[2]


def counted(count: int, word: str) -> str:
    """So many of something.

    >>> counted(1, "task"), counted(3, "task")
    ('1 task', '3 tasks')
    """
    return f"{count} {word}{'s' * (count != 1)}"


def _count(value: float | None) -> str:
    """A large number with three digits; "?" for one that is not known."""
    if value is None:
        return "?"
    size, unit = next((pair for pair in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if value >= pair[0]), (1, ""))
    return f"{value / size:.3g}{unit}"
