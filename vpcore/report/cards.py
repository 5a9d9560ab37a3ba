"""Cards: what each committed file of results is, from its own records; results/README.md.

A card says what was measured, how often, by which code and on what, how large the file is, and its SHA-256, so that it can
be used without its makers. The same facts, for machines, are `crate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from vpcore.data.digests import file_digest
from vpcore.study.profile import load_profile
from vpcore.study.tables import read_table
from vpcore.weights.tickets import read_ticket

HEAD = """# Published results

Every table has one record a row: a run with its settings, its measurements, and the code, versions and machine that it was
computed by. `vpcore.study.run.Run` explains the settings, `vpcore.calibration.all_metrics` the measurements. This file and
`ro-crate-metadata.json`, which says the same for machines (RO-Crate), are written by `vpcore edition`. All are under the
licence of the project; they hold no images.

```python
import pandas as pd

table = pd.read_parquet("results/small.parquet")  # a record a row
```
"""
SETTINGS = ("source", "model", "weights", "sparsifier", "weight_bits", "method", "task", "budget", "prompt", "mapping")


class File(NamedTuple):
    """A committed file of records, and the profile whose study it is."""

    path: Path
    profile: str


def tables(results: Path) -> list[File]:
    """The published tables and the parts of those that are not whole yet, and our run of mini."""
    found = [File(path, path.stem) for path in sorted(results.glob("*.parquet")) if path.stem != "mini"]
    found += [File(path, path.parent.name) for path in sorted(results.glob("parts/*/[0-9][0-9][0-9].parquet"))]
    return found + [File(path, path.stem) for path in sorted(results.glob("reference/*.parquet"))]


def tickets(results: Path) -> list[Path]:
    """The networks that are committed."""
    return sorted(results.glob("reference/tickets/*/*.safetensors"))


def facts(file: File, table: pd.DataFrame) -> dict[str, str]:
    """What a card says of a file and the table that it holds, name -> text."""
    several = {name: table[name].dropna().unique() for name in SETTINGS if name in table}
    varied = {name: ", ".join(map(str, sorted(values))) for name, values in several.items() if len(values)}
    density = sorted({float(f"{100 * value:.3g}") for value in table["density"].dropna()}, reverse=True)
    return {
        "study": load_profile(file.profile).title,
        "records": f"{len(table):,}",
        **varied,
        "weights kept, %": ", ".join(f"{value:g}" for value in density[:12]) + ", ..." * (len(density) > 12),
        "seeds": ", ".join(map(str, sorted(table["seed"].unique()))),
        "chains": ", ".join(map(str, sorted(table["source_seed"].unique()))),
        "computed by": "commit " + ", ".join(sorted(table["commit"].unique())),
        "computed on": ", ".join(sorted(table["device"].unique())),
        "computed": f"{table['finished'].min()[:10]} to {table['finished'].max()[:10]}",
        "versions": "; ".join(sorted(table["versions"].unique())),
        "made by": f"`vpcore run --profile {file.profile}`, then `vpcore publish --profile {file.profile}`",
        "file": f"{file.path.stat().st_size:,} bytes, SHA-256 `{file_digest(file.path)}`",
    }


def text(results: Path) -> str:
    """The cards of all tables and tickets, as Markdown."""
    parts = [HEAD]
    for file in tables(results):
        rows = _rows(("", ""), facts(file, read_table(file.path)).items())
        parts.append(f"## {file.path.relative_to(results).as_posix()}\n\n{rows}\n")
    return "\n".join([*parts, _of_tickets(results)])


def _of_tickets(results: Path) -> str:
    lines = []
    for path in tickets(results):
        _, masks, _ = read_ticket(path)
        kept = sum(int(mask.sum()) for mask in masks.values()) / (sum(mask.numel() for mask in masks.values()) or 1)
        name = f"`{path.relative_to(results).as_posix()}`"
        lines.append((name, f"{100 * kept if masks else 100:.3g}", f"{path.stat().st_size:,}", f"`{file_digest(path)}`"))
    told = "Networks, with a bit a weight for its mask and the weights that are left: `vpcore.load_ticket_(path, model)`."
    return f"## Tickets\n\n{told}\n\n{_rows(('ticket', 'weights kept, %', 'bytes', 'SHA-256'), lines)}\n"


def _rows(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *lines))
