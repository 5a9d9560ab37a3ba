"""A session: what successive jobs share, above all the network that was used last.

    ticket -> quantized or not -> frozen -> features

Quantization after training needs seconds and is done whenever the network is loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import PIL
import scipy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.data import corruptions, imagenet, tasks
from vpcore.data.cache import cached
from vpcore.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from vpcore.data.digests import digest_of, made_by
from vpcore.data.images import Images
from vpcore.data.splits import shots
from vpcore.errors import InputError
from vpcore.networks.backbones import backbone, build, normalise, prunable
from vpcore.networks.frozen import Frozen
from vpcore.networks.state import load_weights_
from vpcore.networks.training import predict
from vpcore.prompting.fixed_prompts import border_px
from vpcore.pruning.masks import Masks, measure
from vpcore.quantization.layers import quantize
from vpcore.quantization.training import finish_lsq, load_lsq
from vpcore.study.headers import check_header, check_place, check_records
from vpcore.study.provenance import provenance
from vpcore.study.run import QUANTIZED, Run, fields_of, ticket_run
from vpcore.study.store import Store
from vpcore.weights.published import FILES, outputs, pretrained
from vpcore.weights.tickets import read_ticket, ticket_digest

Made = TypeVar("Made")
RANGE_IMAGES = 512  # the ranges of activations are found on about so many source images, without their labels
RANGE_BATCH = 64


@dataclass(frozen=True)
class Network:
    """A network as it is used: frozen, and what is known of it.

    Attributes:
        model: its float weights on the CPU, for full fine-tuning; fresh ones of a network that was trained quantized.
        masks: of its pruned weights.
        frozen: the network, quantized if the run says so.
        layers: name of a prunable weight -> (share of it that is not zero, its size).
        header: of its ticket: `history`, the training loss of each epoch, and `epochs_seen`.
        ticket_bytes: size of the ticket file.
        seen: the features that were found so far, and in which rows: see `Session.features`.
    """

    model: nn.Module
    masks: Masks
    frozen: Frozen
    layers: dict[str, tuple[float, int]]
    header: dict[str, object]
    ticket_bytes: int
    seen: dict[tuple[object, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Kept / prunable, measured on the weights."""
        return sum(share * size for share, size in self.layers.values()) / sum(size for _, size in self.layers.values())


