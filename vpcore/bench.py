"""Bench: how fast the pieces are, as ratios measured side by side in one run.

We are compared with the floor, the bare passes of the same network on the same batch (`floor`), with the naive way, the
protocol as one writes it first (`naive`), and with other libraries. Images are noise, since speed does not depend on them.
Where the naive way would take hours it is measured on a part, an epoch or some of the images, and extrapolated in
proportion; the table says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vpcore import bench_ideas, bench_parts, bench_processes, bench_transfer
from vpcore.timing import Row, Setting

# name -> what it measures
PIECES: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "floor": bench_transfer.floor,
    "step": bench_transfer.step,
    "growth": bench_transfer.growth,
    "prompt": bench_transfer.prompt,
    "probe": bench_transfer.probe,
    "cohort": bench_transfer.cohort,
    "metrics": bench_parts.metrics,
    "train": bench_parts.train,
    "prune": bench_parts.prune,
    "load": bench_parts.load,
    "ideas": bench_ideas.ideas,
    "workers": bench_processes.workers,
    "memory": bench_processes.memory,
}
