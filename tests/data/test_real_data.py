"""The profile `small`, shrunk, on real images; skipped where they are missing."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from vpcore.cli import main
from vpcore.data.parquet import open_set
from vpcore.data.tasks import load
from vpcore.study.profile import load_profile
from vpcore.study.store import Store


def test_every_set_opens_and_its_splits_are_complete(real_data: Path) -> None:
    for card in sorted(real_data.glob("*/dataset.json")):
        folder = open_set(card.parent)
        counts = {split: len(folder.labels(split)) for split in ("train", "val", "test")}
        assert counts["train"] > counts["val"] > 0
        assert counts["test"] > 0
        few = load(card.parent.name, "test", px=16, per_class=1, folder=real_data)
        assert len(few) == len(few.classes) == len(set(few.labels.tolist()))
        assert float(few.images.float().std()) > 10


@pytest.mark.slow
def test_toy_small_walks_the_whole_way(real_data: Path, tmp_path: Path) -> None:
    profile = load_profile("small", toy=True)
    arguments = [
        "run",
        "--profile",
        "small",
        "--toy",
        "--results",
        str(tmp_path),
        "--data",
        str(real_data),
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    table = Store(tmp_path, profile.name).table(profile.runs)
    assert len(table) == len(profile.runs)
    assert table["accuracy"].between(0, 1).all()
    probes = table[(table["method"] == "lp") & (table["task"] == "sign_digits") & (table["budget"] == 10)]
    assert probes["accuracy"].mean() > 0.2  # chance is 0.1: the features of real images say something
    again = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert "0 jobs to do" in again.output


def test_images_are_held_once_as_bytes(real_data: Path, tmp_path: Path) -> None:
    """Decoded images are mapped from one file of one byte a value; a second load costs no memory of its own."""
    images = load("sign_digits", "train", px=32, folder=real_data, cache=tmp_path)
    assert images.images.dtype.itemsize == 1
    (file,) = tmp_path.glob("*.npy")
    assert file.stat().st_size == pytest.approx(images.images.numel(), abs=256)
