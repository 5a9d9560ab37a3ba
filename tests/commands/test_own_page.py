"""The commands of the section "Your own network and your own images" run one after the other, on files as the page says."""

import re
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from tests.test_ten_lines import write_images
from vpcore import apply_, prune, save_ticket
from vpcore.cli import main

PAGE = (Path(__file__).parents[2] / "book" / "tutorial.md").read_text().partition("## Your own network")[2]
# few epochs, and a network of a study that takes a second
FEWER = {
    "prompt": ["--epochs", "2"],
    "measure": ["source_per_class=2", "source_epochs=2", "source_batch=32", "epochs=2", "--results", "results"],
}


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos", train=11, test=3)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 6)]
    torch.save(nn.Sequential(*layers), "dense.pt")
    masks = prune(sparse := nn.Sequential(*layers), density=0.1)
    apply_(sparse, masks)
    save_ticket("pruned.safetensors", sparse, masks)
    (module,) = re.findall(r"^\$ cat my_networks.py\n(.*?)^\$", PAGE, re.DOTALL | re.MULTILINE)
    Path("my_networks.py").write_text(module)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    commands = [line.split() for line in re.findall(r"^\$ vpcore (.*)$", PAGE, re.MULTILINE)]
    assert [command[0] for command in commands] == ["prompt", "prompt", "calibrate", "prune", "pack", "measure"]
    for command in commands:
        done = CliRunner().invoke(main, [*command, *FEWER.get(command[0], [])], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert "vp photos 10-shot" in done.output
