"""The naive way: the same protocol as one writes it first, and as the paper's authors run it.

One prompt at a time, in float32 and the usual memory format, batch norm as it was trained; a pass over the training images
for the mapping before every epoch, a pass over the test images after it. It is what `bench` compares our speed with and what
tests compare our results with, whatever the prompt and the mapping; nothing else uses it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vpcore.networks.backbones import IMAGENET, Statistics, normalise
from vpcore.networks.cohort import MILESTONES
from vpcore.prompting.fixed_prompts import Prompt
from vpcore.prompting.label_mapping import LabelMapping, target_logits
from vpcore.prompting.one_to_one import priorities

BATCH = 128
Labelled = tuple[Tensor, Tensor]  # (N, 3, h, h) uint8 images and (N,) classes


@dataclass
class Prompting:
    """One prompt while it is learned.

    Attributes:
        network: (N, 3, H, H) images in [0, 1] -> (N, S) logits.
        prompt: a cohort of one.
        rule: where the mapping comes from.
        train: images of the side that the prompt wants.
        priority: (1, T, S), for ties.
        batch: images shown at a time.
        mapping: the one that the steps of the epoch read.
    """

    network: Callable[[Tensor], Tensor]
    prompt: Prompt
    rule: LabelMapping
    train: Labelled
    priority: Tensor
    batch: int
    mapping: Tensor

    def source_logits(self, images: Tensor) -> Tensor:
        """(n, 3, h, h) uint8 images -> (1, n, S)"""
        x = images.to(next(self.prompt.parameters()).device).float() / 255
        return self.network(self.prompt(x[None])[0])[None]

    def find(self) -> Tensor:
        """The mapping under the prompt as it is."""
        self.prompt.eval()
        with torch.no_grad():
            logits = torch.cat([self.source_logits(images) for images, _ in _batches(self.train, self.batch)], dim=1)
        return self.rule.update(logits, self.train[1][None].to(logits.device), self.priority)

    def accuracy(self, test: Labelled, mapping: Tensor) -> float:
        """Share of test images that are read right through a mapping."""
        self.prompt.eval()
        with torch.no_grad():
            right = [
                (target_logits(self.source_logits(images), mapping)[0].argmax(1).cpu() == labels).float()
                for images, labels in _batches(test, self.batch)
            ]
        return float(torch.cat(right).mean())


def visual_prompt(
    network: Callable[[Tensor], Tensor], prompt: Prompt, rule: LabelMapping, train: Labelled, *, targets: int, sources: int,
    epochs: int, batch: int, lr: float, seed: int, after_epoch: Callable[[Prompting], object] = lambda state: None,
) -> Prompting:  # fmt: skip
    """Visual prompting as its authors write it down; with `ilm`, algorithm 1 of Chen et al. 2023 (ILM-VP).

    Args:
        network: (N, 3, H, H) images in [0, 1] -> (N, S) logits, its weights without gradients; e.g. `on_pixels(model)`.
        prompt: an untrained cohort of one, on the device of the work.
        rule: an entry of `label_mapping.MAPPINGS`.
        train: images of the side that the prompt wants.
        targets, sources: number of target classes T and of source classes S.
        epochs, batch, lr: see `visual_prompting.visual_prompt`.
        seed: of the order of the images and the ties in the mapping.
        after_epoch: is given the state after each epoch, e.g. to test it.
    """
    device = next(prompt.parameters()).device
    drawn = rule.start([seed], targets=targets, sources=sources)
    mapping = torch.empty(0) if drawn is None else drawn.to(device).requires_grad_(rule.learned)  # empty until it is found
    priority = priorities([seed], targets=targets, sources=sources).to(device)
    state = Prompting(network, prompt, rule, train, priority, batch, mapping)
    optimizer = torch.optim.Adam([*prompt.parameters(), *([mapping] if rule.learned else [])], lr=lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(m * epochs) for m in MILESTONES], gamma=0.1)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        if rule.due(epoch):
            state.mapping = state.find()
        seen = []
        for images, labels in _batches(train, batch, generator):
            prompt.train()
            logits = state.source_logits(images)
            seen.append((logits.detach(), labels.to(device)[None]))
            loss = F.cross_entropy(target_logits(logits, state.mapping)[0], labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        after_epoch(state)
        if rule.running:
            logits, labels = (torch.cat(parts, dim=1) for parts in zip(*seen, strict=True))
            state.mapping = rule.update(logits, labels, priority)
    return state


def on_pixels(model: nn.Module, statistics: Statistics = IMAGENET) -> Callable[[Tensor], Tensor]:
    """A network in evaluation mode, as a function of images in [0, 1]."""
    model.eval()
    return lambda images: model(normalise(images, statistics))


def features(model: nn.Module, images: Tensor, *, batch: int = BATCH, statistics: Statistics = IMAGENET) -> Tensor:
    """(N, 3, H, W) uint8 images -> (N, D) what a network without its classifier makes of them."""
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        return torch.cat([model(normalise(x.to(device).float() / 255, statistics)) for x in images.split(batch)])


def linear_head(inputs: Tensor, labels: Tensor, *, targets: int, epochs: int, batch: int, lr: float, seed: int) -> nn.Linear:
    """A classifier on (N, D) features, by the paper's recipe."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(inputs.shape[1], targets)
    with torch.no_grad():  # as `linear_probing.probe_features` starts
        for values in (head.weight.T, head.bias):
            values.copy_((torch.rand(values.shape, generator=generator) * 2 - 1) * head.in_features**-0.5)
    head.to(inputs.device)
    optimizer = torch.optim.Adam(head.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(m * epochs) for m in MILESTONES], gamma=0.1)
    for _ in range(epochs):
        for x, y in _batches((inputs, labels), batch, generator):
            loss = F.cross_entropy(head(x), y.to(x.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return head


def decode(files: list[bytes], *, px: int) -> Tensor:
    """Encoded images -> (N, 3, px, px), one by one."""
    from torchvision import transforms  # takes a second or two, which only this benchmark waits for

    read = transforms.Compose([transforms.Resize((px, px)), transforms.ToTensor()])
    return torch.stack([read(Image.open(io.BytesIO(content)).convert("RGB")) for content in files])


def _batches(data: Labelled, batch: int, generator: torch.Generator | None = None) -> Iterator[Labelled]:
    """In order, or shuffled by a generator when there is more than one batch."""
    images, labels = data
    shuffled = generator is not None and len(images) > batch
    order = torch.randperm(len(images), generator=generator) if shuffled else torch.arange(len(images))
    for rows in order.split(batch):
        yield images[rows], labels[rows]
