"""Steps that are repeated, replayed on the CPU by a stand-in for a GPU; those on a GPU are checked by `bench.gpu_check`."""

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.networks.standin import Tracer
from vpcore.networks import repeat as repeating
from vpcore.networks.augmentations import AUGMENTATIONS
from vpcore.networks.backbones import IMAGENET, build, prunable
from vpcore.networks.cohort import set_rate
from vpcore.networks.frozen import Frozen
from vpcore.networks.repeat import WARM_UP, adam, repeat, within_memory
from vpcore.networks.training import Recipe, _draw, fit, loss_function, predict
from vpcore.pruning.masks import Masks, apply_, full, magnitude, select
from vpcore.pruning.schedules import SparsityTarget, alternating, fixed, gradual, rewired

RECIPE = Recipe(epochs=6, batch=8, lr=0.1, weight_decay=1e-3, augment="shift+flip", precision="float32", seed=3)


@pytest.fixture
def tracers(monkeypatch: pytest.MonkeyPatch) -> list[Tracer]:
    """The recorders of the steps that are repeated from here on."""
    made: list[Tracer] = []
    monkeypatch.setitem(repeating.RECORDERS, "cpu", lambda device: made.append(Tracer()) or made[-1])
    return made


def images(n: int = 28, px: int = 16) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 3
    noise = torch.randint(90, (n, 3, px, px), generator=torch.Generator().manual_seed(0))
    return (noise + 80 * labels[:, None, None, None]).to(torch.uint8), labels


def test_on_a_cpu_a_step_is_the_step() -> None:
    assert repeat(torch.add, device=torch.device("cpu")) is torch.add


def test_each_shape_is_recorded_once_it_comes_often(cpu: torch.device, tracers: list[Tracer]) -> None:
    """Also a last, smaller batch; inputs are copied, outputs are the caller's own."""
    total, seen = torch.zeros(3), []

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(x.shape)
        total.add_(x.sum(0))
        return x * 2, y + 1

    repeated, expected, kept = repeat(step, device=cpu), torch.zeros(3), []
    for call in range(7):
        for size in (4, 2):
            x = torch.full((size, 3), float(10 * call + size))
            doubled, more = repeated(x, x[:, 0])
            kept.append((x.clone(), doubled, more))
            x.zero_()  # what was given is the caller's
    for x, doubled, more in kept:
        expected += x.sum(0)
        assert torch.equal(doubled, 2 * x)
        assert torch.equal(more, x[:, 0] + 1)
    assert torch.equal(total, expected)
    (tracer,) = tracers
    assert (tracer.prepared, tracer.recorded, tracer.replayed) == (2 * WARM_UP, 2, 2 * (7 - WARM_UP))
    assert len(seen) == 2 * (WARM_UP + 1)  # Python runs no more


def test_what_needs_the_cpu_is_never_recorded(cpu: torch.device, tracers: list[Tracer]) -> None:
    repeated = repeat(lambda x: torch.tensor([float(x.sum())]), device=cpu, on_host=True)
    assert [float(repeated(torch.full((2,), float(n)))) for n in range(6)] == [0, 2, 4, 6, 8, 10]
    assert tracers == []


def fork(x: Tensor) -> Tensor:
    return x + 1 if x.sum() > 0 else x


@pytest.mark.parametrize("step", [lambda x: x * float(x.sum()), lambda x: x * torch.tensor(2.0), lambda x: x[x > 0], fork])
def test_the_stand_in_refuses_what_a_gpu_would(step: Callable[[Tensor], Tensor], cpu: torch.device, tracers: list) -> None:
    repeated = repeat(step, device=cpu)
    for _ in range(WARM_UP):
        repeated(torch.ones(3))
    with pytest.raises((AssertionError, RuntimeError)):
        repeated(torch.ones(3))


def test_a_step_that_waits_is_never_recorded_and_says_so(cpu: torch.device, tracers: list[Tracer]) -> None:
    """As a network of someone's own may; the stand-in is told what a GPU notices in the first calls."""
    repeated = repeat(lambda x: x * float(x.sum()), device=cpu)
    tracers[0].waits = True
    for _ in range(WARM_UP):
        repeated(torch.ones(2))
    with pytest.warns(UserWarning, match="a step waits for the GPU .* instead of replayed, which is slower"):
        assert repeated(torch.ones(2)).tolist() == [2, 2]
    for n in range(5):
        assert repeated(torch.full((2,), float(n))).tolist() == [2 * n * n] * 2  # and says it no more
    assert tracers[0].recorded == 0


def test_a_step_that_waits_in_its_first_call_alone_is_recorded(cpu: torch.device, tracers: list[Tracer]) -> None:
    """There constants are made."""
    repeated = repeat(lambda x: x * 2, device=cpu)
    tracers[0].waits = True
    repeated(torch.ones(2))
    tracers[0].waits = False
    for _ in range(WARM_UP):
        assert repeated(torch.ones(2)).tolist() == [2, 2]
    assert tracers[0].recorded == 1


