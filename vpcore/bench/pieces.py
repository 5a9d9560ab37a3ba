"""Bench: how fast the pieces are, as ratios measured side by side in one run.

We are compared with the floor, the bare passes of the same network on the same batch (`floor`), with the naive way, the
protocol as one writes it first (`plain_protocol`), and with other libraries. Images are noise, since speed does not depend
on them. Where the naive way would take hours it is measured on a part, an epoch or some of the images, and extrapolated in
proportion; the table says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vpcore.bench.ideas import ideas
from vpcore.bench.parts import load, metrics, prune, train
from vpcore.bench.processes import memory, workers
from vpcore.bench.timing import Row, Setting
from vpcore.bench.transfer import cohort, floor, growth, probe, prompt, step

# name -> what it measures
PIECES: dict[str, Callable[[Setting], Iterator[Row]]] = {
    piece.__name__: piece
    for piece in (floor, step, growth, prompt, probe, cohort, metrics, train, prune, load, ideas, workers, memory)
}
