"""Long work shows a bar where a terminal looks, and nothing anywhere else."""

import io
import re
from collections.abc import Callable

import pytest
import torch

from vpcore import Frozen, Images, Recipe, fine_tune, fit, linear_probe, visual_prompt
from vpcore.networks.backbones import build

TRAIN = Images(torch.zeros(6, 3, 16, 16, dtype=torch.uint8), torch.arange(6) % 2, ("a", "b"))
RECIPE = Recipe(epochs=3, batch=3, lr=0.01, weight_decay=0.0, augment="none", precision="float32", seed=0)
WORK: dict[str, Callable[..., object]] = {
    "visual prompting": lambda model, **how: visual_prompt(Frozen(model), TRAIN, canvas=32, epochs=3, **how),
    "linear probing": lambda model, **how: linear_probe(Frozen(model), TRAIN, epochs=3, **how),
    "training": lambda model, **how: fit(model, TRAIN.images, TRAIN.labels, RECIPE, **how),
    "training ": lambda model, **how: fine_tune(model, TRAIN, epochs=3, **how),
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("what", WORK)
def test_long_work_shows_a_bar_to_a_terminal_alone(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}
    for name, stream, how in (
        ("terminal", Terminal(), {}),
        ("file", io.StringIO(), {}),
        ("study", Terminal(), {"progress": False}),
    ):
        monkeypatch.setattr("sys.stderr", stream)
        WORK[what](build("resnet8", classes=2, seed=0), **how)
        shown[name] = stream.getvalue()
    assert re.search(rf"{what.strip()}: .*0/3 ", shown["terminal"])
    assert (shown["file"], shown["study"]) == ("", "")
