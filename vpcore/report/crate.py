"""Metadata for machines: results/ro-crate-metadata.json, an RO-Crate made from the records themselves.

Every committed table and ticket is a File with its size and SHA-256; every table is the result of a CreateAction for each
commit that computed records of it: when, with which versions of which software, on which device.

Reference: Soiland-Reyes et al. 2022, Packaging research artefacts with RO-Crate.
"""

from __future__ import annotations

import json
from pathlib import Path

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from vpcore.data.digests import file_digest
from vpcore.files import write_atomically
from vpcore.report.cards import facts, tables, tickets
from vpcore.study.tables import read_table

NAME = "Re-examining the hidden cost of model compression: published results"
ABOUT = (
    "Records of vision networks that were compressed and adapted by visual prompting and linear probing, and some networks."
)
PAPER = "https://arxiv.org/abs/2308.14969"
PARQUET, SAFETENSORS = "application/vnd.apache.parquet", "application/octet-stream"


def described(results: Path) -> str:
    """The metadata of all committed files, as JSON; the same text for the same files."""
    crate = ROCrate()
    dates: list[str] = []
    for file in tables(results):
        table = read_table(file.path)
        name = file.path.relative_to(results).as_posix()
        entity = crate.add_file(dest_path=name, properties=_file(file.path, facts(file, table)["study"], PARQUET))
        entity["variableMeasured"] = ["accuracy", "expected calibration error", "negative log-likelihood"]
        for commit, mine in table.groupby("commit"):
            versions, devices = ("; ".join(sorted(mine[column].unique())) for column in ("versions", "device"))
            facts_of = {
                "@type": "CreateAction",
                "name": f"{len(mine)} of {len(table)} records of {name}",
                "endTime": mine["finished"].max(),
                "description": f"{versions}; on {devices}",
            }
            action = ContextEntity(crate, f"#{file.path.stem}-{commit}", facts_of)
            action["instrument"] = crate.add(_software(crate, str(commit)))
            action["result"] = entity
            crate.add(action)
        dates.append(str(table["finished"].max()))
    for path in tickets(results):
        name = path.relative_to(results).as_posix()
        crate.add_file(dest_path=name, properties=_file(path, f"network of round {int(path.stem[-2:])}", SAFETENSORS))
    crate.name, crate.description, crate.license = NAME, ABOUT, "https://spdx.org/licenses/MIT"
    crate.root_dataset["datePublished"] = max(dates)
    crate.root_dataset["about"] = crate.add(ContextEntity(crate, PAPER, {"@type": "ScholarlyArticle", "name": PAPER}))
    return json.dumps(crate.metadata.generate(), indent=1, sort_keys=True) + "\n"


def write(results: Path) -> None:
    """Write the metadata into the folder of the results."""
    write_atomically(results / "ro-crate-metadata.json", described(results))


def _file(path: Path, about: str, kind: str) -> dict[str, str]:
    size = str(path.stat().st_size)
    return {
        "name": path.name,
        "description": about,
        "contentSize": size,
        "encodingFormat": kind,
        "sha256": file_digest(path),
    }


def _software(crate: ROCrate, commit: str) -> ContextEntity:
    kind = {"@type": "SoftwareApplication", "name": "vpcore", "version": commit}
    return ContextEntity(crate, f"#vpcore-{commit}", kind)
