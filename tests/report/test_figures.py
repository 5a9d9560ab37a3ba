"""Every figure shows the numbers that it is given: what is drawn is read back from the axes."""

import inspect
from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes

from tests.report.inside import check_data
from vpcore.calibration.binned import reliability, toplabel
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.scores import risk_coverage
from vpcore.calibration.smooth_ece import cumulative_gap, smooth
from vpcore.report import calibration_plots, curve_plots, figure_files, image_plots, plots, protocol_plots, speed_plots
from vpcore.report.plots import LOOKS, Look
from vpcore.report.verdicts import Estimate

mpl.use("Agg")
SUBJECTS = (calibration_plots, curve_plots, image_plots, protocol_plots, speed_plots)


@pytest.fixture
def axes() -> Iterator[np.ndarray]:
    figure, axes = plt.subplots(2, 2)
    yield axes.ravel()
    figure.draw_without_rendering()
    check_data(figure)  # whatever a test has drawn
    plt.close(figure)


def lines(ax: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """x and y of every line with a label."""
    found = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()}
    for bars in ax.containers:
        if bars.get_label():
            found[bars.get_label()] = tuple(map(list, bars.lines[0].get_data()))
    return {label: line for label, line in found.items() if not label.startswith("_")}


def level(ax: Axes) -> list[float]:
    """Where lines run across the axes."""
    return [
        line.get_ydata()[0] for line in ax.get_lines() if list(line.get_xdata()) == [0, 1] and len({*line.get_ydata()}) == 1
    ]


def dots(ax: Axes, number: int) -> list[list[float]]:
    return np.asarray(ax.collections[number].get_offsets()).tolist()


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def networks() -> dict[str, Predictions]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (200,), generator=generator)
    logits = torch.randn(200, 3, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 3)
    return {"dense": Predictions.from_logits(logits, labels), "sparse": Predictions.from_logits(logits * 2, labels)}


@pytest.mark.parametrize("module", [plots, *SUBJECTS], ids=lambda module: module.__name__)
def test_what_draws_draws_in_our_look(module) -> None:
    """And so looks the same in a notebook of one's own, outside of `style()`. `density_axis` sets nothing of a look."""
    functions = [f for name, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__]
    drawing = [f for f in functions if not f.__name__.startswith("_") and "Axes" in str(inspect.signature(f))]
    assert len(drawing) > 1
    assert [f.__name__ for f in drawing if not hasattr(f, "__wrapped__")] == ["density_axis"] * (module is plots)


def test_four_views_of_predictions(axes) -> None:
    both = networks()
    calibration_plots.four_views(axes, both)
    masses, kernel, sums, risks = axes
    for number, (label, predictions) in enumerate(both.items()):
        bins = reliability(predictions, binning="mass")
        assert np.allclose(lines(masses)[f"{label}: ECE {bins.ece:.1%}"], (bins.confidence, bins.accuracy))
        bars = np.stack([part.vertices for part in masses.containers[number].lines[2][0].get_paths()])[:, :, 0]
        low, high = predictions.confidence.aminmax()
        assert bars.min() == pytest.approx(low)  # from the least confident to the most, without a hole or an overlap
        assert bars.max() == pytest.approx(high)
        assert np.allclose(np.sort(bars[:, 0])[1:], np.sort(bars[:, 1])[:-1])
        curve = smooth(predictions)
        x, y = (torch.tensor(part) for part in lines(kernel)[f"{label}: smooth ECE {curve.ece:.1%}"])
        at = torch.isin(curve.confidence, x)
        assert torch.allclose((y - x) * curve.density[at], curve.gap[at])
        assert curve.density[at].min() > 0.1 * curve.density.max() >= curve.density[~at].max()
        strip = kernel.collections[number].get_paths()[0].vertices[:, 1]
        assert (strip.min(), strip.max()) == pytest.approx((-0.22, 0), abs=1e-3)
        x, y = cumulative_gap(predictions)
        assert np.allclose(lines(sums)[f"{label}: KS {y.abs().max():.1%}"], (x, y))
        risk = risk_coverage(predictions)
        assert np.allclose(lines(risks)[f"{label}: AURC {risk.aurc:.1%}"], (risk.coverage, risk.risk))
    for ax in (masses, kernel):
        assert [0, 1] in [list(line.get_ydata()) for line in ax.get_lines() if list(line.get_xdata()) == [0, 1]]
        assert ticks(ax.yaxis) == ["0%", "25%", "50%", "75%", "100%"]
    assert 0 in level(kernel)
    assert 0 in level(sums)
    assert all(ax.get_legend() and ax.get_xlim() == (0, 1) for ax in axes)


