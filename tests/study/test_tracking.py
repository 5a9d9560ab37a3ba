"""Weights & Biases: what the library itself has written, and that nothing which goes wrong with it stops a study."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from vpcore.study.run import FACTS, Run, identity, run_id
from vpcore.study.tracking import Tracker

wandb = pytest.importorskip("wandb")
RUN = Run(method="vp", task="digits", budget=4, seed=3)
RECORD = {
    "id": run_id(RUN),
    **identity(RUN),
    "accuracy": 0.5,
    "ece": 0.25,
    "loss": [3.0, 2.0],
    "device": "cpu",
    "classes": ["a"],
}
BLOCK, HEADER = 32768, 7  # of the log format of LevelDB, in which the files are written


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone without an account."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def written(path: Path) -> Iterator[object]:
    """The records of an offline file."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = path.read_bytes(), HEADER, b""
    while place < len(content):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or its last part
            (record := Record()).ParseFromString(whole)
            yield record
            whole = b""


def test_offline_files_hold_config_summary_and_losses_apart(tmp_path: Path) -> None:
    Tracker("own", tmp_path).log((RECORD,))
    wandb.teardown()  # its process may write after `finish`
    (path,) = tmp_path.glob(f"wandb/offline-run-*-{RECORD['id']}/run-{RECORD['id']}.wandb")
    config, summary, losses, group = {}, {}, [], set()
    for record in written(path):
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        summary |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update}
        items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        losses += [(items["_step"], items["loss"])] if "loss" in items else []
        group |= {(record.run.project, record.run.run_group, record.run.job_type, record.run.run_id)} - {("",) * 4}
    assert group == {("vpcore", "own", "vp", RECORD["id"])}
    assert losses == [(0, 3.0), (1, 2.0)]
    asked = {name: value for name, value in RECORD.items() if name in FACTS and value is not None}
    assert {name: value for name, value in config.items() if name != "_wandb"} == {
        **asked,
        "id": RECORD["id"],
        "device": "cpu",
    }
    assert (summary["accuracy"], summary["ece"]) == (0.5, 0.25)
    assert not set(summary) & set(FACTS)


def test_what_was_there_before_is_mirrored_once_with_its_ticket_and_the_table(tmp_path: Path) -> None:
    other = {**RECORD, "id": "other", "seed": 4}
    (ticket := tmp_path / "t.safetensors").write_bytes(b"a ticket")
    tracker = Tracker("own", tmp_path, tickets={RECORD["id"]: ticket})
    tracker.log((RECORD,))
    tracker.catch_up([RECORD, other])
    Tracker("own", tmp_path).catch_up([RECORD, other])
    tracker.table(pd.DataFrame([RECORD, {**other, "ece": None}]))
    wandb.teardown()
    names = sorted(path.name.partition("-")[2] for path in tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert names == sorted(f"{name}.wandb" for name in (RECORD["id"], "other", "table-own"))
    (path,) = tmp_path.glob(f"wandb/offline-run-*/run-{RECORD['id']}.wandb")
    (artifact,) = [record.artifact for record in written(path) if record.HasField("artifact")]
    assert (artifact.name, artifact.type) == (f"ticket-{RECORD['id']}", "model")
    (kept,) = tmp_path.glob("wandb/offline-run-*/files/media/table/records_*.table.json")
    content = json.loads(kept.read_text())
    assert dict(zip(content["columns"], content["data"][1], strict=True))["seed"] == 4
    assert "loss" not in content["columns"]


@pytest.mark.parametrize(("mode", "error"), [("odd", "ValidationError"), ("online", "UsageError: No API key configured")])
def test_an_odd_mode_or_a_missing_key_stops_the_mirror_alone(
    mode: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    lines: list[str] = []
    tracker = Tracker("own", tmp_path, log=lines.append)
    tracker.log((RECORD,))
    tracker.log((RECORD,))
    assert len(lines) == 1
    assert lines[0].startswith(f"Weights & Biases: {error}")
    assert lines[0].endswith("the study goes on")


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_stops_the_mirror_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    lines: list[str] = []
    Tracker("own", tmp_path, log=lines.append).log((RECORD,))
    assert "CommError" in lines[0]
