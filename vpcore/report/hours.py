"""Hours: what a study takes to compute, by the seconds that published records took.

A prompt learns from n images for E epochs in batches of b; a cohort of K seeds takes its steps together:

    seconds = E (n image + ceil(n / b) step / K) + run + c corrupted

`image` is an image in a step and in the mapping before the epoch, `step` what a step costs however few images it has, `run`
all else of a transfer (reading, testing, measuring), and c = 12 x `robustness_images` the corrupted images that it is shown.
A linear probe learns in no time beside that. Fine-tuning computes the gradients of the weights, too: twice the images.
Cohorts are counted as those of a CPU, by seeds alone. A GPU also takes tasks of one shape together; with these as K the
GPU-hours of `real` would be 6 % fewer, and `corrupted` of the GPU, which was chosen so that the sum is right, larger.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from vpcore.data.corruptions import CORRUPTIONS, SEVERITIES
from vpcore.study.profile import load_profile
from vpcore.study.run import Run, run_id, ticket_run, trains

# task of `real` and `pilot` -> its classes, and all its training images where a prompt is learned from all
CLASSES = {
    **dict.fromkeys(("cifar10", "svhn", "eurosat", "fashion_mnist", "sign_digits", "digits"), 10),
    **{"gtsrb": 43, "oxford_pets": 37, "flowers102": 102, "caltech101": 100},
}
EVERY = {"cifar10": 14500, "eurosat": 3500, "sign_digits": 1321}
EPOCHS = 12  # of a source training
LSQ = 1.5  # a step with learned grids takes so many times as long as a float one


@dataclass(frozen=True)
class Machine:
    """Seconds on one kind of machine, with a ResNet-18 of half width at 64 px in bf16; see the head of this file.

    Attributes:
        image, step, run, corrupted: of a transfer.
        training: 12 epochs on Tiny-ImageNet.
        processes: how many share the machine meanwhile.
    """

    image: float
    step: float
    run: float
    corrupted: float
    training: float
    processes: int = 1


# One core with bf16 instructions. `corrupted`, also on loaded cores, from 91 probes of `real` under protocol-1; all else
# from `small`, which shows no corrupted images, and 50 to 640 others in a step: fewer are extrapolated.
CORE = Machine(image=9e-4, step=3e-3, run=0.4, corrupted=7.5e-4, training=1087)
# One H200. The first three and `training` from `pilot`, with three processes; `corrupted` so that six processes take the
# 316 seconds that they took for 586 of the 936 jobs of two chains of `real`, whose rest is taken to be like them.
GPU = Machine(image=1.34e-5, step=2e-3, run=0.1, corrupted=3.9e-4, training=27, processes=6)


def seconds(run: Run, machine: Machine, *, together: int = 1) -> float:
    """Of one transfer, of a cohort of so many seeds."""
    total = machine.run + len(CORRUPTIONS) * len(SEVERITIES) * run.robustness_images * machine.corrupted
    if run.method == "lp":
        return total
    images = CLASSES[run.task] * run.budget if run.budget else EVERY[run.task]
    steps = math.ceil(images / run.batch) * machine.step / together
    return total + run.epochs * (images * machine.image * (1 + (run.method == "ft")) + steps)


def core_hours(study: str = "real") -> pd.DataFrame:
    """What each grid of a study takes on one core, and on one GPU; a run is counted once."""
    rows, counted, made = [], set[str](), set[Run]()
    for name, runs in load_profile(study).grids.items():
        fresh = [run for run in runs if run_id(run) not in counted]
        counted |= {run_id(run) for run in fresh}
        tickets = {ticket_run(run) for run in fresh if run.round == 0 or trains(run)} - made
        made |= tickets
        epochs = sum(run.source_epochs * (1 if run.quant_training == "none" else LSQ) for run in tickets)
        adapted = [run for run in fresh if run.method != "source"]
        cohorts = Counter(dataclasses.replace(run, seed=0) for run in adapted)
        row = {
            "grid": name,
            "networks": len(tickets),
            "prompts": sum(run.method != "lp" for run in adapted),
            "probes": sum(run.method == "lp" for run in adapted),
        }
        for unit, machine in (("core-hours", CORE), ("GPU-hours", GPU)):
            transfers = sum(seconds(run, machine, together=cohorts[dataclasses.replace(run, seed=0)]) for run in adapted)
            row[unit] = (epochs / EPOCHS * machine.training + transfers) / machine.processes / 3600
        rows.append(row)
    table = pd.DataFrame(rows)
    total = pd.DataFrame([{"grid": "sum", **table.drop(columns="grid").sum()}])
    whole = pd.concat([table, total], ignore_index=True).round({"core-hours": 1, "GPU-hours": 2})
    return whole.astype(dict.fromkeys(("networks", "prompts", "probes"), int))


def expected(missing: Iterable[Run], records: pd.DataFrame) -> float | None:
    """Seconds that one worker takes for runs, each as long as like ones took in the mean.

    Like is a run of the same method and budget, or else of the same method. None when there is none for some run.

    >>> records = pd.DataFrame({"method": ["lp", "vp", "vp"], "budget": [1, 1, 10], "seconds": [1.0, 2.0, 6.0]})
    >>> expected([Run(method="vp", task="shapes", budget=budget) for budget in (1, 10, 100)], records)
    12.0
    """
    took: dict[object, float] = {}
    for keys in (["method"], ["method", "budget"]) if len(records) else ():
        for key, seconds in records.groupby(keys, dropna=False)["seconds"].mean().items():
            took[tuple(None if pd.isna(part) else part for part in key) if len(keys) > 1 else key] = seconds
    like = [took.get((run.method, run.budget), took.get(run.method)) for run in missing]
    return sum(seconds for seconds in like if seconds is not None) if None not in like else None


def duration(seconds: float) -> str:
    """For people: "6.7 minutes", or hours from two on.

    >>> duration(400), duration(9000)
    ('6.7 minutes', '2.5 hours')
    """
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
