"""Programs: networks as torch.export or ONNX has saved them, without the code that made them.

    network.pt2      torch.export.save(torch.export.export(model, (images,)), "network.pt2")
    network.onnx     torch.onnx.export(model, (images,), "network.onnx", dynamo=True)

What a probe reads is the input of the last matrix product, which is the classifier's; a program shows that as well as a
network does. A program may have been made for one number of images: it is then shown so many at a time, the last ones again
where there are too few.

Gradients pass through a float program of torch.export. Through a quantized one they do not, as its rounding has none; but
where a number is rounded and put back to scale in one place (quantize, dequantize), that place says the scale, and a fake
quantization takes it over: the same rounding, through which the gradient passes as if there were none (the straight-through
estimator; Bengio et al. 2013, arXiv 1308.3432). No gradient passes through ONNX.

Reading a file of torch.export runs what is in it, as loading any program does: audit those that you trust.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from vpcore.errors import InputError
from vpcore.networks.shared_border import Framed

Run = Callable[[Tensor], tuple[Tensor, Tensor]]  # (N, 3, H, W) normalised images -> (N, D) features, (N, S) logits
QUANTIZE, DEQUANTIZE = "quantized_decomposed.quantize_per_tensor", "quantized_decomposed.dequantize_per_tensor"


class Classifier(nn.Module):
    """Stands for the classifier of a program: it is given features and logits, and hands on the logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.out_features = classes

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        return logits


class Program(nn.Module):
    """A program as a network.

    Args:
        run: what it computes.
        shape: N, H and W of the images that it takes, each None for any.
        module: what it is made of, if that is of torch; its weights are weighed, and moved with the program.
    """

    def __init__(self, run: Run, shape: tuple[int | None, int | None, int | None], module: nn.Module | None = None) -> None:
        super().__init__()
        self.run, self.shape, self.module = run, shape, module
        side = next((each for each in shape[1:] if each), 64)
        with torch.no_grad():
            logits = self._shown(torch.zeros(1, 3, side, shape[2] or side))[1]
        if logits.ndim != 2:
            raise InputError(f"a program must give (N, S) logits, got {tuple(logits.shape)}; save a classifier")
        self.classifier = Classifier(logits.shape[1])

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self  # nothing in it is changed, and what runs ONNX cannot be copied

    def _shown(self, images: Tensor) -> tuple[Tensor, Tensor]:
        count = self.shape[0]
        if count is None or len(images) == count:
            return self.run(images)
        found = []
        for part in images.split(count):
            missing = count - len(part)
            features, logits = self.run(torch.cat([part, part[-1:].expand(missing, -1, -1, -1)]) if missing else part)
            found.append((features[: len(part)], logits[: len(part)]))
        features, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        return features, logits

    def forward(self, images: Tensor | Framed) -> Tensor:
        x = images.whole() if isinstance(images, Framed) else images
        for side, wanted in zip(x.shape[2:], self.shape[1:], strict=True):
            if wanted not in (None, side):
                raise InputError(f"`canvas` must be {wanted}, the side that the program was saved for, got {side}")
        return self.classifier(*self._shown(x.contiguous()))


def read_program(path: Path) -> tuple[Program, tuple[str, ...]]:
    """A program as a network that gives logits, whose classifier `Frozen` finds; and notes on it.

    Raises:
        InputError: for a file that is missing, damaged or of another kind, a program without a matrix product at its end,
            and a package that is not installed.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; name one that torch.export or ONNX has saved")
    return (_of_onnx if path.suffix.lower() == ".onnx" else _of_export)(path)


@contextlib.contextmanager
def _read_as(what: str, path: Path) -> Iterator[None]:
    """Say that a file is not what it must be, whatever its library says: a reader fails on rubbish in many ways."""
    try:
        yield
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} must be {what}; it is damaged or something else ({reason})") from error


def _of_export(path: Path) -> tuple[Program, tuple[str, ...]]:
    for known in ("torch.ao.quantization.fx._decomposed", "torchao.quantization.pt2e"):  # the rounding of quantized programs
        with contextlib.suppress(ImportError):
            importlib.import_module(known)
    with _read_as("a file of torch.export.save", path):
        module = torch.export.load(path).module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    graph = module.graph
    rounded = _round_visibly(graph)
    taken = [node for node in graph.nodes if node.op == "placeholder"]
    products = [node for node in graph.nodes if "linear" in str(node.target) or "addmm" in str(node.target)]
    if len(taken) != 1 or not products:
        raise InputError(
            f"{path} must take images alone, and end in a linear layer; save the whole network, classifier last"
        )
    last = products[-1]
    features = last.args[0] if "linear" in str(last.target) else last.args[1]
    end = next(node for node in graph.nodes if node.op == "output")
    (logits,) = end.args[0] if isinstance(end.args[0], list | tuple) else (end.args[0],)
    graph.set_codegen(fx.graph.CodeGen())
    end.args = ((features, logits),)
    whole = fx.GraphModule(module, graph)
    sizes = [size if isinstance(size, int) else None for size in taken[0].meta["val"].shape]
    notes = (
        ("gradients pass through its rounding as if there were none: a float twin with the same scales is prompted",)
        if rounded
        else ()
    )
    return Program(whole.forward, (sizes[0], sizes[2], sizes[3]), whole), notes


def _round_visibly(graph: fx.Graph) -> int:
    """Put a fake quantization, which has a gradient, where a number is rounded and put back to scale; says how often."""
    found = 0
    for node in list(graph.nodes):
        source = node.args[0] if node.args else None
        if not str(node.target).startswith(DEQUANTIZE) or not isinstance(source, fx.Node):
            continue
        if not str(source.target).startswith(QUANTIZE) or source.args[1:5] != node.args[1:5]:
            continue
        x, scale, zero, low, high = source.args[:5]
        with graph.inserting_after(node):
            fake = graph.call_function(torch.fake_quantize_per_tensor_affine, (x, scale, zero, low, high))
        fake.meta = dict(node.meta)
        node.replace_all_uses_with(fake)
        found += 1
    graph.eliminate_dead_code()
    return found


def _of_onnx(path: Path) -> tuple[Program, tuple[str, ...]]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"{path} needs a package that is not installed ({error.name}); use: pip install 'vpcore[programs]'"
        ) from error
    with _read_as("a network in ONNX", path):
        model = onnx.load(str(path))
        products = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
        if not products:
            raise ValueError("it has no matrix product; of a quantized network, save the form with QuantizeLinear nodes")
        features, logits = products[-1].input[0], model.graph.output[0].name
        if features not in [value.name for value in model.graph.output]:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(features))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    sizes = [size if isinstance(size, int) else None for size in taken.shape]

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        seen, given = session.run([features, logits], {taken.name: images.detach().cpu().numpy()})
        return torch.from_numpy(seen).flatten(1).to(images.device), torch.from_numpy(given).to(images.device)

    program = Program(run, (sizes[0], sizes[2], sizes[3]))
    for number, value in enumerate(model.graph.initializer):  # so that they are weighed
        array = torch.from_numpy(onnx.numpy_helper.to_array(value).copy())
        if array.ndim:
            program.register_buffer(f"tensor{number}", array)
    return program, ()