def test_no_networks_have_no_views(axes) -> None:
    calibration_plots.four_views(axes, {})
    assert [ax for ax in axes if ax.has_data() or ax.get_legend()] == []


def test_the_diagonal_of_a_reliability_diagram_is_perfect_calibration(axes) -> None:
    calibration_plots.reliability_diagram(axes[0], reliability(networks()["dense"]), title="t", colour="blue")
    assert [list(values) for values in axes[0].get_lines()[0].get_data()] == [[0, 1], [0, 1]]
    assert ticks(axes[0].yaxis) == ["0%", "25%", "50%", "75%", "100%"]


def test_the_maps_of_classes_add_up_to_the_error(axes) -> None:
    bins = {label: toplabel(predictions) for label, predictions in networks().items()}
    calibration_plots.class_maps(axes[:2], bins, kind="top-label", confidence="confidence")
    images = [ax.images[0] for ax in axes[:2]]
    for image, (label, b) in zip(images, bins.items(), strict=True):
        assert np.abs(image.get_array()).sum() == pytest.approx(100 * b.ece)
        assert image.axes.get_title() == f"{label}:\ntop-label ECE {b.ece:.1%}"
        assert image.get_extent() == [0, 1, 2.5, -0.5]  # the middle of a row is at the number of its class
        assert image.axes.get_xticks().tolist() == [0, 0.25, 0.5, 0.75]
        assert image.axes.get_xlabel() == "confidence"
    limit = max(np.abs(image.get_array()).max() for image in images)
    assert [image.get_clim() for image in images] == [pytest.approx((-limit, limit))] * 2


@pytest.mark.parametrize(("tasks", "shape"), [(1, (1, 1)), (3, (2, 2)), (5, (3, 2))])
def test_accuracy_has_a_panel_for_each_task(tasks: int, shape: tuple[int, int]) -> None:
    rows = [
        {"task": f"t{t}", "method": m, "round": r, "density": 0.1**r, "accuracy": 0.1 * t + 0.05 * (m == "lp") + 0.1 * r}
        for t in range(tasks) for m in ("vp", "lp") for r in (0, 1)
    ]  # fmt: skip
    shown = pd.DataFrame(rows).assign(classes=[["a"] * (2 + int(row["task"][1])) for row in rows])
    figure = curve_plots.accuracy_by_task(shown)
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == shape
    seen = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in seen] == [f"t{t}" for t in range(tasks)]
    for t, ax in enumerate(seen):
        assert lines(ax)[LOOKS["vp"].label][1] == pytest.approx([0.1 * t, 0.1 * t + 0.1])
        assert lines(ax)[LOOKS["lp"].label][1] == pytest.approx([0.1 * t + 0.05, 0.1 * t + 0.15])
        assert level(ax) == [1 / (2 + t)]
        assert ax.get_ylim() == (0, 1)
    assert [text.get_text() for text in figure.legends[0].texts] == [LOOKS["vp"].label, LOOKS["lp"].label]
    plt.close(figure)


def test_a_cost_against_density(axes) -> None:
    found = {
        (m, r, c): Estimate(0.1 * r + (m == "lp"), 0, 2, 3) for m in ("vp", "lp") for r in (1, 2) for c in ("loss", "rise")
    }
    curve_plots.cost_by_density(axes[0], found, {1: 0.5, 2: 0.1}, column="loss", methods=["vp", "lp"])
    assert lines(axes[0]) == {
        LOOKS["vp"].label: ([0.5, 0.1], pytest.approx([0.1, 0.2])),
        LOOKS["lp"].label: ([0.5, 0.1], pytest.approx([1.1, 1.2])),
    }
    assert 0 in level(axes[0])
    assert ticks(axes[0].xaxis) == ["50", "10"]


