"""A run: one measurement, described by scalars.

The same names are the keys of a profile, the flags of the command line, the columns of the table and the identity. What a
run depends on is a matter of its method (`FIELDS`) and of its other fields (`DEPENDS_ON`): only these enter its identity, so
that a linear probe, say, is not computed again because the prompt got larger, and the dense network is the same network
whichever way prunes it later.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from vpcore.prompting.label_mapping import MAPPINGS
from vpcore.pruning.masks import density_of_round
from vpcore.pruning.methods import METHODS

Scalar = int | float | str | None


@dataclass(frozen=True)
class Run:
    """One measurement. The defaults of the transfer are the paper's recipe; those of the source are the mini study's."""

    # the source network
    source: str = "glyphs"  # task it is trained on
    model: str = "resnet8"
    weights: str = "trained"  # of the dense network: by the study, or where they come from, see `published.pretrained`
    canvas: int = 32  # px, side of what the network sees
    source_per_class: int | None = None  # training images a class; None: all
    augment: str = "none"
    source_epochs: int = 12  # of every round, the dense one included
    source_batch: int = 64
    source_lr: float = 0.2
    source_decay: float = 1e-3
    precision: str = "float32"
    source_seed: int = 0
    # how it is made sparse
    sparsifier: str = "imp"  # a key of `methods.METHODS`, or "tickets:" and a pattern of files, with {round} in it
    scope: str = "global"  # over which weights are ranked: "global" or "layer"
    part: str = "body"  # what may be pruned: "body", "body+stem", "body+head" or "all"
    rate: float = 0.5  # share of the weights that a round removes
    rewind: int = 1  # epoch of round 0 to whose weights later rounds go back
    round: int = 0  # 0: dense; the density is (1 - rate)^round
    # how it is quantized
    weight_bits: int = 32  # 32: not quantized
    activation_bits: int = 32
    calibrate: str = "mse"  # how ranges are found: a key of `ranges.QUANT_RANGES`
    batch_norm: str = "folded"  # into the convolutions before they are quantized, or "kept"
    # what is measured on it: "source" (the source task itself), "vp", "lp" or "ft" (full fine-tuning)
    method: str = "source"
    task: str = "glyphs"
    budget: int | None = None  # images a class; None: all
    seed: int = 0
    image_px: int = 22  # px, side of the image on the canvas of a visual prompt
    prompt: str = "pad"  # a key of `prompts.PROMPTS`
    mapping: str = "ilm"  # a key of `label_mapping.MAPPINGS`
    ties: str = "random"  # in the mapping; "index" is what the authors' code does
    last_mapping: str = "fresh"  # used for the test; "stale": of before the last epoch, as in the authors' code
    selection: str = "last"  # epoch that counts; "val" or "test": the best one there, the latter as in the authors' code
    probe: str = "adam"  # the paper's recipe of linear probing, or "optimum": L2 chosen on val, solved to the optimum
    view: str = "frame"  # what a linear probe sees: the image on the full frame, or on the "canvas" of a visual prompt
    epochs: int = 100
    batch: int = 128
    lr: float = 0.01
    test_per_class: int | None = None  # test images a class; None: all

    @property
    def density(self) -> float:
        """Kept / prunable, as scheduled."""
        return density_of_round(self.round, rate=self.rate)

    @property
    def quantized(self) -> bool:
        """Whether weights or activations have less than 32 bits."""
        return min(self.weight_bits, self.activation_bits) < 32


TRAINING = ("augment", "source_epochs", "source_batch", "source_lr", "source_decay")
CHAIN = (
    "source", "model", "weights", "canvas", "source_per_class", *TRAINING, "precision", "source_seed",
    "sparsifier", "scope", "part", "rate", "rewind",
)  # fmt: skip
QUANTIZATION = ("weight_bits", "activation_bits", "calibrate", "batch_norm")
NETWORK = (*CHAIN, "round", *QUANTIZATION)
TRANSFER = ("task", "budget", "seed", "epochs", "batch", "lr", "test_per_class")

# method -> the fields that a run of this method may depend on
FIELDS: dict[str, tuple[str, ...]] = {
    "source": (*NETWORK, "method", "test_per_class"),
    "vp": (*NETWORK, "method", *TRANSFER, "selection", "image_px", "prompt", "mapping", "ties", "last_mapping"),
    "lp": (*NETWORK, "method", *TRANSFER, "selection", "probe", "view", "image_px"),
    "ft": (*NETWORK, "method", *TRANSFER),
}


def trains(run: Run) -> bool:
    """Whether the sparse network of a run is trained by the study."""
    return run.round > 0 and run.sparsifier in METHODS and METHODS[run.sparsifier].train is not None


# field -> whether a run depends on it, as far as its other fields tell; a field that is not here always matters
DEPENDS_ON: dict[str, Callable[[Run], bool]] = {
    **dict.fromkeys(("sparsifier", "part"), lambda run: run.round > 0),
    "scope": lambda run: run.round > 0 and run.sparsifier in METHODS and METHODS[run.sparsifier].ranked,
    **dict.fromkeys((*TRAINING, "rewind"), lambda run: run.weights == "trained" or trains(run)),
    **dict.fromkeys(("calibrate", "batch_norm"), lambda run: run.quantized),
    "image_px": lambda run: run.method == "vp" or run.view == "canvas",
    "ties": lambda run: MAPPINGS[run.mapping].ranked,
    "last_mapping": lambda run: MAPPINGS[run.mapping].repeat,
    **dict.fromkeys(("epochs", "batch", "lr", "selection"), lambda run: run.method != "lp" or run.probe == "adam"),
}

# Fields that came after the first results, with the value that all earlier runs had: at this value they leave the identity
# as it was, so that old results stay found.
UNHASHED_DEFAULTS: dict[str, Scalar] = {
    "weights": "trained", "sparsifier": "imp", "scope": "global", "part": "body",
    "weight_bits": 32, "activation_bits": 32, "calibrate": "mse", "batch_norm": "folded",
    "prompt": "pad", "mapping": "ilm", "ties": "random", "last_mapping": "fresh", "selection": "last",
    "probe": "adam", "view": "frame",
}  # fmt: skip


def identity(run: Run) -> dict[str, Scalar]:
    """The fields that the run depends on, with their values."""
    return {name: getattr(run, name) for name in FIELDS[run.method] if name not in DEPENDS_ON or DEPENDS_ON[name](run)}


def run_id(run: Run) -> str:
    """Twelve hexadecimal digits that stand for the identity."""
    return _hash(identity(run))


def chain_id(run: Run) -> str:
    """The same for the chain of tickets that the run's network is a round of; the dense round is that of all chains."""
    fields = identity(run)
    return _hash({name: fields[name] for name in CHAIN if name in fields})


