"""A run: one measurement, described by scalars; and profiles: the runs of a study.

The same names are the keys of a profile, the flags of the command line, the columns of the table and the identity. What a
run depends on is a matter of its method (`FIELDS`): only these fields enter its identity, so that a linear probe, say, is
not computed again because the prompt got larger.

A profile is a TOML file, an experiment card on top:

    title = "..."             about = "..."
    [run]                     values that all runs share
    [[grid]]                  lists; every combination is a run; several grids add up
    [toy.run] [toy.grid]      what --toy puts in their place, to walk the same path in about two minutes

TOML has no null, so "all" stands for None (all images).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vpcore import pruning
from vpcore.errors import InputError, unknown

Scalar = int | float | str | None


@dataclass(frozen=True)
class Run:
    """One measurement. The defaults of the transfer are the paper's recipe; those of the source are the mini study's."""

    # the source network
    source: str = "glyphs"  # task it is trained on
    model: str = "resnet8"
    canvas: int = 32  # px, side of what the network sees
    source_per_class: int | None = None  # training images a class; None: all
    augment: str = "none"
    source_epochs: int = 12  # of every round, the dense one included
    source_batch: int = 64
    source_lr: float = 0.2
    source_decay: float = 1e-3
    precision: str = "float32"
    source_seed: int = 0
    # the ticket
    rate: float = 0.5  # share of the weights that a round removes
    rewind: int = 1  # epoch of round 0 to whose weights later rounds go back
    round: int = 0  # 0: dense
    # what is measured on it: "source" (the source task itself), "vp" or "lp"
    method: str = "source"
    task: str = "glyphs"
    budget: int | None = None  # images a class; None: all
    seed: int = 0
    image_px: int = 22  # px, side of the image on the canvas of a visual prompt
    epochs: int = 100
    batch: int = 128
    lr: float = 0.01
    test_per_class: int | None = None  # test images a class; None: all

    @property
    def density(self) -> float:
        """Kept / prunable, as scheduled."""
        return pruning.density_of_round(self.round, rate=self.rate)


CHAIN = (
    "source", "model", "canvas", "source_per_class", "augment", "source_epochs", "source_batch", "source_lr", "source_decay",
    "precision", "source_seed", "rate", "rewind",
)  # fmt: skip
TRANSFER = ("task", "budget", "seed", "epochs", "batch", "lr")

# method -> the fields that a run of this method depends on
FIELDS: dict[str, tuple[str, ...]] = {
    "source": (*CHAIN, "round", "method", "test_per_class"),
    "vp": (*CHAIN, "round", "method", *TRANSFER, "image_px", "test_per_class"),
    "lp": (*CHAIN, "round", "method", *TRANSFER, "test_per_class"),
}


def identity(run: Run) -> dict[str, Scalar]:
    """The fields that the run depends on, with their values."""
    return {name: getattr(run, name) for name in FIELDS[run.method]}


def run_id(run: Run) -> str:
    """Twelve hexadecimal digits that stand for the identity."""
    return _hash(identity(run))


def chain_id(run: Run) -> str:
    """The same for the chain of tickets that the run's network is a round of."""
    return _hash({name: getattr(run, name) for name in CHAIN})


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


def _hash(fields: dict[str, Scalar]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


# Reading values ------------------------------------------------------------------------------------------------------

_TYPES = typing.get_type_hints(Run)


def parse(name: str, value: object, *, where: str) -> Scalar:
    """A value for a field of `Run`, as TOML, a notebook parameter or the command line gives it; refused if ill-typed.

    >>> parse("budget", "all", where="[run]"), parse("lr", 1, where="[run]")
    (None, 1.0)
    """
    if name not in _TYPES:
        raise unknown(f"field in {where}:", name, _TYPES)
    kind = _TYPES[name]
    optional = isinstance(kind, types.UnionType)
    wanted = kind.__args__[0] if optional else kind
    if optional and (value is None or value == "all"):
        return None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or isinstance(value, bool):
        also = " or 'all'" if optional else ""
        raise InputError(f"`{name}` in {where} must be {wanted.__name__}{also}, got {value!r}")
    return value


# Profiles ------------------------------------------------------------------------------------------------------------

PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Profile:
    """A study: its name, what it says of itself, and its runs."""

    name: str
    title: str
    about: str
    runs: tuple[Run, ...]


def profile_names() -> list[str]:
    """The profiles that come with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.toml"))


def load_profile(name: str, *, toy: bool = False) -> Profile:
    """Read a profile by name, or from the path of a TOML file.

    Args:
        name: one of `profile_names()`, or a path that ends in .toml.
        toy: shrink it; the name gets the ending -toy, so that its results stay apart.

    Raises:
        InputError: for an unknown profile, a damaged file, an unknown key or an ill-typed value.
    """
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    if not path.is_file():
        raise unknown("profile", name, profile_names())
    try:
        card = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the profile {path} must be TOML; it is damaged: {error}") from error
    if extra := set(card) - {"title", "about", "run", "grid", "toy"}:
        raise unknown(f"key in the profile {path}:", sorted(extra)[0], ("title", "about", "run", "grid", "toy"))
    small = card.get("toy", {}) if toy else {}
    shared = {**card.get("run", {}), **small.get("run", {})}
    values = {key: parse(key, value, where=f"[run] of {path.name}") for key, value in shared.items()}
    runs: dict[str, Run] = {}
    for table in card.get("grid", []):
        axes = {**table, **{key: value for key, value in small.get("grid", {}).items() if key in table}}
        for run in _expand(values, axes, where=f"[[grid]] of {path.name}"):
            for each in (source_run(run), run):
                runs[run_id(each)] = each
    if not runs:
        raise InputError(f"the profile {path} must have at least one [[grid]] of runs; it has none")
    return Profile(
        path.stem + ("-toy" if toy else ""), card.get("title", path.stem), card.get("about", ""), tuple(runs.values())
    )


def _expand(values: dict[str, Scalar], axes: dict[str, list], *, where: str) -> Iterable[Run]:
    for key, options in axes.items():
        if not isinstance(options, list) or not options:
            raise InputError(f"`{key}` in {where} must be a list of values, got {options!r}")
    parsed = {key: [parse(key, option, where=where) for option in options] for key, options in axes.items()}
    for combination in itertools.product(*parsed.values()):
        run = Run(**{**values, **dict(zip(parsed, combination, strict=True))})
        check(run, where=where)
        yield source_run(run) if run.method == "source" else canonical(run)


def check(run: Run, *, where: str) -> None:
    """Refuse values that no run can have, before anything is computed."""
    if run.method not in FIELDS:
        raise unknown(f"method in {where}:", run.method, FIELDS)
    pruning.density_of_round(run.round, rate=run.rate)
    for name in (
        "canvas",
        "source_per_class",
        "source_epochs",
        "source_batch",
        "budget",
        "image_px",
        "epochs",
        "batch",
        "test_per_class",
    ):
        if (value := getattr(run, name)) is not None and value < 1:
            raise InputError(f"`{name}` in {where} must be at least 1, got {value}")
    for name in ("source_lr", "lr"):
        if not getattr(run, name) > 0:
            raise InputError(f"`{name}` in {where} must be above 0, got {getattr(run, name)}")
    if run.method == "vp" and run.image_px >= run.canvas:
        raise InputError(
            f"`image_px` in {where} must be below the canvas of {run.canvas} px, got {run.image_px}: "
            "no border is left to learn"
        )
    if not 0 <= run.rewind < run.source_epochs:
        raise InputError(f"`rewind` in {where} must be an epoch in 0..{run.source_epochs - 1}, got {run.rewind}")
