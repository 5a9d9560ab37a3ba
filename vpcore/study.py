"""The study: from the runs of a profile to the jobs that are missing, and their execution.

A job is what is computed in one go: a round of a chain of tickets with its measurement on the source task, or a cohort of
transfers that differ in their seed alone. Jobs follow each other so that a network is loaded once: a ticket, then all that
is measured on it, then the next round. A job whose records exist is no job: that is all the resume there is.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vpcore import calibration, data, pruning, transfer
from vpcore.errors import InputError
from vpcore.files import write_atomically
from vpcore.models import Frozen, build, load_weights_, prunable
from vpcore.runs import CHAIN, Run, chain_id, run_id, source_run
from vpcore.store import Store, provenance
from vpcore.tickets import load_ticket, ticket_path, train_round
from vpcore.training import predict

Log = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """Runs that are computed together: one source run with the training of its ticket, or a cohort of transfers."""

    runs: tuple[Run, ...]

    @property
    def kind(self) -> str:
        return self.runs[0].method

    def __str__(self) -> str:
        run = self.runs[0]
        if self.kind == "source":
            return f"ticket of round {run.round} ({run.density:.1%} of the weights) on {run.source}"
        shots = "all images" if run.budget is None else f"{run.budget}-shot"
        return f"{self.kind} {run.task} {shots}, round {run.round}, {len(self.runs)} seed{'s' * (len(self.runs) > 1)}"


@dataclass(frozen=True)
class Done:
    """A job that ended: what `execute` yields.

    Attributes:
        job: the job.
        records: its records; empty when it failed.
        error: what went wrong, or None.
        seconds: it took.
        number, total: of the job, and how many there are.
        left: estimated seconds until the end, or None while a kind of job has not been timed yet.
    """

    job: Job
    records: tuple[dict[str, object], ...]
    error: Exception | None
    seconds: float
    number: int
    total: int
    left: float | None


def jobs(runs: tuple[Run, ...], store: Store) -> list[Job]:
    """What is missing for these runs, in the order in which it is best computed."""
    done = store.done()
    missing = [run for run in runs if run_id(run) not in done]
    # a ticket is needed for its own record, for what is measured on it, and for the rounds that follow
    last: dict[str, Run] = {}
    for run in missing:
        if run.round >= last.get(chain_id(run), run).round:
            last[chain_id(run)] = run
    ordered = []
    for chain, top in last.items():
        for number in range(top.round + 1):
            ticket = dataclasses.replace(source_run(top), round=number)
            ticket = next((r for r in runs if r.method == "source" and chain_id(r) == chain and r.round == number), ticket)
            path = ticket_path(store.ticket_folder(ticket), number)
            if run_id(ticket) not in done or not path.exists():
                ordered.append(Job((ticket,)))
            cohorts: dict[Run, list[Run]] = {}
            for run in missing:
                if run.method != "source" and chain_id(run) == chain and run.round == number:
                    cohorts.setdefault(dataclasses.replace(run, seed=0), []).append(run)
            ordered += [Job(tuple(cohort)) for cohort in sorted(cohorts.values(), key=lambda c: (c[0].method, c[0].task, c[0].budget or 10**9))]
    return ordered


@dataclass
class Bench:
    """What jobs share: where things lie, and the last network and its features, so that they are computed once."""

    store: Store
    device: torch.device
    folder: Path | None
    log: Log
    _network: tuple[str, Frozen] | None = None
    _features: dict[tuple[str, ...], Tensor] = field(default_factory=dict)

    def images(self, task: str, split: str, *, px: int, per_class: int | None = None) -> data.Images:
        return data.load(task, split, px=px, per_class=per_class, folder=self.folder, cache=self.store.cache)

    def network(self, run: Run) -> Frozen:
        """The frozen network of a run, loaded once for jobs that follow each other."""
        key = f"{chain_id(run)} {run.round}"
        if self._network is None or self._network[0] != key:
            path = ticket_path(self.store.ticket_folder(run), run.round)
            model = build(run.model, classes=len(data.classes(run.source, folder=self.folder)), seed=run.source_seed)
            load_weights_(model, load_ticket(path)[0], where=str(path))
            self._network = key, Frozen(model, precision=run.precision, device=self.device)
            self._features.clear()
        return self._network[1]

    def features(self, run: Run, images: data.Images, split: str) -> Tensor:
        """Features of a split of the task, computed once for all budgets and seeds on the same network."""
        network = self.network(run)
        key = (run.task, split, str(run.test_per_class))
        if key not in self._features:
            self._features[key] = predict(network.features, images.images, device=self.device)
        return self._features[key]


def execute(
    runs: tuple[Run, ...], store: Store, *, device: torch.device, folder: Path | None = None, log: Log = lambda text: None
) -> Iterator[Done]:
    """Compute what is missing, job by job.

    A job that fails is reported, noted in the folder `failed`, and does not stop the others; what needs its ticket is
    reported as failed too. A disk that cannot be written stops everything.

    Args:
        runs: of a profile.
        store: where records lie.
        device: where it runs.
        folder: the data folder, for tasks that are not built in.
        log: is told what happens within a long job.
    """
    todo = jobs(runs, store)
    for task in sorted({name for job in todo for run in job.runs for name in (run.source, run.task)}):
        data.classes(task, folder=folder)  # a missing or damaged data set is an error before anything is computed
    write_atomically(store.root / "records" / ".writable", lambda file: None)
    bench = Bench(store, device, folder, log)
    spent: dict[str, list[tuple[float, float]]] = {}
    broken: dict[str, int] = {}  # chain -> first round without a ticket
    for number, job in enumerate(todo, start=1):
        run, records, error, start = job.runs[0], (), None, time.perf_counter()
        if run.round >= broken.get(chain_id(run), 10**9):
            error = InputError(f"{job} needs the ticket of round {broken[chain_id(run)]}, whose training failed; see above")
        else:
            try:
                records = (_ticket if job.kind == "source" else _transfer)(job, bench)
            except Exception as caught:  # noqa: BLE001 a run that fails must not stop the others
                if isinstance(caught.__cause__, OSError) and "cannot write" in str(caught):
                    raise
                error = caught
                if job.kind == "source":
                    broken[chain_id(run)] = run.round
        seconds = time.perf_counter() - start
        if error is None:
            spent.setdefault(job.kind, []).append((_size(job), seconds))
        else:
            for each in job.runs:
                text = str(error) if isinstance(error, InputError) else "".join(traceback.format_exception(error))
                store.write_failure(each, text)
        yield Done(job, records, error, seconds, number, len(todo), _left(todo[number:], spent))


def _size(job: Job) -> float:
    """How the seconds of jobs of one kind compare: passes over images, up to a factor."""
    run = job.runs[0]
    return len(job.runs) * run.epochs * (run.budget or 50) + 1000 if job.kind != "source" else run.source_epochs


def _left(todo: list[Job], spent: dict[str, list[tuple[float, float]]]) -> float | None:
    total = 0.0
    for job in todo:
        if job.kind not in spent:
            return None
        sizes, seconds = map(sum, zip(*spent[job.kind], strict=True))
        total += _size(job) * seconds / sizes
    return total


def _ticket(job: Job, bench: Bench) -> tuple[dict[str, object], ...]:
    """Train a round, unless its ticket exists, and measure it on the source task."""
    (run,) = job.runs
    start, folder = time.perf_counter(), bench.store.ticket_folder(run)
    train = bench.images(run.source, "train", px=run.canvas, per_class=run.source_per_class)
    path = ticket_path(folder, run.round)
    if not path.exists():
        train_round(
            run.round, lambda: build(run.model, classes=len(train.classes), seed=run.source_seed), train.images, train.labels,
            folder=folder, rate=run.rate, rewind=run.rewind, epochs=run.source_epochs, device=bench.device,
            header={**{name: getattr(run, name) for name in CHAIN}, **provenance(bench.device)}, log=bench.log,
            batch=run.source_batch, lr=run.source_lr, weight_decay=run.source_decay, augment=run.augment,
            precision=run.precision, seed=run.source_seed,
        )
    state, masks, header = load_ticket(path)
    model = build(run.model, classes=len(train.classes), seed=run.source_seed)
    load_weights_(model, state, where=str(path))
    layers = pruning.measure(model, prunable(model))
    sizes = {name: state[name].numel() for name in layers}
    network = bench.network(run)
    few = data.shots(train.labels, max(1, 5000 // len(train.classes)), task=run.source, seed=0)
    measured = {
        "density": sum(layers[name] * sizes[name] for name in layers) / sum(sizes.values()),
        "layer": list(layers), "layer_density": list(layers.values()), "layer_weights": list(sizes.values()),
        "loss": header["history"], "train_images": len(train),
        "train_accuracy": calibration.accuracy(predict(network, train.images[few], device=bench.device).softmax(1), train.labels[few]),
    }  # fmt: skip
    arrays = {}
    for split in ("test", "val"):
        images = bench.images(run.source, split, px=run.canvas, per_class=run.test_per_class)
        arrays |= _outcome(split, predict(network, images.images, device=bench.device), images.labels, measured)
    measured |= {"seconds": time.perf_counter() - start, **provenance(bench.device)}
    return (bench.store.write(run, measured, arrays),)


def _transfer(job: Job, bench: Bench) -> tuple[dict[str, object], ...]:
    """Adapt the frozen network for every seed of a cohort, predict test and val once, and write a record each."""
    run, seeds, start = job.runs[0], [r.seed for r in job.runs], time.perf_counter()
    network = bench.network(run)
    px = run.image_px if run.method == "vp" else run.canvas
    splits = {split: bench.images(run.task, split, px=px, per_class=run.test_per_class if split != "train" else None) for split in data.SPLITS}
    train = splits["train"]
    index = torch.stack([data.shots(train.labels, run.budget, task=run.task, seed=seed) for seed in seeds])
    common = {"targets": len(train.classes), "epochs": run.epochs, "batch": run.batch, "lr": run.lr, "seeds": seeds}
    learned: list[tuple[dict[str, object], dict[str, Tensor]]] = [({}, {}) for _ in seeds]
    if run.method == "vp":
        prompted = transfer.visual_prompt(network, train.images, train.labels, index, canvas=run.canvas, **common)
        logits = {split: transfer.prompted_logits(network, prompted, splits[split].images) for split in ("test", "val")}
        names = data.classes(run.source, folder=bench.folder)
        for k, (measured, arrays) in enumerate(learned):
            mapping = prompted.mapping[k].tolist()
            measured |= {"mapping": mapping, "mapping_names": [names[s] for s in mapping], "loss": prompted.loss}
            arrays["program"] = prompted.program[k].cpu()
    else:
        probe = transfer.linear_probe(bench.features(run, train, "train"), train.labels, index, **common)
        logits = {split: probe(bench.features(run, splits[split], split)) for split in ("test", "val")}
    shared = {
        "density": pruning.density(load_ticket(ticket_path(bench.store.ticket_folder(run), run.round))[1]) if run.round else 1.0,
        "train_images": index.shape[1], "saturated": data.saturated(train.labels, run.budget), "classes": list(train.classes),
    }  # fmt: skip
    for k, (measured, arrays) in enumerate(learned):
        for split in ("test", "val"):
            arrays |= _outcome(split, logits[split][k], splits[split].labels, measured)
        arrays["index"] = index[k]
        measured |= shared
    seconds = (time.perf_counter() - start) / len(seeds)
    stamp = {"seconds": seconds, **provenance(bench.device)}
    return tuple(bench.store.write(r, {**measured, **stamp}, arrays) for r, (measured, arrays) in zip(job.runs, learned, strict=True))


def _outcome(split: str, logits: Tensor, labels: Tensor, measured: dict[str, object]) -> dict[str, Tensor]:
    """Add the metrics of a split to `measured` (those of val with a prefix) and return what they were computed from."""
    prefix = "" if split == "test" else f"{split}_"
    measured |= {prefix + name: value for name, value in calibration.metrics(logits, labels).items()}
    return {f"{prefix}logits": logits.contiguous(), f"{prefix}labels": labels}
