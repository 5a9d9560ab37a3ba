"""Bench of memory: the most that a process holds at a time, by the number of runs it does and of images it loads.

Each case is measured in a fresh process with one thread, as workers are, from what Linux says of it; elsewhere nothing is
measured.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from vpcore import data
from vpcore.bench_parts import photos
from vpcore.errors import InputError
from vpcore.runs import Run, source_run
from vpcore.store import Store
from vpcore.study import execute
from vpcore.timing import Row, Setting

STATUS = Path("/proc/self/status")
RUNS = (1, 4, 16)
IMAGES = (1000, 2000, 4000)
PX = 128  # side of the images


def memory(setting: Setting) -> Iterator[Row]:
    """The peak of a study of ever more runs, one after the other, and of the first load of ever more images."""
    if not STATUS.exists():
        return
    for count in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            peak = _in_a_process(_prompts, setting, count, folder)
        yield Row("memory", f"runs: {count}", None, note="visual prompts, one after the other", megabytes=peak)
    for count in IMAGES:
        with tempfile.TemporaryDirectory() as folder:
            photos(Path(folder) / "photos", count)
            peak = _in_a_process(_images, folder)
        yield Row("memory", f"images: {count}", None, note=f"decoded to {PX} px", megabytes=peak)


def _in_a_process(work: Callable[..., None], *arguments: object) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, work, *arguments).result()


def _peak(work: Callable[..., None], *arguments: object) -> float:
    """Do some work; then the largest resident size of this process so far, in units of 10^6 bytes."""
    torch.set_num_threads(1)
    work(*arguments)
    facts = dict(text.split(":", 1) for text in STATUS.read_text().splitlines())
    return int(facts["VmHWM"].split()[0]) * 1024 / 1e6  # the system counts in units of 1,024 bytes


def _prompts(setting: Setting, count: int, folder: str) -> None:
    """Make a network, then learn so many visual prompts on it, each a job of its own."""
    base = Run(
        model=setting.model, canvas=setting.canvas, image_px=setting.image_px, source_per_class=1, source_epochs=1,
        source_batch=16, rewind=0, test_per_class=1, method="vp", task="shapes", budget=1, epochs=1,
    )  # fmt: skip
    runs = (source_run(base), *(Run(**{**vars(base), "lr": 0.01 * number}) for number in range(1, count + 1)))
    for done in execute(runs, Store(Path(folder), "memory"), device=setting.device):
        if done.error is not None:
            raise InputError(f"{done.job} failed: {done.error}") from done.error


def _images(folder: str) -> None:
    """Decode all images of a set into the cache, and look at each."""
    shared = {"px": PX, "folder": Path(folder), "cache": Path(folder) / "cache"}
    for part in data.load("photos", "train", **shared).images.split(100):
        part.float().mean()
