"""The naive way: the same protocol as one writes it first, and as the paper's authors run it.

One prompt at a time, in float32 and the usual memory format, batch norm as it was trained; a pass over the training images
for the mapping before every epoch, a pass over the test images after it. It is what `bench` compares our speed with and what
tests compare our results with; nothing else uses it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vpcore.networks.backbones import IMAGENET, Statistics, normalise
from vpcore.networks.cohort import MILESTONES
from vpcore.prompting.label_mapping import frequencies, greedy, priorities

BATCH = 128
Labelled = tuple[Tensor, Tensor]  # (N, 3, h, h) uint8 images and (N,) classes


def visual_prompt(
    model: nn.Module,
    train: Labelled,
    test: Labelled | None,
    *,
    targets: int,
    canvas: int,
    epochs: int,
    batch: int,
    lr: float,
    seed: int,
    statistics: Statistics = IMAGENET,
) -> tuple[Tensor, Tensor, list[float]]:
    """Visual prompting with iterative label mapping (ILM-VP, Chen et al. 2023, algorithm 1).

    Args:
        model: images that are normalised with `statistics` -> (N, S) logits; on the device of the work, its weights without
            gradients.
        train, test: images of one side below the canvas; without `test` nothing is tested.
        targets: number of target classes T.
        canvas: side of the canvas, px.
        epochs, batch, lr: see `visual_prompting.visual_prompt`.
        seed: of the order of the images and the ties in the mapping.
        statistics: see `backbones.Backbone`.

    Returns:
        The (3, H, H) program, the (T,) mapping under the prompt as it is at the end, and the test accuracy after each epoch.
    """
    model.eval()
    device, px = next(model.parameters()).device, train[0].shape[-1]
    before = (canvas - px) // 2
    padding = (before, canvas - px - before, before, canvas - px - before)
    border = F.pad(torch.zeros(px, px), padding, value=1.0).to(device)
    program = torch.zeros(3, canvas, canvas, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([program], lr=lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(m * epochs) for m in MILESTONES], gamma=0.1)
    generator = torch.Generator().manual_seed(seed)
    priority, accuracies = None, []

    def source_logits(images: Tensor) -> Tensor:
        x = images.to(device).float() / 255
        return model(normalise(F.pad(x, padding) + border * torch.sigmoid(program), statistics))

    def find() -> Tensor:
        nonlocal priority
        with torch.no_grad():
            logits = torch.cat([source_logits(images) for images, _ in _batches(train, batch)])
        if priority is None:
            priority = priorities([seed], targets=targets, sources=logits.shape[1]).to(device)
        return greedy(frequencies(logits[None], train[1][None].to(device), targets=targets), priority)[0]

    for _ in range(epochs):
        mapping = find()
        for images, labels in _batches(train, batch, generator):
            loss = F.cross_entropy(source_logits(images)[:, mapping], labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        if test is not None:
            with torch.no_grad():
                right = [(source_logits(x)[:, mapping].argmax(1).cpu() == y).float() for x, y in _batches(test, batch)]
            accuracies.append(float(torch.cat(right).mean()))
    return program.detach(), find(), accuracies


def features(model: nn.Module, images: Tensor, *, batch: int = BATCH, statistics: Statistics = IMAGENET) -> Tensor:
    """(N, 3, H, W) uint8 images -> (N, D) what a network without its classifier makes of them."""
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        return torch.cat([model(normalise(x.to(device).float() / 255, statistics)) for x in images.split(batch)])


def linear_head(
    features: Tensor, labels: Tensor, *, targets: int, epochs: int, batch: int, lr: float, seed: int
) -> nn.Linear:
    """A classifier on (N, D) features, by the paper's recipe."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(features.shape[1], targets)
    with torch.no_grad():  # as `linear_probing.linear_probe` starts
        for values in (head.weight.T, head.bias):
            values.copy_((torch.rand(values.shape, generator=generator) * 2 - 1) * head.in_features**-0.5)
    head.to(features.device)
    optimizer = torch.optim.Adam(head.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(m * epochs) for m in MILESTONES], gamma=0.1)
    for _ in range(epochs):
        for x, y in _batches((features, labels), batch, generator):
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
