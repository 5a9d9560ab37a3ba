import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from vpcore import InputError
from vpcore.data import tasks
from vpcore.data.images import Images


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
        images = tasks.load("pairs", split, px=4, folder=tmp_path)
        assert images.images.shape == (count, 3, 4, 4)
        assert images.classes == ("c0", "c1")
        assert torch.equal(images.images[:, 0, 0, 0].long(), 100 * images.labels)
        seen.append(len(images))
    assert sum(seen[:2]) == 20


def test_cached_images_are_the_same_and_follow_the_files(tmp_path: Path) -> None:
    write_set(tmp_path / "a")
    plain = tasks.load("pairs", "train", px=4, folder=tmp_path / "a")
    for _ in range(2):  # the first call decodes, the second reads
        cached = tasks.load("pairs", "train", px=4, folder=tmp_path / "a", cache=tmp_path / "cache")
        assert torch.equal(cached.images, plain.images)
        assert torch.equal(cached.labels, plain.labels)
    write_set(tmp_path / "b", train=40)
    other = tasks.load("pairs", "train", px=4, folder=tmp_path / "b", cache=tmp_path / "cache")
    assert len(other) == 32  # not what was cached for the other folder


def test_damaged_cache(tmp_path: Path) -> None:
    """Whatever happens to a file of the cache: it is named, set aside, and made again."""
    whole = tasks.load("shapes", "test", px=8, per_class=1, cache=tmp_path)
    whole = Images(whole.images.clone(), whole.labels, whole.classes)
    (file,) = tmp_path.glob("*.npy")
    encoded = file.read_bytes()
    (note,) = tmp_path.glob("*.json")
    for path, damaged in (
        (file, b"no array"),
        (file, b""),
        (file, encoded[:-9]),
        (file, encoded[:-9] + bytes([encoded[-9] ^ 4]) + encoded[-8:]),  # one bit
        (note, b"{"),
        (note, b"{}"),
        (note, b"[]"),
    ):
        path.write_bytes(damaged)
        with pytest.warns(
            UserWarning, match=f"decoded images {file} are damaged .* set aside as .*damaged.* and made again"
        ):
            again = tasks.load("shapes", "test", px=8, per_class=1, cache=tmp_path)
        assert torch.equal(again.images, whole.images)
        assert torch.equal(again.labels, whole.labels)
        assert damaged in [aside.read_bytes() for aside in tmp_path.glob(f"{path.name}.damaged*")]
        assert file.read_bytes() == encoded


