"""Prompts that are learned in repeated steps: replayed as by a GPU, by the stand-in, they learn the same."""

import pytest
import torch
from torch import Tensor

from tests.networks.standin import Tracer
from tests.prompting.cases import METHODS, doubled, task
from vpcore.networks import repeat as repeating
from vpcore.networks.frozen import Frozen
from vpcore.networks.repeat import WARM_UP
from vpcore.prompting.label_mapping import MAPPINGS
from vpcore.prompting.learner import Learner
from vpcore.prompting.one_to_one import priorities
from vpcore.prompting.prompts import PROMPTS
from vpcore.prompting.visual_prompting import visual_prompt

SETTINGS = {"canvas": 16, "image_px": 8, "epochs": 6, "lr": 0.1, "seeds": [1, 2]}


@pytest.mark.parametrize(("prompt", "name", "batch"), [
    *((*method, 10) for method in METHODS), ("pad", "ilm", 128), ("random_patch", "ilm", 128),
])  # fmt: skip
def test_prompts_replayed_are_prompts(
    network: Frozen,
    prompt: str,
    name: str,
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Places of patches, learning rates, mappings and a last, smaller batch change between replays."""
    train = task(prompt, tint=0 if prompt == "pad" else 80)
    settings = {**SETTINGS, "prompt": doubled(prompt), "mapping": name, "batch": batch}
    plain = visual_prompt(network, train, **settings)
    made: list[Tracer] = []
    monkeypatch.setitem(repeating.RECORDERS, "cpu", lambda device: made.append(Tracer()) or made[-1])
    replayed = visual_prompt(network, train, **settings)
    torch.testing.assert_close(replayed.mapping, plain.mapping, rtol=0, atol=1e-5)
    torch.testing.assert_close(replayed(train.images), plain(train.images), rtol=1e-5, atol=1e-5)
    assert replayed.loss == pytest.approx(plain.loss, abs=1e-5)
    moved = 6 * (3 if batch == 10 else 1)
    assert sum(tracer.replayed for tracer in made) >= moved - 3 * WARM_UP


def test_the_best_epoch_replayed_is_the_best_epoch(network: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    train = task(tint=0)
    settings = {**SETTINGS, "prompt": doubled("pad"), "batch": 10, "select": train}
    plain = visual_prompt(network, train, **settings)
    monkeypatch.setitem(repeating.RECORDERS, "cpu", lambda device: Tracer())
    replayed = visual_prompt(network, train, **settings)
    assert replayed.epoch == plain.epoch
    torch.testing.assert_close(replayed(train.images), plain(train.images), rtol=1e-5, atol=1e-5)


def learner(network: Frozen, prompt: str, name: str) -> Learner:
    train, rule, sizes = task(prompt), MAPPINGS[name], {"targets": 3, "sources": 7}
    module = PROMPTS[prompt].make([0, 1], 16, 8).train()
    mapping = rule.start([0, 1], **sizes)
    mapping = torch.tensor([[0, 1, 2], [2, 4, 3]]) if mapping is None else mapping
    return Learner(network, module, rule, mapping, train.images, train.labels, priority=priorities([0, 1], **sizes), lr=0.1)


def traces_whole(step: object, *inputs: Tensor) -> None:
    """Nothing in it waits for the device or is made from Python numbers, else the trace would break."""
    plain = step(*inputs)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(step, fullgraph=True, backend="eager")(*inputs), plain, rtol=0, atol=0)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_step_traces_whole(network: Frozen, prompt: str) -> None:
    steps, rows = learner(network, prompt, "ilm"), torch.arange(24).view(2, 12)
    drawn = steps.prompt.draw(12)
    inputs = (rows,) if drawn is None else (rows, drawn)
    traces_whole(lambda rows, *drawn: steps.losses(steps.source_logits(rows, *drawn).float(), rows), *inputs)


@pytest.mark.parametrize("name", [name for name, rule in MAPPINGS.items() if rule.due(0) and not rule.on_host])
def test_finding_a_mapping_traces_whole(network: Frozen, name: str) -> None:
    steps = learner(network, "pad", name)
    logits = torch.randn(2, 12, 7, generator=torch.Generator().manual_seed(0))
    traces_whole(lambda logits, labels: steps.rule.update(logits, labels, steps.priority), logits, steps.labels.view(2, 12))
