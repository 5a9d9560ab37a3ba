"""The naive way is what our speed is compared with; here it is what our results are compared with."""

import io

import pytest
import torch
from PIL import Image
from torch import nn

from tests.prompting.tiny_network import CANVAS, PX, TARGETS, tinted, tiny_network
from vpcore.bench import plain_protocol
from vpcore.bench.plain_protocol import decode, features, linear_head
from vpcore.data.images import Images
from vpcore.networks.backbones import head_name
from vpcore.networks.frozen import Frozen
from vpcore.probing.linear_probing import probe_features
from vpcore.prompting.fixed_prompts import PadPrompt
from vpcore.prompting.label_mapping import MAPPINGS
from vpcore.prompting.visual_prompting import visual_prompt


@pytest.fixture
def model() -> nn.Module:
    return tiny_network().requires_grad_(False)


@pytest.mark.parametrize("batch", [128, 10])
def test_a_prompt_learned_the_naive_way_is_ours(model: nn.Module, cpu: torch.device, batch: int) -> None:
    train, test = tinted(24, seed=24), tinted(30, seed=30)
    shared, accuracies = {"epochs": 6, "batch": batch, "lr": 0.1}, []
    plain = plain_protocol.visual_prompt(
        plain_protocol.on_pixels(model), PadPrompt(1, canvas=CANVAS, image_px=PX), MAPPINGS["ilm"], train,
        targets=TARGETS, sources=7, seed=3, after_epoch=lambda state: accuracies.append(state.accuracy(test, state.mapping)),
        **shared,
    )  # fmt: skip
    network = Frozen(model, precision="float32", device=cpu)
    ours = visual_prompt(network, Images(*train, ("a", "b", "c")), canvas=CANVAS, seeds=[3], **shared)
    assert torch.equal(ours.mapping, plain.find())
    # float32: folding batch norm changes the last digits of a gradient, and Adam makes a step of any gradient
    program = plain.prompt.program[0].detach()
    torch.testing.assert_close(ours.prompt.program[0].detach(), program, rtol=0, atol=2e-3)
    assert float(program.abs().mean()) > 0.1  # it did learn
    assert len(accuracies) == 6
    logits = ours(test[0])[0]
    assert float((logits.argmax(1) == test[1]).float().mean()) == pytest.approx(accuracies[-1], abs=0.1)  # a fresh mapping


@pytest.mark.parametrize("batch", [128, 16])
def test_a_head_learned_the_naive_way_is_ours(batch: int) -> None:
    labels = torch.arange(90) % TARGETS
    x = torch.randn(90, 12, generator=torch.Generator().manual_seed(0)) + nn.functional.one_hot(labels, 12)
    shared = {"targets": TARGETS, "epochs": 8, "batch": batch, "lr": 0.01}
    head = linear_head(x, labels, seed=2, **shared)
    ours = probe_features(x, labels, torch.arange(90)[None], seeds=[2], **shared)
    torch.testing.assert_close(ours(x)[0], head(x).detach(), rtol=1e-4, atol=1e-4)


def test_naive_features_are_ours(model: nn.Module, cpu: torch.device) -> None:
    images = torch.randint(256, (9, 3, CANVAS, CANVAS), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    ours = Frozen(model, precision="float32", device=cpu).features(images.float() / 255)
    model.set_submodule(head_name(model), nn.Identity())
    torch.testing.assert_close(features(model, images, batch=4), ours, rtol=1e-4, atol=1e-5)


def test_naive_decoding() -> None:
    Image.new("RGB", (5, 4), (255, 0, 51)).save(content := io.BytesIO(), "png")
    decoded = decode([content.getvalue()] * 2, px=3)
    torch.testing.assert_close(decoded, torch.tensor([1.0, 0.0, 0.2]).view(3, 1, 1).expand(2, 3, 3, 3))
