"""Nominal 95 % intervals cover the truth in 93 to 97 % of the studies that the pilot's components of variance make."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vpcore import InputError
from vpcore.report import planning
from vpcore.report.inference import crossed
from vpcore.report.planning import (
    DESIGNS,
    PLANNED,
    ROOT,
    Components,
    Design,
    coverage,
    detectable,
    power,
    rates,
    simulated,
)
from vpcore.study.profile import load_profile

# of the pilot, rounded: checked against it below
PILOT = {
    "C1, density 0.16": Components(0.006, 0.000, 0.019, 0.031),
    "C2, points": Components(0.041, 0.023, 0.000, 0.042),
    "C3, VP": Components(0.030, 0.008, 0.016, 0.035),
    "C3, LP": Components(0.000, 0.008, 0.009, 0.016),
}
LOW, HIGH = 0.925, 0.975  # 93 to 97 %, and one and a half standard errors of 4,000 studies


@pytest.mark.parametrize("design", DESIGNS, ids=str)
@pytest.mark.parametrize("claim", PILOT)
def test_intervals_cover_the_truth_as_often_as_they_say(design: Design, claim: str) -> None:
    assert LOW <= coverage(PILOT[claim], design) <= HIGH
    assert 0.92 <= coverage(PILOT[claim], design, heavy=True) <= 0.98  # chains and tasks with outliers


def test_designs_that_lack_some_cells_are_covered_too() -> None:
    """Three of ten tasks were measured on four of eight chains."""
    parts, design = PILOT["C3, VP"], Design(8, 10, 2)
    chain, task = design.factors
    kept = [i for i in range(80) if task[i] < 7 or chain[i] < 4]
    values, truth = simulated(parts, design, studies=2000)
    mean, variance, df = crossed(values[:, kept], tuple(chain[i] for i in kept), tuple(task[i] for i in kept))
    covered = np.abs(mean - truth) <= stats.t.ppf(0.975, df) * np.sqrt(variance)
    assert LOW <= covered.mean() <= HIGH


def test_what_was_done_before_does_not_cover() -> None:
    """A bootstrap over the runs of each cell takes chains and tasks for fixed: far too narrow for other chains."""
    parts, design = PILOT["C3, VP"], Design(3, 7, 2, 3)
    values, _ = simulated(parts, design, studies=2000)
    narrow = np.sqrt((parts.cell**2 + parts.seed**2 / 6) / 21)
    assert (np.abs(values.mean(axis=1)) <= 1.96 * narrow).mean() < 0.6


def test_the_variance_of_a_mean_is_estimated_without_much_bias() -> None:
    parts, design = PILOT["C2, points"], Design(8, 10)
    values, _ = simulated(parts, design, images=False)
    mean, variance, _ = crossed(values, *design.factors)
    true = parts.chain**2 / 8 + parts.task**2 / 10 + parts.seed**2 / 80
    assert variance.mean() == pytest.approx(true, rel=0.05)
    assert mean.var() == pytest.approx(true, rel=0.05)


def test_power_grows_with_the_effect_and_keeps_its_promise_at_the_detectable_one() -> None:
    parts = PILOT["C1, density 0.16"]
    seen = [power(parts, PLANNED, effect, margin=0.01)["supported"] for effect in (0.0, 0.01, 0.02, 0.04)]
    assert seen == sorted(seen)
    assert seen[0] <= 0.05
    assert seen[-1] > 0.99
    assert power(parts, PLANNED, detectable(parts, PLANNED), margin=0.001)["supported"] == pytest.approx(0.8, abs=0.06)


@pytest.mark.slow
def test_the_published_tables_are_those_of_the_pilot(tmp_path: Path) -> None:
    claims = planning.pilot()
    for claim, parts in PILOT.items():
        found = claims[claim][1]
        assert [found.chain, found.task, found.cell, found.seed] == pytest.approx(
            [parts.chain, parts.task, parts.cell, parts.seed], abs=6e-4
        )
    planning.write(tmp_path)
    for name in ("power.csv", "coverage.csv", "core_hours.csv", "paper_hours.csv"):
        assert (tmp_path / name).read_text() == (planning.ROOT / "book" / name).read_text(), "see vpcore/report/planning.py"


def _pilot(gains: dict[float, float], whole: dict[int, float]) -> pd.DataFrame:
    """Records of the pilot in which a rate is better than 0.01 by so much; at all images 0.01 needs one epoch only."""
    rows = [
        {"method": "vp", "task": task, "budget": budget, "lr": lr, "epochs": 100, "val_accuracy": 0.2 + gain + shift}
        for budget in (1, 10)
        for lr, gain in gains.items()
        for task, shift in (("a", -0.05), ("b", 0.05))
    ]
    rows += [
        {
            "method": "vp",
            "task": task,
            "budget": None,
            "lr": lr,
            "epochs": epochs,
            "val_accuracy": shift + (accuracy if lr > 0.01 else 0.5),
        }
        for lr in (0.01, 0.03)
        for epochs, accuracy in {1: 0.0, **whole}.items()
        for task, shift in (("a", -0.1), ("b", 0.1))
    ]
    return pd.DataFrame(rows).astype({"budget": "Int64"})


@pytest.mark.parametrize(
    ("gains", "rate"),
    [
        ({0.03: 0.006}, 0.03),
        ({0.03: 0.004}, 0.01),  # within half a point: the smaller
        ({0.03: 0.006, 0.1: 0.010, 0.3: -0.2}, 0.03),  # as good as the best, and smaller
        ({0.03: 0.006, 0.1: 0.012, 0.3: 0.008}, 0.1),
        ({0.03: 0.006, 0.1: 0.012, 0.3: 0.018}, 0.3),  # at the end of the candidates
        ({0.03: -0.1, 0.1: -0.2, 0.3: -0.3}, 0.01),
    ],
)
def test_the_rule_takes_the_smallest_rate_that_is_as_good_as_the_best(gains: dict[float, float], rate: float) -> None:
    assert rates(_pilot({0.01: 0.0, **gains}, {100: 0.4}))[0] == {1: rate, 10: rate}


@pytest.mark.parametrize(
    ("whole", "epochs"),
    [
        ({10: 0.3, 30: 0.39, 100: 0.392}, 30),
        ({10: 0.3, 30: 0.38, 100: 0.392}, 100),
        ({10: 0.39, 30: 0.2, 100: 0.392}, 10),
    ],
)
def test_the_rule_takes_the_fewest_epochs_that_are_as_good_as_all(whole: dict[int, float], epochs: int) -> None:
    assert rates(_pilot({0.01: 0.0, 0.03: 0.1}, whole))[1] == epochs


def test_half_a_point_is_half_a_point_whatever_the_rounding() -> None:
    """0.048 - 0.005 is more than 0.043, in floating point."""
    table = _pilot({0.01: 0.0, 0.03: 0.0}, {100: 0.4})
    table["val_accuracy"] = np.where(table["lr"] == 0.01, 0.043, 0.048)
    assert rates(table)[0] == {1: 0.01, 10: 0.01}


def test_the_rule_compares_no_means_over_different_runs() -> None:
    """A rate that lacks the easy task is not worse for that."""
    table = _pilot({0.01: 0.0, 0.03: 0.1}, {100: 0.4})
    for lacks in (table["lr"].eq(0.03) & table["budget"].eq(10), table["epochs"].eq(1)):
        with pytest.raises(InputError, match="the same runs at every rate and number of epochs; at the budget .*: run what"):
            rates(table[~(lacks & table["task"].eq("b"))])


def test_the_test_images_of_the_design_are_those_of_nine_tasks() -> None:
    assert len(planning.IMAGES) == 10
    runs = [run for run in load_profile("real").grids["main"] if run.method == "vp"]
    sizes = [len({run.budget for run in runs if run.task == task}) for task in {run.task for run in runs} - {"svhn"}]
    assert len(sizes) == PLANNED.tasks
    assert np.mean([1 / size for size in sizes]) == pytest.approx(1 / PLANNED.budgets, rel=0.05)


def test_the_study_takes_what_the_rule_has_chosen() -> None:
    chosen, epochs = rates(pd.read_parquet(ROOT / "results" / "pilot.parquet"))
    runs = load_profile("real").grids["main"]
    assert {run.budget: run.lr for run in runs if run.method == "vp"} == chosen
    whole = [run for run in load_profile("real").grids["all"] if run.method == "vp"]
    assert {(run.epochs, run.lr) for run in whole} == {(epochs, chosen[100])}


def test_the_profiles_are_what_the_page_says() -> None:
    page, real = (ROOT / "book" / "protocol.md").read_text(), load_profile("real")
    assert f"frozen by the tag\n`{real.protocol}`" in page
    few = [run for run in load_profile("pilot").grids["rates"] if run.method == "vp"]
    assert {run.lr for run in few} == {0.01, 0.03, 0.1, 0.3}
    chains = {name: {run.source_seed for run in runs} for name, runs in real.grids.items()}
    assert chains.pop("main") == set(range(10, 18))
    assert chains.pop("authors") == chains.pop("batch128") == {10, 11, 12, 13}
    assert chains.pop("deep") == {10}
    assert all(found == {10, 11} for found in chains.values())
    clean = {name for name, runs in real.grids.items() if all(run.robustness_images == 0 for run in runs)}
    assert clean == {"all", "steps", "authors", "batch128", "undone", "after", "untrained", "finetuned"}
