"""Visual prompting: a frozen network learns a new task at its input and through the reading of its output.

    min over the prompt  mean_i CE(mapping(network(prompt(x_i))), y_i),      the mapping found anew before every epoch

What a prompt does to an image is told in `prompts`, how source classes are read as target classes in
`label_mapping`; here they are trained, in the steps of `learner`. The unit is a cohort: K runs that share the network, the
task and the budget and differ in their seed, trained in one pass. What comes back takes images and gives logits of the
target task, so that metrics are computed once, afterwards.

Recipe (the paper's): Adam, learning rate 0.01, divided by 10 at 50 % and 72 % of the epochs, no augmentation; the last epoch
counts, unless images to pick another one are given.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vpcore.checks import SIDE, whole_number
from vpcore.data.images import Images
from vpcore.errors import entry
from vpcore.networks.cohort import Best, History, check_cohort, generators_of, in_order, set_rate
from vpcore.networks.frozen import Frozen, check_frozen
from vpcore.networks.inputs import as_images, check_pixels
from vpcore.networks.progress import bar
from vpcore.networks.training import images_shown, predict
from vpcore.prompting.fixed_prompts import Prompt
from vpcore.prompting.label_mapping import LabelMapping, mapping_named, strongest, target_logits
from vpcore.prompting.learner import Learner
from vpcore.prompting.one_to_one import TIES
from vpcore.prompting.prompts import PromptKind, prompt_kind

LAST_MAPPINGS = {"fresh": True, "stale": False}  # whether the mapping is found once more at the end
IMAGE_SHARE = 4 / 7  # side of the image on the canvas where nothing else says it: the paper's 128 of 224 px


@dataclass(frozen=True)
class Prompted:
    """K prompts as they were learned, with the network that they prompt and the mappings through which it is read.

    Attributes:
        network: frozen.
        prompt: the module that puts the prompts on images, in evaluation mode.
        mapping: (K, T) indices or (K, S + 1, T) matrices, see `label_mapping`.
        loss: mean training loss of the cohort in each epoch.
        epoch: for each member, the number of epochs after which prompt and mapping were taken.
        losses: (epochs, K) those of each member.
        px: side of the images that were learned from, and of those that are read, px.
    """

    network: Frozen
    prompt: Prompt
    mapping: Tensor
    loss: list[float]
    epoch: list[int]
    losses: Tensor
    px: int

    @property
    def sources(self) -> Tensor:
        """(K, T) the source class of each target class; of a matrix, the one with the largest weight."""
        return strongest(self.mapping)

    @property
    def learned(self) -> dict[str, Tensor]:
        """What has to be saved: the state of the prompt and, unless it is an index, the mapping; row k is member k's."""
        matrix = {} if self.mapping.ndim == 2 else {"mapping": self.mapping}
        return {**self.prompt.state_dict(), **matrix}

    def members(self, first: int, last: int) -> Prompted:
        """Those from `first` on and before `last`, counted from 0."""
        if (first, last) == (0, len(self.mapping)):
            return self
        prompt, rows = copy.deepcopy(self.prompt), slice(first, last)
        for value in prompt.state_dict(keep_vars=True).values():
            value.data = value.data[rows]
        losses = self.losses[:, rows]
        return dataclasses.replace(
            self,
            prompt=prompt,
            mapping=self.mapping[rows],
            loss=losses.mean(1).tolist(),
            epoch=self.epoch[rows],
            losses=losses,
        )

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, h, h) uint8 images -> (K, N, T) float32 target logits on the CPU, of every member for all images.

        Raises:
            InputError: for images of another kind, or another side than those that were learned from.
        """
        check_pixels(images, name="images", side=self.px, why=", that of the images that the prompt learned from")
        cohort = len(self.mapping)

        def show(part: Tensor) -> Tensor:
            views = self.prompt.views(part.expand(cohort, *part.shape))
            logits = self.network(views).unflatten(0, (cohort, len(part)))
            return target_logits(logits, self.mapping).transpose(0, 1)

        with torch.no_grad():
            one = images[:1].to(self.network.device).float() / 255
            side = self.prompt.views(one.expand(cohort, *one.shape)).shape[-1]
        batch = images_shown(self.network.device, side=side, members=cohort)
        return predict(show, images, batch=batch, device=self.network.device).transpose(0, 1)


def visual_prompt(
    network: Frozen,
    train: Images,
    *,
    canvas: int,
    image_px: int | None = None,
    index: Tensor | None = None,
    prompt: str | PromptKind = "pad",
    mapping: str | LabelMapping = "ilm",
    ties: str = "random",
    last_mapping: str = "fresh",
    select: Images | None = None,
    epochs: int = 100,
    batch: int | None = None,
    lr: float = 0.01,
    seeds: Sequence[int] = (0,),
    progress: bool = True,
) -> Prompted:
    """Visual prompting; with the defaults, that with iterative label mapping (ILM-VP, Chen et al. 2023, algorithm 1).

    Before every epoch the mapping is computed anew on the training images under the prompt as it is; then the prompt is
    trained on the cross-entropy of the mapped logits. The logits of the first step serve for both, which is the same
    computation; a prompt that varies in training is shown once more, as in evaluation.

    Args:
        network: frozen, S source classes.
        train: training images of the task, uint8; their side is that on the canvas for `pad` and `scale`, the canvas for all
            other prompts (`prompts.input_px`). The classes that it names are the T target classes.
        canvas: side of the canvas, px.
        image_px: side of the image on it, px, see `prompts.build`. None: the side of the images; where they fill the canvas,
            4 / 7 of it, so that a frame is as wide as the paper's border.
        index: (K, n) which of the images each member learns from; None: all of them for each seed.
        prompt: a key of `prompts.PROMPTS`, or a kind of one's own.
        mapping: a key of `label_mapping.MAPPINGS`, or a rule of one's own.
        ties: a key of `one_to_one.TIES`; "index" is the rule of the authors' code, a defect.
        last_mapping: the prompt is read through a mapping computed once more at the end, "fresh"; or through the one of
            before the last epoch, "stale", as in the authors' code, a defect.
        select: images on which the best epoch is picked for each member; the authors' code takes the test images, a defect.
            By default the last epoch counts.
        epochs: passes over the n images.
        batch: images a step of each member; None: as in the authors' code for such a budget (`cohort.BATCHES`).
        lr: learning rate of Adam at the start.
        seeds: K seeds: of the order of the images, the ties in the mapping, and whatever prompt and mapping draw.
        progress: whether a progress bar is drawn, if the standard error stream is a terminal.

    Returns:
        The prompts and their mappings: call it with (N, 3, h, h) uint8 images for (K, N, T) logits.

    Raises:
        InputError: for a network that is not frozen, an unknown name, what is not `Images`, images that are not uint8 or of
            another side, a canvas that the network does not take, labels, rows or numbers out of range, a mapping for which
            the network has too few classes, or a loss that is no longer a number.
    """
    check_frozen(network)
    images, labels = as_images(train, name="train")
    kind, rule = prompt_kind(prompt), mapping_named(mapping)
    priorities = entry("ties", ties, TIES).priorities
    fresh = entry("last_mapping", last_mapping, LAST_MAPPINGS)
    sizes = {"targets": len(train.classes), "sources": network.classes}
    index, seeds, epochs, batch, lr = check_cohort(
        index, count=len(labels), targets=sizes["targets"], seeds=seeds, epochs=epochs, batch=batch, lr=lr
    )
    canvas = whole_number(canvas, name="canvas", least=2, most=SIDE)
    if image_px is None:
        image_px = images.shape[2] if kind.shown_small else round(IMAGE_SHARE * canvas)
    image_px = whole_number(image_px, name="image_px")
    module = kind.make(seeds, canvas, image_px).to(network.device)
    px, why = (image_px if kind.shown_small else canvas), f" for the prompt {kind.label!r}"
    check_pixels(images, name="train.images", side=px, why=why)
    chosen = None if select is None else as_images(select, name="select", classes=train.classes, side=px, why=why)
    network.check_takes(torch.zeros(1, 3, canvas, canvas), name="canvas")
    learner = Learner(
        network, module, rule, rule.start(seeds, **sizes), images, labels,
        priority=priorities(seeds, **sizes), lr=lr,
    )  # fmt: skip
    generators, shown, count = generators_of(seeds), index.to(network.device), index.shape[1]
    history, best, own = History("visual prompting", lr=lr), Best(len(seeds)), list[Tensor]()
    # images shown at a time to find the mapping: on a GPU as many as there are, since each pass waits to be launched
    looked = batch
    if network.device.type != "cpu":
        looked = max(batch, images_shown(network.device, side=canvas, members=len(seeds)))

    def result(epoch: int) -> Prompted:
        """The prompt as it is, with the mapping that goes with it."""
        final = learner.find_now(shown, looked) if rule.repeat and fresh else learner.mapping.detach().clone()
        return Prompted(network, module.eval(), final, history.known, [epoch] * len(seeds), torch.stack(own), px)

    for epoch in bar(range(epochs), "visual prompting", unit="epoch", progress=progress):
        set_rate(learner.optimizer, lr, epoch, epochs)
        order = in_order(index, generators).to(network.device, non_blocking=True) if count > batch else shown
        due = rule.due(epoch)
        if due and module.varies:
            learner.read_through_(learner.find_now(shown, looked))
            due = False
        module.train()
        batches = order.split(batch, dim=1)
        drawn = _drawn(module, [rows.shape[1] for rows in batches], network.device)
        loss, seen = torch.zeros((), device=network.device), []
        own.append(torch.zeros(len(seeds), device=network.device))
        for rows, places in zip(batches, drawn, strict=True):
            if due:
                others = [learner.look(part) for part in order[:, batch:].split(looked, dim=1)] if len(batches) > 1 else []
                logits, losses = learner.first_step(rows, order, *([torch.cat(others, dim=1)] if others else []))
                due = False
            else:
                logits, losses = learner.step(rows, *places)
            loss += losses.mean() * rows.shape[1] / count
            own[-1] += losses * (rows.shape[1] / count)
            if rule.running:
                seen.append(logits)
        if rule.running:
            learner.read_through_(learner.find(torch.cat(seen, dim=1), learner.labels[order]))
        history.append_(loss)
        if chosen is not None:
            now = result(epoch + 1)
            state = {**module.state_dict(), "mapping": now.mapping, "epoch": torch.tensor(now.epoch)}
            best.update_(state, now(chosen[0]), chosen[1])
    history.read()
    if not best.state:
        return result(epochs)
    final, taken = best.state.pop("mapping"), best.state.pop("epoch")
    module.load_state_dict(best.state)
    return Prompted(network, module.eval(), final, history.known, taken.tolist(), torch.stack(own), px)


def _drawn(module: Prompt, counts: list[int], device: torch.device) -> list[list[Tensor]]:
    """What a prompt draws for the batches of an epoch, copied to the device at once; nothing for most prompts."""
    drawn = [places for places in map(module.draw, counts) if places is not None]
    if not drawn:
        return [[] for _ in counts]
    return [[part] for part in torch.cat(drawn, dim=1).to(device, non_blocking=True).split(counts, dim=1)]
