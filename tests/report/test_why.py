"""The analyses behind the answer, on made-up records: what a test puts in must come out, and a loop must agree."""

import functools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.report.made_up import record
from vpcore.report import contrasts, specifications, why
from vpcore.report.inference import estimate, linearised
from vpcore.report.pairs import costs
from vpcore.report.verdicts import MARGIN
from vpcore.study.profile import load_profile
from vpcore.study.run import Run

CONTROLS = ("cifar10", "eurosat", "sign_digits")


@functools.cache
def runs(grid: str, few: bool = True) -> tuple[Run, ...]:
    """Of the study real; `few`: the control tasks, and only where chains have one seed."""
    found = load_profile("real").grid(grid)
    return (
        tuple(run for run in found if run.method == "source" or (run.task in CONTROLS and run.seed < 18)) if few else found
    )


@functools.cache
def table(grid: str, *, loss: float = 0.06, shift: float = 0.05, gap: float = 0.3) -> pd.DataFrame:
    found = pd.DataFrame([record(run, loss=loss, shift=shift, gap=gap) for run in runs(grid)])
    for name in ("budget", "batch"):
        found[name] = found[name].astype("Int64")
    return found


def test_explanations_are_what_a_loop_over_the_records_finds() -> None:
    main = table("main")
    cost = why.explained(main)
    by_run = {
        (r["method"], r.get("view"), r["task"], str(r["budget"]), r["source_seed"], r["round"]): r
        for r in main.to_dict("records")
    }
    for row in cost[cost["method"] == "vp"].sample(40, random_state=0).to_dict("records"):
        mine = by_run["vp", row.get("view"), row["task"], str(row["budget"]), row["source_seed"], row["round"]]
        dense = by_run["vp", row.get("view"), row["task"], str(row["budget"]), row["source_seed"], 0]
        same = np.mean([a == b for a, b in zip(mine["mapped"], dense["mapped"], strict=True)])
        assert row["same_mapping"] == pytest.approx(same)
        assert row["dense_gap"] == pytest.approx(dense["val_confidence"] - dense["val_accuracy"])
        shift = mine["confidence"] - mine["accuracy"] - dense["confidence"] + dense["accuracy"]
        assert row["gap_shift"] == pytest.approx(shift)
        assert row["set_rise"] == pytest.approx((mine["set_size"] - dense["set_size"]) / len(dense["classes"]))
        upstream = {
            r["round"]: r["accuracy"] for key, r in by_run.items() if key[0] == "source" and key[4] == row["source_seed"]
        }
        assert row["upstream_loss"] == pytest.approx(upstream[0] - upstream[row["round"]])
    probes = cost[cost["method"] == "lp"]
    assert probes["same_mapping"].isna().all()  # a probe has none
    assert probes["cka"].notna().all()


def test_one_shift_raises_the_ece_of_over_confident_networks_and_lowers_that_of_others() -> None:
    for shift in (0.04, -0.04):
        cost = why.explained(table("main", shift=shift, gap=0.1))
        mine = cost[(cost["method"] == "vp") & (cost["round"] == 2) & (cost["dense_gap"].abs() > 0.045)]
        rises = mine.groupby("over_confident")["ece_rise"].mean()
        assert rises[True] == pytest.approx(shift, abs=0.01)
        assert rises[False] == pytest.approx(-shift, abs=0.01)
        assert mine["gap_shift"].mean() == pytest.approx(shift, abs=0.005)


def test_correlations_between_networks_are_those_at_equal_task_and_budget() -> None:
    rng, rows = np.random.default_rng(0), []
    for task in "abcd":
        for budget in (1, 10):
            for chain in range(6):
                x = rng.normal() + 10 * ord(task)
                rows.append(
                    {"task": task, "budget": budget, "source_seed": chain, "x": x, "accuracy_loss": -x + budget * 100}
                )
    cost = pd.DataFrame(rows)
    found = why.between_networks(cost, "x")
    assert found is not None
    assert found.mean == pytest.approx(-1)
    noisy = cost.assign(accuracy_loss=rng.normal(size=len(cost)))
    each = [stats.spearmanr(mine["x"], mine["accuracy_loss"]).statistic for _, mine in noisy.groupby(["task", "budget"])]
    again = why.between_networks(noisy, "x")
    assert again is not None
    assert again.mean == pytest.approx(np.mean(each))
    assert why.between_networks(cost[cost["source_seed"] < 3], "x") is None
    of_task = cost.groupby("task")[["x", "accuracy_loss"]].mean()
    expected = stats.spearmanr(of_task["x"], of_task["accuracy_loss"]).statistic
    assert why.between_tasks(cost, "x") == pytest.approx(expected)


def test_costs_on_corrupted_images_are_paired_by_kind_and_severity() -> None:
    cost = why.explained(table("main"))
    long = why.corrupted(cost)
    shown = cost["corruption"].notna().sum()
    assert len(long) == shown * 4 * 4  # four kinds at three severities, and clean
    first = cost[cost["corruption"].notna()].iloc[0]
    for name, dense, sparse in zip(
        first["corruption"], first["corrupted_accuracy_dense"], first["corrupted_accuracy"], strict=True
    ):
        kind, severity = name.rsplit(" ", 1)
        same = (long["kind"] == kind) & (long["severity"] == int(severity))
        for key in ("method", "task", "budget", "source_seed", "round"):
            same &= long[key] == first[key]
        assert long.loc[same, "accuracy_loss"].iloc[0] == pytest.approx(dense - sparse)
    assert why.corrupted(cost.drop(columns="corruption")).empty


