import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from vpcore import InputError
from vpcore.calibration.binned import Reliability, reliability
from vpcore.calibration.predictions import Predictions
from vpcore.report import calibration_plots, plots
from vpcore.report.notebook import Study
from vpcore.report.summaries import beside_dense
from vpcore.report.verdicts import Estimate
from vpcore.study.profile import Profile
from vpcore.study.store import Store

mpl.use("Agg")


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


BLUE = plots.Look("x", "blue")
NETWORK = {"source": "glyphs", "model": "resnet8", "weights": "trained"}
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
    plots.curve(ax, records(), "accuracy", BLUE)
    (line,) = ax.get_lines()
    assert line.get_ydata().tolist() == pytest.approx([0.7, 0.4])
    left, right = ax.get_xlim()
    assert left > right
    assert [label.get_text() for label in ax.get_xticklabels()] == ["100", "10"]


def test_a_reliability_diagram_draws_the_bins(ax) -> None:
    count, confidence, accuracy = torch.tensor([[0, 30, 10], [0, 0.5, 0.9], [0, 0.4, 0.8]], dtype=torch.float64)
    bins = Reliability(torch.tensor([0, 0.3, 0.6, 1]), count, confidence, accuracy)
    calibration_plots.reliability_diagram(ax, bins, title="t", colour="blue")
    heights = [patch.get_height() for patch in ax.patches]
    assert heights[:2] == pytest.approx([0.4, 0.8])  # the empty bin has no bar
    assert heights[2:] == pytest.approx([0, -0.22, -0.22 / 3])
    widths = [patch.get_width() for patch in ax.patches]
    assert widths[2:] == pytest.approx([0.92 * 0.3, 0.92 * 0.3, 0.92 * 0.4])  # bins need not be equally wide
    ticks = [list(line.get_ydata()) for line in ax.get_lines() if len(set(line.get_ydata())) == 1]
    assert ticks[:2] == [[0.5, 0.5], [0.9, 0.9]]


def test_a_heatmap_is_symmetric_about_no_cost(ax) -> None:
    grid = pd.DataFrame([[0.1, -0.05]], index=[1], columns=[0.5, 0.1])
    plots.heatmap(ax, grid, label="loss", limit=0.1)
    assert ax.collections[0].get_clim() == (-10, 10)
    assert [text.get_text() for text in ax.texts] == ["10.0", "\N{MINUS SIGN}5.0"]


def test_figures_are_the_same_bytes_for_the_same_data(tmp_path) -> None:
    study = Study(PROFILE, Store(tmp_path, "p"), {"main": records()}, tmp_path / "out")
    seen = []
    for _ in range(2):
        with plots.style():
            figure, ax = plt.subplots()
            plots.curve(ax, records(), "accuracy", BLUE)
        study.save_figure(figure, "f")
        plt.close(figure)
        seen.append(
            [(tmp_path / "out" / f"f{kind}").read_bytes() for kind in (".svg", "-dark.svg", ".pdf", "-data.csv", ".txt")]
        )
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
        task="shapes",
        **NETWORK,
    )
    study = Study(PROFILE, Store(tmp_path, "p"), {"main": table}, tmp_path)
    study.save_numbers(a=np.float64(0.5), n=np.int64(3))
    study.save_numbers(word="w")
    content = pd.read_json(io.StringIO((tmp_path / "numbers.json").read_text()), typ="series")
    assert content["numbers"] == {"a": 0.5, "n": 3, "word": "w"}
    assert content["provenance"]["seeds"] == [0, 1]
    assert content["provenance"]["computing"] == "0.1 minutes"


