"""Visual prompting: a frozen network learns a new task at its input and through the reading of its output.

    min over the prompt  mean_i CE(mapping(network(prompt(x_i))), y_i),      the mapping found anew before every epoch

What a prompt does to an image is told in `prompts`, how source classes are read as target classes in
`label_mapping`; here they are trained. The unit is a cohort: K runs that share the network, the task and the
budget and differ in their seed, trained in one pass. The logits of the target task are returned, so that metrics are
computed once, afterwards.

Recipe (the paper's): Adam, learning rate 0.01, divided by 10 at 50 % and 72 % of the epochs, no augmentation; the last epoch
counts, unless images to pick another one are given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vpcore.errors import InputError, unknown
from vpcore.networks.cohort import Best, member_losses, set_rate
from vpcore.networks.frozen import Frozen
from vpcore.networks.training import PIXELS, check_loss, predict
from vpcore.prompting.label_mapping import MAPPINGS, TIES, strongest, target_logits
from vpcore.prompting.prompts import Prompt, build, input_px


@dataclass(frozen=True)
class Prompted:
    """K prompts as they were learned, with the mappings through which they are read.

    Attributes:
        prompt: the module that puts the prompts on images, in evaluation mode.
        mapping: (K, T) indices or (K, S + 1, T) matrices, see `label_mapping`.
        loss: mean training loss of the cohort in each epoch.
        epoch: for each member, the number of epochs after which prompt and mapping were taken.
    """

    prompt: Prompt
    mapping: Tensor
    loss: list[float]
    epoch: list[int]

    @property
    def sources(self) -> Tensor:
        """(K, T) the source class of each target class; of a matrix, the one with the largest weight."""
        return strongest(self.mapping)

    @property
    def learned(self) -> dict[str, Tensor]:
        """What has to be saved: the state of the prompt and, unless it is an index, the mapping; row k is member k's."""
        matrix = {} if self.mapping.ndim == 2 else {"mapping": self.mapping}
        return {**self.prompt.state_dict(), **matrix}


