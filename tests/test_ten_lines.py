"""The lines that the README shows do as they stand there what it says they do."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import shufflenet_v2_x0_5

import vpcore
from vpcore.pruning.masks import measure

README = (Path(__file__).parent.parent / "README.md").read_text()


def lines() -> str:
    """The code under the heading on one's own networks."""
    section = README.split("## Your own network, images and logits\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return code


def write_images(root: Path, *, train: int, test: int) -> None:
    """Noise of two colours, as PNG files in class folders."""
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for channel, name in enumerate(("red", "green")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 128, (40, 50, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")


@pytest.fixture
def given(tmp_path: Path) -> dict[str, object]:
    """What the lines take for granted: a network, a path for its ticket, a folder of images, and logits with labels."""
    write_images(tmp_path / "images", train=2, test=3)
    torch.manual_seed(0)
    model = shufflenet_v2_x0_5(num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.rand(16, 3, 64, 64))  # without statistics in its batch norms it would see nothing
    labels = torch.arange(60) % 5
    return {
        "model": model,
        "path": tmp_path / "ticket.safetensors",
        "root": tmp_path / "images",
        "logits": torch.randn(60, 5) + 2 * nn.functional.one_hot(labels, 5),
        "labels": labels,
    }


def test_the_ten_lines_run_as_they_stand(given: dict[str, object]) -> None:
    code, names = lines(), dict(given)
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    exec(code, names)
    assert set(vpcore.__all__) >= {name for name in re.search(r"import (.*)", code)[1].split(", ")}
    masks, prompt, test = names["masks"], names["prompt"], names["test"]
    kept, total = (sum(int(mask.sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values()))
    assert kept == round(0.8 * total)
    assert measure(given["model"], masks) == {name: float(mask.float().mean()) for name, mask in masks.items()}
    assert test.images.shape == (6, 3, 128, 128)
    logits = prompt(test.images)
    assert logits.shape == (1, 6, 2)
    assert len(prompt.loss) == 100
    assert prompt.loss[-1] < prompt.loss[0] / 2
    for learned in (prompt, names["probe"]):  # the network is random, so what was learned is what can be asked for
        assert vpcore.metrics(learned(names["train"].images)[0], names["train"].labels)["accuracy"] == 1


def test_logits_may_be_arrays_or_lists(given: dict[str, object]) -> None:
    logits, labels = given["logits"], given["labels"]
    whole = vpcore.metrics(logits, labels)
    assert vpcore.metrics(logits.numpy(), labels.numpy()) == whole
    assert vpcore.metrics(logits.tolist(), labels.tolist()) == whole


def test_they_run_on_bf16_too(given: dict[str, object]) -> None:
    network = vpcore.Frozen(given["model"], precision="bf16")
    train = vpcore.image_folder(given["root"] / "train", px=40)
    prompt = vpcore.visual_prompt(network, train, canvas=64, epochs=2)
    probe = vpcore.linear_probe(network, train, epochs=2)
    for learned in (prompt, probe):
        assert learned(train.images).shape == (1, 4, 2)
        assert learned(train.images).dtype == torch.float32
