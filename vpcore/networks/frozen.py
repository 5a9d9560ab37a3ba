"""A frozen network: the one for which prompts and linear probes are learned.

It is in evaluation mode, its batch norms are folded into the convolutions, its weights are cast once and want no gradients;
gradients still pass through it to the images, which is all that a prompt needs.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from vpcore.checks import as_device, kind_of
from vpcore.errors import InputError, entry, unknown
from vpcore.networks.backbones import PRECISIONS, Statistics, head_name, normalise, statistics_of
from vpcore.networks.folding import fold_batch_norm_
from vpcore.networks.inputs import check_takes
from vpcore.networks.shared_border import Framed
from vpcore.networks.state import check_finite


class Float32Gradient(nn.Module):
    """A layer in bf16 that goes through float32 where a gradient must pass. Sums are in float32 either way.

    For grouped convolutions with a stride on a CPU: torch's gradient of them in bf16 is 2 to 30 times slower than in float32
    (torch 2.14, oneDNN); in EfficientNet-Lite0 four such layers took half of a training step.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer, self.wide = layer, copy.deepcopy(layer).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(x.float()).to(x.dtype) if x.requires_grad else self.layer(x)


class Frozen(nn.Module):
    """A network that no longer learns: logits and features of images.

    Args:
        model: any network that takes (N, 3, H, W) images and returns (N, S) logits, such as those of torchvision and timm;
            left as it is, a copy is frozen.
        precision: a key of `PRECISIONS`, of the weights and activations.
        device: where it runs; None: where the weights are.
        statistics: mean and standard deviation of each colour that inputs are normalised with, in [0, 1]: those that the
            network was trained with. None: those that a network of timm knows of itself, for any other `IMAGENET`.
        head: name of the classifier, a linear layer or a convolution; None: the last linear layer.

    Attributes:
        classes: number of source classes S.
        device, dtype: where it runs, and in which precision.
        head, head_name: the classifier, and its name.
        statistics: with which inputs are normalised.

    Raises:
        InputError: for a model that is no network, is frozen already, cannot be copied or has weights that are not finite;
            for a head that is not there or cannot be guessed; for an unknown precision; for statistics that are none.

    >>> from torchvision.models import resnet18
    >>> network = Frozen(resnet18(num_classes=5))
    >>> network(torch.rand(2, 3, 64, 64)).shape, network.features(torch.rand(2, 3, 64, 64)).shape
    (torch.Size([2, 5]), torch.Size([2, 512]))
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        precision: str = "float32",
        device: torch.device | str | None = None,
        statistics: Statistics | None = None,
        head: str | None = None,
    ) -> None:
        super().__init__()
        body = _copy(model)
        self.head_name = head_name(body) if head is None else _checked_head(body, head)
        self.dtype, self.statistics = entry("precision", precision, PRECISIONS), statistics_of(model, statistics)
        weight = next(body.parameters(), torch.empty(0))
        self.device = weight.device if device is None else as_device(device)
        fold_batch_norm_(body)
        body.requires_grad_(False).to(self.device, self.dtype).to(memory_format=torch.channels_last)
        if self.dtype == torch.bfloat16 and self.device.type == "cpu":
            for layer_name, layer in list(body.named_modules()):
                if isinstance(layer, nn.Conv2d) and layer.groups > 1 and max(layer.stride) > 1:
                    body.set_submodule(layer_name, Float32Gradient(layer))
        self.body, self.head = body, body.get_submodule(self.head_name)
        self.classes: int = getattr(self.head, "out_features" if hasattr(self.head, "out_features") else "out_channels")

    def _ready(self, images: Tensor | Framed) -> Tensor | Framed:
        def ready(part: Tensor) -> Tensor:
            return normalise(part, self.statistics).to(self.dtype).contiguous(memory_format=torch.channels_last)

        if isinstance(images, Framed):
            return images.each(ready)
        if not isinstance(images, Tensor) or images.shape[1:2] != (3,) or images.ndim != 4 or not images.is_floating_point():
            raise InputError(
                f"`images` must be a float tensor of (N, 3, H, W) images in [0, 1], got {kind_of(images)}; of uint8 images, "
                "use images / 255"
            )
        return ready(images)

    def features(self, images: Tensor | Framed) -> Tensor:
        """(N, 3, H, W) images in [0, 1] -> (N, D) float32 features: the input of the classifier.

        Where the classifier acts on many places, as the convolution at the end of SqueezeNet does, it is the mean over them.
        """
        seen: list[Tensor | Framed] = []
        handle = self.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0]))
        try:
            self.body(self._ready(images))
        finally:
            handle.remove()
        if not seen:
            raise InputError(f"`head` must be called by {type(self.body).__name__}, but is not; name its classifier")
        x = seen[0].whole() if isinstance(seen[0], Framed) else seen[0]
        if x.ndim > 2:
            x = x.flatten(2).mean(2) if hasattr(self.head, "out_channels") else x.flatten(1, -2).mean(1)
        return x.float()

    def forward(self, images: Tensor | Framed) -> Tensor:
        """(N, 3, H, W) images in [0, 1] -> (N, S) float32 logits of the source classes.

        Raises:
            InputError: when the network returns anything else.
        """
        logits = self.body(self._ready(images))
        if not isinstance(logits, Tensor) or logits.shape[1:] != (self.classes,):
            raise InputError(
                f"`model` must return (N, {self.classes}) logits, a number for each output of its classifier, got "
                f"{kind_of(logits)}; name the classifier with head=, or wrap the network so that it returns logits alone"
            )
        return logits.float()

    def check_takes(self, images: Tensor, *, name: str) -> None:
        """Refuse images of a size on which the network fails.

        Args:
            images: (n, 3, H, W) in [0, 1]; one is enough.
            name: of the argument that the size comes from, for the message.

        Raises:
            InputError: with what the network says.
        """
        shown = self._ready(images.to(self.device))
        assert isinstance(shown, Tensor)
        check_takes(self.body, shown, name=name)

    def train(self, mode: bool = True) -> Frozen:
        """Stays in evaluation mode: batch statistics of a new task would change the network."""
        return super().train(False)


def _copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode of what must be a network with finite weights; what is pruned in it is so for good.

    A weight that `torch.nn.utils.prune` computes anew in every pass is no leaf, and is copied by its value.
    """
    check_finite(model)
    if isinstance(model, Frozen):
        raise InputError("`model` must be a network that is not frozen yet, got a Frozen; use it as it is")
    values = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    computed = {id(value): value.detach().clone() for value in values if not value.is_leaf}
    try:
        found = copy.deepcopy(model, computed).eval()
    except RuntimeError as error:
        raise InputError(
            f"`model` must be a network that can be copied, but {type(model).__name__} cannot ({error})"
        ) from error
    for module in found.modules():
        for hook in [*module._forward_pre_hooks.values()]:
            if isinstance(hook, torch_prune.BasePruningMethod):
                torch_prune.remove(module, hook._tensor_name)
    return found


def check_frozen(network: object) -> None:
    """Refuse a network that is not frozen."""
    if not isinstance(network, Frozen):
        raise InputError(f"`network` must be a Frozen network, got {kind_of(network)}; use Frozen(model)")


def _checked_head(model: nn.Module, head: str) -> str:
    modules = dict(model.named_modules())
    layers = [name for name, module in modules.items() if hasattr(module, "out_features") or hasattr(module, "out_channels")]
    if head not in layers:
        raise unknown("linear layer or convolution, `head`", head, layers)
    return head
