"""Folding: a batch norm that follows a convolution becomes part of it, in a network that no longer learns.

In evaluation mode a batch norm multiplies each channel by a number and adds another, which a convolution can do itself. With
the running statistics m, v and the parameters g, b of the norm, for each output channel (Jacob et al. 2018, arXiv
1712.05877, eq. 14)

    W <- W g / sqrt(v + eps),      bias <- (bias - m) g / sqrt(v + eps) + b.

Which norm follows which convolution is a question of the forward pass, not of the order in which modules were registered.
The forward pass is therefore traced into a graph (torch.fx; Reed et al. 2022, arXiv 2112.08429). A pair is folded if the
norm has the output of the convolution as its only input, nothing else uses that output, both modules are called once and
have one name, and the folded layer computes from random numbers what the pair computes: that of a convolution that
standardises its weights, or of a norm that does more than to normalise, does not. What is left out is slower, never wrong.
"""

from __future__ import annotations

import inspect
import warnings
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vpcore.checks import check_network
from vpcore.errors import InputError


def fold_batch_norm_(model: nn.Module) -> None:
    """Fold the batch norms of a network into the convolutions that they follow, in place; see above.

    Modules keep their names: the folded layer stands where the convolution stood, and an empty `nn.Sequential` where the
    norm did. In timm an activation is part of the norm; it stays there.

    Args:
        model: in evaluation mode. If its forward pass cannot be traced, because it depends on the values or the shapes that
            it sees, all norms stay, and a warning says so.

    Raises:
        InputError: when a batch norm is in training mode.

    >>> block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()).eval()
    >>> fold_batch_norm_(block)
    >>> [type(module).__name__ for module in block]
    ['Conv2d', 'Sequential', 'ReLU']
    """
    check_network(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    if any(norm.training for norm in norms):
        raise InputError("`model` must be in evaluation mode to fold its batch norms; call model.eval() first")
    for convolution_name, norm_name in _pairs(model):
        convolution, norm = model.get_submodule(convolution_name), model.get_submodule(norm_name)
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None:
            continue  # without running statistics it normalises by those of the batch
        folded, rest = fuse_conv_bn_eval(convolution, norm), nn.Sequential(*norm.children())
        if _alike(convolution, norm, folded, rest):
            model.set_submodule(convolution_name, folded)
            model.set_submodule(norm_name, rest)


class _Tracer(fx.Tracer):
    """Looks into modules that hold batch norms, and into plain sequences; all others are steps of the graph."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        if isinstance(module, nn.BatchNorm2d):
            return True
        return type(module) is not nn.Sequential and not any(isinstance(m, nn.BatchNorm2d) for m in module.modules())


def _trace(model: nn.Module) -> fx.Graph | None:
    """The graph of the forward pass with its optional arguments left out; None, and a warning, if there is none."""
    given = inspect.signature(model.forward).parameters.values()
    left_out = {p.name: p.default for p in given if p.default is not inspect.Parameter.empty}
    try:
        return _Tracer().trace(model, concrete_args=left_out)
    except Exception as error:  # noqa: BLE001 a forward pass may fail on the stand-in of a tensor in any way
        warnings.warn(
            f"the batch norms of {type(model).__name__} are not folded into its convolutions, which is slower but as right, "
            f"since torch.fx cannot trace its forward pass ({str(error).splitlines()[0] if str(error) else type(error)})",
            stacklevel=3,
        )
        return None


def _pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Names of the convolutions and batch norms that follow each other, and nothing comes between."""
    graph = _trace(model)
    if graph is None:
        return []
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}  # tensors of a module
    known = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))

    def alone(node: fx.Node, kind: type[nn.Module]) -> bool:
        name = str(node.target)
        if node.op != "call_module" or calls[name] > 1 or name in read:
            return False
        module = model.get_submodule(name)
        changed = module._forward_hooks or module._forward_pre_hooks or parametrize.is_parametrized(module)
        return isinstance(module, kind) and known[id(module)] == 1 and not changed

    pairs = []
    for node in graph.nodes:
        sources = node.all_input_nodes
        if len(sources) == 1 and len(sources[0].users) == 1 and alone(sources[0], nn.Conv2d) and alone(node, nn.BatchNorm2d):
            pairs.append((str(sources[0].target), str(node.target)))
    return pairs


@torch.no_grad()
def _alike(convolution: nn.Conv2d, norm: nn.BatchNorm2d, folded: nn.Conv2d, rest: nn.Module) -> bool:
    """Whether a folded layer, and what is left of the norm, compute from random numbers what the pair computes."""
    height, width = (d * (k - 1) + 2 for k, d in zip(convolution.kernel_size, convolution.dilation, strict=True))
    x = torch.randn(1, convolution.in_channels, height, width, generator=torch.Generator().manual_seed(0))
    x = x.to(convolution.weight.device, convolution.weight.dtype)
    expected, found = norm(convolution(x)), rest(folded(x))
    return bool((found - expected).abs().max() <= torch.finfo(x.dtype).eps ** 0.5 * expected.abs().max())