@pytest.mark.parametrize("decides", ["PIL.__version__", "torch.__version__", "vpcore.data.drawn.__file__"])
def test_what_decides_the_bytes_is_in_the_name_of_a_cached_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decides: str
) -> None:
    """A version of a library, or our own code that draws a task: files of another one are not taken."""
    tasks.load("shapes", "test", px=8, per_class=1, cache=tmp_path)
    (other := tmp_path / "other.py").write_text("")
    monkeypatch.setattr(decides, str(other))
    tasks.load("shapes", "test", px=8, per_class=1, cache=tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2


@pytest.mark.parametrize("ending", ["npy", "json"])
def test_half_a_cache_is_made_again(tmp_path: Path, ending: str) -> None:
    whole = tasks.load("shapes", "test", px=8, per_class=1, cache=tmp_path).images.clone()
    next(tmp_path.glob(f"*.{ending}")).unlink()
    assert torch.equal(tasks.load("shapes", "test", px=8, per_class=1, cache=tmp_path).images, whole)
    assert len(list(tmp_path.iterdir())) == 2


def test_writing_to_cached_images_leaves_the_cache_as_it_is(tmp_path: Path) -> None:
    images = tasks.load("shapes", "test", px=8, per_class=1, cache=tmp_path).images
    before = images.clone()
    images.zero_()
    assert torch.equal(tasks.load("shapes", "test", px=8, per_class=1, cache=tmp_path).images, before)


def test_data_are_known_by_their_content(tmp_path: Path) -> None:
    """Equal files in other folders have one digest; a byte that changes neither size nor name has another."""
    write_set(tmp_path / "a"), write_set(tmp_path / "b")
    digests = [tasks.digest("pairs", folder=tmp_path / part) for part in "ab"]
    assert digests[0] == digests[1]
    assert re.fullmatch("[0-9a-f]{12}", digests[0])
    cached = tasks.load("pairs", "test", px=4, folder=tmp_path / "b", cache=tmp_path / "cache")
    image_is(lambda encoded: encoded)(tmp_path / "b/pairs")  # written anew by another writer: other bytes, other digest
    file = tmp_path / "a/pairs/test-00000-of-00001.parquet"
    size = file.stat().st_size
    rows = pq.read_table(file).to_pylist()
    rows[0]["label"], rows[1]["label"] = rows[1]["label"], rows[0]["label"]
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    assert file.stat().st_size == size
    assert tasks.digest("pairs", folder=tmp_path / "a") != digests[0]
    swapped = tasks.load("pairs", "test", px=4, folder=tmp_path / "a", cache=tmp_path / "cache")
    assert swapped.labels.tolist() == [1, 0, *cached.labels.tolist()[2:]]
    classes_are(["c1", "c0"])(tmp_path / "b/pairs")
    assert tasks.digest("pairs", folder=tmp_path / "b") not in digests


def test_the_digits_are_those_of_the_published_records() -> None:
    """Other pixels or another split would take published records for those of other images."""
    assert tasks.digest("digits") == "329b17508ec2"


def test_digests_tell_the_built_in_tasks_apart() -> None:
    digests = {task: tasks.digest(task) for task in tasks.BUILTIN}
    assert len(set(digests.values())) == len(digests)
    assert all(re.fullmatch("[0-9a-f]{12}", digest) for digest in digests.values())
    with pytest.raises(InputError, match="'cifar10' is not built in"):
        tasks.digest("cifar10")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_images_is_refused(tmp_path: Path, split: str) -> None:
    path = write_set(tmp_path, **{split: 0})
    with pytest.raises(InputError, match=f"{path} must have at least one image of train and .*; it has none of {split}"):
        tasks.load("pairs", "train", px=4, folder=tmp_path)


def test_a_folder_of_images_is_met_with_the_command_that_packs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path)
    (tmp_path / "photos/cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "photos/cat/1.png")
    command = f"{tmp_path}/photos is a folder of images; .*: vpcore pack {tmp_path}/photos --data {tmp_path}"
    for task in ("photos", str(tmp_path / "photos")):
        with pytest.raises(InputError, match=command):
            tasks.load(task, "train", px=4, folder=tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"photos is a folder of images; .*: vpcore pack photos --data {tmp_path}/pairs"):
        tasks.load("photos", "train", px=4, folder=tmp_path / "pairs")


def damage_missing_shard(path: Path) -> None:
    (path / "train-00001-of-00002.parquet").unlink()


def damage_count(path: Path) -> None:
    card = json.loads((path / "dataset.json").read_text())
    (path / "dataset.json").write_text(json.dumps({**card, "splits": {"train": 21, "test": 6}}))


def classes_are(classes: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        card = json.loads((path / "dataset.json").read_text())
        (path / "dataset.json").write_text(json.dumps({**card, "classes": classes}))

    return damage


def damage_card(path: Path) -> None:
    (path / "dataset.json").write_text("{")


def damage_no_card(path: Path) -> None:
    (path / "dataset.json").unlink()


def card_is(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Puts something else in the place of the card."""

    def damage(path: Path) -> None:
        damage_no_card(path)
        make(path / "dataset.json")

    return damage


def damage_shard(path: Path) -> None:
    (path / "test-00000-of-00001.parquet").write_bytes(b"PAR1 no more")


def image_is(change: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    """Changes the bytes of row 3 of the test images."""

    def damage(path: Path) -> None:
        file = path / "test-00000-of-00001.parquet"
        rows = pq.read_table(file).to_pylist()
        rows[3]["image"]["bytes"] = change(rows[3]["image"]["bytes"])
        pq.write_table(pa.Table.from_pylist(rows), file)

    return damage


def column_is(name: str, values: list, *, called: str | None = None) -> Callable[[Path], None]:
    """Puts another column of 6 values in the place of one of the test images."""

    def damage(path: Path) -> None:
        file = path / "test-00000-of-00001.parquet"
        table = pq.read_table(file)
        pq.write_table(table.set_column(table.column_names.index(name), called or name, pa.array(values)), file)

    return damage


def damage_second_column(path: Path) -> None:
    file = path / "test-00000-of-00001.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column("label", table["label"]), file)


COLUMNS = r"test-00000.* must have a column `image` of {bytes, path} and a column `label` of integers; it has "
NAMES = "`classes` in .*dataset.json must be a list of names, all different, .*; got "


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing_shard, "must hold all shards .* copy the missing ones"),
        (damage_count, "must hold 21 train images, as its dataset.json says; the shards hold 20"),
        (classes_are(["only"]), r"labels of pairs must lie in 0\.\.0, .* the first is 1"),
        (damage_card, "dataset.json must hold `classes` and `splits`"),
        (damage_no_card, "has no dataset.json"),
        (card_is(Path.mkdir), "has no dataset.json"),
        (card_is(lambda card: card.symlink_to(card)), "has no dataset.json"),
        (card_is(os.mkfifo), "has no dataset.json"),
        (card_is(lambda card: card.write_text(100_000 * "[")), "dataset.json must hold `classes` and `splits`"),
        (classes_are("ab"), f"{NAMES}'ab'; put it right"),
        (classes_are([0, 1]), NAMES + r"\[0, 1\]"),
        (classes_are([]), NAMES + r"\[\]"),
        (classes_are(["a", "b", "a"]), NAMES + r"\['a'\] more than once"),
        (damage_shard, "test-00000-of-00001.parquet is damaged .*; copy or fetch it again"),
        (image_is(lambda encoded: b"no image"), "the image in .*, row 3 cannot be decoded"),
        (image_is(lambda encoded: None), "the image in .*, row 3 cannot be decoded"),
        (image_is(lambda encoded: encoded[:36] + b"\x05" + encoded[37:]), "row 3 cannot be decoded .broken PNG file"),
        (image_is(lambda encoded: b"P6 2x 2 255 "), "row 3 cannot be decoded .invalid literal"),
        (image_is(lambda encoded: b"P6 90000 90000 255 "), "row 3 cannot be decoded .Image size"),
        (column_is("label", [0] * 6, called="class"), COLUMNS + "image: .*, class: int64; write it anew"),
        (column_is("label", ["c0"] * 6), COLUMNS + ".* label: string"),
        (column_is("label", [0.5] * 6), COLUMNS + ".* label: double"),
        (column_is("label", [True] * 6), COLUMNS + ".* label: bool"),
        (column_is("label", [0, 1, None, 0, None, 1]), "every row of .*test-00000.* must have a label; 2 of 6 have none"),
        (column_is("image", [b"raw"] * 6), COLUMNS + "image: binary, label: int64"),
        (column_is("image", [{"path": "0.png"}] * 6), COLUMNS + "image: struct<path: string>, label"),
        (column_is("image", [{"bytes": "text"}] * 6), COLUMNS + "image: struct<bytes: string>, label"),
        (damage_second_column, "test-00000.* is damaged .*exists 2 times"),
    ],
)
def test_a_bad_folder_is_refused(tmp_path: Path, damage, message: str) -> None:
    damage(write_set(tmp_path))
    with pytest.raises(InputError, match=message):
        tasks.load("pairs", "test", px=4, folder=tmp_path, cache=tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'cifar10' is not built in .* use --data DIR or set VPCORE_DATA"):
        tasks.load("cifar10", "test", px=4)
    with pytest.raises(InputError, match="there is no folder .*nowhere"):
        tasks.load("cifar10", "test", px=4, folder=tmp_path / "nowhere")
    write_set(tmp_path)
    with pytest.raises(InputError, match="did you mean 'pairs'"):
        tasks.load("pair", "test", px=4, folder=tmp_path)
    with pytest.raises(InputError, match="unknown task in .* '../pairs'"):
        tasks.load("../pairs", "test", px=4, folder=tmp_path / "pairs")


def test_columns_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    column_is("label", [0.5] * 6)(write_set(tmp_path))
    with pytest.raises(InputError, match=COLUMNS):
        tasks.classes("pairs", folder=tmp_path)


def test_integers_and_bytes_of_any_width_are_read(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "test-00000-of-00001.parquet"
    table = pq.read_table(file)
    image = table["image"].cast(pa.struct({"bytes": pa.large_binary(), "path": pa.string()}))
    table = pa.table({"more": ["x"] * 6, "label": table["label"].cast(pa.uint8()), "image": image})
    pq.write_table(table, file)
    images = tasks.load("pairs", "test", px=4, folder=tmp_path)
    assert images.labels.tolist() == [0, 1] * 3
    assert torch.equal(images.images[:, 0, 0, 0].long(), 100 * images.labels)


def test_splits_of_built_in_tasks_are_disjoint() -> None:
    parts = [tasks.load("digits", split, px=8) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == 1797
    rows = torch.cat([part.images[:, 0].flatten(1) for part in parts])
    assert len(rows.unique(dim=0)) == 1797  # every image of the set exactly once: it holds no duplicates


def test_resizing_keeps_the_grey_level(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = Images(torch.full((1, 3, 8, 8), 77, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), ("a",))
    monkeypatch.setitem(tasks.BUILTIN, "flat", (("a",), lambda split: flat))
    assert tasks.load("flat", "train", px=20).images.unique().tolist() == [77]


def test_bad_arguments() -> None:
    for number in (0, -1, 2.0, 0.5, "1"):
        with pytest.raises(InputError, match=f"`per_class` must be a whole number of images a class.*, got {number!r}"):
            tasks.load("digits", "test", px=8, per_class=number)
    for px in (0, -8, 8.5):
        with pytest.raises(InputError, match=f"`px` must be a whole number of pixels, at least 1, got {px}"):
            tasks.load("digits", "test", px=px)
    with pytest.raises(InputError, match="unknown split 'tset'; did you mean 'test'"):
        tasks.load("digits", "tset", px=8)
