"""Checks on a GPU: that it computes what the CPU computes, that recorded steps are the steps, and that nothing waits.

    python -m vpcore.bench.gpu_check                     # needs torch and this package, nothing else; a line for each check
    python -m vpcore.bench.gpu_check --device cpu        # a rehearsal: the CPU against itself
    python -m vpcore.bench.gpu_check --only prompts

It exits with 1 when a check fails. The networks are tiny and their images are noise: what differs between devices differs
here, too. Tests on a machine with a GPU (`pytest -m gpu`) run the same checks.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import product

import torch
from torch import Tensor

from vpcore.bench.gpu_cases import SCHEDULES, fitted, frozen, logits, probed, prompted
from vpcore.networks import repeat as repeating
from vpcore.networks.training import predict
from vpcore.prompting.label_mapping import MAPPINGS
from vpcore.prompting.one_to_one import TIES, greedy
from vpcore.prompting.prompts import PROMPTS

Job = Callable[[torch.device], tuple[Tensor, Tensor | None]]  # what must be close, and what must be equal; see `gpu_cases`
Limit = float | None

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Check:
    """A comparison: what was compared, the largest difference, and the most that passes; without a limit it only tells."""

    what: str
    difference: float
    limit: float | None = None

    @property
    def passed(self) -> bool:
        return self.limit is None or self.difference <= self.limit  # NaN does not pass

    def __str__(self) -> str:
        verdict = "NOTE" if self.limit is None else "PASS" if self.passed else "FAIL"
        limit = "" if self.limit is None else f"  (at most {self.limit:g})"
        return f"{verdict}  {self.what}: {self.difference:.3g}{limit}"


@contextmanager
def _eager() -> Iterator[None]:
    """No step is recorded, since none comes often enough."""
    known = repeating.WARM_UP
    repeating.WARM_UP = sys.maxsize
    try:
        yield
    finally:
        repeating.WARM_UP = known


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, over the largest number."""
    ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))


def _compared(
    what: str, job: Job, device: torch.device, *, cpu: Limit = None, eager: Limit = None, again: Limit = None
) -> Iterator[Check]:
    """A job on the device, in recorded steps, against the CPU, against steps as they are, and against itself.

    Args:
        what: is done.
        job: does it.
        device: of the work.
        cpu, eager, again: the most that passes for each of the three; what has none is not compared.
    """
    ours, choice = job(device)
    if cpu is not None:
        theirs, other = job(CPU)
        if choice is not None and other is not None:
            yield Check(f"{what}: choices as on the CPU", float(not torch.equal(choice.cpu(), other)), 0)
        yield Check(f"{what}: as on the CPU", _difference(ours, theirs), cpu)
    if eager is not None:
        with _eager():
            plain, _ = job(device)
        yield Check(f"{what}: recorded as eager", _difference(ours, plain), eager)
    if again is not None:
        yield Check(f"{what}: two runs", _difference(job(device)[0], ours), again)


def networks(device: torch.device) -> Iterator[Check]:
    """Logits of the same weights on the device and on the CPU."""
    for precision, limit in (("float64", 1e-10), ("float32", 1e-4), ("bf16", 0.05)):
        yield from _compared(f"logits, {precision}", partial(logits, precision=precision), device, cpu=limit)


def mappings(device: torch.device) -> Iterator[Check]:
    """What is found in the same predictions, with many ties."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(3, (20, 15, 40), generator=generator)
    for name, ties in TIES.items():
        priority = ties.priorities(list(range(20)), targets=15, sources=40)
        same = torch.equal(greedy(counts.to(device), priority.to(device)).cpu(), greedy(counts, priority))
        yield Check(f"one-to-one mappings as on the CPU, ties {name}", float(not same), 0)
    outputs, labels = torch.randn(5, 60, 40, generator=generator).double(), torch.arange(60).expand(5, -1) % 15
    priority = TIES["random"].priorities(list(range(5)), targets=15, sources=40)
    for name, rule in MAPPINGS.items():
        if rule.due(0) and not rule.on_host:
            found = rule.update(outputs.to(device), labels.to(device), priority.to(device))
            yield Check(f"mapping {name} as on the CPU", _difference(found, rule.update(outputs, labels, priority)), 1e-12)


def prompts(device: torch.device) -> Iterator[Check]:
    """Prompts and their source classes, learned in float64 on the device and on the CPU, and in recorded steps or not."""
    cases = [*((prompt, "ilm") for prompt in PROMPTS), *(("pad", name) for name in MAPPINGS if not MAPPINGS[name].on_host)]
    for prompt, mapping in cases:
        job = partial(prompted, precision="float64", prompt=prompt, mapping=mapping, epochs=6, batch=16)
        limit = 1e-6 if (prompt, mapping) == ("pad", "ilm") else 1e-5
        # a program of zeros has gradients next to zero, whose sign is rounding, and Adam makes a step of any: where the
        # first forward pass itself differs in its last digit, a scale and a mask network drift apart
        across = 1e-2 if prompt in ("scale", "smm") else limit
        yield from _compared(f"prompt {prompt}, mapping {mapping}, float64", job, device, cpu=across, eager=limit)
    for precision, limit in (("float32", 1e-2), ("bf16", 0.2)):
        for batch in (128, 16):
            job = partial(prompted, precision=precision, prompt="pad", mapping="ilm", epochs=12, batch=batch)
            yield from _compared(f"prompt pad, batch {batch}, {precision}", job, device, eager=limit, again=limit)


def probes(device: torch.device) -> Iterator[Check]:
    """Linear probes on the device and on the CPU, recorded and eager, twice."""
    yield from _compared("probe, float64", partial(probed, precision="float64"), device, cpu=1e-6)
    yield from _compared("probe, float32", partial(probed, precision="float32"), device, eager=1e-5, again=0)


def training(device: torch.device) -> Iterator[Check]:
    """Source training under masks that stay and masks that move, on the device and on the CPU, recorded and eager, twice."""
    for schedule in SCHEDULES:
        job = partial(fitted, precision="float64", schedule=schedule)
        yield from _compared(f"training, masks {schedule}, float64", job, device, cpu=1e-6, eager=1e-6)
    alpha = 0.3 if find_spec("numpy") else 0.0
    job = partial(fitted, precision="float64", schedule="fixed", mixup=alpha, label_smoothing=0.1)
    yield from _compared("training with mixup, float64", job, device, cpu=1e-6)
    for precision, limit in (("float32", 1e-2), ("bf16", 0.3)):
        job = partial(fitted, precision=precision, schedule="fixed")
        yield from _compared(f"training, {precision}", job, device, eager=limit, again=limit)


def _waits(work: Callable[[], object]) -> int:
    """How often Python waits for the device during some work."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum(repeating.WAITED in str(warning.message) for warning in caught)


