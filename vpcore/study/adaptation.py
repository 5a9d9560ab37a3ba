"""Adaptation: how a cohort of runs is carried out by its method, visual prompting, linear probing or full fine-tuning.

The runs of a cohort, its members, share a network and differ in their seed alone. A few prompts and a few images leave a GPU
idle, so there they may differ in their task as well, if the tasks have the same number of classes and of images: the images
of all tasks are then put one after the other, and each member learns from rows of its own. Whatever the method, the result
for each task is the same kind of thing, `Adapted`: a function that gives logits for images, and the facts about each member.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vpcore.data.images import Images
from vpcore.networks.backbones import backbone
from vpcore.networks.repeat import within_memory
from vpcore.networks.similarity import linear_cka
from vpcore.probing.fine_tuning import fine_tune
from vpcore.probing.linear_probing import Classifiers, probe_features
from vpcore.probing.optimal_probing import optimal_probe
from vpcore.prompting.visual_prompting import Prompted, visual_prompt
from vpcore.study.headers import dense_twin
from vpcore.study.run import Run
from vpcore.study.session import Session
from vpcore.study.store import Record

# device type -> most pixels that a step shows to a network, unless a single member needs more; on a CPU 256 images of 128 px
PIXELS_TRAINED = {"cpu": 2**22, "cuda": 2**24}
Arrays = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """A target task: the images that members of a cohort learn from, and those that they are measured on.

    Attributes:
        runs: K members, which differ in their seed alone.
        train: all training images of the task.
        index: (K, n) rows of the training images that each member learns from.
        held_out: name of a split, "test" or "val" -> its images.
    """

    runs: tuple[Run, ...]
    train: Images
    index: Tensor
    held_out: dict[str, Images]

    @property
    def targets(self) -> int:
        """Number of target classes T."""
        return len(self.train.classes)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of classes, and of training images of a member: tasks of the same shape can be learned together."""
        return self.targets, self.index.shape[1]


@dataclass(frozen=True)
class Adapted:
    """A network adapted to one task, by each of the K members of a cohort that have this task.

    Attributes:
        predict: (N, 3, h, h) uint8 images, and the name of their split or corruption -> (K, N, T) logits.
        facts: of each member, columns for its record.
        arrays: of each member, the tensors that it has learned.
    """

    predict: Callable[[Tensor, str], Tensor]
    facts: list[Record]
    arrays: list[Arrays]


def some(images: Images, count: int) -> Tensor:
    """Rows of `count` images in ascending order, drawn whatever their class: always the same ones of a set."""
    return torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count].sort().values


