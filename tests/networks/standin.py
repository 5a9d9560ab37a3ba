"""A recorder for the CPU that behaves as a CUDA graph does, so that repeated steps are tested without a GPU.

Recording traces the step without running it, down to single operators. What it touches besides its inputs is taken as the
memory that it is, and numbers of Python as the numbers that they are; a step that looks at a value, or makes a tensor from
Python numbers, is refused. A replay runs these operators on the same memory and overwrites the same outputs.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from vpcore.networks.repeat import Outputs

REFUSED = ("lift_fresh", "_local_scalar_dense", "nonzero")


class Tracer:
    """See above. `parameters`: those whose gradients the step leaves for others."""

    def __init__(self, parameters: Iterable[Tensor] = ()) -> None:
        self.parameters = list(parameters)
        self.prepared, self.recorded, self.replayed, self.waits = 0, 0, 0, False

    def prepare(self, step: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> Outputs:
        self.prepared += 1
        return step(*inputs)

    def record(self, step: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> tuple[Callable[[], None], Outputs]:
        self.recorded += 1

        def traced(*inputs: Tensor) -> tuple[Tensor, ...]:
            outputs = step(*inputs)
            return *([outputs] if isinstance(outputs, Tensor) else outputs), *(p.grad for p in self.parameters)

        graph = make_fx(traced, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
        bad = [str(node) for node in graph.graph.nodes if any(name in str(node.target) for name in REFUSED)]
        assert not bad, f"the step waits for the device or makes tensors from Python numbers: {bad}\n{graph.code}"
        (last,) = (node for node in graph.graph.nodes if node.op == "output")
        shapes = [node.meta["val"] for node in last.args[0]]
        outputs = tuple(torch.empty(value.shape, dtype=value.dtype) for value in shapes)
        count = len(outputs) - len(self.parameters)
        for parameter, gradient in zip(self.parameters, outputs[count:], strict=True):
            parameter.grad = gradient

        def replay() -> None:
            self.replayed += 1
            with torch.no_grad():  # what the operators of a gradient are was recorded, too
                for kept, value in zip(outputs, graph(*inputs), strict=True):
                    kept.copy_(value)

        return replay, outputs[0] if count == 1 else outputs[:count]
