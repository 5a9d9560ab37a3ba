"""Tracking: every record is mirrored as a run of Weights & Biases, if that is asked for. The files of a study come first.

The runs are offline unless the environment variable WANDB_MODE says otherwise; `wandb sync` sends offline runs later. The
config of a run is what was asked for (the fields of `Run`) and what computed it (texts, such as the commit), its summary
what was measured, its history the loss of each epoch. A list of what was mirrored lies beside the records: a study that was
begun without a mirror is caught up with, once. What goes wrong with the mirror stops the mirror, never the study.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

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
        tickets: id of a record -> the ticket that belongs to it, and goes along as an artifact.

    Raises:
        InputError: when the package wandb is not installed.
    """

    def __init__(
        self,
        profile: str,
        folder: Path,
        log: Callable[[str], None] = lambda text: None,
        tickets: dict[str, Path] | None = None,
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError("--wandb needs the package wandb; use: pip install 'vpcore[wandb]'") from error
        self._wandb, self._profile, self._folder, self._log = wandb, profile, Path(folder), log
        self._tickets, self._list = tickets or {}, self._folder / profile / ".mirrored"
        self._list.parent.mkdir(parents=True, exist_ok=True)
        self._stopped = False

    def log(self, records: tuple[Record, ...]) -> None:
        """Mirror records. One that was mirrored before is updated, since both have the id of the run."""
        for record in records:
            self._try(functools.partial(self._mirror, record))

    def catch_up(self, records: list[Record]) -> None:
        """Mirror those records that were not mirrored yet."""
        before = set(self._list.read_text().split()) if self._list.exists() else set()
        self.log(tuple(record for record in records if record["id"] not in before))

    def table(self, table: pd.DataFrame) -> None:
        """Mirror the table of a study, but for its columns of lists, as one run of its own."""
        lists = [name for name in table if table[name].map(lambda value: isinstance(value, list)).any()]
        plain = table.drop(columns=lists).astype(object)

        def write() -> None:
            run = self._begin(id=f"table-{self._profile}", name=f"table of {self._profile}", job_type="table", config={})
            rows = plain.where(plain.notna(), None)
            run.log({"records": self._wandb.Table(dataframe=rows, allow_mixed_types=True)})
            run.finish()

        self._try(write)

    def _try(self, do: Callable[[], object]) -> None:
        if self._stopped:
            return
        try:
            do()
        except Exception as error:  # noqa: BLE001 whatever a server, a key or a setting does
            self._stopped = True
            told = (str(error).splitlines() or [""])[0]
            self._log(f"Weights & Biases: {type(error).__name__}: {told}; no more records are mirrored, the study goes on")

    def _mirror(self, record: Record) -> None:
        scalars: dict[str, Any] = {name: value for name, value in record.items() if isinstance(value, int | float | str)}
        config = {name: value for name, value in scalars.items() if name in FACTS or isinstance(value, str)}
        name = f"{record['method']} {record['task']} round {record['round']} seed {record['seed']}"
        run = self._begin(id=str(record["id"]), name=name, job_type=str(record["method"]), config=config)
        for epoch, loss in enumerate(record.get("loss") or ()):
            run.log({"loss": loss}, step=epoch)
        run.summary.update({name: value for name, value in scalars.items() if name not in config})
        if ticket := self._tickets.get(str(record["id"])):
            run.log_artifact(str(ticket), name=f"ticket-{record['id']}", type="model")
        run.finish()
        with self._list.open("a") as file:
            file.write(f"{record['id']}\n")

    def _begin(self, **about: Any) -> Any:
        return self._wandb.init(
            **about,
            project="vpcore",
            group=self._profile,
            dir=str(self._folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            reinit="finish_previous",
            settings=self._wandb.Settings(**SETTINGS),
        )
