"""A reader's study beside ours, and a reference that no study takes for its own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.report import inside
from tests.report.made_up import records
from vpcore import InputError
from vpcore.report import plots, reference, trust_plots
from vpcore.study.jobs import jobs
from vpcore.study.profile import load_profile
from vpcore.study.store import Store
from vpcore.study.tables import write_table

RESULTS = Path(__file__).parents[2] / "results"
MINI = load_profile("mini")


@pytest.fixture(scope="module")
def made() -> pd.DataFrame:
    return records(MINI, loss=0.1, shift=0.05)


def test_a_headline_is_a_mean_over_tasks(made: pd.DataFrame) -> None:
    found = reference.headlines(made)
    assert len(found) == 12
    for (measure, method, network), value in found.items():
        number = 0 if network == "dense" else 5
        mine = made[(made["method"] == method) & (made["round"] == number)]
        assert value == pytest.approx(np.mean([of[measure].mean() for _, of in mine.groupby("task")]))


def test_a_difference_as_between_dense_networks_agrees_and_a_larger_one_does_not(made: pd.DataFrame) -> None:
    chains = [made.assign(source_seed=chain, accuracy=made["accuracy"] + shift) for chain, shift in enumerate((0.0, 0.02))]
    allowed = reference.tolerances(pd.concat(chains))
    assert allowed["accuracy"].to_numpy() == pytest.approx(3 * np.sqrt(2) * np.std([0, 0.02], ddof=1))
    assert allowed["ece"].to_numpy() == pytest.approx(0)
    for shift, verdict in ((0.0, "equal"), (0.05, "agrees"), (-0.05, "agrees"), (0.07, "differs"), (-0.07, "differs")):
        found = reference.compare(made.assign(accuracy=made["accuracy"] + shift), made, allowed)
        found = found[found["measure"] == "accuracy"]
        assert set(found["verdict"]) == {verdict}
        assert found["difference"].to_numpy() == pytest.approx(shift)
    with pytest.raises(InputError, match="`table` must have at least two chains, .* got 1"):
        reference.tolerances(made.assign(source_seed=0))


def test_the_figure_shows_every_number_and_its_tolerance(made: pd.DataFrame) -> None:
    chains = [made.assign(source_seed=n, accuracy=made["accuracy"] + 0.01 * n) for n in range(2)]
    found = reference.compare(made.assign(accuracy=made["accuracy"] + 0.2), made, reference.tolerances(pd.concat(chains)))
    found = found[found["measure"] == "accuracy"]
    figure, [[ax]] = plots.panels(size=(4, 2.6))
    trust_plots.beside_ours(ax, found)
    inside.check(figure)
    drawn = [x for line in ax.get_lines() if line.get_label() in {look.label for look in plots.LOOKS.values()}
             for x in line.get_xdata()]  # fmt: skip
    assert sorted(drawn) == pytest.approx(sorted(found["difference"]))
    bars = [bar.get_width() for bar in ax.patches]
    assert sorted(bars) == pytest.approx(sorted(2 * found["tolerance"]))
    told = reference.in_words(found, 0, len(made))
    assert told.startswith("0 of 6 headline numbers agree")
    facts = {row["what"]: row for row in reference.machines(made.assign(processor="a"), made.assign(processor="b"))}
    assert (facts["processor"]["yours"], facts["processor"]["ours"]) == ("a", "b")
    assert reference.known(MINI)
    assert not reference.known(load_profile("small"))


def test_records_are_equal_when_every_number_is(made: pd.DataFrame) -> None:
    other = made.sample(frac=1, random_state=0).reset_index(drop=True)
    assert reference.equal_records(other, made) == len(made)
    other.loc[:9, "nll"] += 1e-12
    assert reference.equal_records(other, made) == len(made) - 10


def test_a_study_computes_every_run_although_its_reference_is_there(made: pd.DataFrame, tmp_path: Path) -> None:
    """And the records of the reference are read where they lie."""
    (tmp_path / "reference").mkdir()
    write_table(tmp_path / "reference" / "mini.parquet", made)
    store = Store(tmp_path, "mini")
    assert store.done() == set()
    assert {run for job in jobs(MINI.runs, store) for run in job.runs} == set(MINI.runs)
    with pytest.raises(
        InputError, match="must hold all 582 records of mini, and .* holds 0; use: vpcore run --profile mini"
    ):
        reference.both(MINI, store, results=tmp_path)
    assert len(Store(tmp_path / "reference", "mini").table(MINI.runs)) == len(MINI.runs)
    with pytest.raises(InputError, match=r"there is no reference .*small.parquet to compare small with; use --profile mini"):
        reference.both(load_profile("small"), Store(tmp_path, "small"), results=tmp_path)


def test_the_tolerances_that_are_used_are_those_of_networks_like_those_of_mini() -> None:
    """Three chains whose first is that of mini, pruned as mini is; not so wide that everything agrees."""
    table = reference.spread()
    assert set(table["source_seed"]) == {0, 1, 2}
    assert set(table["round"]) == {0, max(run.round for run in MINI.runs)}
    of_mini = {(run.source, run.model, run.source_epochs, run.rate) for run in MINI.runs}
    assert (
        set(zip(table["source"], table["model"], table["source_epochs"], table["rate"].fillna(0.5), strict=True)) == of_mini
    )
    allowed = reference.tolerances(table)
    assert allowed.between(0.005, 0.1).all()
