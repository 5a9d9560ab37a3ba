"""What is said of the published results is what they hold."""

import json
from pathlib import Path

import pandas as pd
import pytest

from vpcore.data.digests import file_digest
from vpcore.report import cards

RESULTS = Path(__file__).parents[2] / "results"


def test_every_committed_table_and_ticket_has_its_card() -> None:
    text = (RESULTS / "README.md").read_text()
    for file in cards.tables(RESULTS):
        assert f"## {file.path.relative_to(RESULTS).as_posix()}\n" in text
        assert file_digest(file.path) in text, f"{file.path.name} has changed; use: vpcore edition"
    for path in cards.tickets(RESULTS):
        assert file_digest(path) in text


@pytest.mark.slow
def test_cards_and_metadata_are_made_from_the_records() -> None:
    crate = pytest.importorskip("vpcore.report.crate")
    assert (RESULTS / "README.md").read_text() == cards.text(RESULTS), "use: vpcore edition"
    assert (RESULTS / "ro-crate-metadata.json").read_text() == crate.described(RESULTS), "use: vpcore edition"


def test_the_metadata_account_for_every_record() -> None:
    graph = {entity["@id"]: entity for entity in json.loads((RESULTS / "ro-crate-metadata.json").read_text())["@graph"]}
    for file in cards.tables(RESULTS):
        name = file.path.relative_to(RESULTS).as_posix()
        assert graph[name]["sha256"] == file_digest(file.path)
        actions = [e for e in graph.values() if e["@type"] == "CreateAction" and e["result"]["@id"] == name]
        assert sum(int(action["name"].split()[0]) for action in actions) == len(pd.read_parquet(file.path, columns=["id"]))
        assert {graph[action["instrument"]["@id"]]["version"] for action in actions} == set(
            pd.read_parquet(file.path, columns=["commit"])["commit"]
        )
