"""Tracking: every record is mirrored as a run of Weights & Biases, if that is asked for. The files of a study come first.

The runs are offline unless the environment variable WANDB_MODE says otherwise; `wandb sync` sends offline runs later. Only
the scalars of a record are sent: the measures of `SUMMARY` as the summary, all others as the config.
"""

from __future__ import annotations

import os
from pathlib import Path

from vpcore.errors import InputError
from vpcore.study.store import Record

SUMMARY = ("accuracy", "ece", "nll", "brier", "confidence", "density", "seconds", "train_accuracy")


class Tracker:
    """Mirrors records to the project vpcore-PROFILE.

    Args:
        profile: name of the profile.
        folder: offline runs are written to its subfolder wandb.

    Raises:
        InputError: when the package wandb is not installed.
    """

    def __init__(self, profile: str, folder: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError("--wandb needs the package wandb; use: pip install 'vpcore[wandb]'") from error
        self._wandb, self._project, self._folder = wandb, f"vpcore-{profile}", Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def log(self, records: tuple[Record, ...]) -> None:
        """Mirror records. One that was mirrored before is updated, since both have the id of the run."""
        for record in records:
            scalars = {name: value for name, value in record.items() if isinstance(value, int | float | str)}
            run = self._wandb.init(
                project=self._project,
                id=str(record["id"]),
                name=f"{record['method']} {record['task']} round {record['round']} seed {record['seed']}",
                group=str(record["method"]),
                config={name: value for name, value in scalars.items() if name not in SUMMARY},
                dir=str(self._folder),
                mode=os.environ.get("WANDB_MODE", "offline"),
                resume="allow",
                reinit="finish_previous",
            )
            run.log({name: scalars[name] for name in SUMMARY if name in scalars})
            run.finish()
