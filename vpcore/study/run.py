"""A run: one measurement, described by scalars.

The same names are the keys of a profile, the settings of `vpcore measure`, the columns of the table and the identity. All
that is known of a field stands beside it (`Fact`): what it means, which values it may have, which methods depend on it, and
under which condition. Only what a run depends on enters its identity. A linear probe, say, is not computed again when the
prompt gets larger, and the dense network is the same network whichever method prunes it later.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from vpcore.networks.augmentations import AUGMENTATIONS
from vpcore.networks.backbones import MODELS, PARTS, PRECISIONS
from vpcore.prompting.label_mapping import MAPPINGS
from vpcore.prompting.one_to_one import TIES
from vpcore.prompting.prompts import PROMPTS
from vpcore.pruning.masks import SCOPES, density_of_round
from vpcore.pruning.methods import METHODS
from vpcore.quantization.layers import BATCH_NORMS
from vpcore.quantization.ranges import QUANT_RANGES

Scalar = int | float | str | None

SOURCE, ADAPTED = ("source",), ("vp", "lp", "ft")
# what a network is made of: the dense chain, its rounds, and how it is quantized
TRAINING, CHAIN, ROUND, QUANTIZED, TRANSFER = "training", "chain", "round", "quantized", "transfer"


def always(run: Run) -> bool:
    """A run depends on the field whatever its other fields are."""
    return True


@dataclass(frozen=True)
class Fact:
    """What is known of a field of `Run`.

    Attributes:
        about: what it means, for help texts and the catalogue.
        part: what it describes: the "training" of the source network, the rest of its "chain" of tickets, the "round", how
            it is "quantized", or the "transfer".
        of: methods that may depend on it; all of them on what describes the network.
        when: whether a run depends on it, as far as its other fields tell.
        choices: values that it may have; none: any.
        least, most: the smallest and the largest number it may be.
        above: a bound that it must exceed.
        hashed: whether its default enters the hash of the identity. The default of a field that was added after the first
            results does not, so that these are still found.
    """

    about: str
    part: str
    of: tuple[str, ...] = (*SOURCE, *ADAPTED)
    when: Callable[[Run], bool] = always
    choices: Iterable[str] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    hashed: bool = True


def known(default: Scalar, about: str, part: str, **facts: Any) -> Any:
    """A field of `Run` with its `Fact`."""
    return dataclasses.field(default=default, metadata={"fact": Fact(about, part, **facts)})


def _trained(run: Run) -> bool:
    return run.weights == "trained" or trains(run)


def _sparse(run: Run) -> bool:
    return run.round > 0


def _ranked(run: Run) -> bool:
    return run.round > 0 and run.sparsifier in METHODS and METHODS[run.sparsifier].ranked


def _by_adam(run: Run) -> bool:
    return run.method != "lp" or run.probe == "adam"


def _quantized_after(run: Run) -> bool:
    return run.quantized and run.quant_training == "none"


@dataclass(frozen=True)
class Run:
    """One measurement. The defaults of the transfer are the paper's recipe; those of the source are the mini study's."""

    source: str = known("glyphs", "task that the network is trained on", CHAIN)
    model: str = known("resnet8", "network, by its name in `backbones.MODELS`", CHAIN, choices=MODELS)
    weights: str = known(
        "trained", "of the dense network: trained by the study, or where they come from (`published.pretrained`)", CHAIN,
        hashed=False,
    )  # fmt: skip
    canvas: int = known(32, "side of what the network sees, px", CHAIN, least=1, most=4096)
    source_per_class: int | None = known(None, "training images of a source class; None: all", CHAIN, least=1)
    augment: str = known("none", "augmentation in source training", TRAINING, when=_trained, choices=AUGMENTATIONS)
    source_epochs: int = known(12, "epochs of every round, the dense one included", TRAINING, when=_trained, least=1)
    source_batch: int = known(64, "images of a step of source training", TRAINING, when=_trained, least=1)
    source_lr: float = known(0.2, "highest learning rate of source training", TRAINING, when=_trained, above=0)
    source_decay: float = known(1e-3, "weight decay of source training", TRAINING, when=_trained, least=0)
    label_smoothing: float = known(
        0.0, "share of a label that goes to all classes alike in source training", TRAINING, when=_trained, least=0,
        hashed=False,
    )  # fmt: skip
    mixup: float = known(
        0.0, "alpha of mixup in source training; 0: none", TRAINING, when=_trained, least=0, hashed=False
    )  # fmt: skip
    precision: str = known("float32", "number format of training and inference", CHAIN, choices=PRECISIONS)
    source_seed: int = known(0, "seed of the chain: initial weights, order of the images", CHAIN, least=0)
    sparsifier: str = known(
        "imp", 'how it is made sparse: a key of `methods.METHODS`, or "tickets:" and a pattern of files with {round} in it',
        CHAIN, when=_sparse, choices=METHODS, hashed=False,
    )  # fmt: skip
    scope: str = known("global", "over which weights are ranked", CHAIN, when=_ranked, choices=SCOPES, hashed=False)
    part: str = known("body", "part of the network that may be pruned", CHAIN, when=_sparse, choices=PARTS, hashed=False)
    rate: float = known(0.5, "share of the weights that a round removes", CHAIN)
    rewind: int = known(1, "epoch of round 0 to whose weights later rounds go back", CHAIN, when=_trained, least=0)
    round: int = known(0, "pruning iteration; 0: dense; the density is (1 - rate)^round", ROUND, least=0, most=10_000)
    weight_bits: int = known(32, "bits of the weights; 32: not quantized", QUANTIZED, hashed=False)
    activation_bits: int = known(32, "bits of the activations; 32: not quantized", QUANTIZED, hashed=False)
    quant_training: str = known(
        "none", "quantized after training (none), or trained with learned step sizes as long as a round (lsq; at 32 bits "
        "the float network trained on equally long)", QUANTIZED, choices=("none", "lsq"), hashed=False,
    )  # fmt: skip
    quant_range: str = known(
        "mse", "how the ranges of a quantized network are found", QUANTIZED, when=_quantized_after, choices=QUANT_RANGES,
        hashed=False,
    )  # fmt: skip
    batch_norm: str = known(
        "folded", "batch norms before quantization: folded into the convolutions, or kept", QUANTIZED,
        when=_quantized_after, choices=BATCH_NORMS, hashed=False,
    )  # fmt: skip
    method: str = known(
        "source", "what is measured: the source task, visual prompting (vp), linear probing (lp), full fine-tuning (ft)",
        TRANSFER, choices=(*SOURCE, *ADAPTED),
    )  # fmt: skip
    task: str = known("glyphs", "target task", TRANSFER, of=ADAPTED)
    budget: int | None = known(None, "training images of a target class; None: all", TRANSFER, of=ADAPTED, least=1)
    seed: int = known(0, "of the images of a budget, the start, and ties", TRANSFER, of=ADAPTED, least=0)
    image_px: int = known(
        22, "side of the image on the canvas of a visual prompt, px", TRANSFER, of=("vp", "lp"), least=1,
        when=lambda run: run.method == "vp" or run.view == "canvas",
    )  # fmt: skip
    prompt: str = known("pad", "visual prompt", TRANSFER, of=("vp",), choices=PROMPTS, hashed=False)
    mapping: str = known("ilm", "label mapping", TRANSFER, of=("vp",), choices=MAPPINGS, hashed=False)
    ties: str = known(
        "random", "how ties in the mapping are broken; index: as in the authors' code", TRANSFER, of=("vp",), choices=TIES,
        hashed=False, when=lambda run: MAPPINGS[run.mapping].ranked,
    )  # fmt: skip
    last_mapping: str = known(
        "fresh", "mapping of the test; stale: that of before the last epoch, as in the authors' code", TRANSFER, of=("vp",),
        choices=("fresh", "stale"), hashed=False, when=lambda run: MAPPINGS[run.mapping].repeat,
    )  # fmt: skip
    selection: str = known(
        "last", "epoch that counts: the last, or the best on val or on test, the latter as in the authors' code", TRANSFER,
        of=("vp", "lp"), choices=("last", "val", "test"), hashed=False, when=_by_adam,
    )  # fmt: skip
    probe: str = known(
        "adam", "linear probe by the paper's recipe, or solved to its optimum", TRANSFER, of=("lp",),
        choices=("adam", "optimum"), hashed=False,
    )  # fmt: skip
    view: str = known(
        "frame", "what a linear probe sees: the image on the full frame, or on the canvas of a prompt", TRANSFER,
        of=("lp",), choices=("frame", "canvas"), hashed=False,
    )  # fmt: skip
    epochs: int = known(100, "passes over the images of the budget", TRANSFER, of=ADAPTED, when=_by_adam, least=1)
    batch: int = known(128, "images of a step", TRANSFER, of=ADAPTED, when=_by_adam, least=1)
    lr: float = known(0.01, "learning rate", TRANSFER, of=ADAPTED, when=_by_adam, above=0)
    test_per_class: int | None = known(None, "test images of a class; None: all", TRANSFER, least=1)
    robustness_images: int = known(
        0, "test images that are shown corrupted, too, and on which features are compared with the dense network's; 0: none",
        TRANSFER, of=("vp", "lp"), least=0, hashed=False,
    )  # fmt: skip

    @property
    def density(self) -> float:
        """Kept / prunable, as scheduled."""
        return density_of_round(self.round, rate=self.rate)

    @property
    def quantized(self) -> bool:
        """Whether weights or activations have less than 32 bits."""
        return min(self.weight_bits, self.activation_bits) < 32


FACTS: dict[str, Fact] = {field.name: field.metadata["fact"] for field in dataclasses.fields(Run)}
DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Run)}


def fields_of(*parts: str) -> tuple[str, ...]:
    """The fields that describe one of these parts of a run."""
    return tuple(name for name, fact in FACTS.items() if fact.part in parts)


# method -> the fields that a run of this method may depend on
FIELDS: dict[str, tuple[str, ...]] = {
    method: tuple(name for name, fact in FACTS.items() if method in fact.of) for method in (*SOURCE, *ADAPTED)
}
# what a compressed network and its dense twin have in common, and what tells networks of a chain apart
PAIR = ("source_seed", *(name for name in fields_of(TRANSFER) if name not in ("test_per_class", "robustness_images")))
NETWORK = ("sparsifier", "scope", "part", "round", *fields_of(QUANTIZED))


def trains(run: Run) -> bool:
    """Whether the compressed network of a run is trained by the study."""
    sparse = run.round > 0 and run.sparsifier in METHODS and METHODS[run.sparsifier].train is not None
    return sparse or run.quant_training != "none"


def identity(run: Run) -> dict[str, Scalar]:
    """The fields that the run depends on, with their values."""
    return {name: getattr(run, name) for name in FIELDS[run.method] if FACTS[name].when(run)}


def run_id(run: Run) -> str:
    """Twelve hexadecimal digits that stand for the identity."""
    return _hash(identity(run))


def chain(run: Run) -> dict[str, Scalar]:
    """The fields of the identity that the run's network shares with the other rounds of its chain of tickets.

    The dense network is round 0 of every chain. A network that is trained with learned step sizes is a chain of its own.
    """
    names = fields_of(TRAINING, CHAIN)
    if run.quant_training != "none":
        names += ("weight_bits", "activation_bits", "quant_training")
    return {name: value for name, value in identity(run).items() if name in names}


def chain_id(run: Run) -> str:
    """Twelve hexadecimal digits that stand for the chain."""
    return _hash(chain(run))


def cohort_id(ids: list[str]) -> str:
    """What stands for the ids of runs that are computed together; the id itself for a single run."""
    return ids[0] if len(ids) == 1 else _digits(" ".join(ids))


def run_name(*runs: Run) -> str:
    """What the files of a run, or of runs that are computed together, are called: readable, and different for other runs.

    >>> run_name(Run(method="vp", task="digits", budget=10, round=2, seed=1)).rsplit("-", 1)[0]
    'vp-digits-10-round2-seed1'
    """
    first, end = runs[0], cohort_id([run_id(run) for run in runs])
    if first.method == "source":
        return f"source-{first.source}-round{first.round}-{end}"
    tasks, seeds = ([*dict.fromkeys(str(getattr(run, name)) for run in runs)] for name in ("task", "seed"))
    task = tasks[0] if len(tasks) == 1 else f"{len(tasks)}tasks"
    return f"{first.method}-{task}-{first.budget or 'all'}-round{first.round}-seed{'+'.join(seeds)}-{end}"


def canonical(run: Run) -> Run:
    """The same run with the defaults in the fields that it does not depend on, so that equal runs are equal."""
    fields: dict[str, Any] = identity(run)
    return Run(**fields)


def source_run(run: Run) -> Run:
    """The run that measures the network of `run` on its source task."""
    return _on_source(*_network_of(run))


def ticket_run(run: Run) -> Run:
    """The run that measures the network of `run` as its ticket holds it: not yet quantized, if that comes after training."""
    return source_run(dataclasses.replace(run, weight_bits=32, activation_bits=32) if _quantized_after(run) else run)


_network_of = operator.attrgetter(*FIELDS["source"])


@functools.lru_cache(maxsize=None, typed=True)  # thousands of runs share a network; 1 and 1.0 have different identities
def _on_source(*network: Scalar) -> Run:
    fields: dict[str, Any] = dict(zip(FIELDS["source"], network, strict=True))
    source = canonical(Run(**{**fields, "method": "source"}))
    return dataclasses.replace(source, task=source.source, seed=source.source_seed)


def _hash(fields: dict[str, Scalar]) -> str:
    kept = {name: value for name, value in fields.items() if FACTS[name].hashed or value != DEFAULTS[name]}
    return _digits(json.dumps(kept, sort_keys=True))


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
