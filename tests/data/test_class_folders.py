"""A user's own folder of class folders: read, packed, and refused by the names that the user knows."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vpcore import InputError
from vpcore.data.class_folders import image_folder
from vpcore.data.packing import pack
from vpcore.data.parquet import open_set
from vpcore.data.tasks import load
from vpcore.errors import WriteError

KINDS = ("png", "jpg", "webp", "tiff", "bmp", "gif", "PNG", "JPEG")


def write_folder(path: Path, *, classes: tuple[str, ...] = ("cat", "dog", "eel"), per_class: int = 8, seed: int = 0) -> Path:
    """Noise in every format that people have, one subfolder, and what desktops leave behind."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (path / name / "more").mkdir(parents=True)
        for number in range(per_class):
            kind = KINDS[number % len(KINDS)]
            file = path / name / ("more" if number == 2 else "") / f"{number:02d}.{kind}"
            Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(file)
        (path / name / "Thumbs.db").write_bytes(b"x")
        (path / name / ".DS_Store").write_bytes(b"x")
    (path / ".git/refs").mkdir(parents=True)
    (path / "README.md").write_text("mine")
    return path


def test_images_and_labels_are_those_of_the_files(tmp_path: Path) -> None:
    found = image_folder(write_folder(tmp_path), px=7)
    assert found.classes == ("cat", "dog", "eel")
    assert found.images.shape == (24, 3, 7, 7)
    assert found.images.dtype == torch.uint8
    assert found.labels.dtype == torch.int64
    for label, name in enumerate(found.classes):
        expected = []
        for file in sorted(f for f in (tmp_path / name).rglob("*.*") if f.suffix[1:] in KINDS):
            with Image.open(file) as image:
                expected.append(np.array(image.convert("RGB").resize((7, 7), Image.Resampling.BILINEAR)))
        assert np.array_equal(found.images[found.labels == label].permute(0, 2, 3, 1).numpy(), np.stack(expected))


def test_given_classes_fix_the_order_of_the_labels(tmp_path: Path) -> None:
    plain = image_folder(write_folder(tmp_path), px=5)
    other = image_folder(str(tmp_path), px=5, classes=["eel", "ant", "cat", "dog"])
    assert other.classes == ("eel", "ant", "cat", "dog")
    assert other.labels.bincount(minlength=4).tolist() == [8, 0, 8, 8]
    for label, name in enumerate(plain.classes):
        assert torch.equal(plain.images[plain.labels == label], other.images[other.labels == other.classes.index(name)])


def test_splits_beside_each_other_have_the_same_classes(tmp_path: Path) -> None:
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", classes=("cat", "eel"))
    for split, sign in (("test", "-"), ("train", r"\+")):
        with pytest.raises(InputError, match=rf"{split} must have the classes of .*:\n  {sign} dog\nrename .* as `classes`"):
            image_folder(tmp_path / split, px=4)
    train = image_folder(tmp_path / "train", px=4, classes=("cat", "dog", "eel"))
    test = image_folder(tmp_path / "test", px=4, classes=train.classes)
    assert test.labels.unique().tolist() == [0, 2]
    with pytest.raises(InputError, match=r"must be among `classes`; these are not:\n  \+ dog"):
        image_folder(tmp_path / "train", px=4, classes=("cat", "eel"))


def damage_nothing_there(path: Path) -> Path:
    return path / "nowhere"


def damage_no_folders(path: Path) -> Path:
    return path / "cat/more"


def damage_splits(path: Path) -> Path:
    write_folder(path / "set/train"), write_folder(path / "set/test")
    return path / "set"


def damage_only_train(path: Path) -> Path:
    write_folder(path / "set/train"), write_folder(path / "set/valid")
    return path / "set/test"


def damage_other_names(path: Path) -> Path:
    write_folder(path / "set/Training"), write_folder(path / "set/valid")
    return path / "set"


def damage_one_class(path: Path) -> Path:
    return write_folder(path / "one", classes=("cat",))


def damage_empty_class(path: Path) -> Path:
    (path / "fox").mkdir()
    (path / "fox/.hidden").write_text("")
    return path


def damage_text(path: Path) -> Path:
    (path / "dog/notes.txt").write_text("good dogs")
    return path


def damage_image(path: Path) -> Path:
    (path / "dog/00.png").write_bytes((path / "dog/00.png").read_bytes()[:60])
    return path


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_nothing_there, "`path` must be a folder of class folders; there is no folder .*nowhere"),
        (damage_no_folders, "cat/more holds no folder; put the images of each class, of two at least, into a folder"),
        (damage_splits, "set holds the splits test, train; name one of them: .*set/test"),
        (damage_only_train, "there is no folder .*set/test; beside it are the folders train, valid"),
        (damage_other_names, "set holds the splits Training, valid; name one of them: .*set/Training"),
        (damage_one_class, "one holds only cat; put the images of each class, of two at least, into a folder of its own"),
        (damage_empty_class, "every class must have images; the folder .*fox has none; fill it or delete it"),
        (
            damage_text,
            r"the image .*dog/notes.txt cannot be decoded \(no image that Pillow knows\); every visible file .* must be",
        ),
        (
            damage_image,
            "the image .*dog/00.png cannot be decoded .*; every visible .* image; mend it, or move it out of the folder",
        ),
        (
            lambda path: (path / "dog/lost.png").symlink_to("elsewhere.png") or path,
            "dog/lost.png must be an image, and is a link",
        ),
        (lambda path: os.mkfifo(path / "dog/pipe.png") or path, "dog/pipe.png must be an image, and is .* a device"),
    ],
)
def test_a_bad_folder_is_refused_by_the_names_in_it(tmp_path: Path, damage, message: str) -> None:
    path = damage(write_folder(tmp_path))
    with pytest.raises(InputError, match=message) as caught:
        image_folder(path, px=4)
    assert "BytesIO" not in str(caught.value)
    for px in (0, 1.5, "8"):
        with pytest.raises(InputError, match=f"`px` must be a whole number of pixels, at least 1, got {px!r}"):
            image_folder(tmp_path, px=px)


