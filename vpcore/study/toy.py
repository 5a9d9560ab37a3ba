"""Fake inputs for the toy of a profile whose real ones are large: `vpcore run --profile paper --toy` needs nothing.

The code walks the same path as for the real study: image sets are read from their own formats on the disk, tickets from
files in the form of the authors. Only what is in them is made up, so the numbers mean nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch

from vpcore.data.builtin import BUILTIN
from vpcore.data.fakes import write_fake
from vpcore.errors import InputError
from vpcore.files import write_atomically
from vpcore.networks.backbones import build, prunable
from vpcore.pruning.masks import full, magnitude, select
from vpcore.study.profile import Profile
from vpcore.study.run import Run
from vpcore.study.store import Store
from vpcore.weights.published import FILES, ticket_file

CLASSES, SOURCE_CLASSES = 3, 1000  # of the target tasks; of networks with published weights
PER_CLASS = 10  # of which a tenth is test where a set has no split of its own


def data_or_fakes(profile: Profile, runs: tuple[Run, ...], store: Store, folder: Path | None) -> Path | None:
    """The data folder for runs of a profile: the one given, or fakes below its results, if it wants fakes."""
    if not profile.fakes:
        return folder
    made = store.root / "fakes"
    for task in sorted({task for run in runs for task in (run.source, run.task)} - set(BUILTIN)):
        write_fake(task, made, classes=CLASSES, per_class=PER_CLASS)
    for run in runs:
        if run.sparsifier.startswith(FILES) and run.round:
            _write_ticket(run, made)
    return made


def _write_ticket(run: Run, folder: Path) -> None:
    """A network with random weights and masks, in the two files of the authors' format."""
    path = ticket_file(run.sparsifier, folder=folder, round=run.round)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"`sparsifier` {run.sparsifier} must name files below the data folder, so that its fakes lie in {folder}; use a "
            "pattern without .. and without a leading /"
        )
    if path.exists():
        return
    model = build(run.model, classes=SOURCE_CLASSES, seed=run.round)
    masks = full(model, prunable(model))
    masks = select(magnitude(model, masks), masks, density=run.density)
    beside = path.with_name(path.name.replace("_checkpoint", "_mask"))
    write_atomically(beside, lambda file: torch.save({name: mask.float() for name, mask in masks.items()}, file))
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    write_atomically(path, lambda file: torch.save({"state_dict": state}, file))