def run_name(run: Run) -> str:
    """What the files of a run are called: readable, and different for different runs.

    >>> run_name(Run(method="vp", task="digits", budget=10, round=2, seed=1)).rsplit("-", 1)[0]
    'vp-digits-10-round2-seed1'
    """
    if run.method == "source":
        return f"source-{run.source}-round{run.round}-{run_id(run)}"
    return f"{run.method}-{run.task}-{run.budget or 'all'}-round{run.round}-seed{run.seed}-{run_id(run)}"


def canonical(run: Run) -> Run:
    """The same run with the defaults in the fields that it does not depend on, so that equal runs are equal."""
    return Run(**identity(run))


def source_run(run: Run) -> Run:
    """The run that measures the network of `run` on its source task."""
    source = canonical(dataclasses.replace(run, method="source"))
    return dataclasses.replace(source, task=run.source, seed=run.source_seed)


def ticket_run(run: Run) -> Run:
    """The run that measures the network of `run` as it is before it is quantized: whose ticket is a file."""
    return source_run(dataclasses.replace(run, weight_bits=32, activation_bits=32))


def _hash(fields: dict[str, Scalar]) -> str:
    kept = {
        name: value for name, value in fields.items() if name not in UNHASHED_DEFAULTS or value != UNHASHED_DEFAULTS[name]
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