def test_a_changing_learning_rate_reaches_a_recorded_step(cpu: torch.device, tracers: list[Tracer]) -> None:
    target = torch.randn(5, generator=torch.Generator().manual_seed(0))
    weights = []
    for recorded in (True, False):
        weight = torch.zeros(5, requires_grad=True)
        weights.append(weight)
        optimizer = adam([weight], lr=0.1, device=cpu, fused=False) if recorded else torch.optim.Adam([weight], lr=0.1)

        def step(x: Tensor, weight: Tensor = weight, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = (weight - x).square().sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        repeated = repeat(step, device=cpu) if recorded else step
        for epoch in range(20):
            set_rate(optimizer, 0.1, epoch, 20)
            repeated(target)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)
    assert tracers[0].replayed == 20 - WARM_UP


def pruned(model: nn.Module, density: float) -> Masks:
    masks = full(model, prunable(model))
    masks = select(magnitude(model, masks), masks, density=density)
    apply_(model, masks)
    return masks


@pytest.mark.parametrize(("name", "regularised"), [
    ("dense", {}), ("dense", {"mixup": 0.4, "label_smoothing": 0.1}), ("fixed", {}), ("gradual", {}), ("alternating", {}),
    ("rewired", {}),
])  # fmt: skip
def test_source_training_replayed_is_source_training(name: str, regularised: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning rate, momentum and masks change between replays; the same weights, masks, statistics and losses come out."""
    recipe, found = dataclasses.replace(RECIPE, **regularised), []
    for recorded in (False, True):
        model, losses, made = build("resnet8", classes=3, seed=0), [], []
        if recorded:
            factory = lambda device: made.append(Tracer(model.parameters())) or made[-1]  # noqa: B023, E731
            monkeypatch.setitem(repeating.RECORDERS, "cpu", factory)
        target = SparsityTarget(0.3, recipe.steps(28), "global")
        masks = pruned(model, 0.3) if name in ("fixed", "rewired") else full(model, prunable(model))
        take = {"fixed": lambda m, k, t: fixed(m, k), "gradual": gradual, "alternating": alternating, "rewired": rewired}
        rule = {} if name == "dense" else {"take_step": take[name](model, masks, target)}
        fit(model, *images(), recipe, after_epoch=lambda e, loss, s, losses=losses: losses.append(loss), **rule)
        found.append((losses, model.state_dict(), masks))
        assert [tracer.replayed for tracer in made] == ([6 * 3 - WARM_UP] if recorded else [])
    (plain_losses, plain, plain_masks), (losses, state, masks) = found
    assert losses == pytest.approx(plain_losses, rel=1e-4)
    assert all(torch.equal(mask, plain_masks[key]) for key, mask in masks.items())
    for key, value in plain.items():
        if not key.endswith("num_batches_tracked"):  # a single integer, which the stand-in counts while it records, too
            torch.testing.assert_close(state[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_predictions_replayed_are_predictions(precision: str, cpu: torch.device, tracers: list[Tracer]) -> None:
    """With a last, smaller batch; logits and features."""
    network, (shown, _) = Frozen(build("resnet8", classes=5, seed=0), precision=precision, device=cpu), images(31)
    for function in (network, network.features):
        replayed = predict(function, shown, batch=4, device=cpu)
        tracers.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.delitem(repeating.RECORDERS, "cpu")
            plain = predict(function, shown, batch=4, device=cpu)
        assert torch.equal(replayed, plain)


@pytest.mark.parametrize("regularised", [{}, {"mixup": 0.2, "label_smoothing": 0.1}, {"precision": "bf16"}])
@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_a_step_of_source_training_traces_whole(augment: str, regularised: dict) -> None:
    """Nothing in it waits for the device or is made from Python numbers, else the trace would break."""
    recipe = dataclasses.replace(RECIPE, augment=augment, **regularised)
    loss_of = loss_function(build("resnet8", classes=3, seed=0), recipe, IMAGENET)
    inputs = *images(8), *_draw(recipe, 16, torch.Generator().manual_seed(0))
    plain = loss_of(*inputs)
    torch.compiler.reset()
    assert torch.equal(torch.compile(loss_of, fullgraph=True, backend="eager")(*inputs), plain)


def test_memory_that_runs_out_halves_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def work(size: int) -> int:
        tried.append(size)
        if size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 10 * size

    assert within_memory(work, 13) == 10
    assert tried == [13, 6, 3, 1]
    with pytest.raises(torch.OutOfMemoryError):
        within_memory(lambda size: work(100), 4)


def test_memory_that_runs_out_in_a_recording_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA ends a recording that broke off with another error."""

    @contextlib.contextmanager
    def recording(*arguments: object, **settings: object) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    def step() -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    recorder = object.__new__(repeating.CudaRecorder)
    recorder.stream, recorder.pool = None, None
    with pytest.raises(torch.OutOfMemoryError):
        recorder.record(step, ())
    with pytest.raises(RuntimeError, match="previous error"):
        recorder.record(lambda: torch.zeros(1), ())
    assert gc.isenabled()


def test_predictions_with_little_memory_are_the_same(cpu: torch.device) -> None:
    shown, sizes = images(20)[0], []

    def forward(part: Tensor) -> Tensor:
        sizes.append(len(part))
        if len(part) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return F.avg_pool2d(part, 16).flatten(1)

    found = predict(forward, shown, batch=16, device=cpu)
    assert torch.equal(found, predict(lambda part: F.avg_pool2d(part, 16).flatten(1), shown, batch=4, device=cpu))
    assert sizes == [16, 8, *[4] * 5]
