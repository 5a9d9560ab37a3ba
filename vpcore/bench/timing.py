"""Timing: seconds that are measured side by side, as lines of a table.

Functions that are compared take turns, and the median of their times counts, so that a machine that is busy or slows down
does so for all.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vpcore.files import write_atomically
from vpcore.networks.backbones import build
from vpcore.networks.frozen import Frozen
from vpcore.study.provenance import provenance

CLASSES = 1000  # of the networks


@dataclass(frozen=True)
class Setting:
    """What is measured, and how often."""

    model: str = "resnet18"
    canvas: int = 224
    device: torch.device = torch.device("cpu")
    repeats: int = 5

    def network(self) -> nn.Module:
        """A fresh network in evaluation mode; its weights want no gradients."""
        return build(self.model, classes=CLASSES, seed=0).eval().requires_grad_(False)

    def frozen(self, precision: str) -> Frozen:
        """The same, frozen, on the device."""
        return Frozen(self.network(), precision=precision, device=self.device)

    @property
    def image_px(self) -> int:
        """The side of the image on the canvas of a prompt: 32 px of 224, as CIFAR-10 in the paper."""
        return max(1, self.canvas // 7)

    def images(self, count: int, px: int) -> Tensor:
        return torch.randint(256, (count, 3, px, px), generator=torch.Generator().manual_seed(0)).to(torch.uint8)

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, and what it is compared with.

    Attributes:
        piece: the piece that it belongs to, a key of `PIECES`.
        what: what was measured.
        seconds: how long ours takes; None when memory is measured.
        against: what it is compared with.
        other: seconds that the other takes; None when it is compared with nothing.
        note: how it was measured, if not plainly.
        label: a short name of the comparison, for a figure.
        flops: floating-point operations it takes, two for a multiplication and an addition; None when they are not counted.
        megabytes: the peak memory of a process, in units of 10^6 bytes; None when time is measured.
    """

    piece: str
    what: str
    seconds: float | None = None
    against: str = ""
    other: float | None = None
    note: str = ""
    label: str = ""
    flops: float | None = None
    megabytes: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the other we are."""
        return None if self.other is None or self.seconds is None else self.other / self.seconds


def medians(setting: Setting, functions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each function: the median of several calls, the functions by turns, after one call to warm up."""
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(setting.repeats + 1):
        for name, function in functions.items():
            setting.sync()
            start = time.perf_counter()
            function()
            setting.sync()
            if turn:
                spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in spent.items()}


class Longer:
    """Times a unit of a long piece of work: that by which more of it takes longer than less of it, whatever its start takes.

    Args:
        setting: the machine.
        work: does so many units.
        few, many: units that are done in a call; on a GPU so many that its steps are recorded. few = 0: the whole counts.

    `seconds` is the median of a unit over all calls but the first.
    """

    def __init__(self, setting: Setting, work: Callable[[int], object], few: int, many: int) -> None:
        self.setting, self.work, self.few, self.many = setting, work, few, many
        self.times: list[float] = []

    def __call__(self) -> None:
        spent = {0: 0.0}
        for units in filter(None, (self.few, self.many)):
            self.setting.sync()
            start = time.perf_counter()
            self.work(units)
            self.setting.sync()
            spent[units] = time.perf_counter() - start
        self.times.append((spent[self.many] - spent[self.few]) / (self.many - self.few))

    @property
    def seconds(self) -> float:
        return statistics.median(self.times[1:])  # without those of the warm-up


def compared(
    setting: Setting, row: Row, ours: Callable[[], object], theirs: Callable[[], object] | None = None
) -> Iterator[Row]:
    """A row with the seconds of what it names, and of what it is compared with, by turns."""
    found = medians(setting, {"ours": ours} | ({} if theirs is None else {"theirs": theirs}))
    yield dataclasses.replace(row, seconds=found["ours"], other=found.get("theirs"))


def line(row: Row) -> str:
    """A row as text.

    >>> line(Row("step", "prompt step", 2.0, "floor", 1.8))
    'prompt step: 2 s | floor: 1.8 s | ratio 0.9'
    """
    text = f"{row.what}: {f'{row.megabytes:.0f} MB' if row.seconds is None else clock(row.seconds)}"
    if row.other is not None:
        text += f" | {row.against}: {clock(row.other)} | ratio {row.ratio:.3g}"
    if row.flops is not None and row.seconds is not None:
        text += f" | {row.flops / row.seconds / 1e9:.0f} GFLOP/s"
    return text + (f" ({row.note})" if row.note else "")


def clock(seconds: float) -> str:
    """Seconds as text, in the unit that suits them."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 3600:.2f} h"


def save(path: Path, setting: Setting, rows: list[Row]) -> None:
    """Add the rows to a JSON file of measurements; those of the same model, canvas, device and piece are replaced."""
    known = json.loads(path.read_text()) if path.exists() else []
    where = {"model": setting.model, "canvas": setting.canvas, "repeats": setting.repeats, **provenance(setting.device)}
    fresh = {(setting.model, setting.canvas, where["device"], row.piece) for row in rows}
    kept = [old for old in known if (old["model"], old["canvas"], old["device"], old["piece"]) not in fresh]
    new = [{**dataclasses.asdict(row), "ratio": row.ratio, **where} for row in rows]
    write_atomically(path, json.dumps(kept + new, indent=1))
