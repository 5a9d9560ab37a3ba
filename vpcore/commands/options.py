"""What several commands share: options, checks of what was asked for, and the lines in which they say what they found."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
import torch

from vpcore.calibration.all_metrics import METRICS
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.scores import interval
from vpcore.checks import as_path
from vpcore.errors import InputError, unknown
from vpcore.networks.backbones import emulated
from vpcore.study.profile import load_profile, profile_names
from vpcore.study.store import Store

Command = TypeVar("Command", bound=Callable[..., Any])  # a function that becomes a command


class PathType(click.Path):
    """A path of a file or a folder; what can be none is refused like every other argument."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        as_path(value, name=(param and param.name) or "path")
        return super().convert(value, param, ctx)


a_path, a_folder = PathType(path_type=Path), PathType(path_type=Path, file_okay=False)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
data_option = click.option(
    "--data",
    type=a_path,
    default=lambda: os.environ.get("VPCORE_DATA") or None,
    help="Folder of image sets (Parquet, tv/, coop/), for tasks that are not built in.  [default: $VPCORE_DATA]",
)

scheduler_option = click.option(
    "--scheduler", default="", help="Let the workers of this Dask scheduler do it, such as tcp://HOST:8786."
)


def output_option(suffix: str, about: str, *, required: bool = False) -> Callable[[Command], Command]:
    """The option for a file that a command writes at its end; what it could not write is refused before it begins."""

    def check(ctx: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
        if path is None:
            return None
        if path.is_dir() or path.suffix != suffix:
            found = f"the folder {path}" if path.is_dir() else path
            raise InputError(
                f"`output` must be the name of a file that ends in {suffix}, got {found}; use --output FILE{suffix}"
            )
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise InputError(f"`output` must lie in a folder that can be written, and {above} is none; name another file")
        return path

    return click.option("--output", type=a_path, callback=check, required=required, help=about)


def study_options(command: Command) -> Command:
    """The options that choose a study and its results; the command is given the profile and the store of its results."""

    @click.option(
        "--profile", default="mini", show_default=True, help=f"One of {', '.join(profile_names())}, or a TOML file."
    )
    @click.option("--toy", is_flag=True, help="Shrink the profile to about two minutes; results stay apart, in PROFILE-toy.")
    @click.option("--results", type=a_folder, default="results", show_default=True, help="Folder of all results.")
    @functools.wraps(command)
    def opened(profile: str, toy: bool, results: Path, **given: Any) -> Any:
        card = load_profile(profile, toy=toy)
        return command(card, Store(results, card.name), **given)

    return opened  # type: ignore[return-value]


def check_known(kind: str, asked: Iterable[object], known: Iterable[object]) -> None:
    """Refuse the first that is asked for and unknown."""
    names = list(map(str, known))
    for name in map(str, asked):
        if name not in names:
            raise unknown(kind, name, names)


def warn_of_emulation(device: torch.device, precisions: Iterable[str]) -> None:
    """Say that a processor has no instructions for a number format that is about to be computed with."""
    if any(emulated(precision, device) for precision in precisions):
        click.echo(
            "note: this processor has no instructions for bf16 and emulates it, which took 9 times as long as float32 where "
            "that was measured; use --device cuda, a processor with AVX-512 or AMX, or the precision float32"
        )


def lines_of(predictions: Predictions, names: Iterable[str]) -> Iterable[str]:
    """Metrics of predictions, one a line, with intervals."""
    for name in names:
        found = interval(predictions, METRICS[name], seed=0)
        yield f"  {name:14} {found.value:.4f}  ({found.low:.4f} to {found.high:.4f})  {METRICS[name].label}"
