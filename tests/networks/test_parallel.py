"""Two processes train what one does: in double precision, so that little but an error is left of the difference."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.networks.test_training import RECIPE, blobs
from vpcore import InputError
from vpcore.networks import parallel
from vpcore.networks.backbones import build
from vpcore.networks.training import Recipe, fit
from vpcore.pruning.masks import apply_, prune
from vpcore.pruning.schedules import fixed

RECIPES = {
    "plain": RECIPE,
    "varied": replace(RECIPE, augment="shift+flip", label_smoothing=0.1),
    "mixed": replace(RECIPE, augment="shift", mixup=0.2),
}


def trained(recipe: Recipe) -> dict[str, torch.Tensor]:
    """A pruned network after a training, the losses of its epochs among its weights."""
    torch.manual_seed(0)
    model, losses = build("resnet8", classes=3, seed=0).double(), []
    masks = prune(model, density=0.5)
    apply_(model, masks)
    steps = fixed(model, masks)
    fit(model, *blobs(), recipe, take_step=steps, after_epoch=lambda epoch, loss, state: losses.append(loss), progress=False)
    return {**model.state_dict(), "losses": torch.tensor(losses)}


def main(folder: str) -> None:
    """What each of two processes does."""
    torch.set_num_threads(1)
    with parallel.launched(torch.device("cpu")):
        assert parallel.processes() == 2
        found = {name: trained(recipe) for name, recipe in RECIPES.items()}
        torch.save(found, Path(folder, f"{torch.distributed.get_rank()}.pt"))
        assert parallel.agreed(lambda: parallel.is_first(), torch.device("cpu"))
        with pytest.raises(InputError, match="`source_batch` must be a multiple of the number of processes, 2, got 15"):
            fit(build("resnet8", classes=3, seed=0), *blobs(), replace(RECIPE, batch=15), progress=False)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = f"from tests.networks.test_parallel import main; main({str(tmp_path)!r})"
    (tmp_path / "main.py").write_text(script)
    root = Path(__file__).parents[2]
    subprocess.run([*launcher, tmp_path / "main.py"], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=True)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for kind, recipe in RECIPES.items():
        alone = trained(recipe)
        for name, value in alone.items():
            assert torch.equal(first[kind][name], second[kind][name]), name
            torch.testing.assert_close(first[kind][name], value, rtol=1e-6, atol=1e-9, msg=f"{kind} {name}")
    assert any(not torch.equal(first["plain"][name], first["mixed"][name]) for name in first["plain"])


def test_batch_norm_over_processes_is_that_of_torch_where_there_is_one() -> None:
    """Outputs, gradients and running statistics."""
    x = torch.randn(6, 3, 4, 4, dtype=torch.double, requires_grad=True)
    ours, theirs = (nn.BatchNorm2d(3).double() for _ in range(2))
    with parallel._WholeBatches():
        mine = ours(x)
    other = theirs(x)
    torch.testing.assert_close(mine, other)
    weights = torch.randn_like(mine)
    torch.testing.assert_close(*(torch.autograd.grad((y * weights).sum(), x, retain_graph=True)[0] for y in (mine, other)))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    ours.eval()
    with parallel._WholeBatches():
        torch.testing.assert_close(ours(x), theirs.eval()(x))
        torch.testing.assert_close(F.relu(x), x.clamp(min=0))


def test_one_process_is_left_alone() -> None:
    model, batch = nn.Linear(2, 2), torch.ones(3, 2)
    assert (parallel.processes(), parallel.is_first()) == (1, True)
    assert parallel.replica(model) is model
    assert parallel.share(batch) is batch
    assert parallel.mean(batch) is batch
    assert parallel.agreed(lambda: True, torch.device("cpu")) is True
