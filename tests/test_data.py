import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from vpcore import InputError, data
from vpcore.splits import hold_out, saturated, shots


def write_set(folder: Path, name: str = "pairs", *, train: int = 20, test: int = 6, classes: int = 2) -> Path:
    """A tiny image set in the Hugging Face layout: class c is filled with grey level 100 c, train in two shards."""
    path = folder / name
    path.mkdir(parents=True)

    def rows(count: int) -> pa.Table:
        encoded = []
        for row in range(count):
            file = io.BytesIO()
            Image.new("RGB", (8, 6), (100 * (row % classes),) * 3).save(file, "PNG")
            encoded.append({"bytes": file.getvalue(), "path": f"{row}.png"})
        return pa.table({"image": encoded, "label": np.arange(count) % classes})

    whole = rows(train)
    pq.write_table(whole.slice(0, train // 2), path / "train-00000-of-00002.parquet")
    pq.write_table(whole.slice(train // 2), path / "train-00001-of-00002.parquet")
    pq.write_table(rows(test), path / "test-00000-of-00001.parquet")
    card = {"name": name, "classes": [f"c{i}" for i in range(classes)], "splits": {"train": train, "test": test}}
    (path / "dataset.json").write_text(json.dumps(card))
    return path


def test_parquet_images_and_labels_belong_together(tmp_path: Path) -> None:
    write_set(tmp_path)
    seen = []
    for split, count in (("train", 16), ("val", 4), ("test", 6)):
        images = data.load("pairs", split, px=4, folder=tmp_path)
        assert images.images.shape == (count, 3, 4, 4)
        assert images.classes == ("c0", "c1")
        assert torch.equal(images.images[:, 0, 0, 0].long(), 100 * images.labels)
        seen.append(len(images))
    assert sum(seen[:2]) == 20


def test_cached_images_are_the_same_and_follow_the_files(tmp_path: Path) -> None:
    write_set(tmp_path / "a")
    plain = data.load("pairs", "train", px=4, folder=tmp_path / "a")
    for _ in range(2):  # the first call decodes, the second reads
        cached = data.load("pairs", "train", px=4, folder=tmp_path / "a", cache=tmp_path / "cache")
        assert torch.equal(cached.images, plain.images)
        assert torch.equal(cached.labels, plain.labels)
    write_set(tmp_path / "b", train=40)
    other = data.load("pairs", "train", px=4, folder=tmp_path / "b", cache=tmp_path / "cache")
    assert len(other) == 32  # not what was cached for the other folder


def test_damaged_cache(tmp_path: Path) -> None:
    data.load("shapes", "test", px=8, per_class=1, cache=tmp_path)
    (next(tmp_path.glob("*.npy"))).write_bytes(b"no array")
    with pytest.raises(InputError, match="decoded images .* are damaged .* delete the file"):
        data.load("shapes", "test", px=8, per_class=1, cache=tmp_path)


def damage_missing_shard(path: Path) -> None:
    (path / "train-00001-of-00002.parquet").unlink()


def damage_count(path: Path) -> None:
    card = json.loads((path / "dataset.json").read_text())
    (path / "dataset.json").write_text(json.dumps({**card, "splits": {"train": 21, "test": 6}}))


def damage_classes(path: Path) -> None:
    card = json.loads((path / "dataset.json").read_text())
    (path / "dataset.json").write_text(json.dumps({**card, "classes": ["only"]}))


def damage_card(path: Path) -> None:
    (path / "dataset.json").write_text("{")


def damage_no_card(path: Path) -> None:
    (path / "dataset.json").unlink()


def damage_shard(path: Path) -> None:
    (path / "test-00000-of-00001.parquet").write_bytes(b"PAR1 no more")


def damage_image(path: Path) -> None:
    file = path / "test-00000-of-00001.parquet"
    table = pq.read_table(file).to_pylist()
    table[3]["image"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(table), file)


def damage_column(path: Path) -> None:
    file = path / "test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).rename_columns(["image", "class"]), file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing_shard, "must hold all shards .* copy the missing ones"),
        (damage_count, "must hold 21 train images, as its dataset.json says; the shards hold 20"),
        (damage_classes, r"labels in .* must lie in 0\.\.0, .* the first is 1"),
        (damage_card, "dataset.json must hold `classes` and `splits`"),
        (damage_no_card, "has no dataset.json"),
        (damage_shard, "a shard of .* is damaged"),
        (damage_image, "the image in .*, row 3 cannot be decoded"),
        (damage_column, "must have a column `label`"),
    ],
)
def test_a_bad_folder_is_refused(tmp_path: Path, damage, message: str) -> None:
    damage(write_set(tmp_path))
    with pytest.raises(InputError, match=message):
        data.load("pairs", "test", px=4, folder=tmp_path, cache=tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'cifar10' is not built in .* use --data DIR or set VPCORE_DATA"):
        data.load("cifar10", "test", px=4)
    with pytest.raises(InputError, match="there is no folder .*nowhere"):
        data.load("cifar10", "test", px=4, folder=tmp_path / "nowhere")
    write_set(tmp_path)
    with pytest.raises(InputError, match="did you mean 'pairs'"):
        data.load("pair", "test", px=4, folder=tmp_path)


def test_splits_of_built_in_tasks_are_disjoint() -> None:
    parts = [data.load("digits", split, px=8) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == 1797
    rows = torch.cat([part.images[:, 0].flatten(1) for part in parts])
    assert len(rows.unique(dim=0)) == 1797  # every image of the set exactly once: it holds no duplicates


def test_resizing_keeps_the_grey_level() -> None:
    from vpcore.data import Images, _resize

    flat = Images(torch.full((1, 3, 8, 8), 77, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), ("a",))
    assert _resize(flat, 20).images.unique().tolist() == [77]


def test_budgets_are_nested_balanced_and_drawn_by_seed() -> None:
    labels = torch.arange(60) % 3
    for seed in range(3):
        previous: set[int] = set()
        for budget in (1, 4, 10):
            index = shots(labels, budget, task="t", seed=seed)
            assert labels[index].bincount().tolist() == [budget] * 3
            assert previous < set(index.tolist())
            previous = set(index.tolist())
    assert shots(labels, None, task="t", seed=0).tolist() == list(range(60))
    assert not torch.equal(shots(labels, 4, task="t", seed=0), shots(labels, 4, task="t", seed=1))


def test_saturation() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1])
    assert not saturated(labels, 2)
    assert saturated(labels, 3)
    assert not saturated(labels, None)
    assert len(shots(labels, 3, task="t", seed=0)) == 5


def test_hold_out_takes_a_fifth_of_each_class_at_most_fifty() -> None:
    labels = torch.cat([torch.zeros(10), torch.ones(1000)]).long()
    train, val = hold_out(labels, "t")
    assert labels[val].bincount().tolist() == [2, 50]
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(1010))


def test_budgets_with_absent_and_single_classes() -> None:
    """A class without images gives none and saturates nothing; one with a single image gives it at every budget."""
    labels = torch.tensor([4, 4, 4, 1, 4, 4])  # classes 0, 2 and 3 are absent
    for budget in (1, 2, 5, 6, None):
        index = shots(labels, budget, task="t", seed=3)
        assert index.tolist() == sorted(set(index.tolist()))
        assert labels[index].bincount(minlength=5).tolist() == [0, 1, 0, 0, min(budget or 5, 5)]
    assert not saturated(labels, 1)
    assert saturated(labels, 2)  # of class 1
    empty = torch.zeros(0, dtype=torch.int64)
    assert shots(empty, 3, task="t", seed=0).tolist() == []
    assert not saturated(empty, 3)
    assert [part.tolist() for part in hold_out(empty, "t")] == [[], []]


def test_saturation_is_a_loop_over_classes() -> None:
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 12, (30,), generator=generator)
        for budget in range(1, 8):
            counts = [sum(label == c for label in labels.tolist()) for c in set(labels.tolist())]
            assert saturated(labels, budget) == any(count < budget for count in counts)
            index = shots(labels, budget, task="t", seed=seed)
            assert len(index) == sum(min(count, budget) for count in counts)


def test_budgets_never_move() -> None:
    """Pinned: saved results were computed on these images."""
    labels = torch.arange(40) % 4
    assert shots(labels, 2, task="cifar10", seed=1).tolist() == [2, 10, 11, 13, 21, 24, 32, 39]
    assert hold_out(labels, "cifar10")[1].tolist() == [1, 3, 12, 22, 27, 30, 32, 33]


def test_a_share_is_held_out_of_each_class() -> None:
    for seed in range(20):
        labels = torch.randint(0, 5, (60,), generator=torch.Generator().manual_seed(seed))
        kept, out = hold_out(labels, f"t{seed}", share=0.3, most=None)
        assert sorted([*kept.tolist(), *out.tolist()]) == list(range(60))
        for c in range(5):
            assert int((labels[out] == c).sum()) == int(int((labels == c).sum()) * 0.3 + 0.5)


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="`budget` must be at least 1"):
        shots(torch.zeros(3), 0, task="t", seed=0)
    with pytest.raises(InputError, match="unknown split 'tset'; did you mean 'test'"):
        data.load("digits", "tset", px=8)
