"""An audit as a guard: the job of the book runs, twins pass, and damage is found, the more of it the surer."""

import copy
import dataclasses
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from vpcore.audit import examples
from vpcore.audit.design import Design
from vpcore.audit.findings import COST, judge
from vpcore.audit.measuring import Row, measure
from vpcore.audit.networks import Audited
from vpcore.audit.tasks import DEFAULT_TASKS, read_task
from vpcore.data.tasks import load
from vpcore.networks.backbones import build
from vpcore.networks.frozen import Frozen
from vpcore.networks.training import fit

ROOT = Path(__file__).parents[2]
TWINS = 21
EPOCHS, TWIN_EPOCHS = 8, 2


def job() -> dict[str, object]:
    """The workflow that the page shows."""
    text = (ROOT / "book" / "audit.md").read_text()
    return yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pruned", "code"), [("return dense()", 0), ("return torch.nn.Linear(1, 1)", 2)], ids=["the same network", "none"]
)
def test_the_job_of_the_book_guards_a_network(pruned: str, code: int, tmp_path: Path) -> None:
    """Its own step runs, with the package that is tested in the place of the one that it would install."""
    source = f"import torch\nfrom tests.audit.networks import dense\n\n\ndef pruned():\n    {pruned}\n"
    (tmp_path / "mynets.py").write_text(source)
    steps = job()["jobs"]["audit"]["steps"]
    (step,) = (each for each in steps if each.get("name") == "audit")
    variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    (kept,) = (each["with"]["path"] for each in steps if each.get("uses", "").startswith("actions/upload"))
    assert (tmp_path / kept / "index.html").exists() == (code == 0)


def trained(seed: int, epochs: int = EPOCHS) -> nn.Module:
    """A ResNet-8 that has seen drawn letters for so long of a schedule of its own."""
    network = build("resnet8", classes=48, seed=seed)
    shown = load("glyphs", "train", px=32, per_class=30)
    recipe = dataclasses.replace(examples.RECIPE, epochs=epochs, seed=seed)
    fit(network, shown.images, shown.labels, recipe, progress=False)
    return network


def rows_of(networks: list[nn.Module]) -> list[Row]:
    named = [Audited(str(number), "", Frozen(network), "", {}) for number, network in enumerate(networks)]
    design = Design(DEFAULT_TASKS[:4], (4,), (0, 1), ("lp",), 32, 22, 10, 0.1, 200)
    tasks = [read_task(name, data=None, shots=4, test_images=200) for name in design.tasks]
    cells = itertools.product(range(len(tasks)), range(len(named)), design.methods)
    return [row for cell in cells for row in measure(named, tasks, design, *cell)]


def against(rows: list[Row], dense: int, other: int) -> list[Row]:
    """The rows of two networks as if these were all."""
    return [
        {**row, "network": int(row["network"] == other), "round": int(row["network"] == other)}
        for row in rows
        if row["network"] in (dense, other)
    ]


@pytest.mark.slow
def test_of_twenty_retrained_twins_one_at_most_is_found_costly() -> None:
    rows = rows_of([trained(seed, TWIN_EPOCHS) for seed in range(TWINS)])
    verdicts = [judge(against(rows, seed, seed + 1), 1).verdict for seed in range(TWINS - 1)]
    assert verdicts.count(COST) <= 1, verdicts


@pytest.mark.slow
def test_damage_is_found_the_more_of_it_the_surer() -> None:
    """Training cut to a half, a quarter and an eighth; and a block of random weights."""
    dense = trained(0)
    block = copy.deepcopy(dense)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for module in block.layer2.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    rows = rows_of([dense, *(trained(0, EPOCHS // part) for part in (2, 4, 8)), block])
    found = [judge(against(rows, 0, other), 1) for other in range(1, 5)]
    losses = [each.primary["accuracy_loss", "lp"].estimate.mean for each in found]
    assert np.argmax(losses[:3]) == 2  # an eighth of the training is the worst of the three
    assert losses[2] > 0.03
    detectable = [each.primary["accuracy_loss", "lp"].estimate.detectable() for each in found]
    seen = [each.verdict == COST for each in found]
    assert all(one for one, loss, least in zip(seen, losses, detectable, strict=True) if loss > 1.5 * least)
    assert any(seen)
