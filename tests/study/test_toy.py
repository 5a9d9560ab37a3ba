import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tests.data.formats import write_fake
from vpcore import InputError
from vpcore.cli import main
from vpcore.networks.backbones import build
from vpcore.study.execution import execute
from vpcore.study.profile import Profile, load_profile, run_with
from vpcore.study.run import source_run
from vpcore.study.store import Store
from vpcore.study.toy import SOURCE_CLASSES, data_or_fakes
from vpcore.weights.checkpoints import load_checkpoint

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
[[grid]]
round = [0, 8]
method = ["vp", "lp"]
task = ["tv-dtd", "tv-cifar10"]
budget = [1, "all"]
[toy]
fakes = true
[toy.run]
weights = "random"
epochs = 2
[toy.grid]
task = ["tv-dtd", "coop-ucf101"]
budget = [1]
"""


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    path = tmp_path / "large.toml"
    path.write_text(CARD)
    return load_profile(str(path), toy=True)


def test_a_toy_of_a_large_study_needs_nothing(profile: Profile, tmp_path: Path, cpu: torch.device) -> None:
    store = Store(tmp_path / "results", profile.name)
    folder = data_or_fakes(profile, profile.runs, store, None)
    done = list(execute(profile.runs, store, device=cpu, folder=folder))
    assert [d.error for d in done] == [None] * len(done)
    table = store.table(profile.runs)
    assert len(table) == len(profile.runs) == 10
    assert table.groupby("round")["density"].first().to_dict() == {0: 1.0, 8: pytest.approx(0.8**8, abs=1e-3)}
    assert data_or_fakes(profile, profile.runs, store, None) == folder  # again: nothing written, nothing refused
    (folder / "t" / "net_8_checkpoint.pth").unlink()  # no longer needed: its ticket is there
    shutil.rmtree(store.root / "records")
    assert [d.error for d in execute(profile.runs, store, device=cpu, folder=folder)] == [None] * len(done)


def test_fake_tickets_are_files_in_the_form_of_the_authors(profile: Profile, tmp_path: Path) -> None:
    folder = data_or_fakes(profile, profile.runs, Store(tmp_path / "results", profile.name), None)
    path = folder / "t" / "net_8_checkpoint.pth"
    assert path.with_name("net_8_mask.pth").exists()
    raw = torch.load(path, weights_only=True)["state_dict"]
    assert all(name.startswith("model.") for name in raw)
    state, masks = load_checkpoint(path, build("resnet8", classes=SOURCE_CLASSES, seed=0))
    for name, mask in masks.items():
        assert not state[name][~mask].any()
        assert raw[f"model.{name}"][~mask].any()  # the file itself has them unmasked, as the authors' files do


@pytest.mark.parametrize(
    "pattern", ["../net_{round}_checkpoint.pth", "t/../../net_{round}_checkpoint.pth", "/{root}/net.pth"]
)
def test_fakes_stay_in_the_results(profile: Profile, tmp_path: Path, pattern: str) -> None:
    pattern = pattern.replace("/{root}", str(tmp_path))
    runs = tuple(dataclasses.replace(run, sparsifier=f"tickets:{pattern}") for run in profile.runs)
    with pytest.raises(InputError, match="`sparsifier` tickets:.* must name files below the data folder"):
        data_or_fakes(profile, runs, Store(tmp_path / "results", profile.name), None)
    assert not list(tmp_path.rglob("*.pth"))


def test_what_is_missing_is_told_before_anything_is_computed(profile: Profile, tmp_path: Path, cpu: torch.device) -> None:
    store = Store(tmp_path / "results", profile.name)
    folder = data_or_fakes(profile, profile.runs, store, None)
    (folder / "t" / "net_8_checkpoint.pth").unlink()
    with pytest.raises(InputError, match=r"the file .*net_8_checkpoint.pth .* must exist; .* or leave out round 8"):
        execute(profile.runs, store, device=cpu, folder=folder)
    assert not store.table().size


def test_a_split_without_images_is_refused(profile: Profile, tmp_path: Path, cpu: torch.device) -> None:
    """Two training images a class leave none to hold out."""
    runs = tuple(
        dataclasses.replace(run, task="tv-oxford_pets") for run in profile.runs if run.round == 0 and run.task == "tv-dtd"
    )
    folder = tmp_path / "data"
    write_fake("tv-imagenet", folder, classes=3, per_class=10)
    write_fake("tv-oxford_pets", folder, classes=3, per_class=2)
    failed = [d.error for d in execute(runs, Store(tmp_path / "results", "own"), device=cpu, folder=folder) if d.error]
    assert len(failed) == 2
    for error in failed:
        assert isinstance(error, InputError)
        assert "`task` tv-oxford_pets must have images in its split val, got none" in str(error)


def test_published_weights_need_a_source_of_their_classes(tmp_path: Path, cpu: torch.device) -> None:
    run = run_with(load_profile("mini"), ["weights=random", "task=shapes", "method=lp", "budget=1"])
    (failed, *_) = execute((source_run(run),), Store(tmp_path / "results", "own"), device=cpu)
    assert isinstance(failed.error, InputError)
    assert "`source` must be a task with classes of ImageNet for `weights` random, got glyphs" in str(failed.error)


def test_a_profile_without_fakes_keeps_its_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "results", "mini")
    assert data_or_fakes(load_profile("mini"), (), store, Path("somewhere")) == Path("somewhere")
    assert data_or_fakes(load_profile("mini", toy=True), (), store, None) is None
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
    assert {run.epochs for run in toy.runs if run.method != "source"} == {2}


def test_the_paper_runs_as_a_toy(tmp_path: Path) -> None:
    """Tickets of ResNet-50 from files, at 224 px, to a set in CoOp's layout; the whole toy is the same with more of it."""
    only = ("--only", "lp", "--task", "coop-ucf101", "--grid", "main")
    told = CliRunner().invoke(main, ["run", "--profile", "paper", "--toy", "--results", str(tmp_path), *only])
    assert "paper-toy: 4 jobs done, 0 failed" in told.output
    table = Store(tmp_path, "paper-toy").table()
    assert table["method"].value_counts().to_dict() == {"source": 2, "lp": 2}
    assert table.groupby("round")["density"].first().to_dict() == pytest.approx({0: 1, 8: 0.8**8}, abs=1e-4)