@pytest.mark.parametrize(("each", "computing"), [(1000.0, "66.7 minutes"), (1e6, "1111.1 hours")])
def test_the_time_of_all_runs_is_told(tmp_path, each: float, computing: str) -> None:
    table = grid(seconds=[each] * 4, commit=["c"] * 4, versions=["v"] * 4, device=["cpu"] * 4, finished=list("zabc"))
    provenance = study_of(table.assign(source_seed=0, **NETWORK), tmp_path).provenance()
    assert (provenance["computing"], provenance["finished"]) == (computing, "z")
    assert (provenance["profile"], provenance["title"]) == ("p", "Title")
    none = Study(PROFILE, Store(tmp_path, "p"), {}, tmp_path).provenance()
    assert (none["profile"], none["title"]) == ("none", "computed in the notebook")


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


def grid(**columns: list) -> pd.DataFrame:
    """Records of a grid: a dense network and a sparse one, on one task, with two seeds, and whatever else is given."""
    shared = {"method": "vp", "task": "a", "budget": 1, "accuracy": 0.5, "sparsifier": [None, None, "imp", "imp"]}
    table = pd.DataFrame({**shared, "round": [0, 0, 1, 1], "seed": [0, 1, 0, 1], "id": list("abcd"), **columns})
    return table.astype({"budget": "Int64"})


def study_of(table: pd.DataFrame, folder) -> Study:
    return Study(PROFILE, Store(folder, "p"), {"main": table}, folder)


def test_what_varies_and_is_not_asked_about_is_an_error(tmp_path) -> None:
    assert len(study_of(grid(), tmp_path).transfers) == 4
    two = pd.concat([grid(), grid(sparsifier=[None, None, "rigl", "rigl"]).iloc[2:]])
    study = study_of(two, tmp_path)
    with pytest.raises(InputError, match=r"grid main .* must have one `sparsifier` .* got imp, rigl; give each a "):
        study.transfers  # noqa: B018 the access is what is tested
    with pytest.raises(InputError, match="`sparsifier`"):
        study.source  # noqa: B018
    assert len(study.adapted("main", by=["sparsifier"])) == 6


def test_a_kind_of_network_may_not_follow_from_the_round(tmp_path) -> None:
    chain = pd.concat([grid(), grid(sparsifier=[None, None, "2:4", "2:4"], round=[0, 0, 2, 2]).iloc[2:]])
    with pytest.raises(InputError, match="one `sparsifier`"):
        study_of(chain, tmp_path).transfers  # noqa: B018


def test_a_setting_of_the_transfer_may_follow_from_what_is_told_apart(tmp_path) -> None:
    two = pd.concat([grid(lr=[0.1] * 4), grid(lr=[0.01] * 4, method=["lp"] * 4)])
    assert len(study_of(two, tmp_path).transfers) == 8
    with pytest.raises(InputError, match="one `lr`"):
        study_of(grid(lr=[0.1, 0.2, 0.1, 0.2]).assign(seed=0), tmp_path).transfers  # noqa: B018


def test_probes_with_two_views_are_two_methods(tmp_path) -> None:
    views = [grid(method=["lp"] * 4, view=[view] * 4) for view in ("frame", "canvas")]
    study = study_of(pd.concat(views), tmp_path)
    assert study.methods == ["lp", "lp-canvas"]
    assert study.transfers.groupby("method")["view"].unique().map(list).to_dict() == {
        "lp": ["frame"],
        "lp-canvas": ["canvas"],
    }
    assert set(study.adapted("main", by=["view"])["method"]) == {"lp"}
    assert study_of(views[1], tmp_path).methods == ["lp"]


def test_axes_without_data_say_so(tmp_path) -> None:
    figure, [[full, empty]] = plots.panels(1, 2, size=(4, 2))
    plots.curve(full, records(), "accuracy", BLUE)
    assert study_of(grid(), tmp_path).save_figure(figure, "f") is figure
    assert [text.get_text() for text in empty.texts] == ["The profile p\nhas no runs for this."]
    assert len(full.texts) == 0
    assert not plt.fignum_exists(figure.number)


