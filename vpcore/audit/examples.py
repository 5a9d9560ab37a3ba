"""Networks that the book audits: functions without arguments, as `vpcore audit` takes them.

    vpcore audit --dense vpcore.audit.examples:letters --compressed vpcore.audit.examples:letters_pruned --canvas 32

Those that read drawn letters are trained in seconds (`letters`) or minutes (`shufflenet`, torchvision's) and need nothing.
The others are EfficientNet-Lite0 with its ImageNet weights, from the extra `imagenet`: quantized after training to 8 and 4
bits, with ranges from drawn images. `pruned_in_five_lines` is what anyone does with PyTorch's own functions.
"""

from __future__ import annotations

import copy
import dataclasses
import functools

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune
from torchvision.models import get_model

from vpcore.data.tasks import load
from vpcore.networks.backbones import HALF, build, normalise
from vpcore.networks.training import Recipe, fit
from vpcore.pruning.masks import Masks, apply_, prune
from vpcore.pruning.schedules import fixed
from vpcore.quantization.layers import quantize
from vpcore.weights.published import pretrained

RECIPE = Recipe(epochs=6, batch=32, lr=0.1, weight_decay=1e-3, augment="none", precision="float32", seed=0)
# torchvision's networks halve the side of an image five times: of small images, or in fewer epochs, this one learns nothing
LONGER, LARGER = dataclasses.replace(RECIPE, epochs=12, lr=0.02), 96
LETTERS = 60  # images of each letter
DENSITY = 0.1
WIDTHS = ((3, 32), (32, 64), (64, 128))  # channels in and out


@functools.cache
def letters() -> nn.Module:
    """Three convolutions that read 48 drawn letters at 32 px: the network of the book's page on one's own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()) for a, b in WIDTHS),
            nn.Flatten(),
            nn.Linear(128 * 4 * 4, 48),
        )
    return _reads_letters(network)


def letters_pruned() -> nn.Module:
    """The same with a tenth of its weights, trained on with these."""
    network = copy.deepcopy(letters())
    masks = prune(network, density=DENSITY)
    apply_(network, masks)
    return _reads_letters(network, masks)


def _reads_letters(network: nn.Module, masks: Masks | None = None, *, px: int = 32, recipe: Recipe = RECIPE) -> nn.Module:
    """The network itself, trained to read letters, under masks if there are some."""
    shown = load("glyphs", "train", px=px, per_class=LETTERS)
    fit(network, shown.images, shown.labels, recipe, take_step=fixed(network, masks or {}), progress=False)
    return network.eval()


@functools.cache
def shufflenet() -> nn.Module:
    """ShuffleNet V2 x0.5 of torchvision, trained to read the same letters at 96 px."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = get_model("shufflenet_v2_x0_5", num_classes=48)
    _reads_letters(network, px=LARGER, recipe=LONGER)
    return network.to(memory_format=torch.contiguous_format)  # without which torch's pruning fails


def shufflenet_pruned() -> nn.Module:
    """The same with 70 % of the weights of its convolutions, and not trained on."""
    return pruned_in_five_lines(copy.deepcopy(shufflenet()), 0.3)


def lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights."""
    network = build("efficientnet-lite0", classes=1000, seed=0)
    network.load_state_dict(pretrained("efficientnet-lite0", "package")[0])
    return network.eval()


def lite0_at_8_bits() -> nn.Module:
    """The same with weights and activations of 8 bits, after training."""
    return quantize(lite0(), drawn_images(), weight_bits=8, activation_bits=8)


def lite0_at_4_bits() -> nn.Module:
    """The same with 4 bits."""
    return quantize(lite0(), drawn_images(), weight_bits=4, activation_bits=4)


def drawn_images(*, px: int = 128, per_class: int = 1) -> list[Tensor]:
    """Unlabelled images, from which the ranges of activations come; in [-1, 1], as the network was trained."""
    tasks = ("glyphs", "shapes", "textures")
    return [normalise(load(task, "train", px=px, per_class=per_class).images / 255, HALF) for task in tasks]


def lite0_pruned() -> nn.Module:
    """EfficientNet-Lite0 with 70 % of the weights of its convolutions."""
    return pruned_in_five_lines(lite0(), 0.3)


def pruned_in_five_lines(network: nn.Module, amount: float) -> nn.Module:
    """The network itself without a share of the weights of its convolutions, those of the smallest magnitude."""
    layers = [(module, "weight") for module in network.modules() if isinstance(module, nn.Conv2d)]
    torch_prune.global_unstructured(layers, pruning_method=torch_prune.L1Unstructured, amount=amount)
    for module, name in layers:
        torch_prune.remove(module, name)
    return network