@pytest.mark.parametrize("claim", ["C1", "C3"])
def test_specifications_are_estimates_of_what_they_choose(claim: str) -> None:
    main = table("main")
    found = specifications.specifications(main, claim)
    assert not found[list(specifications.CHOICES)].duplicated().any()
    stated = found[found["stated"]]
    assert sorted(stated["density"]) == ["16%", "40%"]
    cost = costs(main[main["method"].isin(["vp", "source"])], also=["images"])
    column = {"C1": "accuracy_loss", "C3": "ece_rise"}[claim]
    for row in stated.to_dict("records"):
        e = estimate(cost[cost["round"] == {"16%": 2, "40%": 1}[row["density"]]], column)
        assert [row["mean"], row["low"], row["high"]] == pytest.approx([x / MARGIN for x in (e.mean, e.low, e.high)])
    if claim == "C1":  # shares, and weights
        at = cost[cost["round"] == 2]
        share = found[(found["measure"] == "share above chance") & (found["density"] == "16%") & (found["budgets"] == "all")]
        e = estimate(linearised(at, "accuracy_loss", "above_chance"), "lost_share")
        row = share[share["weights"] == "tasks alike"].iloc[0]
        assert [row["mean"], row["low"], row["high"]] == pytest.approx([x / 0.05 for x in (e.mean, e.low, e.high)])
    for sign, said in ((1, "supported"), (-1, "contradicted")):
        told = specifications.specifications(table("main", loss=0.06 * sign, shift=0.05 * sign), claim)
        assert set(told.loc[told["stated"], "verdict"]) == {said}


def test_weights_and_duplicates_of_specifications() -> None:
    """Two tasks, one with two budgets: the mean over budgets alike weighs it twice."""
    rows = [
        {
            "method": "vp",
            "task": task,
            "budget": budget,
            "seed": 0,
            "source_seed": 0,
            "round": number,
            "density": 0.4**number,
        }
        | {"accuracy": 0.6 - lost * number, "val_accuracy": 0.6, "ece": 0.1, "classes": ["x"] * 10, "images": 100}
        for task, budget, lost in (("a", 1, 0.1), ("a", 10, 0.2), ("b", 10, 0.3))
        for number in (0, 1)
    ]
    found = specifications.specifications(pd.DataFrame(rows), "C1")
    mine = found[(found["measure"] == "points") & (found["budgets"] == "all")].set_index("weights")["mean"]
    assert mine.to_dict() == pytest.approx({"tasks alike": 22.5, "budgets alike": 20.0})  # images weigh as tasks do
    assert set(found["seeds"]) == {"all"}
    assert set(found["tasks"]) == {"1.5 x chance"}  # leaves none out, as the others do


def test_protocols_flip_what_their_defect_changes() -> None:
    tables = {grid: table(grid) for grid in ("authors", "batch128", "undone")}
    found = contrasts.protocols(tables)
    assert found["vp", "logits", "C3"].flips  # the made-up ECE of logits falls where ECE rises
    assert found["vp", "whole", "C3"].theirs.margin == found["vp", "logits", "C3"].theirs.margin  # of legacy ECE
    for claim in ("C1", "C3"):
        assert (found["vp", "undone", claim].verdict, found["vp", "undone", claim].flips) == ("no relevant effect", True)
        assert found["vp", "undone", claim].ours_verdict == "supported"
        assert not found["vp", "stale", claim].flips
    assert ("vp", "undone", "C2") not in found  # one budget
    assert ("lp", "ties", "C1") not in found  # a probe has no mapping
    assert found["lp", "whole", "C1"] == found["lp", "test", "C1"]
    right = tables["authors"][tables["authors"]["method"].isin(["vp", "source"])]
    right = right[right["ties"].isna() | ((right["ties"] == "random") & (right["last_mapping"] == "fresh"))]
    cost = costs(right[right["selection"].isna() | (right["selection"] == "last")])
    assert found["vp", "ties", "C1"].ours.mean == pytest.approx(estimate(cost, "accuracy_loss").mean)
    cells = cost[(cost["budget"] == 10) & cost["source_seed"].isin([10, 11])]
    assert found["vp", "undone", "C1"].ours.mean == pytest.approx(estimate(cells, "accuracy_loss").mean)
    doubted = contrasts.protocols(tables, harm_seen=False)
    assert doubted["vp", "undone", "C1"].verdict == "inconclusive"  # over two chains
    assert contrasts.protocols({"authors": tables["authors"]}).keys() == {key for key in found if key[1] not in tables}


def test_contrasts_name_their_ways() -> None:
    cost = contrasts.contrast(table("sparsifiers"), ["sparsifier"])
    assert {"RigL", "gradual pruning"} < set(cost["way"])
    assert set(cost["method"]) == {"vp", "lp", "source"}
    own = cost[(cost["method"] == "source") & (cost["way"] == "RigL")]
    sources = table("sparsifiers")[table("sparsifiers")["method"] == "source"].set_index(["source_seed", "round"])
    rigl = sources[sources["sparsifier"] == "rigl"]["accuracy"]
    dense = sources[sources["sparsifier"].isna()]["accuracy"]
    for chain, lost in zip(own["source_seed"], own["accuracy_loss"], strict=True):
        assert lost == pytest.approx(dense[chain, 0] - rigl[chain, 2])
    tuned = contrasts.contrast(table("finetuned"), [])
    assert set(tuned["way"]) == {"40% kept", "16% kept"}
    assert tuned.loc[tuned["method"] == "ft", "lr"].nunique() == 1
    prompts = contrasts.contrast(table("newcomers"), ["prompt"])
    assert set(prompts["method"]) == {"vp"}  # nothing is done to the network
