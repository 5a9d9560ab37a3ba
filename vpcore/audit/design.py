"""The design of an audit: which tasks, budgets and seeds are measured in the time there is.

The interval of a mean cost over T tasks, each the mean over B budgets and S seeds, is about

    +- t(T - 1) sqrt((s_task^2 + s_budget^2 / B + s_run^2 / (B S)) / T),

with s_task, how costs differ between tasks; s_budget, how they differ between budgets of a task; s_run, between seeds. One
task speaks for other seeds alone, with t(S - 1) and s_run. The s are those of the published table `small` at 16 % of the
weights (`SPREAD`). Of the designs that fit into the time, the one with the narrowest interval is taken; those with three
tasks or more come before those with fewer. What a run takes is
measured on this machine with these networks: seconds for an image that is looked at, and for one that is learned from.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import stats

from vpcore.audit.networks import Audited
from vpcore.audit.tasks import Task
from vpcore.data.images import Images
from vpcore.errors import InputError
from vpcore.prompting.visual_prompting import visual_prompt

# method -> standard deviations of a loss of accuracy between tasks, budgets of a task, and seeds; results/small.parquet
SPREAD = {"vp": (0.009, 0.015, 0.031), "lp": (0.009, 0.010, 0.014)}
MOST_SEEDS = 10
FEW = 3  # an interval over fewer tasks is very wide, or speaks for one task alone: such designs come last
SAFETY = 0.85  # of the time is planned for; the rest is for reading images and drawing
TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|second|m|min|minute|h|hour|)s?\s*")
UNITS = {"s": 1, "m": 60, "h": 3600, "": 60}  # how a unit begins -> seconds


@dataclass(frozen=True)
class Design:
    """What is measured.

    Attributes:
        tasks: names, see `tasks.read_task`.
        shots: budgets, images a class, the smallest first.
        seeds: of the draws of images, their order, and the start of prompts and probes.
        methods: "vp" and "lp", or one of them.
        canvas: side of what the network sees, px; linear probes see the image at this side.
        image_px: side of the image within the border of a prompt, px.
        epochs, lr: of the prompts.
        test_images: of a task, about.
    """

    tasks: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    canvas: int
    image_px: int
    epochs: int
    lr: float
    test_images: int


@dataclass(frozen=True)
class Speed:
    """Seconds for one image: `looked` at, and `learned` from in a step of a prompt."""

    looked: float
    learned: float


def seconds_of(budget: str) -> float:
    """The seconds of a time such as "10 min", "90 s" or "1 h"; a number alone is minutes.

    >>> seconds_of("5 min"), seconds_of("90s"), seconds_of("2")
    (300.0, 90.0, 120.0)
    """
    parts = TIME.fullmatch(budget.lower()) if isinstance(budget, str) else None
    if parts is None or not float(parts[1]):
        raise InputError(f'`budget` must be a time, such as "10 min", "90 s" or "1 h", got {budget!r}')
    return float(parts[1]) * UNITS[parts[2][:1]]


def measured_speed(networks: Sequence[Audited], tasks: Sequence[Task], number: int, canvas: int, image_px: int) -> Speed:
    """How fast the network with a number is here, after a first look that warms it up."""
    images = torch.zeros(16, 3, canvas, canvas)
    small = Images(torch.zeros(16, 3, image_px, image_px, dtype=torch.uint8), torch.arange(16) % 2, ("a", "b"))
    frozen = networks[number].frozen

    def look() -> None:
        with torch.no_grad():
            frozen.features(images.to(frozen.device)).sum().item()

    def learn() -> None:
        visual_prompt(frozen, small, canvas=canvas, image_px=image_px, mapping="random", epochs=2, progress=False)

    blind = networks[number].no_gradients or frozen.classes < 2
    return Speed(_clocked(look) / len(images), math.nan if blind else _clocked(learn) / (2 * len(images)))


def _clocked(work: Callable[[], None]) -> float:
    """Seconds of the second call."""
    for _ in range(2):
        start = time.perf_counter()
        work()
    return time.perf_counter() - start


def half_width(method: str, *, tasks: int, shots: int, seeds: int) -> float:
    """Half the width of the 95 % interval of a mean loss of accuracy that a design will about have; infinity without one.

    >>> [round(half_width("lp", tasks=n, shots=2, seeds=3), 3) for n in (1, 2, 4)]
    [0.025, 0.115, 0.02]
    """
    of_task, of_budget, of_run = SPREAD[method]
    if tasks == 1:
        return float(stats.t.ppf(0.975, seeds - 1)) * of_run / math.sqrt(shots * seeds) if seeds > 1 else math.inf
    variance = (of_task**2 + of_budget**2 / shots + of_run**2 / (shots * seeds)) / tasks
    return float(stats.t.ppf(0.975, tasks - 1)) * math.sqrt(variance)


def expected(design: Design) -> float:
    """Half the width of the interval that a design will about give the first primary contrast; infinity without one."""
    return half_width(design.methods[0], tasks=len(design.tasks), shots=len(design.shots), seeds=len(design.seeds))


def seconds(design: Design, speeds: Sequence[Speed], tasks: Sequence[Task]) -> float:
    """What a design will about take with its tasks."""
    total = 0.0
    for speed, task in itertools.product(speeds, tasks):
        count, shown, corrupted = len(task.classes), task.sizes["test"] + task.sizes["val"], task.sizes["corrupted"]
        if "lp" in design.methods:
            drawn = count * max(design.shots) * min(len(design.seeds), 4)
            total += speed.looked * (drawn + shown + corrupted)
        if "vp" in design.methods and not math.isnan(speed.learned):
            learned = design.epochs * speed.learned * count * sum(design.shots)
            total += len(design.seeds) * (learned + speed.looked * shown * len(design.shots)) + speed.looked * corrupted
    return total


def choose(design: Design, speeds: Sequence[Speed], tasks: Sequence[Task], *, limit: float) -> Design:
    """The design with the narrowest interval among those that fit into a time.

    Args:
        design: the largest: of its tasks and budgets the first ones are taken; seeds are numbered from the first one on.
        speeds: of each network.
        tasks: those of the design.
        limit: seconds.

    Returns:
        The design. Where no three tasks fit with prompts, and three do without, prompts are left out; where nothing fits, it
        is the smallest.

    >>> large = Design(("a", "b", "c"), (1, 4), (0,), ("vp", "lp"), 32, 18, 30, 0.1, 300)
    >>> tasks = [Task(name, tuple("0123456789"), {"val": 100, "test": 300, "corrupted": 200}, print) for name in large.tasks]
    >>> fast = choose(large, [Speed(1e-3, 1e-3)] * 2, tasks, limit=60)
    >>> fast.tasks, fast.methods, choose(large, [Speed(1, 1)], tasks, limit=1).methods
    (('a', 'b', 'c'), ('vp', 'lp'), ('lp',))
    """
    numbers = range(design.seeds[0], design.seeds[0] + MOST_SEEDS)
    levels = {"tasks": design.tasks, "shots": design.shots, "seeds": tuple(numbers)}
    sizes = [range(1, len(each) + 1) for each in levels.values()]
    found = []
    for methods in dict.fromkeys((design.methods, ("lp",))):
        for counts in itertools.product(*sizes):
            some = {name: each[:count] for (name, each), count in zip(levels.items(), counts, strict=True)}
            one = dataclasses.replace(design, methods=methods, **some)  # type: ignore[arg-type]
            order = len(one.tasks) < FEW, methods != design.methods, expected(one)
            found.append((order, seconds(one, speeds, tasks[: len(one.tasks)]), one))
    fitting = [each for each in found if each[1] <= SAFETY * limit and each[0][-1] < math.inf]
    if fitting:
        return min(fitting, key=lambda each: each[:2])[2]
    return min(found, key=lambda each: (each[0][-1] == math.inf, each[1]))[2]  # the cheapest that has an interval
