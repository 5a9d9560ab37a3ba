"""The store and the execution of a study."""

import dataclasses
import errno
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from vpcore import InputError
from vpcore.calibration.all_metrics import metrics
from vpcore.networks.backbones import build
from vpcore.quantization.layers import layer_bits
from vpcore.study import adaptation, outcomes
from vpcore.study import session as sessions
from vpcore.study import store as store_module
from vpcore.study.chains import make_ticket
from vpcore.study.execution import execute
from vpcore.study.jobs import jobs
from vpcore.study.profile import Profile
from vpcore.study.provenance import provenance
from vpcore.study.run import Run, chain_id, run_id, source_run, ticket_run
from vpcore.study.session import Session
from vpcore.study.store import Store
from vpcore.weights.tickets import read_ticket, ticket_digest, write_ticket


def finish(runs: tuple[Run, ...], store: Store, cpu: torch.device) -> list:
    return list(execute(runs, store, device=cpu))


def test_a_study_leaves_one_record_a_run_and_is_not_computed_twice(tiny: Profile, store: Store, cpu: torch.device) -> None:
    done = finish(tiny.runs, store, cpu)
    assert [d.error for d in done] == [None] * len(done)
    assert [d.number for d in done] == list(range(1, done[-1].total + 1))
    table = store.table(tiny.runs)
    assert table["id"].tolist() == [run_id(run) for run in tiny.runs]
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    assert jobs(tiny.runs, store) == []
    assert finish(tiny.runs, store, cpu) == []
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("finished")
def test_records_describe_themselves_and_follow_from_the_predictions(tiny: Profile, store: Store, cpu: torch.device) -> None:
    for run in tiny.runs:
        record = store.table((run,)).iloc[0]
        arrays = store.arrays(run)
        for prefix in ("", "val_"):
            again = metrics(arrays[f"{prefix}logits"], arrays[f"{prefix}labels"])
            assert {name: record[prefix + name] for name in again} == again
        for name in ("commit", "versions", "device", "seconds", "finished", "density", "seed", "task", "method"):
            assert record[name] is not None
        if run.method == "vp":
            assert arrays["program"].shape == (3, 32, 32)
            assert len(set(record["mapped"])) == 10
        if run.method == "source":
            _, _, header = read_ticket(store.ticket_path(run))
            assert header["commit"] == record["commit"]
            assert header["started"] <= record["finished"]
        else:
            assert record["train_images"] == len(arrays["index"]) == 10


@pytest.mark.usefixtures("finished")
def test_dense_and_pruned_are_paired(tiny: Profile, store: Store, cpu: torch.device) -> None:
    for run in tiny.runs:
        if run.method != "source" and run.round:
            twin = dataclasses.replace(run, round=0)
            assert torch.equal(store.arrays(run)["index"], store.arrays(twin)["index"])
            assert torch.equal(store.arrays(run)["labels"], store.arrays(twin)["labels"])
    assert not torch.equal(*(store.arrays(r)["index"] for r in tiny.runs if r.method == "vp" and r.round == 0))


@pytest.mark.usefixtures("finished")
def test_repeating_a_run_gives_the_same_numbers(tiny: Profile, store: Store, cpu: torch.device) -> None:
    before = store.table(tiny.runs)
    for path in [*(store.root / "records").glob("*.json"), *(store.results / "tickets").glob("*/*")]:
        path.unlink()
    finish(tiny.runs, store, cpu)
    after = store.table(tiny.runs)
    same = [name for name in before.columns if name not in ("seconds", "finished")]
    pd.testing.assert_frame_equal(before[same], after[same])


@pytest.mark.usefixtures("finished")
def test_seeds_may_be_computed_one_at_a_time(tiny: Profile, store: Store, cpu: torch.device, tmp_path: Path) -> None:
    """A cohort gives its members the results that they have alone, so a study may be extended by a seed."""
    other = Store(tmp_path / "other", "tiny")
    other.cache = store.cache
    for seed in (0, 1):
        finish(tuple(run for run in tiny.runs if run.seed == seed), other, cpu)
    for run in tiny.runs:
        torch.testing.assert_close(store.arrays(run)["logits"], other.arrays(run)["logits"], rtol=1e-3, atol=1e-3)


