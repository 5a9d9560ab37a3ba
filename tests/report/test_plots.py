import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from vpcore.report import plots
from vpcore.report.notebook import Study
from vpcore.study.profile import Profile
from vpcore.study.store import Store

mpl.use("Agg")


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


PROFILE = Profile("p", "Title", "", {}, False, {})


def records() -> pd.DataFrame:
    return pd.DataFrame(
        {"round": [0, 0, 1, 1], "density": [1.0, 1.0, 0.1, 0.1], "accuracy": [0.8, 0.6, 0.5, 0.3], "seed": [0, 1, 0, 1]}
    )


def test_style_is_gone_after_the_block() -> None:
    before = dict(mpl.rcParams)
    with plots.style():
        assert mpl.rcParams["svg.hashsalt"] == "vpcore"
    assert dict(mpl.rcParams) == before


def test_a_curve_shows_means_and_runs_from_dense_to_sparse(ax) -> None:
    plots.curve(ax, records(), "accuracy", label="x", colour="blue")
    (line,) = ax.get_lines()
    assert line.get_ydata().tolist() == pytest.approx([0.7, 0.4])
    left, right = ax.get_xlim()
    assert left > right
    assert [label.get_text() for label in ax.get_xticklabels()] == ["100", "10"]


def test_a_reliability_diagram_draws_the_bins(ax) -> None:
    bins = pd.DataFrame({"count": [0, 30, 10], "confidence": [0, 0.5, 0.9], "accuracy": [0, 0.4, 0.8]})
    plots.reliability_diagram(ax, bins, title="t", colour="blue")
    heights = [patch.get_height() for patch in ax.patches]
    assert heights[:2] == pytest.approx([0.4, 0.8])  # the empty bin has no bar
    assert heights[2:] == pytest.approx([0, -0.22, -0.22 / 3])
    ticks = [list(line.get_ydata()) for line in ax.get_lines() if len(set(line.get_ydata())) == 1]
    assert ticks[:2] == [[0.5, 0.5], [0.9, 0.9]]


def test_a_heatmap_is_symmetric_about_no_cost(ax) -> None:
    grid = pd.DataFrame([[0.1, -0.05]], index=[1], columns=[0.5, 0.1])
    plots.heatmap(ax, grid, label="loss", limit=0.1)
    assert ax.collections[0].get_clim() == (-10, 10)
    assert [text.get_text() for text in ax.texts] == ["10.0", "-5.0"]


def test_figures_are_the_same_bytes_for_the_same_data(tmp_path) -> None:
    study = Study(PROFILE, Store(tmp_path, "p"), {"main": records()}, tmp_path / "out")
    seen = []
    for _ in range(2):
        with plots.style():
            figure, ax = plt.subplots()
            plots.curve(ax, records(), "accuracy", label="x", colour="blue")
        study.save_figure(figure, "f")
        plt.close(figure)
        seen.append([(tmp_path / "out" / f"f.{kind}").read_bytes() for kind in ("svg", "pdf")])
    assert seen[0] == seen[1]


def test_numbers_keep_their_type(tmp_path) -> None:
    table = records().assign(
        method="vp",
        seconds=1.0,
        commit="c",
        versions="v",
        device="cpu",
        finished="t",
        source_seed=0,
        budget=pd.array([1] * 4),
        id=list("abcd"),
    )
    study = Study(PROFILE, Store(tmp_path, "p"), {"main": table}, tmp_path)
    study.save_numbers(a=np.float64(0.5), n=np.int64(3))
    study.save_numbers(word="w")
    content = pd.read_json(io.StringIO((tmp_path / "numbers.json").read_text()), typ="series")
    assert content["numbers"] == {"a": 0.5, "n": 3, "word": "w"}
    assert content["provenance"]["seeds"] == [0, 1]
    assert content["provenance"]["computing"] == "0.1 minutes"


def test_budgets_are_chosen_by_name(tmp_path) -> None:
    table = pd.DataFrame(
        {"method": "vp", "task": ["a", "a", "b"], "budget": pd.array([1, None, 1], dtype="Int64"), "id": [1, 2, 3]}
    )
    study = Study(PROFILE, Store(tmp_path, "p"), {"main": table}, tmp_path)
    assert study.at_budget("largest")["id"].tolist() == [2, 3]
    assert study.at_budget("1")["id"].tolist() == [1, 3]
    assert study.at_budget("all")["id"].tolist() == [2]
    with pytest.raises(ValueError, match="`budget` must be one of largest, 1, all, got '5'"):
        study.at_budget("5")


def test_the_largest_budget_is_one_that_all_methods_of_a_task_have(tmp_path) -> None:
    rows = [("vp", "a", 1), ("vp", "a", 10), ("lp", "a", 10), ("lp", "a", None), ("vp", "b", 10), ("vp", "b", 100)]
    table = pd.DataFrame(rows, columns=["method", "task", "budget"]).astype({"budget": "Int64"})
    study = Study(PROFILE, Store(tmp_path, "p"), {"main": table}, tmp_path)
    chosen = study.at_budget("largest")[["method", "task", "shots"]].to_records(index=False).tolist()
    assert chosen == [("vp", "a", 10), ("lp", "a", 10), ("vp", "b", 100)]
    apart = Study(PROFILE, Store(tmp_path, "p"), {"main": table.iloc[[0, 3]]}, tmp_path)
    with pytest.raises(ValueError, match="`budget` must be one of 1, all, got 'largest'"):
        apart.at_budget("largest")
