"""What a study takes, against the seconds that published records took."""

import dataclasses
from collections.abc import Hashable

import pandas as pd
import pytest

from vpcore.report.hours import CLASSES, CORE, EVERY, GPU, LSQ, Machine, core_hours, seconds
from vpcore.report.planning import ROOT
from vpcore.study.profile import load_profile
from vpcore.study.run import FACTS, Run


def as_run(record: dict[Hashable, object]) -> Run:
    known = {str(name): value for name, value in record.items() if name in FACTS and pd.notna(value)}
    return Run(**known)


@pytest.mark.parametrize(("study", "machine", "device"), [("small", CORE, "cpu"), ("pilot", GPU, "H200")])
def test_predicted_seconds_are_those_of_the_records(study: str, machine: Machine, device: str) -> None:
    """At every budget, and so at every batch, in the middle of the records: the first of a process starts it up."""
    table = pd.read_parquet(ROOT / "results" / f"{study}.parquet")
    table = table[(table["method"] == "vp") & table["device"].str.contains(device)]
    together = table.groupby(["task", "budget", "round", "lr", "epochs"], dropna=False)["seed"].transform("nunique")
    predicted = [seconds(as_run(r), machine, together=k) for r, k in zip(table.to_dict("records"), together, strict=True)]
    ratio = (table["seconds"] / predicted).groupby(table["budget"], dropna=False).median()
    assert ratio.between(0.75, 1.33).all(), ratio


def test_the_images_of_the_tasks_are_those_of_the_records() -> None:
    for study in ("small", "pilot"):
        table = pd.read_parquet(ROOT / "results" / f"{study}.parquet")
        table = table[table["method"] == "vp"]
        few, whole = table[table["budget"].notna()], table[table["budget"].isna()]
        assert (few["task"].map(CLASSES) * few["budget"] == few["train_images"]).all()
        assert (whole["task"].map(EVERY) == whole["train_images"]).all()


def test_seconds_by_hand() -> None:
    machine = Machine(image=0.01, step=0.1, run=2, corrupted=0.5, training=0)
    run = Run(method="vp", task="cifar10", budget=2, batch=8, epochs=3)
    assert seconds(run, machine) == pytest.approx(2 + 3 * (20 * 0.01 + 3 * 0.1))  # 8 + 8 + 4 images
    assert seconds(run, machine, together=3) == pytest.approx(2 + 3 * (20 * 0.01 + 0.1))
    assert seconds(dataclasses.replace(run, robustness_images=4), machine) == pytest.approx(2 + 1.5 + 24)
    assert seconds(dataclasses.replace(run, method="lp"), machine) == 2
    assert seconds(dataclasses.replace(run, method="ft"), machine) == pytest.approx(2 + 3 * (40 * 0.01 + 0.3))


def test_the_table_counts_every_run_and_every_network_once() -> None:
    table, profile = core_hours("real").set_index("grid"), load_profile("real")
    assert table.loc["sum", "prompts"] == sum(run.method in ("vp", "ft") for run in profile.runs)
    assert table.loc["sum", "probes"] == sum(run.method == "lp" for run in profile.runs)
    assert table.loc["main", "networks"] == 24
    assert table.loc["deep", "networks"] == 3
    assert table.loc["quarter", "networks"] == 2
    assert table.loc["quantized", "networks"] == 4
    quarter = [run for run in profile.grids["quarter"] if run.source_epochs == 3 and run.method != "source"]
    expected = 2 * CORE.training / 4 + sum(seconds(run, CORE) for run in quarter)
    assert table.loc["quarter", "core-hours"] == pytest.approx(expected / 3600, abs=0.051)
    assert LSQ > 1
    columns = table.drop(index="sum")[["core-hours", "GPU-hours"]].sum()
    assert table.loc["sum", ["core-hours", "GPU-hours"]].tolist() == pytest.approx(columns.tolist(), abs=0.5)