def test_a_failed_run_is_reported_and_does_not_stop_the_others(
    tiny: Profile, store: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tuple(run for run in tiny.runs if run.round == 0)
    real = adaptation.probe_features

    def fail(*args: object, **settings: object) -> object:
        raise RuntimeError("no luck")

    monkeypatch.setattr(adaptation, "probe_features", fail)
    done = finish(runs, store, cpu)
    failed = [d for d in done if d.error is not None]
    assert {d.job.kind for d in failed} == {"lp"}
    assert len(store.table(runs)) == len([r for r in runs if r.method != "lp"])
    texts = [path.read_text() for path in (store.root / "failed").glob("*.txt")]
    assert len(texts) == 2
    assert all("no luck" in text and "Traceback" in text for text in texts)
    monkeypatch.setattr(adaptation, "probe_features", real)
    finish(runs, store, cpu)
    assert len(store.table(runs)) == len(runs)
    assert not list((store.root / "failed").glob("*"))


def test_a_broken_ticket_fails_what_needs_it_with_a_reason(tiny: Profile, store: Store, cpu: torch.device) -> None:
    runs = tuple(dataclasses.replace(run, source_lr=1e20) for run in tiny.runs)
    done = finish(runs, store, cpu)
    assert all(isinstance(d.error, InputError) for d in done)
    assert "loss must be a finite number" in str(done[0].error)
    assert all(
        re.search(r"needs the ticket of round [01] .* on glyphs, which could not be made", str(d.error)) for d in done[1:]
    )
    assert not (store.root / "predictions").exists()
    assert not list((store.results / "tickets").glob("*/round*.safetensors"))


def test_a_damaged_ticket_is_named(tiny: Profile, store: Store, cpu: torch.device) -> None:
    sources = tuple(run for run in tiny.runs if run.method == "source")
    finish(sources, store, cpu)
    path = store.ticket_path(sources[1])
    path.write_bytes(path.read_bytes()[:-1000])
    errors = [str(d.error) for d in finish(tiny.runs, store, cpu) if d.error]
    assert errors
    assert all("round-01.safetensors must be a ticket file" in error for error in errors)


@pytest.mark.usefixtures("finished")
def test_a_lost_ticket_is_trained_again_only_if_it_is_needed(tiny: Profile, store: Store, cpu: torch.device) -> None:
    sparse = next(r for r in tiny.runs if r.method == "vp" and r.round == 1)
    path, dense = store.ticket_path(sparse), store.ticket_path(dataclasses.replace(sparse, round=0))
    before = read_ticket(path)[0]
    path.unlink()
    assert jobs(tiny.runs, store) == []
    store.record_path(sparse).unlink()
    assert [(job.kind, job.runs[0].round) for job in jobs(tiny.runs, store)] == [("ticket", 1), ("vp", 1)]
    aside = dense.rename(dense.with_name("aside"))
    assert [(job.kind, job.runs[0].round) for job in jobs(tiny.runs, store)] == [("ticket", 0), ("ticket", 1), ("vp", 1)]
    aside.rename(dense)
    finish(tiny.runs, store, cpu)
    after = read_ticket(path)[0]
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.usefixtures("finished")
def test_the_density_of_a_record_is_measured(tiny: Profile, store: Store, cpu: torch.device) -> None:
    table = store.table(tiny.runs)
    assert table.groupby("round")["density"].unique().map(list).to_dict() == {0: [1.0], 1: [pytest.approx(0.5, abs=1e-5)]}


@pytest.mark.usefixtures("finished")
def test_the_density_of_a_record_is_that_of_the_weights(tiny: Profile, store: Store, cpu: torch.device) -> None:
    """Not that of the schedule or the masks: training may leave weights that are kept at zero."""
    sparse = tuple(run for run in tiny.runs if run.round == 1)
    path = store.ticket_path(sparse[0])
    state, masks, header = read_ticket(path)
    for name, value in state.items():
        if name in masks:
            value[::2] = 0
    write_ticket(path, state, masks, header=header)
    for run in sparse:
        store.record_path(run).unlink(missing_ok=True)  # two seeds have one file
    finish(tiny.runs, store, cpu)
    kept = {name: int(state[name].count_nonzero()) for name in masks}
    density = sum(kept.values()) / sum(mask.numel() for mask in masks.values())
    assert 0.2 < density < 0.3
    table = store.table(sparse)
    assert table["density"].tolist() == pytest.approx([density] * len(sparse))
    source = table[table["method"] == "source"].iloc[0]
    shares = [kept[name] / masks[name].numel() for name in source["layer"]]
    assert source["layer_density"] == pytest.approx(shares)


def test_a_damaged_record_is_computed_again(tiny: Profile, store: Store, cpu: torch.device) -> None:
    finish(tiny.runs[:1], store, cpu)
    before = store.table(tiny.runs[:1])
    path = store.record_path(tiny.runs[0])
    path.write_text(path.read_text()[:50])
    with pytest.warns(UserWarning, match=r"the record .*\.json is damaged"):
        assert len(finish(tiny.runs[:1], store, cpu)) == 1
    same = [name for name in before.columns if name not in ("seconds", "finished")]
    pd.testing.assert_frame_equal(before[same], store.table(tiny.runs[:1])[same])


@pytest.mark.usefixtures("finished")
def test_a_published_table_is_read_like_records(tiny: Profile, store: Store, cpu: torch.device) -> None:
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


def test_too_few_images_are_named_by_the_fields_of_a_run(store: Store, cpu: torch.device) -> None:
    run = Run(source_per_class=1, source_epochs=1, source_batch=64)
    with pytest.raises(InputError, match="`source_batch` must be at most .* glyphs, 48 with `source_per_class` 1; got 64"):
        make_ticket(run, Session(store, cpu))


def test_unknown_tasks_are_refused_before_anything_is_computed(tiny: Profile, store: Store, cpu: torch.device) -> None:
    runs = (source_run(tiny.runs[0]), dataclasses.replace(tiny.runs[1], task="cifar10"))
    with pytest.raises(InputError, match="'cifar10' is not built in"):
        finish(runs, store, cpu)
    assert not store.root.exists()


WAY = Run(source_per_class=4, source_epochs=2, test_per_class=4, round=2, sparsifier="reinit")


def test_tickets_come_before_what_starts_from_them(store: Store) -> None:
    """`reinit` of round 2 needs the ticket of round 2, which needs those before it; nobody asked for them."""
    todo = jobs((source_run(WAY),), store)
    assert [(job.runs[0].sparsifier, job.runs[0].round) for job in todo] == [
        ("imp", 0),
        ("imp", 1),
        ("imp", 2),
        ("reinit", 2),
    ]


def test_all_ways_share_the_dense_network(store: Store) -> None:
    dense = {store.ticket_path(dataclasses.replace(WAY, sparsifier=way, round=0)) for way in ("imp", "gmp", "reinit")}
    assert len(dense) == 1
    assert len({chain_id(dataclasses.replace(WAY, sparsifier=way)) for way in ("imp", "gmp", "reinit")}) == 3


def test_a_quantized_network_is_measured_from_the_ticket_of_the_float_one(store: Store, cpu: torch.device) -> None:
    run = dataclasses.replace(
        WAY, sparsifier="imp", round=0, weight_bits=2, activation_bits=4, method="lp", task="shapes", budget=1, epochs=2
    )
    done = finish((source_run(run), run), store, cpu)
    assert [d.error for d in done] == [None] * 3
    assert [d.job.kind for d in done] == ["ticket", "source", "lp"]
    assert len(list((store.results / "tickets").glob("*/round*.safetensors"))) == 1
    float_run, bits_run = (store.table((r,)).iloc[0] for r in (ticket_run(run), source_run(run)))
    assert (float_run["weight_bits"], bits_run["weight_bits"]) == (32, 2)
    assert not torch.equal(store.arrays(ticket_run(run))["logits"], store.arrays(source_run(run))["logits"])


def test_every_method_and_variant_of_a_transfer_leaves_a_record_of_its_own(store: Store, cpu: torch.device) -> None:
    base = dataclasses.replace(WAY, sparsifier="imp", round=1, method="vp", task="shapes", budget=2, epochs=2)
    variants = [
        {},
        {"ties": "index"},
        {"prompt": "scale"},
        {"prompt": "smm", "mapping": "blm+"},
        *({"mapping": name} for name in ("random", "assignment", "blm", "full")),
        {"prompt": "watermark", "ties": "index", "last_mapping": "stale", "selection": "test"},
        {"method": "lp"},
        {"method": "lp", "view": "canvas"},
        {"method": "lp", "probe": "optimum"},
        {"method": "lp", "probe": "optimum", "view": "canvas"},
        {"method": "ft", "lr": 0.05},
    ]
    runs = tuple(dataclasses.replace(base, **variant) for variant in variants)
    done = finish(runs, store, cpu)
    assert [d.error for d in done] == [None] * len(done)
    table = store.table(runs)
    assert table["nll"].nunique() == len(variants)  # no variant is computed as another
    assert table["density"].tolist() == pytest.approx([0.5] * len(variants), abs=1e-4)
    assert (table["temperature"] > 0).all()
    full = next(run for run in runs if run.mapping == "full")
    assert {"mapping", "program"} <= set(store.arrays(full))  # a learned mapping is kept


def test_features_of_few_shots_are_those_of_all_images(store: Store, cpu: torch.device) -> None:
    """A few-shot probe looks at the images it needs, one on all images at the rest; the numbers are the same."""
    few = dataclasses.replace(WAY, sparsifier="imp", round=0, method="lp", task="shapes", budget=2, epochs=2)
    every = dataclasses.replace(few, budget=None)
    finish((every, few), store, cpu)
    alone = Store(store.results / "alone", "tiny")
    alone.cache = store.cache
    finish((few,), alone, cpu)
    torch.testing.assert_close(store.arrays(few)["logits"], alone.arrays(few)["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("finished")
def test_a_cohort_too_large_for_the_memory_is_cut_up(
    tiny: Profile, store: Store, cpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tuple(run for run in tiny.runs if run.round == 0 and run.method != "lp")
    other = Store(tmp_path / "cut", "tiny")
    other.cache, calls = store.cache, []
    real = adaptation.visual_prompt
    monkeypatch.setitem(adaptation.PIXELS_TRAINED, "cpu", 1)
    monkeypatch.setattr(
        adaptation, "visual_prompt", lambda *args, **named: calls.append(named["seeds"]) or real(*args, **named)
    )
    finish(runs, other, cpu)
    assert calls == [[0], [1]]
    prompts = [run for run in runs if run.method == "vp"]
    for run in prompts:
        for name, value in store.arrays(run).items():
            torch.testing.assert_close(other.arrays(run)[name], value, rtol=1e-3, atol=1e-3)


def test_a_cohort_is_done_whole_or_not_at_all(
    tiny: Profile, store: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the predictions of two seeds leaves no record of either."""
    runs = tuple(run for run in tiny.runs if run.round == 0 and run.method in ("source", "vp"))
    real, written = store_module.write_sealed, []

    def killed(path: Path, arrays: object) -> None:
        if "predictions" in str(path) and "vp" in path.name:
            written.append(path)
            if len(written) == 2:
                raise KeyboardInterrupt
        real(path, arrays)

    monkeypatch.setattr(store_module, "write_sealed", killed)
    with pytest.raises(KeyboardInterrupt):
        finish(runs, store, cpu)
    assert {record["method"] for record in store.records()} == {"source"}
    monkeypatch.setattr(store_module, "write_sealed", real)
    finish(runs, store, cpu)
    assert [record["cohort"] for record in store.records() if record["method"] == "vp"] == [[0, 1], [0, 1]]


def test_a_record_that_was_changed_is_named(tiny: Profile, store: Store, cpu: torch.device) -> None:
    finish(tiny.runs[:1], store, cpu)
    path = store.record_path(tiny.runs[0])
    path.write_text(path.read_text().replace('"accuracy": 0.', '"accuracy": 0.9'))
    with pytest.raises(InputError, match="damaged .*another SHA-256"):
        Store(store.results, "tiny").table()


@pytest.mark.usefixtures("finished")
def test_a_ticket_of_another_network_is_not_taken_for_the_right_one(
    tiny: Profile, store: Store, cpu: torch.device, tmp_path: Path
) -> None:
    """Swapped rounds, the chain of another seed, another rewinding point: each is refused, and says what differs."""
    sources = tuple(run for run in tiny.runs if run.method == "source")
    others = tuple(source_run(dataclasses.replace(run, source_seed=1)) for run in sources)
    finish(others, store, cpu)
    (dense, sparse), (dense2, sparse2) = ([store.ticket_path(run) for run in runs] for runs in (sources, others))
    for number, (ours, theirs, message) in enumerate(
        (
            (sparse, dense, "round: it has 0, asked for is 1"),
            (dense, dense2, "source_seed: it has 1, asked for is 0"),
            (sparse, sparse2, "source_seed: it has 1"),
        )
    ):
        right = ours.read_bytes()
        ours.write_bytes(theirs.read_bytes())
        errors = [str(done.error) for done in finish(sources, Store(store.results, f"again-{number}"), cpu) if done.error]
        assert any(message in error for error in errors), errors
        ours.write_bytes(right)
    sparse.unlink()
    rewound, other = (path.with_name("rewound.safetensors") for path in (dense, dense2))
    rewound.write_bytes(other.read_bytes())
    errors = [str(done.error) for done in finish(sources, Store(store.results, "more"), cpu) if done.error]
    assert len(errors) == 1
    assert "rewound.safetensors is not the one" in errors[0]


@pytest.mark.usefixtures("finished")
def test_records_of_one_network_are_not_continued_on_another(tiny: Profile, store: Store, cpu: torch.device) -> None:
    """A ticket that was lost and made anew, to other weights, is named by the runs that need it."""
    sparse = [run for run in tiny.runs if run.round == 1]
    path, lost = store.ticket_path(sparse[0]), store.record_path(next(run for run in sparse if run.method == "vp"))
    right = path.read_bytes()
    state, masks, header = read_ticket(path)
    write_ticket(path, {name: value * 1.01 for name, value in state.items()}, masks, header=header)
    lost.unlink()
    (failed,) = finish(tiny.runs, store, cpu)
    assert re.search(
        r"round-01.* must be the one that .* measured on, .* put that ticket back, or delete", str(failed.error)
    )
    assert not lost.exists()
    other = ticket_digest(path)
    path.write_bytes(right)
    assert [done.error for done in finish(tiny.runs, store, cpu)] == [None]
    assert store.table(tuple(sparse))["ticket"].unique().tolist() == [ticket_digest(path)] != [other]


def test_a_part_holds_what_no_table_has_yet(tiny: Profile, store: Store, cpu: torch.device) -> None:
    runs = tuple(dataclasses.replace(run, robustness_images=6) if run.method == "vp" else run for run in tiny.runs)
    half = tuple(run for run in runs if run.round == 0)
    finish(half, store, cpu)
    first = store.publish_part(runs)
    finish(runs, store, cpu)
    second = store.publish_part(runs)
    assert [path.name for path in (first, second)] == ["001.parquet", "002.parquet"]
    assert store.publish_part(runs) is None
    before, arrays = store.table(runs), {run_id(run): store.arrays(run) for run in runs}
    shutil.rmtree(store.root)
    clone = Store(store.results, "tiny")
    assert jobs(runs, clone) == []
    pd.testing.assert_frame_equal(clone.table(runs), before, check_dtype=False)
    rows = clone.outcomes().set_index("id", drop=False).to_dict("index")
    assert rows.keys() == arrays.keys()
    for run in runs:
        row, kept = rows[run_id(run)], arrays[run_id(run)]
        assert outcomes.right(row).tolist() == (kept["logits"].argmax(1) == kept["labels"]).tolist()
        assert abs(outcomes.confidence(row) - kept["logits"].softmax(1).amax(1).numpy()).max() < 1e-5
        if run.method == "vp":
            right, confidence = outcomes.corrupted(row, kept["corrupted_right"].shape)
            assert (right == kept["corrupted_right"].numpy()).all()
            assert abs(confidence - kept["corrupted_confidence"].numpy()).max() < 0.003
            shares = before.set_index("id").loc[run_id(run), "corrupted_accuracy"]
            assert shares == pytest.approx(right.mean(-1).ravel().tolist())


def test_corrupted_images_and_their_features_are_made_once(
    store: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all budgets and networks: the images lie in the cache, their features stay as long as the network does."""
    probe = dataclasses.replace(WAY, sparsifier="imp", round=0, method="lp", task="shapes", epochs=1, robustness_images=6)
    made, shown, real, look = [], [], sessions.corrupt, Session.look
    monkeypatch.setattr(
        sessions, "corrupt", lambda images, *names, **rest: made.append(names) or real(images, *names, **rest)
    )
    monkeypatch.setattr(Session, "look", lambda self, run, images: shown.append(len(images)) or look(self, run, images))
    finish((dataclasses.replace(probe, budget=1),), store, cpu)
    assert len(made) == 12
    assert shown.count(6) == 12
    finish((dataclasses.replace(probe, budget=2),), store, cpu)  # another session
    assert (len(made), shown.count(6)) == (12, 24)
    finish(tuple(dataclasses.replace(probe, budget=budget) for budget in (3, 4)), store, cpu)
    assert (len(made), shown.count(6)) == (12, 36)
    session = Session(store, cpu)
    test = session.images("shapes", "test", px=probe.canvas, per_class=probe.test_per_class)
    rows = torch.tensor([3, 1])
    for name, severity, images in session.corrupted("shapes", test, rows):
        assert torch.equal(images, real(test.images[rows], name, severity=severity, seed=0))


def test_networks_trained_with_quantized_steps(store: Store, cpu: torch.device) -> None:
    """Each starts from the dense network and has a ticket of its own; one at 32 bits is the float network trained on."""
    base = dataclasses.replace(
        WAY, source_per_class=2, sparsifier="imp", round=0, method="lp", task="shapes", budget=1, epochs=2
    )
    runs = tuple(dataclasses.replace(base, quant_training="lsq", weight_bits=bits, activation_bits=bits) for bits in (32, 4))
    todo = jobs((base, *runs), store)
    assert [job.runs[0].weight_bits for job in todo if job.is_ticket] == [32, 32, 4]
    done = finish((base, *map(source_run, runs), *runs), store, cpu)
    assert [d.error for d in done] == [None] * len(done)
    paths = {store.ticket_path(run) for run in (base, *runs)}
    assert len(paths) == 3
    dense, float_on, quantized = (store.arrays(run)["logits"] for run in (base, *runs))
    assert not torch.equal(dense, float_on)
    assert not torch.equal(float_on, quantized)
    session = Session(store, cpu)
    bits = layer_bits(session.network(runs[1]).frozen)
    assert set(bits.values()) >= {(4, 4), (8, 8)}  # the first and the last layer have 8
    assert session.network(runs[0]).header["epochs_seen"] == 2 * base.source_epochs
    again = Store(store.results / "again", "tiny")  # cut short after an epoch, it ends in the same weights
    again.cache = store.cache
    shutil.copytree(store.results / "tickets" / chain_id(base), again.results / "tickets" / chain_id(base))
    finish(tuple(map(source_run, runs)), again, cpu)
    assert ticket_digest(again.ticket_path(runs[1])) == ticket_digest(store.ticket_path(runs[1]))


def test_a_chain_with_a_protocol_stays_on_one_kind_of_machine(
    tiny: Profile, store: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many threads the calling process has, since workers have one; another processor or tag is refused."""
    place = {**provenance(cpu), "tag": "protocol-9", "threads": 1}
    monkeypatch.setattr("vpcore.study.execution.provenance", lambda device: {**place, "threads": 7})
    for module in ("measurement", "chains", "session"):
        monkeypatch.setattr(f"vpcore.study.{module}.provenance", lambda device: dict(place))
    sources = tuple(run for run in tiny.runs if run.method == "source")
    assert [d.error for d in execute(sources, store, device=cpu, protocol="protocol-9")] == [None, None]
    prompts = tuple(run for run in tiny.runs if run.method == "vp" and run.round == 0)
    assert [d.error for d in execute(prompts, store, device=cpu, protocol="protocol-9")] == [None]
    with pytest.raises(InputError, match=r"by the code of its protocol, the tag protocol-8; this is .*git worktree add"):
        execute(tiny.runs, store, device=cpu, protocol="protocol-8")
    place["processor"] = "another"
    rest = tuple(run for run in tiny.runs if run.method == "vp")
    with pytest.raises(InputError, match="the vp runs of the chain with source_seed 0 .*processor .*, here 'another'"):
        execute(rest, store, device=cpu, protocol="protocol-9")
    probes = tuple(run for run in tiny.runs if run.method == "lp")  # another method, which is compared with itself
    assert {d.error for d in execute(probes, store, device=cpu, protocol="protocol-9")} == {None}


@pytest.mark.usefixtures("finished")
def test_a_record_is_not_taken_for_that_of_other_images(
    tiny: Profile, store: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that now has other images under the same name, as when another data folder is given."""
    assert finish(tiny.runs, store, cpu) == []
    monkeypatch.setattr("vpcore.study.execution.digest", lambda task, folder: "other" if task == "shapes" else "")
    with pytest.raises(InputError, match="the task .* must have the images that .* was made of .*another folder with --res"):
        finish(tiny.runs, store, cpu)


def test_fresh_weights_are_those_of_the_seed_of_the_chain(store: Store, cpu: torch.device) -> None:
    session = Session(store, cpu)
    for seed, offset in ((0, 0), (3, 0), (3, 2)):
        run = Run(source_seed=seed)
        expected = build(run.model, classes=len(session.source_classes(run)), seed=seed + offset).state_dict()
        for name, value in session.fresh(run, offset=offset).state_dict().items():
            assert torch.equal(value, expected[name])


def test_outcomes_hold_sets_of_up_to_255_classes() -> None:
    arrays = {"logits": torch.eye(3), "labels": torch.arange(3), "set_size": torch.tensor([1, 255, 900])}
    row = outcomes.compact({**arrays, "covered": torch.tensor([True, False, True])})
    assert list(row["set_size"]) == [1, 255, 255]
