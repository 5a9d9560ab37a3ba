"""Editions: which verdicts have changed since the book was last published, from the numbers of both.

    results/editions/NAME.json      an edition: its name, when it was kept, and every verdict with its interval

An edition is kept when it is published (`vpcore edition`); the next one is compared with it, claim by claim.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from vpcore.errors import InputError
from vpcore.files import write_atomically
from vpcore.report.prose import tidy
from vpcore.study.provenance import now, versions

ENDS = ["points", "low", "high"]


class Edition(NamedTuple):
    """A name, the time at which it was kept, and the table of `overview.found`."""

    name: str
    kept: str
    verdicts: pd.DataFrame


def keep(verdicts: pd.DataFrame, name: str, folder: Path) -> Path:
    """Write the verdicts of an edition to FOLDER/NAME.json.

    Args:
        verdicts: of `overview.found`.
        name: of the edition, such as a version.
        folder: of all editions.

    Raises:
        InputError: when there are no verdicts.
    """
    if verdicts.empty:
        raise InputError("`verdicts` must hold at least one, got none; build the book first: jupyter-book build book/")
    rows = verdicts.round(dict.fromkeys([*ENDS, "margin"], 4)).to_dict("records")
    content = {"edition": name, "kept": now(), "verdicts": rows}
    write_atomically(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    return folder / f"{name}.json"


def last(folder: Path, *, before: str) -> Edition | None:
    """The edition that was kept last, other than the one named `before`; None where there is none."""
    read = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    found = [Edition(one["edition"], one["kept"], pd.DataFrame(one["verdicts"])) for one in read]
    return max((one for one in found if one.name != before), key=lambda one: one.kept, default=None)


def changes(then: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Two editions side by side, one row a claim and study of either.

    Args:
        then, now: as `overview.found` gives them.

    Returns:
        Columns claim, study, `then` and `now` (the verdict with its points, "" where it is not tested), and `changed`: "no",
        "verdict", "new" or "gone".

    >>> row = {"claim": "C1", "study": "letters", "points": 2.0, "low": 1.0, "high": 3.0, "verdict": "supported"}
    >>> changes(pd.DataFrame([row]), pd.DataFrame([row | {"verdict": "inconclusive", "low": -0.04}])).iloc[0].to_dict()
    {'claim': 'C1', 'study': 'letters', 'then': 'supported, 2.0 (1.0 to 3.0)', 'now': 'inconclusive, 2.0 (0.0 to 3.0)', 'changed': 'verdict'}
    """  # noqa: E501 what comes out is one line
    told = [dict(zip(_key(one), zip(one["verdict"], _told(one), strict=True), strict=True)) for one in (then, now)]
    rows = []
    for key in sorted(told[0].keys() | told[1].keys()):
        (before, text_before), (after, text_after) = (one.get(key, ("", "")) for one in told)
        changed = "new" if not before else "gone" if not after else "verdict" if before != after else "no"
        rows.append({"claim": key[0], "study": key[1], "then": text_before, "now": text_after, "changed": changed})
    return pd.DataFrame(rows, columns=["claim", "study", "then", "now", "changed"])


def write(verdicts: pd.DataFrame, folder: Path, output: Path) -> None:
    """Write `changes` since the last edition, changes.csv, and their numbers for the prose, numbers.json; not if they stand.

    Args:
        verdicts: of `overview.found`.
        folder: of all editions.
        output: where to write.
    """
    edition = last(folder, before=versions()["vpcore"]) or Edition("none", "", verdicts[:0])
    table = changes(edition.verdicts.reindex(columns=verdicts.columns), verdicts)
    counts = {name: int((table["changed"] == name).sum()) for name in ("verdict", "new", "gone")}
    numbers = {"edition": edition.name, "kept": edition.kept[:10] or "never", "compared": len(table), **counts}
    content = {"changes.csv": table.to_csv(index=False), "numbers.json": json.dumps({"numbers": numbers}, indent=1)}
    for name, text in content.items():
        if not (output / name).exists() or (output / name).read_text() != text:
            write_atomically(output / name, text)


def _key(verdicts: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(verdicts["claim"], verdicts["study"], strict=True))


def _told(verdicts: pd.DataFrame) -> list[str]:
    return [
        "{verdict}, {points} ({low} to {high})".format(verdict=row["verdict"], **{e: tidy(f"{row[e]:.1f}") for e in ENDS})
        for row in verdicts.to_dict("records")
    ]
