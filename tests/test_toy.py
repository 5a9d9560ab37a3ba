from pathlib import Path

import pytest
import torch

from vpcore import checkpoints
from vpcore.models import build
from vpcore.profiles import Profile, load_profile
from vpcore.store import Store
from vpcore.study import execute
from vpcore.toy import SOURCE_CLASSES, image_folder

CARD = """
title = "Small as the paper is large"
[run]
source = "tv-imagenet"
model = "resnet8"
weights = "torchvision:IMAGENET1K_V1"
sparsifier = "tickets:t/net_{round}_checkpoint.pth"
rate = 0.2
canvas = 32
image_px = 16
source_per_class = 1
source_test_per_class = 1
[[grid]]
round = [0, 8]
method = ["vp", "lp"]
task = ["tv-dtd", "tv-cifar10"]
[toy]
fakes = true
[toy.run]
weights = "random"
[toy.grid]
task = ["tv-dtd", "coop-ucf101"]
budget = [1]
epochs = [2]
"""


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    path = tmp_path / "large.toml"
    path.write_text(CARD)
    return load_profile(str(path), toy=True)


def test_a_toy_of_a_large_study_needs_nothing(profile: Profile, tmp_path: Path, cpu: torch.device) -> None:
    store = Store(tmp_path / "results", profile.name)
    folder = image_folder(profile, store, None)
    done = list(execute(profile.runs, store, device=cpu, folder=folder))
    assert [d.error for d in done] == [None] * len(done)
    table = store.table(profile.runs)
    assert len(table) == len(profile.runs) == 10
    assert table.groupby("round")["density"].first().to_dict() == {0: 1.0, 8: pytest.approx(0.8**8, abs=1e-3)}
    assert image_folder(profile, store, None) == folder  # a second time nothing is written, and nothing refused


def test_fake_tickets_are_files_in_the_form_of_the_authors(profile: Profile, tmp_path: Path) -> None:
    folder = image_folder(profile, Store(tmp_path / "results", profile.name), None)
    path = folder / "t" / "net_8_checkpoint.pth"
    assert path.with_name("net_8_mask.pth").exists()
    raw = torch.load(path, weights_only=True)["state_dict"]
    assert all(name.startswith("model.") for name in raw)
    state, masks = checkpoints.load_checkpoint(path, build("resnet8", classes=SOURCE_CLASSES, seed=0))
    for name, mask in masks.items():
        assert not state[name][~mask].any()
        assert raw[f"model.{name}"][~mask].any()  # the file itself has them unmasked, as the authors' files do


def test_a_profile_without_fakes_keeps_its_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "results", "mini")
    assert image_folder(load_profile("mini"), store, Path("somewhere")) == Path("somewhere")
    assert image_folder(load_profile("mini", toy=True), store, None) is None
    assert not store.root.exists()


def test_the_toy_of_the_paper_covers_its_kinds_of_runs() -> None:
    toy, whole = load_profile("paper", toy=True), load_profile("paper")
    assert toy.fakes
    assert not whole.fakes
    assert set(toy.grids) == set(whole.grids)
    assert {run.sparsifier.partition(":")[0] for run in toy.runs if run.round} == {"tickets"}
    assert {run.method for run in toy.runs} == {run.method for run in whole.runs}
    assert any(run.quantized for run in toy.runs)
    assert {"swin-t", "deit-tiny", "resnet50"} <= {run.model for run in toy.runs}
