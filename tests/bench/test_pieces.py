"""The bench: its rows are complete and its ratios follow from its seconds; how fast anything is, no test asks."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from vpcore.bench import floor as bench_floor
from vpcore.bench import ideas as bench_ideas
from vpcore.bench import processes as bench_processes
from vpcore.bench import timing
from vpcore.bench import transfer as bench_transfer
from vpcore.bench.floor import launches
from vpcore.bench.pieces import PIECES
from vpcore.bench.timing import Longer, Row, Setting
from vpcore.cli import main
from vpcore.networks import repeat as repeating

SMALL = Setting("resnet8", canvas=32, repeats=1)


@pytest.mark.parametrize("piece", ["floor", "step", "growth", "prompt", "cohort", "train", "prune"])
def test_every_piece_gives_rows(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if piece != "floor":  # which alone measures bf16 as well, where it may be 50 times slower
        monkeypatch.setattr(bench_floor, "PRECISIONS", {"float32": torch.float32})
    rows = list(PIECES[piece](SMALL))
    assert rows
    for row in rows:
        assert row.piece == piece
        assert row.seconds > 0
        assert math.isfinite(row.seconds)
        assert piece in ("floor", "growth") or row.other is not None


def test_a_unit_of_long_work_is_timed_without_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    for few, expected in ((3, 2.0), (0, 2.0 + 10 / 8)):

        def work(units: int) -> None:
            clock[0] += 10 + 2 * units

        timed = Longer(SMALL, work, few, 8)
        for _ in range(3):
            timed()
        assert timed.seconds == pytest.approx(expected)


@pytest.mark.parametrize("compiles", [True, False])
def test_the_floor_is_the_best_of_all_ways_to_launch_it(compiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, with a stand-in for what records; a way that cannot be had is left out."""
    recorded: list[Callable[..., Tensor]] = []

    class Recorder:
        waits = False

        def prepare(self, step: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
            return step(*inputs)

        def record(self, step: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[Callable[[], None], Tensor]:
            recorded.append(step)
            return lambda: None, step(*inputs)

    def compile_(network: nn.Module) -> nn.Module:
        return network if compiles else nn.Linear(1, 1)  # which cannot take an image

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)  # what it resets takes seconds to import
    monkeypatch.setitem(repeating.RECORDERS, "cpu", lambda device: Recorder())
    monkeypatch.setitem(bench_floor.LAUNCHES, "cpu", ("eager", "captured", "compiled"))
    network, x = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)

    def step(network: nn.Module) -> Tensor:
        x.grad = None
        logits = network(x)
        logits.sum().backward()
        return logits.detach()

    ways = launches(step, network, SMALL.device, compiled=True)
    assert list(ways) == ["eager", "captured", *(["compiled"] if compiles else [])]
    assert len(recorded) == len(ways) - 1  # all but the eager one, and before they are timed
    for way in ways.values():
        torch.testing.assert_close(way(), network(x))
    assert "compiled" not in launches(step, network, SMALL.device, compiled=False)


def test_a_step_is_set_against_the_fastest_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"eager": 3.0, "captured": 0.3, "compiled": 0.6}
    monkeypatch.setattr(bench_transfer, "launches", lambda *arguments, **settings: dict.fromkeys(known, lambda: None))
    monkeypatch.setattr(bench_transfer, "best_precision", lambda setting, count: ("float32", "contiguous", []))
    monkeypatch.setattr(
        bench_transfer, "medians", lambda setting, functions: [f() or f() for f in functions.values()] and known
    )
    monkeypatch.setitem(bench_transfer.COHORTS, "cpu", ((1, 10), (3, 10)))
    rows = list(PIECES["step"](SMALL))
    assert [row.other for row in rows] == [pytest.approx(0.1)] * 3
    assert {row.against for row in rows} == {"floor (contiguous, captured)"}
    assert [row.what.partition(" of ")[0] for row in rows] == ["prompt step, 10 images"] * 2 + ["prompt step, 3 x 10 images"]
    assert len({row.label for row in rows}) == 3