def joined(tasks: Sequence[Task], values: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The training data of several tasks as if they were one.

    Args:
        tasks: of one shape.
        values: for each task, its (M, ...) training images or their features.

    Returns:
        (M, ...) values, (M,) labels, and the (K, n) rows that each member learns from. A single task is returned as it is;
        of several, only the rows that some member uses are kept, one task after the other.
    """
    if len(tasks) == 1:
        return values[0], tasks[0].train.labels, tasks[0].index
    used, places = zip(*(task.index.unique(return_inverse=True) for task in tasks), strict=True)
    starts = itertools.accumulate(map(len, used), initial=0)
    return (
        torch.cat([value[rows] for value, rows in zip(values, used, strict=True)]),
        torch.cat([task.train.labels[rows] for task, rows in zip(tasks, used, strict=True)]),
        torch.cat([place + start for place, start in zip(places, starts, strict=False)]),
    )


def _members(tasks: Sequence[Task]) -> list[range]:
    """For each task, the numbers of its members among those of all tasks."""
    ends = list(itertools.accumulate(len(task.runs) for task in tasks))
    return [range(end - len(task.runs), end) for task, end in zip(tasks, ends, strict=True)]


def _visual_prompt(tasks: Sequence[Task], session: Session) -> list[Adapted]:
    """As many members at a time as memory allows; a member learns the same alone and in company."""
    run, runs = tasks[0].runs[0], [run for task in tasks for run in task.runs]
    images, labels, index = joined(tasks, [task.train.images for task in tasks])
    train = Images(images, labels, tasks[0].train.classes)
    step = min(run.batch, index.shape[1]) * run.canvas**2  # pixels of a member
    limit = PIXELS_TRAINED.get(session.device.type, PIXELS_TRAINED["cpu"])

    def in_parts(size: int) -> list[tuple[range, Prompted]]:
        parts = [range(len(runs))[first : first + size] for first in range(0, len(runs), size)]
        return [(part, prompted([runs[k] for k in part], index[part.start : part.stop])) for part in parts]

    def prompted(runs: list[Run], index: Tensor) -> Prompted:
        return visual_prompt(
            session.network(run).frozen,
            train,
            index=index,
            canvas=run.canvas,
            image_px=run.image_px,
            prompt=run.prompt,
            mapping=run.mapping,
            ties=run.ties,
            last_mapping=run.last_mapping,
            select=tasks[0].held_out.get(run.selection),
            epochs=run.epochs,
            batch=run.batch,
            lr=run.lr,
            seeds=[r.seed for r in runs],
            progress=False,
        )

    found = within_memory(in_parts, min(len(runs), max(1, limit // step)))
    adapted = []
    for mine in _members(tasks):
        here = [(part, learned) for part, learned in found if part.start < mine.stop and part.stop > mine.start]
        own = [learned.members(max(mine.start - part.start, 0), mine.stop - part.start) for part, learned in here]
        adapted.append(_as_prompted(own, session.source_classes(run)))
    return adapted


def _as_prompted(parts: list[Prompted], names: tuple[str, ...]) -> Adapted:
    """The prompts of one task, which were learned in one or several parts.

    Args:
        parts: the prompts, in the order of the members.
        names: of the source classes.
    """
    facts: list[Record] = [
        {
            "mapped": sources,
            "mapped_names": [names[s] for s in sources],
            "loss": part.loss,
            "epoch": epoch,
            "prompt_size": part.prompt.size,
        }
        for part in parts
        for sources, epoch in zip(part.sources.tolist(), part.epoch, strict=True)
    ]
    arrays = [
        {name: value[k].cpu() for name, value in part.learned.items()} for part in parts for k in range(len(part.epoch))
    ]
    return Adapted(lambda images, split: torch.cat([part(images) for part in parts]), facts, arrays)


def _linear_probe(tasks: Sequence[Task], session: Session) -> list[Adapted]:
    run = tasks[0].runs[0]
    seen = [
        session.features(task.runs[0], task.train.images, "train", None if run.budget is None else task.index.unique())
        for task in tasks
    ]
    features, labels, index = joined(tasks, seen)
    if run.probe == "optimum":
        val = session.features(run, tasks[0].held_out["val"].images, "val"), tasks[0].held_out["val"].labels
        features, shown = features.to(session.device), val[0].to(session.device)
        probe = optimal_probe(features, labels, index, targets=tasks[0].targets, val=(shown, val[1]))
    else:
        picked = tasks[0].held_out.get(run.selection)
        probe = probe_features(
            features.to(session.device),
            labels,
            index,
            targets=tasks[0].targets,
            epochs=run.epochs,
            batch=run.batch,
            lr=run.lr,
            seeds=[r.seed for task in tasks for r in task.runs],
            select=None if picked is None else (session.features(run, picked.images, run.selection), picked.labels),
        )
    own = [probe.members(mine.start, mine.stop) for mine in _members(tasks)]
    return [_as_probed(classifiers, task, session) for classifiers, task in zip(own, tasks, strict=True)]


def _as_probed(probe: Classifiers, task: Task, session: Session) -> Adapted:
    """The probes of one task, with the CKA of their features to those of the dense network where the run asks for it."""
    run = task.runs[0]
    facts: list[Record] = [{"l2": strength} for strength in probe.strength] or [{} for _ in task.runs]
    if run.robustness_images and run.view == "frame":
        test = task.held_out["test"]
        few = some(test, run.robustness_images)
        shown = session.features(run, test.images, "test")[few]
        cka = linear_cka(shown, session.dense_features(dense_twin(run), test.images[few]))
        facts = [{**known, "cka": cka} for known in facts]

    def logits(images: Tensor, split: str) -> Tensor:
        return probe(session.features(run, images, split)).cpu()

    return Adapted(logits, facts, [{} for _ in task.runs])


def _fine_tune(tasks: Sequence[Task], session: Session) -> list[Adapted]:
    (task,) = tasks
    run, network = task.runs[0], session.network(task.runs[0])
    tuned = fine_tune(
        network.model,
        task.train,
        masks=network.masks,
        index=task.index,
        epochs=run.epochs,
        batch=run.batch,
        lr=run.lr,
        seeds=[r.seed for r in task.runs],
        precision=run.precision,
        device=session.device,
        statistics=backbone(run.model).statistics,
        progress=False,
    )
    return [Adapted(lambda images, split: tuned(images), [{} for _ in task.runs], [{} for _ in task.runs])]


# method -> a function that adapts a cohort to its tasks, which have one shape
ADAPTATIONS: dict[str, Callable[[Sequence[Task], Session], list[Adapted]]] = {
    "vp": _visual_prompt,
    "lp": _linear_probe,
    "ft": _fine_tune,
}
