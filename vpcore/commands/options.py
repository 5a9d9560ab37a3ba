"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])  # a function that becomes a command

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=lambda: os.environ.get("VPCORE_DATA") or None,
    help="Folder of image sets (Parquet, tv/, coop/), for tasks that are not built in.  [default: $VPCORE_DATA]",
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
