"""The reference that is shipped: records of `mini` and its tickets, from which a published cell comes out again.

On the same type of processor, with the same versions, every number is equal to the bit. Elsewhere sums are rounded
differently. Measured with kernels without vector instructions (ATEN_CPU_CAPABILITY=default, ONEDNN_MAX_CPU_ISA=SSE41) on the
dense ticket: linear probes differed by no test image, since their loss is convex. Prompts differed by 0 to 4.4 points a run
and by 1.4 in the mean of three seeds, since a rounding can change which source class a target class is mapped to. The bounds
below are five images of a thousand, and three standard deviations (2.3 points) of a mean of three.
"""

import itertools
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from vpcore import Frozen, linear_probe, load, load_ticket_, metrics, shots, visual_prompt
from vpcore.cli import main
from vpcore.networks.backbones import build
from vpcore.report import reference
from vpcore.study.profile import load_profile
from vpcore.study.provenance import PLACE, provenance
from vpcore.study.run import Run, run_id
from vpcore.study.store import Store
from vpcore.study.tables import write_table
from vpcore.study.workers import as_workers_do
from vpcore.weights.tickets import ticket_digest

RESULTS = Path(__file__).parents[2] / "results"
MINI = load_profile("mini")
SHIPPED = Store(RESULTS / "reference", "mini")
BOUND = {"lp": 0.005, "vp": 3 * 0.023 / 3**0.5}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return SHIPPED.table(MINI.runs)


def test_the_reference_is_the_whole_of_mini_and_its_tickets_are_those_of_its_records(table: pd.DataFrame) -> None:
    assert table["id"].tolist() == [run_id(run) for run in MINI.runs]
    assert not table["commit"].str.contains(r"\+|unknown").any()
    assert table[["accuracy", "ece", "nll"]].notna().all(axis=None)
    for number, runs in itertools.groupby(sorted(MINI.runs, key=lambda run: run.round), key=lambda run: run.round):
        (path,) = {SHIPPED.ticket_path(run) for run in runs}
        assert set(table.loc[table["round"] == number, "ticket"]) == {ticket_digest(path)}


def computed_again(runs: list[Run]) -> list[dict[str, float]]:
    """The metrics of a cohort on digits, by the public functions alone."""
    run, seeds = runs[0], [run.seed for run in runs]
    model = build(run.model, classes=48, seed=0)
    load_ticket_(SHIPPED.ticket_path(run), model)
    px = run.image_px if run.method == "vp" else run.canvas
    train, test = (load("digits", split, px=px) for split in ("train", "test"))
    index = torch.stack([shots(train.labels, run.budget, task="digits", seed=seed) for seed in seeds])
    given = {"index": index, "epochs": run.epochs, "batch": run.batch, "lr": run.lr, "seeds": seeds, "progress": False}
    with as_workers_do():
        if run.method == "vp":
            adapted = visual_prompt(Frozen(model), train, canvas=run.canvas, image_px=run.image_px, **given)
        else:
            adapted = linear_probe(Frozen(model), train, **given)
        return [metrics(logits, test.labels) for logits in adapted(test.images)]


@pytest.mark.parametrize("method", BOUND)
@pytest.mark.parametrize("number", [0, 5])
def test_a_published_cell_comes_out_again_from_a_shipped_ticket(table: pd.DataFrame, number: int, method: str) -> None:
    cell = {"round": number, "method": method, "task": "digits", "budget": 4}
    runs = [run for run in MINI.runs if all(getattr(run, name) == value for name, value in cell.items())]
    published = table.set_index("id").loc[[run_id(run) for run in runs]]
    found = pd.DataFrame(computed_again(runs), index=published.index)
    here = provenance(torch.device("cpu"))
    if all(set(published[name]) == {here[name]} for name in (*PLACE[1:], "versions")):
        for name in ("accuracy", "ece", "nll", "brier"):
            assert found[name].tolist() == published[name].tolist()
    difference = found["accuracy"] - published["accuracy"]
    assert abs(difference.mean()) <= BOUND[method]
    assert found["accuracy"].std() > 0 or method == "lp"  # three runs, and not one three times


def test_the_same_runs_in_an_earlier_table_agree_within_the_tolerance(table: pd.DataFrame) -> None:
    """The table `methods` has runs of `mini` that were computed earlier: hardly a record is equal to the bit."""
    before = Store(RESULTS, "methods").table(MINI.runs)
    assert len(before) > 200
    again = table[table["id"].isin(before["id"])]
    assert reference.equal_records(again, before) < len(before) / 10
    allowed = reference.tolerances(reference.spread())
    both = [t[t["round"].isin([0, 5]) & (t["budget"].isin([4]) | t["budget"].isna())] for t in (again, before)]
    found = reference.compare(*both, allowed)
    assert set(found["verdict"]) == {"agrees"}
    assert found["difference"].abs().max() > 0.005  # which is more than rounding alone


@pytest.mark.parametrize(("shift", "code", "said"), [(0.0, 0, "582 of 582 records"), (0.2, 1, "6 of 12 numbers differ")])
def test_the_command_compares_and_its_exit_code_tells(
    table: pd.DataFrame, tmp_path: Path, shift: float, code: int, said: str
) -> None:
    """A reader's results that are ours, and ours with every accuracy moved."""
    write_table(tmp_path / "mini.parquet", table.assign(accuracy=table["accuracy"] + shift))
    done = CliRunner().invoke(main, ["compare", "--results", str(tmp_path)])
    assert done.exit_code == code, done.output
    assert said in done.output
    assert ("agrees" in done.output, "differs" in done.output) == (False, shift > 0)
    missing = CliRunner().invoke(main, ["compare", "--results", str(tmp_path / "none")])
    assert missing.exit_code == 2
    assert "`--results` must hold all 582 records of mini" in missing.output