def waiting(device: torch.device) -> Iterator[Check]:
    """More epochs or steps make Python wait no more often: a training is queued without looking at the device."""
    if device.type != "cuda":
        return
    jobs: dict[str, Callable[..., object]] = {"probe": partial(probed, device, "float32")}
    for batch, (prompt, mapping) in product((128, 16), (("pad", "ilm"), ("pad", "blm+"), ("random_patch", "ilm-running"))):
        what = f"prompt {prompt}, {mapping}, batch {batch}"
        jobs[what] = partial(prompted, device, "float32", prompt, mapping, batch=batch)
    for what, job in jobs.items():
        few, many = (_waits(partial(job, epochs=n)) for n in (5, 9))
        yield Check(f"{what}: waits in 4 epochs", many - few, 0)
    few, many = (_waits(partial(fitted, device, "bf16", "fixed", epochs=2, count=n)) for n in (40, 80))
    yield Check("training: waits in 10 steps", many - few, 0)


def memory(device: torch.device) -> Iterator[Check]:
    """Too large a batch is halved until it fits, and the predictions are the same."""
    if device.type != "cuda":
        return
    network, shown = frozen(device, "float32"), torch.zeros(4096, 3, 128, 128, dtype=torch.uint8)
    shown[:] = torch.arange(4096)[:, None, None, None] % 251
    expected = predict(network, shown, batch=64, device=device)
    torch.cuda.empty_cache()
    share, number = 2**30 / torch.cuda.get_device_properties(device).total_memory, torch.cuda.current_device()
    torch.cuda.set_per_process_memory_fraction(share, number)
    try:
        found = predict(network, shown, batch=4096, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, number)
    yield Check("predictions in 1 GB of memory", _difference(found, expected), 1e-4)


def speed(device: torch.device) -> Iterator[Check]:
    """Milliseconds of a job, recorded and eager: no check."""
    jobs: dict[str, Callable[[], object]] = {
        "prompt, 3 x 44 images, 200 epochs": partial(prompted, device, "bf16", "pad", "ilm", epochs=200, batch=128),
        "probe, 3 x 90 features, 30 epochs": partial(probed, device, "float32", epochs=30),
        "training, 400 images, 4 epochs": partial(fitted, device, "bf16", "fixed", count=400),
    }
    for what, job in jobs.items():
        for name, mode in (("recorded", nullcontext), ("eager", _eager)):
            with mode():
                start = time.perf_counter()
                job()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds = time.perf_counter() - start
            yield Check(f"{what}: ms {name}", 1000 * seconds)


# name -> what it checks
CHECKS: dict[str, Callable[[torch.device], Iterator[Check]]] = {
    check.__name__: check for check in (networks, mappings, prompts, probes, training, waiting, memory, speed)
}


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, a line each; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check that a GPU computes what the CPU computes.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=CHECKS, action="append")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA GPU here; --device cpu rehearses the checks")
        return 1
    warnings.filterwarnings("error", message="a step waits for the GPU")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32 is to be float32
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}", flush=True)
    failed = 0
    for group in given.only or CHECKS:
        start = time.perf_counter()
        try:
            for check in CHECKS[group](device):
                print(check, flush=True)
                failed += not check.passed
        except Exception as error:  # noqa: BLE001 one group that breaks must not hide the others
            print(f"FAIL  {group}: {type(error).__name__}: {str(error)[:2000]}", flush=True)
            failed += 1
        print(f"      {group}: {time.perf_counter() - start:.1f} s", flush=True)
    print(f"{failed} failed" if failed else "all passed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
