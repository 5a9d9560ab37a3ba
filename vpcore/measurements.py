"""What a job computes: a ticket with its measurement on the source task, or a cohort of transfers on it.

Predictions are made once, metrics follow from them; both are kept. Test images are touched here and nowhere else, after
everything has been learned.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vpcore import calibration, data, pruning, transfer
from vpcore.models import Frozen, build, load_weights_, prunable
from vpcore.runs import CHAIN, Run, chain_id
from vpcore.splits import saturated, shots
from vpcore.store import Record, Store, provenance
from vpcore.tickets import load_ticket, ticket_path, train_round
from vpcore.training import Recipe, predict

TRAIN_IMAGES_MEASURED = 5000  # about so many training images tell the training accuracy


@dataclass(frozen=True)
class Network:
    """A ticket, loaded and frozen, and what is known of it.

    Attributes:
        frozen: the network.
        layers: name of a prunable weight -> (share of it that is not zero, its size).
        history: training loss of each epoch.
    """

    frozen: Frozen
    layers: dict[str, tuple[float, int]]
    history: list[float]

    @property
    def density(self) -> float:
        """Kept / prunable, measured on the weights."""
        return sum(share * size for share, size in self.layers.values()) / sum(size for _, size in self.layers.values())


@dataclass
class Bench:
    """What jobs share: where things lie, and the last network and its features, so that they are computed once."""

    store: Store
    device: torch.device
    folder: Path | None = None
    log: Callable[[str], None] = lambda text: None
    _network: tuple[str, Network] | None = None
    _features: dict[tuple[str, ...], Tensor] = field(default_factory=dict)

    def images(self, task: str, split: str, *, px: int, per_class: int | None = None) -> data.Images:
        """A split of a task, from the data folder and cache of the study."""
        return data.load(task, split, px=px, per_class=per_class, folder=self.folder, cache=self.store.cache)

    def network(self, run: Run) -> Network:
        """The network of a run, loaded once for jobs that follow each other."""
        key = f"{chain_id(run)} {run.round}"
        if self._network is None or self._network[0] != key:
            path = ticket_path(self.store.ticket_folder(run), run.round)
            state, _, header = load_ticket(path)
            model = build(run.model, classes=len(data.classes(run.source, folder=self.folder)), seed=run.source_seed)
            load_weights_(model, state, where=str(path))
            layers = {name: (share, state[name].numel()) for name, share in pruning.measure(model, prunable(model)).items()}
            frozen = Frozen(model, precision=run.precision, device=self.device)
            self._network = key, Network(frozen, layers, header["history"])
            self._features.clear()
        return self._network[1]

    def features(self, run: Run, images: data.Images, split: str) -> Tensor:
        """Features of a split of the task, computed once for all budgets and seeds on the same network."""
        network = self.network(run).frozen
        key = (run.task, split, str(run.test_per_class))
        if key not in self._features:
            self._features[key] = predict(network.features, images.images, device=self.device)
        return self._features[key]


def make_ticket(run: Run, bench: Bench) -> Record:
    """Train the round of a run, unless its ticket exists, and measure it on the source task."""
    start, folder = time.perf_counter(), bench.store.ticket_folder(run)
    train = bench.images(run.source, "train", px=run.canvas, per_class=run.source_per_class)
    if not ticket_path(folder, run.round).exists():
        recipe = Recipe(
            epochs=run.source_epochs,
            batch=run.source_batch,
            lr=run.source_lr,
            weight_decay=run.source_decay,
            augment=run.augment,
            precision=run.precision,
            seed=run.source_seed,
        )
        train_round(
            run.round,
            lambda: build(run.model, classes=len(train.classes), seed=run.source_seed),
            train.images.to(bench.device),
            train.labels,
            recipe,
            folder=folder,
            rate=run.rate,
            rewind=run.rewind,
            device=bench.device,
            header={**{name: getattr(run, name) for name in CHAIN}, **provenance(bench.device)},
            log=bench.log,
        )
    network = bench.network(run)
    few = shots(train.labels, max(1, TRAIN_IMAGES_MEASURED // len(train.classes)), task=run.source, seed=0)
    fitted = predict(network.frozen, train.images[few], device=bench.device).softmax(1)
    measured: Record = {
        "density": network.density,
        "layer": list(network.layers),
        "layer_density": [share for share, _ in network.layers.values()],
        "layer_weights": [size for _, size in network.layers.values()],
        "loss": network.history,
        "train_images": len(train),
        "train_accuracy": calibration.accuracy(fitted, train.labels[few]),
    }
    arrays: dict[str, Tensor] = {}
    for split in ("test", "val"):
        images = bench.images(run.source, split, px=run.canvas, per_class=run.test_per_class)
        arrays |= _measure(split, predict(network.frozen, images.images, device=bench.device), images.labels, measured)
    measured |= {"seconds": time.perf_counter() - start, **provenance(bench.device)}
    return bench.store.write(run, measured, arrays)


def adapt(runs: tuple[Run, ...], bench: Bench) -> tuple[Record, ...]:
    """Adapt the frozen network for every seed of a cohort, predict test and val once, and write a record each."""
    run, seeds, start = runs[0], [r.seed for r in runs], time.perf_counter()
    network = bench.network(run)
    px = run.image_px if run.method == "vp" else run.canvas
    train = bench.images(run.task, "train", px=px)
    held_out = {split: bench.images(run.task, split, px=px, per_class=run.test_per_class) for split in ("test", "val")}
    index = torch.stack([shots(train.labels, run.budget, task=run.task, seed=seed) for seed in seeds])
    common = {"targets": len(train.classes), "epochs": run.epochs, "batch": run.batch, "lr": run.lr, "seeds": seeds}
    shared: Record = {
        "density": network.density,
        "train_images": index.shape[1],
        "saturated": saturated(train.labels, run.budget),
        "classes": list(train.classes),
    }
    measured: list[Record] = [dict(shared) for _ in runs]
    arrays: list[dict[str, Tensor]] = [{"index": part} for part in index]
    if run.method == "vp":
        prompted = transfer.visual_prompt(network.frozen, train.images, train.labels, index, canvas=run.canvas, **common)
        logits = {split: transfer.prompted_logits(network.frozen, prompted, held_out[split].images) for split in held_out}
        names = data.classes(run.source, folder=bench.folder)
        for k, mapping in enumerate(prompted.mapping.tolist()):
            measured[k] |= {"mapping": mapping, "mapping_names": [names[s] for s in mapping], "loss": prompted.loss}
            arrays[k]["program"] = prompted.program[k].cpu()
    else:
        features = bench.features(run, train, "train").to(bench.device)
        probe = transfer.linear_probe(features, train.labels, index, **common)
        logits = {split: probe(bench.features(run, held_out[split], split)).cpu() for split in held_out}
    for k in range(len(runs)):
        for split, images in held_out.items():
            arrays[k] |= _measure(split, logits[split][k], images.labels, measured[k])
    stamp = {"seconds": (time.perf_counter() - start) / len(runs), **provenance(bench.device)}
    return tuple(bench.store.write(r, {**m, **stamp}, a) for r, m, a in zip(runs, measured, arrays, strict=True))


def _measure(split: str, logits: Tensor, labels: Tensor, measured: Record) -> dict[str, Tensor]:
    """Add the metrics of a split to `measured`, those of val with a prefix, and return what they were computed from."""
    prefix = "" if split == "test" else f"{split}_"
    measured |= {prefix + name: value for name, value in calibration.metrics(logits, labels).items()}
    return {f"{prefix}logits": logits.contiguous(), f"{prefix}labels": labels}
