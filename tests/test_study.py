"""The store and the execution of a study."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from vpcore import InputError, calibration, measurements
from vpcore.runs import Profile, Run, run_id, source_run
from vpcore.store import Store
from vpcore.study import execute, jobs
from vpcore.tickets import load_ticket, ticket_path


def finish(runs: tuple[Run, ...], store: Store, cpu: torch.device) -> list:
    return list(execute(runs, store, device=cpu))


def test_a_study_leaves_one_record_a_run_and_is_not_computed_twice(tiny: Profile, store: Store, cpu: torch.device) -> None:
    done = finish(tiny.runs, store, cpu)
    assert [d.error for d in done] == [None] * len(done)
    assert done[-1].left == 0
    table = store.table(tiny.runs)
    assert table["id"].tolist() == [run_id(run) for run in tiny.runs]
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    assert jobs(tiny.runs, store) == []
    assert finish(tiny.runs, store, cpu) == []
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before


def test_records_describe_themselves_and_follow_from_the_predictions(tiny: Profile, store: Store, cpu: torch.device) -> None:
    finish(tiny.runs, store, cpu)
    for run in tiny.runs:
        record = json.loads(store.record_path(run).read_text())
        arrays = store.arrays(run)
        for prefix in ("", "val_"):
            again = calibration.metrics(arrays[f"{prefix}logits"], arrays[f"{prefix}labels"])
            assert {name: record[prefix + name] for name in again} == again
        for name in ("commit", "versions", "device", "seconds", "finished", "density", "seed", "task", "method"):
            assert record[name] is not None
        if run.method == "vp":
            assert arrays["program"].shape == (3, 32, 32)
            assert len(set(record["mapping"])) == 10
        if run.method != "source":
            assert record["train_images"] == len(arrays["index"]) == 10


def test_dense_and_pruned_are_paired(tiny: Profile, store: Store, cpu: torch.device) -> None:
    finish(tiny.runs, store, cpu)
    for run in tiny.runs:
        if run.method != "source" and run.round:
            twin = dataclasses.replace(run, round=0)
            assert torch.equal(store.arrays(run)["index"], store.arrays(twin)["index"])
            assert torch.equal(store.arrays(run)["labels"], store.arrays(twin)["labels"])
    assert not torch.equal(*(store.arrays(r)["index"] for r in tiny.runs if r.method == "vp" and r.round == 0))


def test_repeating_a_run_gives_the_same_numbers(tiny: Profile, store: Store, cpu: torch.device) -> None:
    finish(tiny.runs, store, cpu)
    before = store.table(tiny.runs)
    for path in [*(store.root / "records").glob("*.json"), *store.root.glob("tickets/*/*")]:
        path.unlink()
    finish(tiny.runs, store, cpu)
    after = store.table(tiny.runs)
    same = [name for name in before.columns if name not in ("seconds", "finished")]
    pd.testing.assert_frame_equal(before[same], after[same])


def test_seeds_may_be_computed_one_at_a_time(tiny: Profile, store: Store, cpu: torch.device, tmp_path: Path) -> None:
    """A cohort gives its members the results that they have alone, so a study may be extended by a seed."""
    finish(tiny.runs, store, cpu)
    other = Store(tmp_path / "other", "tiny")
    other.cache = store.cache
    for seed in (0, 1):
        finish(tuple(run for run in tiny.runs if run.seed == seed), other, cpu)
    for run in tiny.runs:
        torch.testing.assert_close(store.arrays(run)["logits"], other.arrays(run)["logits"], rtol=1e-3, atol=1e-3)


def test_a_failed_run_is_reported_and_does_not_stop_the_others(
    tiny: Profile, store: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = measurements.transfer.linear_probe

    def fail(*args: object, **settings: object) -> object:
        raise RuntimeError("no luck")

    monkeypatch.setattr(measurements.transfer, "linear_probe", fail)
    done = finish(tiny.runs, store, cpu)
    failed = [d for d in done if d.error is not None]
    assert {d.job.kind for d in failed} == {"lp"}
    assert len(store.table(tiny.runs)) == len([r for r in tiny.runs if r.method != "lp"])
    texts = [path.read_text() for path in (store.root / "failed").glob("*.txt")]
    assert len(texts) == 4
    assert all("no luck" in text and "Traceback" in text for text in texts)
    monkeypatch.setattr(measurements.transfer, "linear_probe", real)
    finish(tiny.runs, store, cpu)
    assert len(store.table(tiny.runs)) == len(tiny.runs)
    assert not list((store.root / "failed").glob("*"))


def test_a_broken_ticket_fails_what_needs_it_with_a_reason(tiny: Profile, store: Store, cpu: torch.device) -> None:
    runs = tuple(dataclasses.replace(run, source_lr=1e20) for run in tiny.runs)
    done = finish(runs, store, cpu)
    assert all(isinstance(d.error, InputError) for d in done)
    assert "loss must be a finite number" in str(done[0].error)
    assert all("needs the ticket of round 0, whose training failed" in str(d.error) for d in done[1:])
    assert not (store.root / "predictions").exists()
    assert not list(store.root.glob("tickets/*/round*"))


def test_a_damaged_ticket_is_named(tiny: Profile, store: Store, cpu: torch.device) -> None:
    sources = tuple(run for run in tiny.runs if run.method == "source")
    finish(sources, store, cpu)
    path = ticket_path(store.ticket_folder(sources[1]), 1)
    path.write_bytes(path.read_bytes()[:-1000])
    errors = [str(d.error) for d in finish(tiny.runs, store, cpu) if d.error]
    assert errors
    assert all("round-01.safetensors must be a ticket file" in error for error in errors)


def test_a_lost_ticket_is_trained_again_only_if_it_is_needed(tiny: Profile, store: Store, cpu: torch.device) -> None:
    finish(tiny.runs, store, cpu)
    folder = store.ticket_folder(tiny.runs[0])
    before = load_ticket(ticket_path(folder, 1))[0]
    ticket_path(folder, 1).unlink()
    assert jobs(tiny.runs, store) == []
    store.record_path(next(r for r in tiny.runs if r.method == "vp" and r.round == 1)).unlink()
    assert [(job.kind, job.runs[0].round) for job in jobs(tiny.runs, store)] == [("source", 1), ("vp", 1)]
    dense = ticket_path(folder, 0).rename(folder / "aside")
    assert [(job.kind, job.runs[0].round) for job in jobs(tiny.runs, store)] == [("source", 0), ("source", 1), ("vp", 1)]
    dense.rename(ticket_path(folder, 0))
    finish(tiny.runs, store, cpu)
    after = load_ticket(ticket_path(folder, 1))[0]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_density_of_a_record_is_measured(tiny: Profile, store: Store, cpu: torch.device) -> None:
    finish(tiny.runs, store, cpu)
    table = store.table(tiny.runs)
    assert table.groupby("round")["density"].unique().map(list).to_dict() == {0: [1.0], 1: [pytest.approx(0.5, abs=1e-5)]}


def test_a_damaged_record_is_named(tiny: Profile, store: Store, cpu: torch.device) -> None:
    finish(tiny.runs[:1], store, cpu)
    path = store.record_path(tiny.runs[0])
    path.write_text(path.read_text()[:50])
    with pytest.raises(InputError, match=r"the record .*\.json is damaged .* delete it"):
        store.table()


def test_a_published_table_is_read_like_records(tiny: Profile, store: Store, cpu: torch.device) -> None:
    finish(tiny.runs, store, cpu)
    before = store.table(tiny.runs)
    path = store.publish(tiny.runs)
    assert path.name == "tiny.parquet"
    clone = Store(store.results, "tiny")
    for record in (store.root / "records").glob("*.json"):
        record.unlink()
    assert jobs(tiny.runs, clone) == []
    pd.testing.assert_frame_equal(clone.table(tiny.runs), before, check_dtype=False)
    path.write_bytes(b"rubbish")
    with pytest.raises(InputError, match="published table .* is damaged"):
        Store(store.results, "tiny").table()


def test_nothing_to_publish(tiny: Profile, store: Store) -> None:
    with pytest.raises(InputError, match="no records of tiny in .* to publish; use: vpcore run --profile tiny"):
        store.publish(tiny.runs)


def test_a_full_disk_stops_everything_and_leaves_nothing_half_written(
    tiny: Profile, store: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    finish(tiny.runs[:1], store, cpu)
    before = {path for path in store.root.rglob("*") if path.is_file()}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError, match=r"cannot write .* \(No space left on device\); .* name another folder with --results"
    ):
        finish(tiny.runs, store, cpu)
    assert {path for path in store.root.rglob("*") if path.is_file()} == before


def test_a_folder_that_cannot_be_made(tiny: Profile, tmp_path: Path, cpu: torch.device) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write .*file/results"):
        finish(tiny.runs, Store(tmp_path / "file" / "results", "tiny"), cpu)


@pytest.mark.parametrize(("name", "value"), [("model", "resnet9"), ("precision", "fp16"), ("augment", "flip")])
def test_unknown_names_are_refused_before_anything_is_computed(
    tiny: Profile, store: Store, cpu: torch.device, name: str, value: str
) -> None:
    with pytest.raises(InputError, match=f"unknown {name} '{value}'"):
        finish(tuple(dataclasses.replace(run, **{name: value}) for run in tiny.runs), store, cpu)
    assert not store.root.exists()


def test_unknown_tasks_are_refused_before_anything_is_computed(tiny: Profile, store: Store, cpu: torch.device) -> None:
    runs = (source_run(tiny.runs[0]), dataclasses.replace(tiny.runs[1], task="cifar10"))
    with pytest.raises(InputError, match="'cifar10' is not built in"):
        finish(runs, store, cpu)
    assert not store.root.exists()