def test_an_empty_table_says_so(tmp_path) -> None:
    study = study_of(grid(), tmp_path)
    study.save_table([], "t")
    assert "The profile p has no runs for this." in (tmp_path / "t.csv").read_text()
    study.save_table([{"a": 1}], "t")
    assert (tmp_path / "t.csv").read_text() == "a\n1\n"


def test_numbers_that_are_not_defined_are_null(tmp_path) -> None:
    table = grid(seconds=[1.0] * 4, commit=["c"] * 4, versions=["v"] * 4, device=["cpu"] * 4, finished=["t"] * 4)
    study = study_of(table.assign(source_seed=0, **NETWORK), tmp_path)
    assert study.save_numbers(a=float("nan"), b=np.float64("inf"), c=0.5) == {"a": None, "b": None, "c": 0.5}


def test_pooled_bins_are_those_of_all_predictions_together() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 50, 4, generator=generator), torch.randint(4, (2, 50), generator=generator)
    each = [reliability(Predictions.from_logits(z, y)) for z, y in zip(logits, labels, strict=True)]
    columns = {f"bin_{name}": [getattr(b, name).tolist() for b in each] for name in ("count", "confidence", "accuracy")}
    pooled = calibration_plots.pooled(pd.DataFrame(columns))
    together = reliability(Predictions.from_logits(logits.flatten(0, 1), labels.flatten()))
    for name in ("edges", "count", "confidence", "accuracy"):
        assert torch.allclose(getattr(pooled, name), getattr(together, name))


def test_forests_draw_what_there_is(ax) -> None:
    found = {("loss", row, name): Estimate(0.1 * row, 0, 0.3, 2) for row in (0, 1) for name in ("a", "b")}
    del found["loss", 1, "b"]
    looks = plots.looks({"a": "A", "b": "B", "c": "C"})
    plots.forests([ax], found, panels={"loss": "points"}, rows={0: "x", 1: "y"}, series=looks, spread=0.1)
    drawn = {c.get_label(): c.lines[0].get_ydata().tolist() for c in ax.containers}
    assert drawn == {"A": pytest.approx([-0.1, 0.9]), "B": pytest.approx([0.0])}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x", "y"]
    assert ax.yaxis_inverted()


def test_methods_are_told_apart_by_colour_and_by_marker() -> None:
    for part in ("label", "colour", "marker"):
        assert len({getattr(look, part) for look in plots.LOOKS.values()}) == len(plots.LOOKS)


def test_shades_run_from_light_to_dark() -> None:
    for colour in plots.PALETTE[:3]:
        shown = [sum(look.colour) for look in plots.shades(colour, dict(enumerate("abc"))).values()]
        assert shown[0] > shown[1] > shown[2]
        assert shown[1] == pytest.approx(sum(colour), abs=0.01)
        assert plots.shades(colour, {0: "a"})[0].colour == colour


def test_a_figure_has_one_panel_unless_it_is_told_otherwise() -> None:
    for shape, figure in (((1, 1), plots.panels(size=(1, 1))), ((2, 3), plots.panels(2, 3, size=(3, 2)))):
        assert figure[1].shape == shape
        plt.close(figure[0])


def test_pruned_networks_stand_beside_the_dense_one_of_their_chain() -> None:
    source = pd.DataFrame({"source_seed": [1, 0, 1, 0, 1], "round": [0, 0, 2, 1, 1], "ticket_bytes": [100, 80, 20, 40, 50]})
    beside = beside_dense(source.assign(accuracy=[0.9, 0.8, 0.5, 0.9, 0.7]))
    assert beside["round"].tolist() == [2, 1, 1]
    assert beside["loss"].tolist() == pytest.approx([0.4, -0.1, 0.2])
    assert beside["size"].tolist() == pytest.approx([0.2, 0.5, 0.5])


def test_a_label_falls_back_on_the_name() -> None:
    assert plots.label_of("x", {"x": plots.Look("an x", "blue")}) == "an x"
    assert plots.label_of("y", {"x": plots.Look("an x", "blue")}) == "y"