@dataclass
class Session:
    """What jobs share: where things lie, and the last network and its features, so that they are computed once.

    Attributes:
        store: of the study.
        device: where it computes.
        folder: the data folder.
        protocol: tag of the study's protocol, if it has one: the tickets of a chain must then come from one kind of machine.
        log: is told what happens within a long job.
    """

    store: Store
    device: torch.device
    folder: Path | None = None
    protocol: str = ""
    log: Callable[[str], None] = lambda text: None
    _last: dict[str, tuple[object, Any]] = field(default_factory=dict)
    _classes: dict[tuple[str, str], int] = field(default_factory=dict)

    def _kept(self, name: str, key: object, make: Callable[[], Made]) -> Made:
        """What was made last under a name if its key is the same, else what `make` makes; only one is held at any time."""
        if name not in self._last or self._last[name][0] != key:
            self._last.pop(name, None)  # before the next is made: two networks need twice the memory
            self._last[name] = key, make()
        made: Made = self._last[name][1]
        return made

    def images(self, task: str, split: str, *, px: int, per_class: int | None = None) -> Images:
        """A split of a task, from the data folder and cache of the study."""
        return tasks.load(task, split, px=px, per_class=per_class, folder=self.folder, cache=self.store.cache)

    def corrupted(self, task: str, shown: Images, rows: Tensor) -> list[tuple[str, int, Tensor]]:
        """Test images of a task, corrupted in every way: name, severity and (n, 3, h, h) images, made once and kept."""
        kinds = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
        key = task, shown.images.shape[-1], len(shown), len(rows)

        def make() -> list[tuple[str, int, Tensor]]:
            clean = shown.images[rows]
            made_of = hashlib.sha256(clean.numpy().tobytes()).hexdigest(), made_by(corruptions, PIL, scipy, torch)

            def all_kinds() -> Images:
                made = [corrupt(clean, name, severity=severity, seed=0) for name, severity in kinds]
                return Images(torch.cat(made), shown.labels[rows].repeat(len(kinds)), shown.classes)

            stem = self.store.cache / f"{task}-corrupted-{key[1]}px-{digest_of(*made_of)}"
            parts = cached(stem, all_kinds).images.split(len(rows))
            return [(*kind, images) for kind, images in zip(kinds, parts, strict=True)]

        return self._kept("corrupted", key, make)

    def source_images(self, run: Run, split: str) -> Images:
        """A split of the source task, its labels those of the network's outputs."""
        per_class = run.source_per_class if split == "train" else run.test_per_class
        images = self.images(run.source, split, px=run.canvas, per_class=per_class)
        if self.source_classes(run) == tuple(images.classes):
            return images
        try:  # the network has the 1,000 classes of ImageNet, the task perhaps fewer
            index = imagenet.index_of(images.classes)
        except InputError as error:
            raise InputError(
                f"`source` must be a task with classes of ImageNet for `weights` {run.weights}, got {run.source}; "
                "use such a task, such as tiny_imagenet, or weights = trained"
            ) from error
        return Images(images.images, index[images.labels], self.source_classes(run))

    def source_classes(self, run: Run) -> tuple[str, ...]:
        """The names of the network's outputs: of the source task, or of ImageNet where the weights come from elsewhere.

        A network in a file has the classes of the source task if there are as many of them as it has outputs.
        """
        if run.weights != "trained" and not run.weights.startswith(FILES):
            return imagenet.classes()
        own = tasks.classes(run.source, folder=self.folder)
        return own if run.weights == "trained" or self._outputs(run) == len(own) else imagenet.classes()

    def _outputs(self, run: Run) -> int:
        """Number of classes of the network in a file, or in the ticket that was made of it."""
        key = run.model, run.weights
        if key not in self._classes:
            ticket = self.store.ticket_path(dataclasses.replace(ticket_run(run), round=0))
            if ticket.exists():
                state = read_ticket(ticket)[0]
            else:
                state, _ = pretrained(run.model, run.weights, folder=self.folder)
            self._classes[key] = outputs(run.model, state)
        return self._classes[key]

    def network(self, run: Run) -> Network:
        """The network of a run, loaded once for jobs that follow each other."""
        key = dataclasses.replace(ticket_run(run), **{name: getattr(run, name) for name in fields_of(QUANTIZED)})
        return self._kept("network", key, lambda: self._load(run))

    def check(self, path: Path, run: Run) -> None:
        """Refuse a ticket that does not belong to the run, or is not the one that its records were measured on."""
        check_header(path, run, self.store, folder=self.folder)
        check_records(run, self.store)

    def check_parent(self, path: Path, run: Run) -> None:
        """The same for a ticket from which another is made; with a protocol, it must come from the same type of machine."""
        self.check(path, run)
        check_place(path, provenance(self.device) if self.protocol else {})

    def ticket_digest(self, run: Run) -> str:
        """Of the weights of the run's network."""
        return ticket_digest(self.store.ticket_path(run))

    def data_digest(self, task: str) -> str:
        """Of the images of a task."""
        return tasks.digest(task, folder=self.folder)

    def _load(self, run: Run) -> Network:
        path = self.store.ticket_path(run)
        state, masks, header = read_ticket(path)
        self.check(path, run)
        model = self.fresh(run)
        if run.quant_training == "none":
            load_weights_(model, state, where=str(path))
            used = self._quantized(run, model) if run.quantized else model
        else:
            used = finish_lsq(load_lsq(model, state, where=str(path)))
        sizes = {name: model.get_parameter(name).numel() for name in prunable(model, part=run.part)}
        layers = {name: (share, sizes[name]) for name, share in measure(model, sizes).items()}
        frozen = Frozen(used, precision=run.precision, device=self.device, statistics=backbone(run.model).statistics)
        return Network(model, masks, frozen, layers, header, path.stat().st_size)

    def fresh(self, run: Run, *, offset: int = 0) -> nn.Module:
        """The network of a run with fresh weights, drawn from the seed of the chain plus `offset`."""
        return build(run.model, classes=len(self.source_classes(run)), seed=run.source_seed + offset)

    def _quantized(self, run: Run, model: nn.Module) -> nn.Module:
        return quantize(
            model,
            self.unlabelled(run),
            weight_bits=run.weight_bits,
            activation_bits=run.activation_bits,
            quant_range=run.quant_range,
            batch_norm=run.batch_norm,
        )

    def unlabelled(self, run: Run) -> list[Tensor]:
        """About `RANGE_IMAGES` training images of the source task, as batches of network inputs."""
        train = self.source_images(run, "train")
        few = shots(train.labels, max(1, RANGE_IMAGES // len(train.labels.unique())), task=run.source, seed=0)
        order = few[torch.randperm(len(few), generator=torch.Generator().manual_seed(0))][:RANGE_IMAGES]
        return [
            normalise(part.float() / 255, backbone(run.model).statistics) for part in train.images[order].split(RANGE_BATCH)
        ]

    def features(self, run: Run, images: Tensor, split: str, rows: Tensor | None = None) -> Tensor:
        """(N, D) features of images of the task as the probe views them, computed once for all jobs on the same network.

        `split` says which they are: a split, or how test images were corrupted. With `rows`, only these rows are right, and
        the others perhaps 0: few shots need few of them.
        """
        seen = self.network(run).seen
        key = (run.task, split, len(images), run.view, run.image_px)
        known, done = seen.get(key, (None, torch.zeros(len(images), dtype=torch.bool)))
        wanted = torch.zeros_like(done)
        wanted[slice(None) if rows is None else rows] = True
        missing = (wanted & ~done).nonzero()[:, 0]
        if len(missing):
            shown = images if len(missing) == len(images) else images[missing]
            fresh = self.look(run, shown)
            known = torch.zeros(len(images), fresh.shape[1]) if known is None else known
            known[missing] = fresh
            seen[key] = known, done | wanted
        return seen[key][0]

    def look(self, run: Run, images: Tensor) -> Tensor:
        """(N, D) features of images as the probe views them."""
        network = self.network(run).frozen
        return predict(lambda part: network.features(shown_to_probe(run, part)), images, device=self.device)

    def dense_features(self, dense: Run, images: Tensor) -> Tensor:
        """(N, D) features that the dense network of a chain finds in images; it is loaded once beside the network in use."""
        frozen = self._kept("dense", dense, lambda: self._load(dense).frozen)
        return predict(frozen.features, images, device=self.device)


def shown_to_probe(run: Run, images: Tensor) -> Tensor:
    """(N, 3, h, h) images in [0, 1] -> what a linear probe sees: the same, or on the mid-grey canvas of a fresh prompt."""
    if run.view == "frame":
        return images
    free = border_px(run.canvas, image_px=run.image_px)
    before, after = free // 2, free - free // 2
    return F.pad(images, (before, after, before, after), value=0.5)