# Packing --------------------------------------------------------------------------------------------------------------


def rows(images: torch.Tensor, labels: torch.Tensor) -> list[tuple[int, bytes]]:
    return sorted((label, image.numpy().tobytes()) for image, label in zip(images, labels.tolist(), strict=True))


def test_a_packed_folder_is_read_to_the_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpcore.data.packing.BLOCK", 5)
    write_folder(tmp_path / "pets/train"), write_folder(tmp_path / "pets/test", per_class=3, seed=1)
    assert pack(tmp_path / "pets", tmp_path / "data") == tmp_path / "data/pets"
    parts = {split: load("pets", split, px=7, folder=tmp_path / "data") for split in ("train", "val", "test")}
    trained = [torch.cat([getattr(parts[split], what) for split in ("train", "val")]) for what in ("images", "labels")]
    for split, packed in (("train", trained), ("test", (parts["test"].images, parts["test"].labels))):
        folder = image_folder(tmp_path / "pets" / split, px=7)
        assert rows(*packed) == rows(folder.images, folder.labels)
        assert parts["test"].classes == folder.classes
    card = json.loads((tmp_path / "data/pets/dataset.json").read_text())
    assert card == {"name": "pets", "classes": ["cat", "dog", "eel"], "splits": {"train": 24, "test": 9}}


def test_without_a_test_folder_a_share_of_each_class_is_drawn(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", per_class=10)
    pack(tmp_path / "pets", tmp_path / "data", name="mine", test_share=0.3)
    opened = open_set(tmp_path / "data/mine")
    assert opened.labels("test").bincount().tolist() == [3, 3, 3]
    assert torch.cat([opened.labels("train"), opened.labels("val")]).bincount().tolist() == [7, 7, 7]
    parts = [load("mine", split, px=12, folder=tmp_path / "data") for split in ("train", "val", "test")]
    whole = image_folder(tmp_path / "pets", px=12)
    assert rows(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])) == rows(
        whole.images, whole.labels
    )
    first = [(tmp_path / "data/mine" / f).read_bytes() for f in ("train-00000-of-00001.parquet", "dataset.json")]
    pack(tmp_path / "pets", tmp_path / "again", name="mine", test_share=0.3)
    assert first == [(tmp_path / "again/mine" / f).read_bytes() for f in ("train-00000-of-00001.parquet", "dataset.json")]


def pack_val(path: Path) -> Path:
    for split in ("train", "val", "test"):
        write_folder(path / "all" / split)
    return path / "all"


def pack_only_train(path: Path) -> Path:
    write_folder(path / "half/train")
    return path / "half"


def pack_other_names(path: Path) -> Path:
    for split in ("Training", "valid"):
        write_folder(path / "other" / split)
    return path / "other"


def pack_few(path: Path) -> Path:
    return write_folder(path / "few", per_class=2)


def pack_other_classes(path: Path) -> Path:
    write_folder(path / "odd/train"), write_folder(path / "odd/test", classes=("cat", "cow"))
    return path / "odd"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_image, "the image .*dog/00.png cannot be decoded .*; every visible file in a class folder .*; mend it"),
        (damage_empty_class, "every class must have images; the folder .*fox has none"),
        (pack_val, "all must hold class folders, or train and test .*; it holds test and train and val; rename them; val"),
        (pack_only_train, "it holds train; .*; where there is no test, pack .*half/train under the name of the set"),
        (pack_other_names, "it holds Training and valid; rename them; .* put others into train"),
        (pack_few, "test would have no images: .*few has at most 2 a class, and 0.2 of each class becomes test; add images"),
        (pack_other_classes, r"odd/t.* must have the classes of .*odd/t.*\n  .* cow|differ"),
    ],
)
def test_what_cannot_be_packed_leaves_nothing_behind(tmp_path: Path, damage, message: str) -> None:
    path = damage(write_folder(tmp_path / "pets"))
    with pytest.raises(InputError, match=message):
        pack(path, tmp_path / "data", name="mine")
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_names_and_shares(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "my pets")
    with pytest.raises(InputError, match="`name` must consist of letters, digits, - and _, .* got 'my pets'"):
        pack(folder, tmp_path / "data")
    for name in ("digits", "tv-pets", "coop-pets"):
        with pytest.raises(InputError, match=f"`name` must be free, but '{name}' is built in, or kept"):
            pack(folder, tmp_path / "data", name=name)
    for share in (0, 1, 20):
        with pytest.raises(InputError, match=re.escape(f"`test_share` must be in (0, 1), got {share}")):
            pack(folder, tmp_path / "data", name="pets", test_share=share)
    pack(folder, tmp_path / "data", name="pets")
    with pytest.raises(InputError, match="pets exists already; delete it to make it anew, or give another name"):
        pack(folder, tmp_path / "data", name="pets")
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write below .*file .* must be a folder with room for the set"):
        pack(folder, tmp_path / "file", name="pets")