@pytest.mark.parametrize("fails", [False, True])
def test_what_torch_compiles_is_compared_where_it_can(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    def compile_(network: nn.Module) -> nn.Module:
        return network if not fails else nn.Linear(1, 1)  # which cannot take an image

    monkeypatch.setattr(torch, "compile", compile_)
    (row,) = bench_ideas.compiled(SMALL)
    assert row.seconds > 0
    assert (row.other is None) == fails
    assert row.note.startswith("torch.compile fails here: RuntimeError" if fails else "the first step took")


def test_the_peak_of_memory_is_that_of_the_images_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger set of images must show, at a byte a number."""
    monkeypatch.setattr(bench_processes, "RUNS", ())
    monkeypatch.setattr(bench_processes, "IMAGES", (600, 2600))
    few, many = PIECES["memory"](SMALL)
    assert [row.what for row in (few, many)] == ["images: 600", "images: 2600"]
    assert many.megabytes - few.megabytes == pytest.approx(2000 * 3 * 128 * 128 / 1e6, rel=0.3)


def here(count: int, work: Callable[..., float], *arguments: object) -> list[float]:
    """Takes the place of other processes, whose start takes seconds."""
    return [work(*arguments) for _ in range(count)]


def test_workers_are_compared_with_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def seconds(threads: int, keep: bool) -> float:
        seen.append((threads, keep))
        return 1.0 + threads + 10 * (not keep)

    monkeypatch.setattr(bench_processes, "_in_processes", here)
    monkeypatch.setattr(bench_processes, "_prompt_seconds", seconds)
    monkeypatch.setattr(bench_processes, "cores", lambda: 4)
    threads = torch.get_num_threads()
    side_by_side, kept = PIECES["workers"](SMALL)
    assert (side_by_side.seconds, side_by_side.other) == (2 / 4, 1.0 + threads)
    assert (kept.seconds, kept.other) == (2, 12)
    assert seen == [(1, True)] * 4 + [(threads, True), (1, True), (1, False)]


def test_a_prompt_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_processes, "SECONDS", 0.0)
    start = time.perf_counter()
    found = bench_processes._prompt_seconds(torch.get_num_threads(), keep=False)
    assert 0 < 3 * found < time.perf_counter() - start


def test_ideas_are_measured_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network: network)
    monkeypatch.setattr(bench_ideas, "STRIDED", Setting("efficientnet-lite0", canvas=32))
    monkeypatch.setattr(bench_ideas, "IMAGES", 4)
    rows = {row.label: row for row in PIECES["ideas"](SMALL)}
    assert len(rows) == 8
    assert all(row.seconds > 0 and (row.other is None) == (label == "network kept") for label, row in rows.items())


def test_the_peak_of_memory_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_processes, "_in_processes", here)
    monkeypatch.setattr(bench_processes, "RUNS", (2,))
    monkeypatch.setattr(bench_processes, "IMAGES", ())
    (row,) = PIECES["memory"](SMALL)
    assert row.seconds is None
    assert timing.line(row) == f"runs: 2: {row.megabytes:.0f} MB (visual prompts, one after the other)"


def test_the_floor_counts_what_a_network_computes() -> None:
    """Of ResNet-8 at 32 px, by hand: 3 x 3 convolutions of 16 channels at 16 px, then 32 at 8 and 64 at 4."""
    stem, shortcuts = 16 * 16 * 16 * 27, 8 * 8 * 32 * 16 + 4 * 4 * 64 * 32
    first, second, third = 2 * 256 * 16 * 144, 64 * 32 * (144 + 288), 16 * 64 * (288 + 576)
    products = stem + shortcuts + first + second + third + 64 * 1000
    rows = {row.what: row for row in PIECES["floor"](SMALL)}
    forward, step = (next(r for what, r in rows.items() if what.startswith(name)) for name in ("forward, ", "forward and"))
    assert forward.flops == 2 * 100 * products
    assert step.flops == 2 * forward.flops
    assert timing.line(forward).endswith(f"GFLOP/s ({100 / forward.seconds:.0f} images/s)")


def test_functions_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    spent = {"a": iter([9, 1, 5, 2]), "b": iter([9, 7, 7, 7])}
    now = [0.0]

    def call(name: str) -> None:
        called.append(name)
        now[0] += next(spent[name])

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    found = timing.medians(Setting(repeats=3), {"a": lambda: call("a"), "b": lambda: call("b")})
    assert called == ["a", "b"] * 4  # the first round warms up
    assert found == {"a": 2, "b": 7}


def test_the_command_prints_and_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def piece(setting: Setting) -> list[Row]:
        return [Row("step", f"a step at {setting.canvas} px", 2.0, "floor", 1.0), Row("step", "alone", 1000.0, note="so")]

    monkeypatch.setitem(PIECES, "step", piece)
    path, call = tmp_path / "bench.json", CliRunner()
    told = call.invoke(main, ["bench", "--only", "step", "--output", str(path)]).output
    assert "a step at 224 px: 2 s | floor: 1 s | ratio 0.5\n" in told
    assert "alone: 0.28 h (so)" in told
    call.invoke(main, ["bench", "--only", "step", "--canvas", "32", "--output", str(path)])
    call.invoke(main, ["bench", "--only", "step", "--output", str(path)])  # takes the place of the first
    kept = json.loads(path.read_text())
    assert [(row["canvas"], row["what"]) for row in kept] == [
        (32, "a step at 32 px"), (32, "alone"), (224, "a step at 224 px"), (224, "alone"),
    ]  # fmt: skip
    assert kept[0]["ratio"] == 0.5
    assert {"model", "device", "versions", "commit", "processor"} <= set(kept[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "stepp"], "unknown piece 'stepp'; did you mean 'step'"),
        (["--repeats", "0"], "`--repeats` must be a whole number of at least 1, got 0"),
        (["--canvas", "0"], "`--canvas` must be a whole number of at least 8, got 0"),
        (["--canvas", "100000"], "`--canvas` must be a whole number of at least 8 and at most 4096, got 100000"),
        (["--model", "resnet81"], "unknown model 'resnet81'; did you mean 'resnet8'"),
        (["--model", "vit-b16", "--canvas", "32"], "`--canvas` must be 224 px for vit-b16, got 32"),
    ],
)
def test_wrong_settings(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["bench", *arguments])
    assert result.exit_code == 2
    assert message in result.output
