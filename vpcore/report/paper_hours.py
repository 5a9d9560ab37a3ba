"""What the study `paper` takes on a laptop, a GPU and a cluster, by what was measured of single steps (results/bench.json).

A prompt that learns from n images for E epochs shows each in E steps, and once before every epoch for the mapping:

    seconds = E n (step + forward),     n = min(budget x classes, training images)

`step` and `forward` are those of one image. On two CPU cores both were measured with ResNet-50 at 224 px in bf16; other
networks take them in proportion to their operations, as torch counts them. On a GPU they were measured with a ResNet-18 at
64 px, where launching takes most of the time of a step: in proportion to operations, they bound the time from above.
Probes, testing and reading come on top; they show each image once. The table of the page is made by `planning.write`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from vpcore.data.torchvision_sets import SETS
from vpcore.networks import watching
from vpcore.networks.backbones import build
from vpcore.study.profile import load_profile
from vpcore.study.run import Run

ROOT = Path(__file__).resolve().parents[2]
CLASSES = {
    "tv-cifar10": 10, "tv-cifar100": 100, "tv-svhn": 10, "tv-gtsrb": 43, "tv-dtd": 47, "tv-flowers102": 102,
    "tv-eurosat": 10, "tv-oxford_pets": 37, "tv-food101": 101, "tv-stanford_cars": 196, "tv-sun397": 397,
    "tv-caltech101": 101, "coop-ucf101": 101,
}  # fmt: skip
UCF101 = 7_639  # training images of the split of CoOp


@dataclass(frozen=True)
class Speed:
    """Seconds of one image, of a network with so many operations in a forward pass.

    Attributes:
        step: side of the image on the canvas -> a step of a prompt.
        forward: without gradients.
        operations: of the network that was timed, at its canvas.
    """

    step: dict[int, float]
    forward: float
    operations: float


def measured(bench: Path = ROOT / "results" / "bench.json") -> tuple[Speed, Speed]:
    """The speeds of two CPU cores and of one GPU."""
    rows = json.loads(bench.read_text())

    def of_one(what: str, model: str, canvas: int, device: str) -> float:
        """Of the first row of this kind, which times 100 images."""
        alike = (r for r in rows if (r["what"], r["model"], r["canvas"]) == (what, model, canvas) and device in r["device"])
        return next(alike)["seconds"] / 100

    cores, gpu = ("resnet50", 224, "cpu"), ("resnet18", 64, "NVIDIA")
    steps = {px: of_one(f"prompt step, 100 images of {px} px, bf16", *cores) for px in (32, 128)}
    step = of_one("prompt step, 100 images of 36 px, float32", *gpu)
    return (
        Speed(steps, of_one("forward, 100 images, bf16/channels last", *cores), operations("resnet50", 224)),
        Speed(
            dict.fromkeys(steps, step),
            of_one("forward, 100 images, float32/channels last", *gpu),
            operations("resnet18", 64),
        ),
    )


@functools.cache
def operations(model: str, canvas: int) -> float:
    """Of a forward pass of one image, as torch counts them; nothing is computed."""
    with torch.device("meta"):
        return watching.operations(lambda: build(model, classes=1000, seed=0)(torch.zeros(1, 3, canvas, canvas)))["Global"]


def shown(run: Run) -> int:
    """How many images a prompt learns from."""
    whole = SETS[run.task].splits["train"] * (1 - SETS[run.task].test_share) if run.task in SETS else UCF101
    return int(whole) if run.budget is None else int(min(run.budget * CLASSES[run.task], whole))


def seconds(run: Run, speed: Speed) -> float:
    """Of learning one prompt."""
    scale = operations(run.model, run.canvas) / speed.operations
    return run.epochs * shown(run) * (speed.step[run.image_px] + speed.forward) * scale


def paper_hours() -> pd.DataFrame:
    """The prompts of `paper` on each machine: hours of work, of the longest job (a cohort of seeds), and days until the end.

    Jobs do not wait for each other, since the networks are not trained; the study ends no sooner than its longest job.
    """
    cores, gpu = measured()
    cohorts: dict[Run, list[Run]] = {}
    for run in load_profile("paper").runs:
        if run.method == "vp":
            cohorts.setdefault(dataclasses.replace(run, seed=0), []).append(run)
    rows = []
    for machine, speed, workers in (
        ("a laptop with two cores", cores, 1),
        ("Slurm, 40 jobs of two cores", cores, 40),
        ("one H200, at most", gpu, 1),
        ("eight of them, at most", gpu, 8),
    ):
        hours = [sum(seconds(run, speed) for run in cohort) / 3600 for cohort in cohorts.values()]
        days = max(sum(hours) / workers, max(hours)) / 24
        row = {"machine": machine, "hours of work": round(sum(hours)), "longest job, hours": round(max(hours))}
        rows.append({**row, "days until the end": round(days, 1)})
    return pd.DataFrame(rows)
