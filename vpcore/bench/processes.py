"""Bench of processes: how much memory one holds, and what workers gain, which are processes with one thread each.

Every case is measured in fresh processes. Only Linux tells the peak memory of a process; elsewhere `memory` gives no rows.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

from vpcore.bench.parts import photos
from vpcore.bench.timing import Row, Setting
from vpcore.bench.transfer import prompted
from vpcore.data.tasks import load
from vpcore.errors import InputError
from vpcore.study.execution import cores, execute
from vpcore.study.run import Run, source_run
from vpcore.study.store import Store
from vpcore.study.workers import keep_freed_memory

STATUS = Path("/proc/self/status")
RUNS = (1, 4, 16)
IMAGES = (1000, 2000, 4000)
PX = 128  # side of the images
SMALL = Setting("resnet8", canvas=32)  # the network of the default study
SECONDS = 8.0  # that workers are watched


def memory(setting: Setting) -> Iterator[Row]:
    """The peak of a study of ever more runs, one after the other, and of the first load of ever more images."""
    if not STATUS.exists():
        return
    for count in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            (peak,) = _in_processes(1, _peak, _prompts, setting, count, folder)
        yield Row("memory", f"runs: {count}", None, note="visual prompts, one after the other", megabytes=peak)
    for count in IMAGES:
        with tempfile.TemporaryDirectory() as folder:
            photos(Path(folder) / "photos", count)
            (peak,) = _in_processes(1, _peak, _images, folder)
        yield Row("memory", f"images: {count}", None, note=f"decoded to {PX} px", megabytes=peak)


def workers(setting: Setting) -> Iterator[Row]:
    """Visual prompts of the default study in processes side by side, against one process with all threads; and in one that
    keeps the memory it frees, against one that does not."""
    count, where = cores(), f"{SMALL.model} at {SMALL.canvas} px"
    several = [each / count for each in _in_processes(count, _prompt_seconds, 1, True)]
    (one,) = _in_processes(1, _prompt_seconds, torch.get_num_threads(), True)
    what = f"a visual prompt, {where}, {count} processes of one thread"
    yield Row("workers", what, statistics.mean(several), "one process, all threads", one, label="workers: one process")
    ((keeps,), (gives_back,)) = (_in_processes(1, _prompt_seconds, 1, keep) for keep in (True, False))
    what = f"a visual prompt, {where}, one thread, freed memory kept"
    yield Row("workers", what, keeps, "freed memory given back", gives_back, label="freed memory kept: given back")


def _in_processes(count: int, work: Callable[..., float], *arguments: object) -> list[float]:
    """What a function returns in each of some processes that do it at the same time."""
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(work, *arguments) for _ in range(count)]]


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
    found = load("photos", "train", px=PX, folder=Path(folder), cache=Path(folder) / "cache")
    for part in found.images.split(100):
        part.float().mean()


def _prompt_seconds(threads: int, keep: bool) -> float:
    """Seconds of a visual prompt when this process learns one cohort of three after the other."""
    torch.set_num_threads(threads)
    if keep:
        keep_freed_memory()
    cohort = partial(prompted, SMALL, SMALL.frozen("float32"), count=160, members=3, epochs=3)
    cohort()
    start, done = time.perf_counter(), 0
    while not done or time.perf_counter() - start < SECONDS:
        cohort()
        done += 1
    return (time.perf_counter() - start) / (3 * done)
