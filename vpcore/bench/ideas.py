"""Bench of ideas: what one shortcut gains by itself, measured with it and without it, everything else being equal.

The first of the two is what we do, whether it is the idea or not: some ideas were tried and do not pay.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.bench.floor import FORMATS, Bare, best_precision
from vpcore.bench.timing import CLASSES, Row, Setting, compared, medians
from vpcore.bench.transfer import BATCH, SHOTS, prompted
from vpcore.networks.backbones import PRECISIONS, build
from vpcore.networks.frozen import Float32Gradient, Frozen
from vpcore.networks.state import load_weights_
from vpcore.networks.training import Recipe, fit
from vpcore.pruning.masks import apply_, prune
from vpcore.weights.tickets import read_ticket, write_ticket

DENSITY = 0.01
STRIDED = Setting("efficientnet-lite0", canvas=128)  # has strided depthwise convolutions
IMAGES = 32


def frozen_weights(setting: Setting) -> Iterator[Row]:
    """A step that wants no gradients of the weights, and one that has the batch norms folded."""
    precision, layout, _ = best_precision(setting, SHOTS)
    ours, learning, unfolded = (Bare(setting, precision, layout, SHOTS) for _ in range(3))
    learning.network.requires_grad_(True)
    unfolded.network = setting.network().to(setting.device, PRECISIONS[precision])
    unfolded.network.to(memory_format=torch.channels_last)
    what = f"forward and input gradient, {SHOTS} images, {precision}"
    for against, label, other in (
        ("with gradients of the weights", "no gradients of weights", learning),
        ("with batch norms as layers", "batch norms folded", unfolded),
    ):
        yield from compared(setting, Row("ideas", what, against=against, label=label), ours.step, other.step)


def compiled(setting: Setting) -> Iterator[Row]:
    """The bare pass as it is, which is what we use, against torch.compile."""
    precision, layout, _ = best_precision(setting, SHOTS)
    eager, other = (Bare(setting, precision, layout, SHOTS) for _ in range(2))
    torch.compiler.reset()  # it gives up after some networks
    other.network = cast(nn.Module, torch.compile(other.network))
    row = Row("ideas", f"forward and input gradient, {SHOTS} images, {precision}/{layout}, eager", label="torch.compile")
    start = time.perf_counter()
    try:
        other.step()
    except Exception as error:  # noqa: BLE001 without a C++ compiler, with another Python, ...
        note = f"torch.compile fails here: {type(error).__name__}"
        yield from compared(setting, replace(row, note=note), eager.step)
        return
    note = f"the first step took {time.perf_counter() - start:.0f} s"
    yield from compared(setting, replace(row, against="torch.compile", note=note), eager.step, other.step)


def running_mapping(setting: Setting) -> Iterator[Row]:
    """Epochs with a pass over the training images for the mapping, and epochs whose mapping follows from the steps."""
    precision, _, _ = best_precision(setting, SHOTS)
    count, what = 3 * BATCH, f"two epochs of a prompt, {3 * BATCH} images, {precision}"
    ours, other = (
        partial(prompted, setting, setting.frozen(precision), count=count, epochs=2, mapping=name)
        for name in ("ilm", "ilm-running")
    )
    row = Row("ideas", what, against="mapping estimated from the steps", label="mapping from the steps")
    yield from compared(setting, row, ours, other)


def network_kept(setting: Setting) -> Iterator[Row]:
    """Loading a ticket and freezing it, which each job would have to do if the network were not kept for the next."""
    precision, _, _ = best_precision(setting, SHOTS)
    model = build(setting.model, classes=CLASSES, seed=0)
    masks = prune(model, density=DENSITY)
    apply_(model, masks)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticket.safetensors"
        write_ticket(path, model.state_dict(), masks, header={})

        def load() -> None:
            load_weights_(model, read_ticket(path)[0], where=str(path))
            Frozen(model, precision=precision, device=setting.device)

        what = f"load a ticket of {DENSITY:.0%} of the weights and freeze it"
        yield from compared(setting, Row("ideas", what, label="network kept"), load)


def sparse_product(setting: Setting) -> Iterator[Row]:
    """A convolution that keeps few of its weights as it is, and as a sparse product with the patches of the images."""
    precision, layout, _ = best_precision(setting, SHOTS)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(512, 512, 3, 3, generator=generator)
    weight *= torch.rand(weight.shape, generator=generator) < DENSITY
    x = torch.randn(IMAGES, 512, 7, 7, generator=generator).to(setting.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that this format is new
        rows = weight.flatten(1).to(setting.device).to_sparse_csr()
    like: dict[str, Any] = {"device": setting.device, "dtype": PRECISIONS[precision], "memory_format": FORMATS[layout]}
    dense, shown = weight.to(**like), x.to(**like)

    def sparse() -> Tensor:
        patches = F.unfold(x, 3, padding=1)  # (n, 9 * 512, 49)
        return rows @ patches.transpose(0, 1).flatten(1)

    what = f"a 3 x 3 convolution, 512 channels, 7 x 7 px, {IMAGES} images, {DENSITY:.0%} kept, {precision}"
    row = Row("ideas", what, against="sparse product, float32", label="sparse products")
    yield from compared(setting, row, partial(F.conv2d, shown, dense, padding=1), sparse)


def float32_gradient(setting: Setting) -> Iterator[Row]:
    """Strided depthwise convolutions that go through float32 for their gradient, and those that stay in bf16."""
    if setting.device.type != "cpu" or importlib.util.find_spec("timm") is None:
        return
    here = replace(STRIDED, repeats=setting.repeats)
    ours, plain = (Bare(here, "bf16", "channels last", IMAGES) for _ in range(2))
    for name, layer in list(plain.network.named_modules()):
        if isinstance(layer, Float32Gradient):
            plain.network.set_submodule(name, layer.layer)
    what = f"forward and input gradient, {here.model} at {here.canvas} px, {IMAGES} images, bf16"
    row = Row("ideas", what, against="strided depthwise gradients in bf16", label="strided depthwise in float32")
    yield from compared(here, row, ours.step, plain.step)


def progressive_size(setting: Setting) -> Iterator[Row]:
    """Source training at one size, and in thirds of a half, three quarters and all of it."""
    labels, sizes = torch.arange(2 * IMAGES) % CLASSES, [setting.canvas * part // 4 for part in (2, 3, 4)]
    model = build(setting.model, classes=CLASSES, seed=0).to(setting.device)
    recipe = Recipe(epochs=1, batch=IMAGES, lr=1e-4, weight_decay=1e-4, augment="none", precision="bf16", seed=0)
    images = setting.images(len(labels), setting.canvas)

    def train(px: int) -> None:
        shown = F.interpolate(images.float(), px).to(torch.uint8) if px < setting.canvas else images
        fit(model, shown.to(setting.device), labels, recipe)

    t = medians(setting, {str(px): partial(train, px) for px in sizes})
    what = f"source training, {len(labels)} images of {setting.canvas} px, bf16"
    other = sum(t.values()) / len(t)
    yield Row("ideas", what, t[str(setting.canvas)], f"in thirds at {sizes} px", other, label="progressive size")


def ideas(setting: Setting) -> Iterator[Row]:
    """One idea after the other."""
    yield from chain(frozen_weights(setting), compiled(setting), running_mapping(setting), network_kept(setting))
    yield from chain(sparse_product(setting), float32_gradient(setting), progressive_size(setting))
