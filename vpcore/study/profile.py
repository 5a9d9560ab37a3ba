"""Profiles: the runs of a study, as a TOML file with an experiment card on top.

    title = "..."             about = "..."
    protocol = "protocol-1"   tag of the code that must compute the study; all its chains then come from one kind of machine
    [run]                     values that all runs share
    [[grid]]                  lists; every combination is a run; several grids add up
    "lr, epochs" = [[1, 2]]   in a grid: fields that vary together, a list of values for each combination
    name = "..."              of a grid, so that a table or figure can ask for its runs; "main" when there is none
    [toy.run] [toy.grid]      what --toy puts in their place, to walk the same path in about two minutes on any processor
    toy = false               in a [[grid]]: --toy leaves it out
    fakes = true              in [toy]: image sets and ticket files are small fakes, written for it

TOML has no null, so "all" stands for None (all images). Every value is checked before anything is computed.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import tomllib
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpcore.checks import LARGEST, MOST, as_path
from vpcore.errors import InputError, entry, unknown
from vpcore.networks.backbones import check_canvas
from vpcore.prompting.prompts import build
from vpcore.pruning.masks import density_of_round
from vpcore.pruning.methods import METHODS, rewinds
from vpcore.study.run import FACTS, Run, Scalar, canonical, source_run
from vpcore.weights.published import FILES, check_source

PROFILES = Path(__file__).parent / "profiles"
MAIN = "main"
MOST_RUNS = 10**6  # of a grid
_TYPES = typing.get_type_hints(Run)


@dataclass(frozen=True)
class Profile:
    """A study.

    Attributes:
        name: of the file; -toy is added for a toy.
        title, about: what the study is, as the file says.
        values: what all its runs share, for `run_with`.
        fakes: whether its image sets and ticket files are to be small fakes, see `toy`.
        grids: name -> the runs of the grids of that name, with those on the source task that belong to them.
        protocol: the tag of the code that must compute it, or "".
    """

    name: str
    title: str
    about: str
    values: dict[str, Scalar]
    fakes: bool
    grids: dict[str, tuple[Run, ...]]
    protocol: str = ""

    @functools.cached_property
    def runs(self) -> tuple[Run, ...]:
        """The runs of all grids, each once."""
        return tuple(dict.fromkeys(itertools.chain(*self.grids.values())))

    def grid(self, name: str) -> tuple[Run, ...]:
        """The runs of the grids of one name.

        Raises:
            InputError: when there is none of that name.
        """
        return entry(f"grid of the profile {self.name}:", name, self.grids)


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
    as_path(name, name="profile")
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    if not path.is_file() and name.endswith(".toml"):
        raise InputError(
            f"`profile` must be a TOML file, and there is none at {path.absolute()}; or use a name, such as mini"
        )
    if not path.is_file():
        raise unknown("profile", name, profile_names())
    try:
        card = tomllib.loads(path.read_text())
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"the profile {path} must be TOML; it is damaged: {error}") from error
    _check_layout(card, path)
    small = card.get("toy", {}) if toy else {}
    shared = {**card.get("run", {}), **small.get("run", {})}
    values = {key: parse(key, value, where=f"[run] of {path.name}") for key, value in shared.items()}
    grids: dict[str, dict[Run, None]] = {}
    for table in card["grid"]:
        axes = {key: value for key, value in table.items() if key not in ("name", "toy")}
        if toy and not table.get("toy", True):
            continue
        axes |= {key: value for key, value in small.get("grid", {}).items() if key in axes}
        runs = grids.setdefault(table.get("name", MAIN), {})
        for run in _expand(values, axes, where=f"[[grid]] of {path.name}"):
            runs |= {source_run(run): None, run: None}
    return Profile(
        name=path.stem + ("-toy" if toy else ""),
        title=card.get("title", path.stem),
        about=card.get("about", ""),
        values=values,
        fakes=bool(small.get("fakes", False)),
        grids={name: tuple(runs) for name, runs in grids.items()},
        protocol="" if toy else card.get("protocol", ""),
    )


def _check_layout(card: dict[str, Any], path: Path) -> None:
    """Refuse a layout other than that at the head of this file, and keys that nothing would read."""
    toy, grids = card.get("toy", {}), card.get("grid", [])
    _check_kinds(card, {"title": str, "about": str, "protocol": str, "run": dict, "toy": dict}, f"the profile {path}")
    _check_kinds(toy, {"run": dict, "grid": dict, "fakes": bool}, f"[toy] of the profile {path}")
    if not isinstance(grids, list) or not grids or not all(isinstance(grid, dict) for grid in grids):
        raise InputError(f"the profile {path} must have at least one [[grid]] of runs, got {grids!r}")
    for grid in grids:
        _check_kinds(grid, {"name": str, "toy": bool}, f"[[grid]] of the profile {path}")
    axes = {key for grid in grids for key in grid} - {"name", "toy"}
    for where, keys, known in (
        ("", card, ("title", "about", "protocol", "run", "grid", "toy")),
        ("[toy] of ", toy, ("run", "grid", "fakes")),
        ("[toy.grid] of ", toy.get("grid", {}), axes),
    ):
        if extra := set(keys) - set(known):
            raise unknown(f"key in {where}the profile {path}:", sorted(extra)[0], known)


def _check_kinds(table: dict[str, Any], kinds: dict[str, type], where: str) -> None:
    """Refuse keys that are there with a value of another kind."""
    for name, kind in kinds.items():
        if not isinstance(value := table.get(name, kind()), kind):
            expected = {str: 'text, "..."', bool: "true or false", dict: f"a table, [{name}]"}[kind]
            raise InputError(f"`{name}` in {where} must be {expected}, got {value!r}")


def _expand(values: dict[str, Any], axes: dict[str, list[Any]], *, where: str) -> Iterator[Run]:
    choices = []  # for each axis, what its options set
    named = [name.strip() for key in axes for name in key.split(",")]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise InputError(f"`{twice[0]}` in {where} must be named once, got it twice; leave one out")
    for key, options in axes.items():
        if not isinstance(options, list) or not options:
            raise InputError(f"`{key}` in {where} must be a list of values, got {options!r}")
        names = [name.strip() for name in key.split(",")]
        rows = [[option] for option in options] if len(names) == 1 else options
        for row in rows:
            if not isinstance(row, list) or len(row) != len(names):
                raise InputError(f"`{key}` in {where} must be a list of lists of {len(names)} values, got {row!r} in it")
        choices.append([{n: parse(n, value, where=where) for n, value in zip(names, row, strict=True)} for row in rows])
    if (count := math.prod(map(len, choices))) > MOST_RUNS:
        raise InputError(f"a grid in {where} must have at most {MOST_RUNS:,} runs, got {count:,}; use shorter lists")
    for combination in itertools.product(*choices):
        yield _checked(functools.reduce(dict.__or__, combination, values), where=where)


def run_with(profile: Profile, settings: Iterable[str]) -> Run:
    """One run of one's own: the values of a profile, some of them replaced.

    Args:
        profile: gives the values that are not named, its network above all.
        settings: "FIELD=VALUE" each, such as "task=digits", "budget=4", "mapping=blm".

    Raises:
        InputError: for a setting without =, an unknown field, or a value that it cannot have.
    """
    values: dict[str, Any] = dict(profile.values)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"a setting must be FIELD=VALUE, such as task=digits; got {setting!r}")
        values[name] = parse(name, _read(text), where=f"the setting {setting}")
    return _checked(values, where="the settings")


def _checked(values: dict[str, Any], *, where: str) -> Run:
    """The run with these values, in its canonical form; refused if they do not fit together."""
    run = Run(**values)
    try:
        check(run)
    except InputError as error:
        raise InputError(f"in {where}: {error}") from error
    return source_run(run) if run.method == "source" else canonical(run)


def _read(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse(name: str, value: object, *, where: str) -> Scalar:
    """A value for a field of `Run`, as TOML, a notebook parameter or the command line gives it.

    Raises:
        InputError: for an unknown field, a value of another type, or one that the `Fact` of the field excludes.

    >>> parse("budget", "all", where="[run]"), parse("lr", 1, where="[run]")
    (None, 1.0)
    """
    if name not in _TYPES:
        raise unknown(f"field in {where}:", name, _TYPES)
    kind, *optional = typing.get_args(_TYPES[name]) or (_TYPES[name],)
    if optional and (value is None or value == "all"):
        return None
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or value in (math.inf, -math.inf) or value != value:  # to isinstance, a bool is an int
        also = " or 'all'" if optional else ""
        raise InputError(f"`{name}` in {where} must be {kind.__name__}{also}, got {value!r}")
    _check_value(name, value, where=where)
    return typing.cast(Scalar, value)


def check(run: Run) -> None:
    """Refuse values that do not fit together; each of them has passed `parse`."""
    check_canvas(run.model, run.canvas)
    density = density_of_round(run.round, rate=run.rate)
    if run.sparsifier == "2:4" and run.round and density != 0.5:
        raise InputError(f"`sparsifier` 2:4 has a density of 0.5, got {density:g}; use rate = 0.5, round = 1")
    if run.sparsifier in METHODS and rewinds(run.sparsifier) and run.round and run.weights != "trained":
        raise InputError(
            f"`sparsifier` {run.sparsifier} goes back to an early epoch, and `weights` {run.weights} have none; use imp-lr "
            "or oneshot, or magnitude-bn or reconstruction, which do not train"
        )
    if run.sparsifier == "channels" and run.part in ("all", "body+head"):
        raise InputError(f"`part` must not contain the classifier for channels, got {run.part}; use body or body+stem")
    if run.method == "vp" or (run.method == "lp" and run.view == "canvas"):
        _check_prompt(run.prompt if run.method == "vp" else "pad", canvas=run.canvas, image_px=run.image_px)
    if run.method == "ft" and run.quantized:
        raise InputError("`method` ft trains the weights, which a quantized network does not have; use 32 bits")
    if run.method == "ft" and run.selection != "last":
        raise InputError(f"`selection` must be last for `method` ft, which selects no epoch; got {run.selection}")
    if run.quant_training != "none" and run.round:
        raise InputError(
            f"`quant_training` {run.quant_training} starts from the dense network, got `round` {run.round}; use 0"
        )
    if run.rewind >= run.source_epochs:
        raise InputError(f"`rewind` must be an epoch in 0..{run.source_epochs - 1}, got {run.rewind}")


@functools.cache  # thousands of runs share a prompt, and building it takes longer than all other checks
def _check_prompt(name: str, *, canvas: int, image_px: int) -> None:
    build(name, canvas=canvas, image_px=image_px, seeds=[0])


def _check_value(name: str, value: Any, *, where: str) -> None:
    """Refuse a value of a field that its `Fact` excludes."""
    fact, most = FACTS[name], LARGEST if isinstance(value, float) else MOST
    if fact.choices and value not in fact.choices and not (name == "sparsifier" and value.startswith(FILES)):
        raise unknown(f"{name} in {where}:", value, fact.choices)
    for kind, bound, holds in (
        ("at least", fact.least, operator.ge),
        ("at most", None if isinstance(value, str) else most if fact.most is None else fact.most, operator.le),
        ("above", fact.above, operator.gt),
    ):
        if bound is not None and not holds(value, bound):
            raise InputError(f"`{name}` in {where} must be {kind} {bound:.10g}, got {value}")
    if name == "weights":
        check_source(value, known=("trained",), where=f"weights in {where}:")
    if name in ("weight_bits", "activation_bits") and value not in (32, *range(2, 9)):
        raise InputError(f"`{name}` in {where} must be 2 to 8, or 32 for none, got {value}")
