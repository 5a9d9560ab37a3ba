"""Tracking: every record is mirrored as a run of Weights & Biases, if that is asked for. The files of a study come first.

The runs are offline unless the environment variable WANDB_MODE says otherwise; `wandb sync` sends offline runs later. The
config of a run is what was asked for (the fields of `Run`) and what computed it (texts, such as the commit), its summary
what was measured, its history the loss of each epoch. What goes wrong with the mirror stops the mirror, never the study.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vpcore.errors import InputError
from vpcore.study.run import FACTS
from vpcore.study.store import Record

# the seconds that a server may take; the output of a study is its own
SETTINGS = {"init_timeout": 20, "finish_timeout": 60, "finish_timeout_raises": True, "console": "off", "silent": True}


class Tracker:
    """Mirrors records to the project vpcore, in a group for the profile.

    Args:
        profile: name of the profile.
        folder: offline runs are written to its subfolder wandb.
        log: is told when the mirror has stopped, and why.

    Raises:
        InputError: when the package wandb is not installed.
    """

    def __init__(self, profile: str, folder: Path, log: Callable[[str], None] = lambda text: None) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError("--wandb needs the package wandb; use: pip install 'vpcore[wandb]'") from error
        self._wandb, self._profile, self._folder, self._log = wandb, profile, Path(folder), log
        self._folder.mkdir(parents=True, exist_ok=True)
        self._stopped = False

    def log(self, records: tuple[Record, ...]) -> None:
        """Mirror records. One that was mirrored before is updated, since both have the id of the run."""
        try:
            for record in () if self._stopped else records:
                self._mirror(record)
        except Exception as error:  # noqa: BLE001 whatever a server, a key or a setting does
            self._stopped = True
            told = (str(error).splitlines() or [""])[0]
            self._log(f"Weights & Biases: {type(error).__name__}: {told}; no more records are mirrored, the study goes on")

    def _mirror(self, record: Record) -> None:
        scalars: dict[str, Any] = {name: value for name, value in record.items() if isinstance(value, int | float | str)}
        config = {name: value for name, value in scalars.items() if name in FACTS or isinstance(value, str)}
        run = self._wandb.init(
            project="vpcore",
            group=self._profile,
            job_type=str(record["method"]),
            id=str(record["id"]),
            name=f"{record['method']} {record['task']} round {record['round']} seed {record['seed']}",
            config=config,
            dir=str(self._folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            reinit="finish_previous",
            settings=self._wandb.Settings(**SETTINGS),
        )
        for epoch, loss in enumerate(record.get("loss") or ()):
            run.log({"loss": loss}, step=epoch)
        run.summary.update({name: value for name, value in scalars.items() if name not in config})
        run.finish()
