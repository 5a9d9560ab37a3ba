"""Fetching from the Hugging Face hub, with a hub that is a folder of this machine."""

import builtins
import inspect
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vpcore import InputError
from vpcore.data import hub
from vpcore.data.parquet import open_set
from vpcore.data.tasks import fetch, load

REVISION = "0123456789abcdef" * 2 + "01234567"
NAMES = ["apple", "pear", "plum"]


def shard(labels: list[int], *, image: str = "img", label: str = "fine_label", names: object = NAMES) -> pa.Table:
    """Rows as the hub has them: class c is a PNG of grey level 80 c; a column that nobody asked for comes with them."""
    encoded = []
    for row, value in enumerate(labels):
        file = io.BytesIO()
        Image.new("RGB", (6, 9), (80 * max(value, 0),) * 3).save(file, "PNG")
        encoded.append({"bytes": file.getvalue(), "path": f"{row}.png"})
    features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}, "id": {"_type": "Value"}}
    table = pa.table({"id": [str(row) for row in range(len(labels))], image: encoded, label: labels})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


SOURCE = hub.Source("someone/fruit", "all/train-*.parquet", "all/validation-*.parquet", image="img", label="fine_label")
TRAIN = [[0, 1, 2, 0, 1], [2, 2, 1, 0, 0, 1]]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set with two shards of train, one of validation and one that is not wanted, behind `snapshot_download`."""
    folder = tmp_path / "repository"
    (folder / "all").mkdir(parents=True)
    for number, labels in enumerate(TRAIN):
        pq.write_table(shard(labels), folder / f"all/train-0000{number}-of-00002-1a2b3c4d.parquet", row_group_size=2)
    pq.write_table(shard([0, 2, 1, 1]), folder / "all/validation-00000-of-00001.parquet")
    pq.write_table(shard([0]), folder / "all/extra-00000-of-00001.parquet")
    (folder / "README.md").write_text("fruit")
    signature = inspect.signature(huggingface_hub.snapshot_download)

    def snapshot_download(*args: object, **keywords: object) -> str:
        given = signature.bind(*args, **keywords).arguments  # the real one would take these arguments
        assert given["repo_type"] == "dataset"
        assert given["revision"] == REVISION
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        for file in huggingface_hub.utils.filter_repo_objects(files, allow_patterns=given["allow_patterns"]):
            target = Path(given["local_dir"]) / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / file, target)
        return str(given["local_dir"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return folder


def test_what_was_fetched_is_what_load_reads(repository: Path, tmp_path: Path) -> None:
    path = fetch("fruit", tmp_path / "data", source=SOURCE, revision=REVISION)
    assert path == tmp_path / "data/fruit"
    assert sorted(file.name for file in path.iterdir()) == [
        "dataset.json",
        "test-00000-of-00001.parquet",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    opened = open_set(path)
    assert opened.classes == tuple(NAMES)
    table = pq.read_table(path / "train-00001-of-00002.parquet")
    assert table.column_names == ["image", "label"]
    assert table["label"].to_pylist() == TRAIN[1]
    assert table["image"].to_pylist() == shard(TRAIN[1])["img"].to_pylist()  # the bytes as they came
    parts = {split: load("fruit", split, px=4, folder=tmp_path / "data") for split in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [8, 3, 4]
    for images in parts.values():
        assert np.array_equal(images.images[:, 0, 0, 0], 80 * images.labels)
    card = json.loads((path / "dataset.json").read_text())
    assert card["splits"] == {"train": 11, "test": 4}
    assert card["source_repo"] == f"huggingface:someone/fruit@{REVISION}"
    assert card["source"]["test"] == "all/validation-*.parquet"


def test_other_widths_of_the_same_columns_are_read(repository: Path, tmp_path: Path) -> None:
    table = shard([0, 2, 1, 1])
    wide = pa.struct({"bytes": pa.large_binary(), "path": pa.large_string()})
    other = table.set_column(1, "img", table["img"].cast(wide))
    other = other.set_column(2, "fine_label", table["fine_label"].cast(pa.uint8()))
    pq.write_table(other, repository / "all" / VALIDATION)
    path = fetch("fruit", tmp_path / "data", source=SOURCE, revision=REVISION)
    assert pq.read_table(path / "test-00000-of-00001.parquet")["image"].to_pylist() == table["img"].to_pylist()
    assert load("fruit", "test", px=4, folder=tmp_path / "data").labels.tolist() == [0, 2, 1, 1]


def test_known_sources_need_no_more_than_a_commit(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.HUB_SETS, "fruit", SOURCE)
    assert fetch("fruit", tmp_path / "data", revision=REVISION).is_dir()
    with pytest.raises(InputError, match="fruit exists already; delete it"):
        fetch("fruit", tmp_path / "data", revision=REVISION)


@pytest.mark.parametrize("revision", [None, "main", "refs/convert/parquet", REVISION[:8], REVISION.upper(), REVISION + "0"])
def test_only_a_commit_will_do(revision: str | None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`revision` must be a commit of 40 hexadecimal digits, got .*/uoft-cs/cifar10"):
        fetch("cifar10", tmp_path / "data", revision=revision)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["../fruit", "..", "a/b", "", ".fruit"])
def test_a_name_is_that_of_a_folder_in_the_data_folder(name: str, repository: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`name` must consist of letters, digits, - and _, .* got '.*'"):
        fetch(name, tmp_path / "data", source=SOURCE, revision=REVISION)
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


@pytest.mark.parametrize("name", ["digits", "glyphs", "tv-cifar10", "tv-fruit", "coop-dtd", "tv", "coop"])
def test_a_set_that_would_not_be_read_is_not_fetched(name: str, repository: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"`name` must be free, but '{name}' is built in, or kept .* give another"):
        fetch(name, tmp_path / "data", source=SOURCE, revision=REVISION)
    assert not (tmp_path / "data").exists()


def test_what_a_killed_fetch_left_is_removed(repository: Path, tmp_path: Path) -> None:
    for left in (".new-fruit.0a1b2c3d", ".new-fruit-2.0a1b2c3d"):
        (tmp_path / "data" / left / "fruit").mkdir(parents=True)
    fetch("fruit", tmp_path / "data", source=SOURCE, revision=REVISION)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [".new-fruit-2.0a1b2c3d", "fruit"]


def rewrite(file: str, change: Callable[[], pa.Table]) -> Callable[[Path], None]:
    return lambda folder: pq.write_table(change(), folder / "all" / file)


def without_bytes(table: pa.Table) -> pa.Table:
    """The path alone, as it is where the images lie beside the Parquet files."""
    images = table["img"].to_pylist()
    return table.set_column(1, "img", pa.array([{**images[0], "bytes": None}, *images[1:]], table["img"].type))


def fruits(folder: Path, names: list[str]) -> None:
    """Gives the classes of all files other names."""
    for file in (folder / "all").iterdir():
        pq.write_table(shard([0, 1], names=names), file)


VALIDATION = "validation-00000-of-00001.parquet"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "all" / VALIDATION).unlink(),
            r"has no Parquet file all/validation-\*.parquet; .* right files",
        ),
        (lambda folder: (folder / "all" / VALIDATION).write_bytes(b"PAR1"), "is damaged or no Parquet file"),
        (rewrite(VALIDATION, lambda: shard([0, -1, -1])), r"0 have no image, 2 have no such label; choose another split"),
        (rewrite(VALIDATION, lambda: shard([0, 3])), "1 have no such label"),
        (rewrite(VALIDATION, lambda: without_bytes(shard([0, 1]))), "1 have no image, 0 have no such label"),
        (rewrite(VALIDATION, lambda: shard([0], names=["fig", "pear", "plum"])), "has other classes than"),
        (lambda folder: fruits(folder, ["fig", "pear", "fig"]), "must be a ClassLabel with names, all different; got .*fig"),
        (rewrite(VALIDATION, lambda: shard([0], label="label")), "'fine_label' of .* must be a ClassLabel .* no such"),
        (rewrite(VALIDATION, lambda: shard([0]).replace_schema_metadata(None)), "must be a ClassLabel with names"),
        (rewrite(VALIDATION, lambda: shard([0], image="picture")), "columns are id, picture, fine_label; name the right"),
        (
            rewrite(VALIDATION, lambda: shard([0]).set_column(1, "img", [[b"raw"]])),
            "must have the image {bytes, path} in 'img'",
        ),
    ],
)
def test_what_is_not_as_expected_is_refused_and_nothing_stays(
    damage: Callable[[Path], None], message: str, repository: Path, tmp_path: Path
) -> None:
    damage(repository)
    with pytest.raises(InputError, match=message):
        fetch("fruit", tmp_path / "data", source=SOURCE, revision=REVISION)
    assert not list((tmp_path / "data").iterdir())


def test_a_failed_download_names_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **keywords: object) -> None:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match="someone/fruit at 0123.* cannot be fetched .no connection.; .*hf auth login"):
        fetch("fruit", tmp_path, source=SOURCE, revision=REVISION)
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **keywords: object) -> object:
        if name == "huggingface_hub":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"needs a package \(huggingface_hub\); use: pip install 'vpcore\[fetch\]'"):
        fetch("fruit", tmp_path, source=SOURCE, revision=REVISION)


def test_sources_are_well_formed() -> None:
    for source in hub.HUB_SETS.values():
        assert source.repo.count("/") == 1
        assert source.train != source.test
        assert source.train.endswith(".parquet")
        assert source.test.endswith(".parquet")