def test_a_cost_by_budget_keeps_every_curve_inside_and_names_it(axes) -> None:
    """One that lies far above the others, and two that lie on each other; each has a mark or a line of its own."""
    ends = {1: 0.3, 10: 0.01, "all": 0.01}
    found = {
        (size, number): Estimate(high * number, 0, 2 * high * number, 3) for size, high in ends.items() for number in (1, 2)
    }
    labels = {size: f"{size} a class" for size in ends}
    curve_plots.cost_by_budget(axes[0], found, {1: 0.5, 2: 0.1}, budgets=labels, colour="blue")
    assert {label: y for label, (_, y) in lines(axes[0]).items()} == {
        labels[size]: pytest.approx([high, 2 * high]) for size, high in ends.items()
    }
    assert 0 in level(axes[0])
    handles, named = axes[0].get_legend_handles_labels()
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == named == list(labels.values())
    assert len({(bars[0].get_marker(), bars[0].get_linestyle()) for bars in handles}) == 3


def test_tables_are_drawn_column_by_column(axes) -> None:
    means = pd.DataFrame({"a": [0.5, np.nan, 0.7], "b": [0.1, 0.2, 0.6]}, index=[0, 1, 2])
    series = {name: Look(name.upper(), "blue") for name in "abc"}
    curve_plots.series_by_place(axes[1], means.fillna(0), series, ticks=["x", "y", "z"])
    assert lines(axes[1]) == {"A": ([0, 1, 2], [0.5, 0, 0.7]), "B": ([0, 1, 2], [0.1, 0.2, 0.6])}
    curve_plots.band_by_place(axes[2], means.fillna(0), Look("mean", "blue"), ticks=["x", "y", "z"])
    assert lines(axes[2]) == {"mean": ([0, 1, 2], pytest.approx([0.3, 0.1, 0.65]))}
    assert ticks(axes[1].xaxis) == ticks(axes[2].xaxis) == ["x", "y", "z"]
    band = axes[2].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0, 0.7)


def test_a_cost_against_bits(axes) -> None:
    found = {(m, b): Estimate(0.1 * b, 0, 1, 3) for m, b in (("vp", 8), ("vp", 2), ("lp", 2))}
    curve_plots.cost_by_bits(axes[0], found, pd.Series({8: 0.3, 2: 0.4}), bits=[8, 4, 2], methods=["vp", "lp"])
    drawn = lines(axes[0])
    assert drawn[LOOKS["vp"].label] == (pytest.approx([-0.08, 1.92]), pytest.approx([0.8, 0.2]))
    assert drawn[LOOKS["lp"].label] == (pytest.approx([2.08]), pytest.approx([0.2]))
    assert drawn[LOOKS["source"].label] == ([0, 2], [0.3, 0.4])
    assert ticks(axes[0].xaxis) == ["8", "4", "2"]
    assert 0 in level(axes[0])


def test_densities_of_layers(axes) -> None:
    table = pd.DataFrame([[1.0, 1.0], [0.2, 0.05]], index=[1.0, 0.1])
    curve_plots.layer_densities(axes[0], ["conv.weight", "fc.weight"], table)
    assert lines(axes[0]) == {"100%": ([0, 1], [1, 1]), "10%": ([0, 1], [0.2, 0.05])}
    assert ticks(axes[0].xaxis) == ["conv", "fc"]
    assert axes[0].yaxis.get_major_formatter()(0.05, 0) == "5"


def test_transfer_against_source(axes) -> None:
    rows = [("vp", "dense", 0.9, 0.8, 1.0), ("vp", "imp", 0.8, 0.7, 0.1), ("vp", "snip", 0.7, 0.5, 0.1)]
    rows += [("lp", "dense", 0.9, 0.6, 1.0), ("lp", "snip", 0.7, 0.4, 0.1)]
    table = pd.DataFrame(rows, columns=["method", "way", "accuracy", "transfer", "density"])
    curve_plots.transfer_against_source(axes[:2], table, ticks=[1.0, 0.1])
    assert [ax.get_title() for ax in axes[:2]] == [LOOKS["vp"].label, LOOKS["lp"].label]
    assert [dots(axes[0], n) for n in (0, 1)] == [[[0.7, 0.5]], [[0.9, 0.8], [0.8, 0.7]]]  # other ways, and tickets
    assert [dots(axes[1], n) for n in (0, 1)] == [[[0.7, 0.4]], [[0.9, 0.6]]]
    assert axes[0].collections[1].get_array().tolist() == pytest.approx([0, -1])
    assert {part.get_clim() for ax in axes[:2] for part in ax.collections} == {(-1, 0)}
    assert ticks(axes[0].figure.axes[-1].yaxis) == ["100", "10"]


