"""Long work shows a bar where a terminal looks, and nothing anywhere else."""

import ast
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import vpcore
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


@pytest.mark.parametrize("room", ["study", "weights"])
def test_a_study_shows_no_bar_beside_its_own_lines(room: str) -> None:
    """Whatever it calls that would."""
    calls = [
        node
        for path in Path(vpcore.__file__).parent.joinpath(room).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("visual_prompt", "linear_probe", "fine_tune", "fit")
    ]
    assert calls
    assert all("progress=False" in [ast.unparse(word) for word in call.keywords] for call in calls)
