"""Adaptation: how a cohort of runs is carried out by its method, visual prompting, linear probing or full fine-tuning.

A cohort is runs that differ in their seed alone. Whatever the method, what comes out is the same kind of thing, `Adapted`:
something that gives logits for images, and what is known of each member.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vpcore.data.images import Images
from vpcore.networks.backbones import backbone
from vpcore.networks.repeat import within_memory
from vpcore.networks.similarity import linear_cka
from vpcore.probing.fine_tuning import fine_tune
from vpcore.probing.linear_probing import probe_features
from vpcore.probing.optimal_probing import optimal_probe
from vpcore.prompting.visual_prompting import visual_prompt
from vpcore.study.headers import dense_twin
from vpcore.study.run import Run
from vpcore.study.session import Session
from vpcore.study.store import Record

PIXELS_TRAINED = 2**22  # most that a step shows to a network, unless one member alone has more: with 128 px, 256 images
Arrays = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """What a cohort learns from, and what it is measured on.

    Attributes:
        train: all training images of the task.
        index: (K, n) those that each member learns from.
        held_out: the splits "test" and "val".
    """

    train: Images
    index: Tensor
    held_out: dict[str, Images]

    @property
    def targets(self) -> int:
        """Number of target classes T."""
        return len(self.train.classes)


@dataclass(frozen=True)
class Adapted:
    """A network adapted for every member of a cohort.

    Attributes:
        predict: (N, 3, h, h) uint8 images, and which they are (a split, or how they were corrupted) -> (K, N, T) logits.
        facts: what is known of each member, for its record.
        arrays: what each member has learned.
    """

    predict: Callable[[Tensor, str], Tensor]
    facts: list[Record]
    arrays: list[Arrays]


def some(images: Images, count: int) -> Tensor:
    """Rows of so many images, drawn without regard to their classes, always the same ones."""
    return torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count].sort().values


def _visual_prompt(runs: tuple[Run, ...], session: Session, task: Task) -> Adapted:
    """So many members at a time as memory allows; they learn the same together or alone."""
    step = min(runs[0].batch, task.index.shape[1]) * runs[0].canvas ** 2  # pixels of a member

    def in_parts(size: int) -> Adapted:
        parts = [slice(first, first + size) for first in range(0, len(runs), size)]
        found = [_prompted_together(runs[p], session, dataclasses.replace(task, index=task.index[p])) for p in parts]
        return Adapted(
            lambda images, split: torch.cat([part.predict(images, split) for part in found]),
            [facts for part in found for facts in part.facts],
            [arrays for part in found for arrays in part.arrays],
        )

    return within_memory(in_parts, min(len(runs), max(1, PIXELS_TRAINED // step)))


def _prompted_together(runs: tuple[Run, ...], session: Session, task: Task) -> Adapted:
    run = runs[0]
    prompted = visual_prompt(
        session.network(run).frozen,
        task.train,
        index=task.index,
        canvas=run.canvas,
        image_px=run.image_px,
        prompt=run.prompt,
        mapping=run.mapping,
        ties=run.ties,
        last_mapping=run.last_mapping,
        select=task.held_out.get(run.selection),
        epochs=run.epochs,
        batch=run.batch,
        lr=run.lr,
        seeds=[r.seed for r in runs],
        progress=False,
    )
    names = session.source_classes(run)
    facts: list[Record] = [
        {
            "mapped": sources,
            "mapped_names": [names[s] for s in sources],
            "loss": prompted.loss,
            "epoch": prompted.epoch[k],
            "prompt_size": prompted.prompt.size,
        }
        for k, sources in enumerate(prompted.sources.tolist())
    ]
    arrays = [{name: value[k].cpu() for name, value in prompted.learned.items()} for k in range(len(runs))]
    return Adapted(lambda images, split: prompted(images), facts, arrays)


def _linear_probe(runs: tuple[Run, ...], session: Session, task: Task) -> Adapted:
    run = runs[0]
    rows = None if run.budget is None else task.index.unique()
    features = session.features(run, task.train.images, "train", rows).to(session.device)
    held_out = {split: session.features(run, images.images, split) for split, images in task.held_out.items()}
    facts: list[Record] = [{} for _ in runs]
    if run.probe == "optimum":
        val = held_out["val"].to(session.device), task.held_out["val"].labels
        probe = optimal_probe(features, task.train.labels, task.index, targets=task.targets, val=val)
        for k, strength in enumerate(probe.strength):
            facts[k]["l2"] = strength
    else:
        picked = held_out.get(run.selection)
        probe = probe_features(
            features,
            task.train.labels,
            task.index,
            targets=task.targets,
            epochs=run.epochs,
            batch=run.batch,
            lr=run.lr,
            seeds=[r.seed for r in runs],
            select=None if picked is None else (picked, task.held_out[run.selection].labels),
        )
    if run.robustness_images and run.view == "frame":
        test = task.held_out["test"]
        few = some(test, run.robustness_images)
        cka = linear_cka(held_out["test"][few], session.dense_features(dense_twin(run), test.images[few]))
        facts = [{**known, "cka": cka} for known in facts]

    def logits(images: Tensor, split: str) -> Tensor:
        return probe(session.features(run, images, split)).cpu()

    return Adapted(logits, facts, [{} for _ in runs])


def _fine_tune(runs: tuple[Run, ...], session: Session, task: Task) -> Adapted:
    run, network = runs[0], session.network(runs[0])
    tuned = fine_tune(
        network.model,
        task.train,
        masks=network.masks,
        index=task.index,
        epochs=run.epochs,
        batch=run.batch,
        lr=run.lr,
        seeds=[r.seed for r in runs],
        precision=run.precision,
        device=session.device,
        statistics=backbone(run.model).statistics,
        progress=False,
    )
    return Adapted(lambda images, split: tuned(images), [{} for _ in runs], [{} for _ in runs])


# method -> how a cohort is adapted by it
ADAPTATIONS: dict[str, Callable[[tuple[Run, ...], Session, Task], Adapted]] = {
    "vp": _visual_prompt,
    "lp": _linear_probe,
    "ft": _fine_tune,
}