def test_a_gallery_shows_its_images(axes) -> None:
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    grid = axes.reshape(2, 2)
    image_plots.gallery(grid, {"a": images, "b": [None, 2 * images[0] - 0.5]}, rows=["x", "y"])
    for image, ax in zip(images, grid[:, 0], strict=True):
        assert np.array_equal(ax.images[0].get_array(), image.permute(1, 2, 0))
    assert not grid[0, 1].images
    cut = grid[1, 1].images[0].get_array()
    assert (cut.min(), cut.max()) == (0, 1)
    assert [ax.get_title() for ax in grid[0]] == ["a", "b"]
    assert [ax.get_ylabel() for ax in grid[:, 0]] == ["x", "y"]


def test_matrices_are_shown_with_their_numbers(axes) -> None:
    image_plots.mapping_matrices(axes[:2], {"counts": torch.tensor([[3, 0]]), "weights": torch.tensor([[0.25, 0.5]])})
    assert [[text.get_text() for text in ax.texts] for ax in axes[:2]] == [["3", "0"], ["0.25", "0.50"]]
    assert [ax.get_title() for ax in axes[:2]] == ["counts", "weights"]


def test_the_authors_ece_of_every_run(axes) -> None:
    runs = pd.DataFrame(
        {"method": ["vp", "vp", "lp"], "round": [0, 2, 2], "ece": [0.1, 0.2, 0.5], "legacy_ece": [3.0, 1, 2]}
    )
    pair = pd.Series({"ece_a": 0.1, "legacy_ece_a": 3.0, "ece_b": 0.2, "legacy_ece_b": 1.0})
    protocol_plots.legacy_levels(axes[0], runs, {0: "dense", 2: "sparse"}, pair=pair)
    drawn = {part.get_label(): np.asarray(part.get_offsets()).tolist() for part in axes[0].collections}
    vp, lp = LOOKS["vp"].label, LOOKS["lp"].label
    assert drawn == {
        f"{vp}, dense": [[0.1, 3]],
        f"{vp}, sparse": [[0.2, 1]],
        f"{lp}, dense": [],
        f"{lp}, sparse": [[0.5, 2]],
    }
    assert [list(part) for part in axes[0].get_lines()[0].get_data()] == [[0.1, 0.2], [3, 1]]
    assert {text.get_text(): text.xy for text in axes[0].texts} == {"A": (0.1, 3), "B": (0.2, 1)}
    assert (axes[0].get_xlim(), axes[0].get_ylim()) == (pytest.approx((0, 0.54)), pytest.approx((0, 3.24)))


def test_rises_that_disagree_lie_in_grey(axes) -> None:
    pairs = pd.DataFrame({"method": ["vp", "lp"], "ece_rise": [0.1, -0.2], "legacy_ece_rise": [-3.0, 1.0]})
    protocol_plots.legacy_rises(axes[0], pairs)
    assert [dots(axes[0], n) for n in (0, 1)] == [[[0.1, -3]], [[-0.2, 1]]]
    assert (axes[0].get_xlim(), axes[0].get_ylim()) == (pytest.approx((-0.22, 0.22)), pytest.approx((-3.3, 3.3)))
    fields = [patch.get_bbox() for patch in axes[0].patches]
    assert [(field.x0, field.x1, field.y0, field.y1) for field in fields] == [
        (0, 0.5, 0, pytest.approx(3.3)),
        (0.5, 1, pytest.approx(-3.3), 0),
    ]