def visual_prompt(
    network: Frozen,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    *,
    targets: int,
    canvas: int,
    image_px: int,
    prompt: str = "pad",
    mapping: str = "ilm",
    ties: str = "random",
    stale: bool = False,
    select: tuple[Tensor, Tensor] | None = None,
    epochs: int,
    batch: int,
    lr: float,
    seeds: list[int],
) -> Prompted:
    """Visual prompting; with the defaults, that with iterative label mapping (ILM-VP, Chen et al. 2023, algorithm 1).

    Before every epoch the mapping is computed anew on the training images under the prompt as it is; then the prompt is
    trained on the cross-entropy of the mapped logits. The logits of the first step serve for both, which is the same
    computation; a prompt that varies in training is shown once more, as in evaluation.

    Args:
        network: frozen, S source classes.
        images: (M, 3, h, h) uint8 training images of the task, of the side that `prompts.input_px` tells.
        labels: (M,) target classes.
        index: (K, n) which of them each member learns from.
        targets: number of target classes T.
        canvas: side of the canvas, px.
        image_px: side of the image on it, px, see `prompts.build`.
        prompt: a key of `prompts.PROMPTS`.
        mapping: a key of `label_mapping.MAPPINGS`.
        ties: a key of `label_mapping.TIES`; "index" is the rule of the authors' code, a defect.
        stale: read the last prompt through the mapping computed before the last epoch, as the authors' code does, a defect;
            else the mapping is computed once more at the end.
        select: images and labels on which the best epoch is picked for each member; the authors' code takes the test
            images, a defect. By default the last epoch counts.
        epochs: passes over the n images.
        batch: images a step of each member.
        lr: learning rate of Adam at the start.
        seeds: K seeds: of the order of the images, the ties in the mapping, and whatever prompt and mapping draw.

    Returns:
        The prompts and their mappings.

    Raises:
        InputError: for an unknown name, images of another side, a mapping that the network has too few classes for, or a
            loss that is no longer a number.
    """
    for kind, name, known in (("mapping", mapping, MAPPINGS), ("ties", ties, TIES)):
        if name not in known:
            raise unknown(kind, name, known)
    side = input_px(prompt, canvas=canvas, image_px=image_px)
    if images.shape[-1] != side:
        raise InputError(f"`images` must have a side of {side} px for the prompt {prompt!r}, got {images.shape[-1]}")
    cohort, count = index.shape
    device = network.device
    images, labels, index = images.to(device), labels.to(device), index.to(device)
    module = build(prompt, canvas=canvas, image_px=image_px, seeds=seeds).to(device)
    rule = MAPPINGS[mapping]
    priority = TIES[ties](seeds, targets=targets, sources=network.classes).to(device)
    current = None  # until it is found, in the first epoch
    if rule.draw is not None:
        current = rule.draw(seeds, targets=targets, sources=network.classes).to(device).requires_grad_(rule.learned)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    optimizer = torch.optim.Adam([*module.parameters(), *([current] if rule.learned else [])], lr=lr)
    history: list[float] = []
    best = Best(cohort)

    def source_logits(rows: Tensor) -> Tensor:
        """(K, n) rows -> (K, n, S)"""
        return network(module.views(images[rows].float() / 255)).unflatten(0, rows.shape)

    def find() -> Tensor:
        """The mapping under the prompt as it is."""
        module.eval()
        with torch.no_grad():
            logits = torch.cat([source_logits(part) for part in index.split(batch, dim=1)], dim=1)
        return rule.find(logits, labels[index], priority)

    def result(epoch: int) -> Prompted:
        """The prompt as it is, with the mapping that goes with it."""
        final = find() if current is None or (rule.repeat and not stale) else current.detach()
        return Prompted(module.eval(), final, history, [epoch] * cohort)

    for epoch in range(epochs):
        set_rate(optimizer, lr, epoch, epochs)
        shuffled = index
        if count > batch:
            order = torch.stack([torch.randperm(count, generator=generator) for generator in generators]).to(device)
            shuffled = index.gather(1, order)
        first, *rest = shuffled.split(batch, dim=1)
        due = rule.find is not None and (epoch == 0 or (rule.repeat and not rule.running))
        if due and module.varies:
            current, due = find(), False
        module.train()
        total, seen = torch.zeros((), device=device), []
        for rows in (first, *rest):
            logits = source_logits(rows)
            if due:  # the prompt is as it was before the epoch: the first step and the mapping share their logits
                with torch.no_grad():
                    others = [source_logits(part) for part in rest]
                current, due = rule.find(torch.cat([logits.detach(), *others], dim=1), labels[shuffled], priority), False
            if rule.running:
                seen.append(logits.detach())
            losses = member_losses(target_logits(logits, current), labels[rows])
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            total += losses.detach().mean() * rows.shape[1] / count
        if rule.running:
            current = rule.find(torch.cat(seen, dim=1), labels[shuffled], priority)
        history.append(float(total))
        check_loss(history[-1], f"epoch {epoch + 1} of visual prompting", lr=lr)
        if select is not None:
            now = result(epoch + 1)
            state = {**module.state_dict(), "mapping": now.mapping, "epoch": torch.tensor(now.epoch)}
            best.update_(state, prompted_logits(network, now, select[0]), select[1])
    if not best.state:
        return result(epochs)
    final, taken = best.state.pop("mapping"), best.state.pop("epoch")
    module.load_state_dict(best.state)
    return Prompted(module.eval(), final, history, taken.tolist())


def prompted_logits(network: Frozen, prompted: Prompted, images: Tensor) -> Tensor:
    """(N, 3, h, h) uint8 images -> (K, N, T) target logits, of every member for all images."""
    cohort = len(prompted.mapping)

    def forward(part: Tensor) -> Tensor:
        with torch.no_grad():
            views = prompted.prompt.views(part.expand(cohort, *part.shape))
            logits = network(views).unflatten(0, (cohort, len(part)))
            return target_logits(logits, prompted.mapping).transpose(0, 1)

    with torch.no_grad():
        side = prompted.prompt.views((images[:1].to(network.device).float() / 255).expand(cohort, 1, -1, -1, -1)).shape[-1]
    batch = max(1, PIXELS // (cohort * side**2))
    return predict(forward, images, batch=batch, device=network.device).transpose(0, 1)
