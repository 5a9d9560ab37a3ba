"""The data of the explorer: the numbers of the records, small enough for a page."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.report.made_up import records
from vpcore.report import explorer
from vpcore.report.inference import estimate
from vpcore.report.pairs import costs
from vpcore.study.profile import load_profile

RESULTS = Path(__file__).parents[2] / "results"
MINI = load_profile("mini")
NAMES = list(explorer.METRICS)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Records whose accuracy differs by task, seed and chance alone, of one chain."""
    made = records(MINI, loss=0.1, shift=0.05)
    noise = np.random.default_rng(0).normal(0, 0.02, len(made))
    bins = [np.array([0.0, 30.0, 10.0])] * len(made)
    return made.assign(accuracy=made["accuracy"] + noise, bin_count=bins, bin_confidence=bins, bin_accuracy=bins)


def numbers(group: dict, *, task: str, budget: str, method: str, network: int, metric: str) -> list[float]:
    places = group["tasks"].index(task), group["budgets"].index(budget), group["methods"].index(method), network
    (found,) = [point for point in group["points"] if tuple(point[:4]) == places]
    return found[5][NAMES.index(metric)]


@pytest.mark.parametrize("chains", [1, 3])
def test_numbers_are_the_means_and_intervals_of_the_report(table: pd.DataFrame, chains: int) -> None:
    rng = np.random.default_rng(1)
    several = [table.assign(source_seed=n, accuracy=table["accuracy"] + rng.normal(0, 0.03)) for n in range(chains)]
    table = pd.concat(several).reset_index(drop=True).assign(id=lambda t: t.index.astype(str))
    group = explorer.group(table, "letters", "pruned", explorer.KEPT)
    assert group["networks"][0] == 100
    paired = costs(table)
    kept = ["task", "budget", "seed", "source_seed"]
    for task in (explorer.EVERY, "digits"):
        for metric, rows in (("accuracy", table[table["method"] != "source"]), ("accuracy_loss", paired)):
            mine = rows[(rows["method"] == "vp") & (rows["budget"] == 4) & (rows["round"] == 3)]
            e = estimate(mine[mine["task"].eq(task) | (task == explorer.EVERY)][[*kept, metric]], metric).points()
            found = numbers(group, task=task, budget="4", method="vp", network=3, metric=metric)
            assert found == pytest.approx([e.mean, e.low, e.high], abs=0.051)


def test_bins_are_those_of_all_seeds(table: pd.DataFrame) -> None:
    group = explorer.group(table, "letters", "pruned", explorer.KEPT)
    places = [group["tasks"].index("digits"), 0, 0, 2]
    (point,) = [each for each in group["points"] if each[:4] == places]
    assert point[4] == 3
    assert point[6] == [[1, 750, 3000, 3000], [2, 250, 1000, 1000]]


@pytest.mark.slow
def test_all_that_is_committed_fits_into_a_page(tmp_path: Path) -> None:
    explorer.write(RESULTS, tmp_path / "explorer.json")
    assert (tmp_path / "explorer.json").stat().st_size < 400_000
    content = json.loads((tmp_path / "explorer.json").read_text())
    assert {group["study"] for group in content["groups"]} >= {"Tiny-ImageNet", "ImageNet", "letters, 3 dense networks"}
    titles = [f"{group['study']}: {group['compressed']}" for group in content["groups"]]
    assert len(titles) == len(set(titles)), "the page finds a group by its title"
    for group in content["groups"]:
        for point in group["points"]:
            assert all(len(ends) in (0, 3) for ends in point[5])
            assert all(ends[1] <= ends[0] <= ends[2] for ends in point[5] if ends)