def test_budgets_that_a_class_cannot_fill_are_open(axes) -> None:
    rows = [(n, s, 0.1 * s + n / 100, min(s, 4), s > 4) for n in (0, 2) for s in (1, 2, 8)]
    rows += [(0, float("inf"), 0.9, 9, False), (2, float("inf"), 0.7, 9, False)]
    runs = pd.DataFrame(rows, columns=["round", "shots", "accuracy", "per_class", "saturated"])
    protocol_plots.saturation(axes[:2], runs, {0: Look("dense", "black"), 2: Look("sparse", "blue")})
    drawn = lines(axes[0])
    assert drawn["dense"] == ([1, 2], pytest.approx([0.1, 0.2]))
    assert drawn["dense, saturated"] == ([8], pytest.approx([0.8]))
    assert drawn["sparse"] == ([1, 2], pytest.approx([0.12, 0.22]))
    assert level(axes[0]) == [0.9, 0.7]  # all images
    assert lines(axes[1]) == {"not saturated": ([1, 2], [1, 2]), "saturated": ([8], [4])}
    assert axes[1].get_title() == "What the budget gives"
    assert [ticks(axis) for axis in (axes[0].xaxis, axes[1].xaxis, axes[1].yaxis)] == [["1", "2", "8"]] * 3


def test_how_many_times_as_fast(axes) -> None:
    speed_plots.ratios(axes[0], pd.DataFrame({"ratio": [3.0, 0.5], "label": ["theirs", "floor"]}))
    assert dots(axes[0], 1) == [[3, 0], [0.5, 1]]
    assert [(text.get_text(), text.get_ha()) for text in axes[0].texts] == [("3", "left"), ("0.5", "right")]
    assert ticks(axes[0].yaxis) == ["theirs", "floor"]
    assert axes[0].yaxis_inverted()


def test_time_grows_with_the_square_of_the_canvas(axes) -> None:
    rows = pd.DataFrame({"axis": ["canvas"] * 2 + ["batch"] * 2, "value": [10, 30] * 2, "seconds": [0.002, 0.01] * 2})
    speed_plots.growth(axes[:2], rows, {"canvas": "px", "batch": "images"})
    assert [lines(ax)["measured"] for ax in axes[:2]] == [([10, 30], pytest.approx([2, 10]))] * 2
    assert [lines(ax)["in proportion"][1] for ax in axes[:2]] == [pytest.approx([2, 18]), pytest.approx([2, 6])]
    assert [ax.get_xlabel() for ax in axes[:2]] == ["px", "images"]


def test_decoded_images_take_a_byte_a_number(axes) -> None:
    runs = pd.DataFrame({"value": [1, 2], "megabytes": [50.0, 70.0]})
    images = pd.DataFrame({"value": [1000, 3000], "megabytes": [90.0, 200.0]})
    speed_plots.memory(axes[:2], runs, images, side=32)
    assert [lines(ax)["measured"] for ax in axes[:2]] == [([1, 2], [50, 70]), ([1000, 3000], [90, 200])]
    guide = lines(axes[1])["one byte a number"][1]
    assert guide == pytest.approx([90, 90 + 2000 * 3 * 32 * 32 / 1e6])
    assert axes[0].get_ylim() == (0, pytest.approx(220))


def test_seconds_of_a_run(axes) -> None:
    runs = pd.DataFrame({"method": "vp", "shots": [1, 1, float("inf")], "seconds": [2.0, 4.0, 9.0]})
    speed_plots.seconds(axes[0], runs)
    assert lines(axes[0]) == {LOOKS["vp"].label: ([0, 1], [3, 9])}
    bars = axes[0].containers[0].lines[2][0].get_paths()
    assert [bar.vertices[:, 1].tolist() for bar in bars] == [[2, 4], [9, 9]]
    assert ticks(axes[0].xaxis) == ["1", "all"]


def test_the_data_of_a_figure_are_those_that_were_drawn() -> None:
    figure, [[left, right]] = plots.panels(1, 2, size=(6, 3))
    found = {("loss", row, "a"): Estimate(0.1 * row, 0, 0.3, 2) for row in (1, 2)}
    plots.forests([left], found, panels={"loss": "points"}, rows={1: "x", 2: "y"}, series={"a": Look("A", "blue")})
    plots.heatmap(right, pd.DataFrame([[0.1, -0.05]], index=[1], columns=[0.5, 0.1]), label="loss", limit=0.1)
    figure.draw_without_rendering()
    table = figure_files.data_of(figure)
    assert table[["series", "x", "y", "low", "high"]].iloc[:2].values.tolist() == [
        ["A", 0.1, "x", 0, 0.3],
        ["A", 0.2, "y", 0, 0.3],
    ]
    assert table[["x", "y"]].iloc[2:].values.tolist() == [["50", 10], ["10", -5]]
    assert "x: 10 (A); y: 20 (A)" in figure_files.description(figure)
    plt.close(figure)
