"""Small jobs that `gpu_check` runs on a GPU and on a CPU: a tiny network, noise, a prompt, a probe, a sparse training.

Each takes the device first, and returns what must be close to what another device gives, and what must be equal to it.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.data.images import Images
from vpcore.networks.frozen import Frozen
from vpcore.networks.training import Recipe, fit, predict
from vpcore.probing.linear_probing import probe_features
from vpcore.prompting.fixed_prompts import Prompt
from vpcore.prompting.prompts import PROMPTS, PromptKind, input_px
from vpcore.prompting.visual_prompting import visual_prompt
from vpcore.pruning.masks import apply_, full, magnitude, select
from vpcore.pruning.schedules import SparsityTarget, alternating, fixed, gradual, rewired

CANVAS, PX, SOURCES, TARGETS, COUNT = 32, 12, 16, 4, 44
SCHEDULES = {"fixed": lambda model, masks, target: fixed(model, masks)}
SCHEDULES |= {"gradual": gradual, "alternating": alternating, "rewired": rewired}


def network(seed: int = 0) -> nn.Module:
    """A network with statistics of images and spread logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, SOURCES),
        )  # fmt: skip
        with torch.no_grad():
            for _ in range(5):
                model.train()(torch.randn(32, 3, CANVAS, CANVAS))
            next(model[-1].parameters()).mul_(8)
    return model.eval()


def frozen(device: torch.device, precision: str) -> Frozen:
    """The same, frozen; in float64 as well."""
    found = Frozen(network(), precision="float32" if precision == "float64" else precision, device=device)
    if precision == "float64":
        found.double().dtype = torch.float64
    return found


def images_of(px: int, count: int = COUNT) -> Images:
    """Noise that is the lighter the higher its class."""
    generator, labels = torch.Generator().manual_seed(px), torch.arange(count) % TARGETS
    noise = torch.randint(150, (count, 3, px, px), generator=generator) + 30 * labels[:, None, None, None]
    return Images(noise.to(torch.uint8), labels, tuple("abcd"))


def kind_of(name: str, precision: str) -> PromptKind:
    """The kind of a prompt, in float64 as well if asked for."""
    kind = PROMPTS[name]

    def make(seeds: list[int], canvas: int, image_px: int) -> Prompt:
        prompt = kind.make(seeds, canvas, image_px).double()
        prompt.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(), *inputs[1:]))
        return prompt

    return dataclasses.replace(kind, make=make) if precision == "float64" else kind


def logits(device: torch.device, precision: str) -> tuple[Tensor, Tensor | None]:
    """Logits of the network as it is."""
    model, shown = frozen(device, precision), images_of(CANVAS).images
    if precision == "float64":  # `predict` gives float32
        return model.body((shown.double() / 255).to(device)), None
    return predict(model, shown, batch=16, device=device), None


def prompted(
    device: torch.device, precision: str, prompt: str, mapping: str, *, epochs: int, batch: int
) -> tuple[Tensor, Tensor]:
    """Logits of three prompts that learned from noise, of the images that they learned from; and their source classes."""
    train = images_of(input_px(prompt, canvas=CANVAS, image_px=PX))
    learned = visual_prompt(
        frozen(device, precision), train, canvas=CANVAS, image_px=PX, prompt=kind_of(prompt, precision), mapping=mapping,
        epochs=epochs, batch=batch, lr=0.05, seeds=[3, 4, 5],
    )  # fmt: skip
    return learned(train.images), learned.sources


def probed(device: torch.device, precision: str, *, epochs: int = 12, count: int = 90) -> tuple[Tensor, Tensor | None]:
    """The weights of probes of features that were drawn."""
    labels = torch.arange(count) % TARGETS
    x = torch.randn(count, 24, generator=torch.Generator().manual_seed(0)) + F.one_hot(labels, 24)
    x = x.to(device, getattr(torch, precision))
    index = torch.arange(count).expand(3, -1)
    probe = probe_features(x, labels, index, targets=TARGETS, epochs=epochs, batch=16, lr=0.01, seeds=[0, 1, 2])
    return probe.weight, None


def fitted(
    device: torch.device, precision: str, schedule: str, *, epochs: int = 4, count: int = COUNT, **more: float
) -> tuple[Tensor, Tensor]:
    """Logits of a network that was trained sparsely, and its masks."""
    model = network().to(device)
    model = model.double() if precision == "float64" else model
    recipe = Recipe(
        epochs=epochs, batch=8, lr=0.02, weight_decay=1e-3, augment="shift+flip",
        precision="float32" if precision == "float64" else precision, seed=1, **more,
    )  # fmt: skip
    train, target = images_of(CANVAS, count), SparsityTarget(0.4, recipe.steps(count), "global")
    masks = full(model, ["3.weight", "6.weight"])
    if schedule in ("fixed", "rewired"):
        masks = select(magnitude(model, masks), masks, density=0.4)
        apply_(model, masks)
    fit(model, train.images.to(device), train.labels, recipe, take_step=SCHEDULES[schedule](model, masks, target))
    with torch.no_grad():
        x = (train.images.double() / 255).to(device, next(model.parameters()).dtype)
        return model(x), torch.cat([mask.flatten() for mask in masks.values()])
