"""Fake inputs for the toy of a profile whose real ones are large: `vpcore run --profile paper --toy` needs nothing.

The code takes the same path as in the real study: image sets are read from the disk in their own formats, tickets from files
in the authors' format. Only the contents of these files are made up, so the numbers mean nothing.
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

CLASSES, SOURCE_CLASSES = 3, 1000  # number of classes of a fake task, and of a network with published weights
PER_CLASS = 10  # images a class; a set without a test split of its own holds out a tenth of them


def data_or_fakes(profile: Profile, runs: tuple[Run, ...], store: Store, folder: Path | None) -> Path | None:
    """The data folder for runs of a profile: the one given or, if the profile asks for fakes, one with fakes in its results.

    Args:
        profile: with `fakes`, whether it asks for them.
        runs: whose image sets and ticket files are made.
        store: of the profile.
        folder: the data folder that was given.

    Raises:
        InputError: when a pattern of ticket files leads out of the folder.
    """
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
    """Write a network with random weights, and its masks by magnitude, in the two files of the authors' format."""
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
