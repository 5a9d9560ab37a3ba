"""Image sets from the Hugging Face hub, pinned to a commit, in the layout that `parquet` reads.

A data set on the hub is a git repository, often with Parquet files: columns with the encoded image, {bytes, path}, and an
integer label, whose class names are in the metadata of the schema. `fetch` downloads the files of two splits at one commit,
renames the columns and the shards, and writes `dataset.json`. A branch is refused, since it moves. `HUB_SETS` knows where
some sets lie and what they call their splits and columns; the commit is yours to choose, and to publish with the results:

    vpcore fetch cifar10 --revision 40-DIGIT-HASH --data DIR
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from vpcore.data.decoding import BLOCK
from vpcore.data.packing import SCHEMA, new_set, write_card, write_shard
from vpcore.data.parquet import read
from vpcore.errors import InputError


@dataclass(frozen=True)
class Source:
    """Where a set lies on the hub.

    Attributes:
        repo: OWNER/NAME of the data set.
        train, test: patterns of the Parquet files of the two splits; a validation split may stand for test.
        image, label: names of the two columns.
    """

    repo: str
    train: str = "data/train-*.parquet"
    test: str = "data/test-*.parquet"
    image: str = "image"
    label: str = "label"


HUB_SETS: dict[str, Source] = {
    "cifar10": Source("uoft-cs/cifar10", "plain_text/train-*.parquet", "plain_text/test-*.parquet", image="img"),
    "cifar100": Source(
        "uoft-cs/cifar100", "cifar100/train-*.parquet", "cifar100/test-*.parquet", image="img", label="fine_label"
    ),
    "eurosat": Source("timm/eurosat-rgb"),
    "flowers102": Source("dpdl-benchmark/oxford_flowers102"),
    "food101": Source("ethz/food101", test="data/validation-*.parquet"),
    "gtsrb": Source("tanganke/gtsrb"),
    "mnist": Source("ylecun/mnist", "mnist/train-*.parquet", "mnist/test-*.parquet"),
    "oxford_pets": Source("timm/oxford-iiit-pet"),
    "stanford_cars": Source("tanganke/stanford_cars"),
    "sun397": Source("tanganke/sun397"),
    "svhn": Source("ufldl-stanford/svhn", "cropped_digits/train-*.parquet", "cropped_digits/test-*.parquet"),
    "tiny_imagenet": Source("zh-plus/tiny-imagenet", test="data/valid-*.parquet"),
}


def fetch(source: Source, *, name: str, revision: str | None, folder: Path) -> Path:
    """Download an image set and write it as `folder`/`name`, whole or not at all.

    Args:
        source: an entry of `HUB_SETS`, or one of your own.
        name: what the set is called here; the task. Letters, digits, - and _.
        revision: the commit, 40 hexadecimal digits.
        folder: the data folder; it is made.

    Returns:
        The folder of the set, which `parquet.open_set` has checked.

    Raises:
        InputError: for a name or a revision that is none, a set that exists, a failed download, or files that are something
            else.
    """
    if revision is None or not re.fullmatch("[0-9a-f]{40}", revision):
        raise InputError(
            f"`revision` must be a commit of 40 hexadecimal digits, got {revision!r}, since a branch moves; choose one of "
            f"https://huggingface.co/datasets/{source.repo}/commits and use --revision HASH"
        )
    with new_set(name, folder) as made:
        classes, counts = {}, {}
        for split, pattern in (("train", source.train), ("test", source.test)):
            files = _download(source.repo, revision, pattern, made.parent / split)
            classes[split], counts[split] = _class_names(files[0], source.label), 0
            for number, file in enumerate(files):
                target = made / f"{split}-{number:05d}-of-{len(files):05d}.parquet"
                counts[split] += write_shard(target, _batches(file, source, len(classes[split])))
        if classes["train"] != classes["test"]:
            raise InputError(f"{source.test} of {source.repo} has other classes than {source.train}; choose another split")
        origin: dict[str, object] = {"source_repo": f"huggingface:{source.repo}@{revision}", "source": asdict(source)}
        write_card(made, classes["train"], counts, origin=origin)
    return folder / name


def _download(repo: str, revision: str, pattern: str, folder: Path) -> list[Path]:
    """The files of a data set that fit a pattern, in the order of their names."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(
            f"fetching from the Hugging Face hub needs a package ({error.name}); use: pip install 'vpcore[fetch]'"
        ) from error
    try:
        snapshot_download(repo, repo_type="dataset", revision=revision, local_dir=folder, allow_patterns=pattern)
    except Exception as error:  # noqa: BLE001 the client also passes on what its HTTP library raises
        raise InputError(
            f"{repo} at {revision} cannot be fetched ({error}); check its name, the commit, the network, the disk; "
            "a set behind a licence wants `hf auth login`"
        ) from error
    if not (files := sorted(folder.rglob("*.parquet"))):
        raise InputError(f"{repo} at {revision} has no Parquet file {pattern}; give the pattern of the right files")
    return files


def _class_names(path: Path, label: str) -> list[str]:
    """The class names that the metadata of a Hugging Face Parquet file gives for a column."""
    with read(path) as file:
        metadata = file.schema_arrow.metadata or {}
    feature = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {}).get(label, {})
    names = feature.get("names") or []
    if feature.get("_type") != "ClassLabel" or not names or len(set(names)) < len(names):
        raise InputError(
            f"the column {label!r} of {path.name} must be a ClassLabel with names, all different; got "
            f"{feature or 'no such feature'}; name another column"
        )
    return list(names)


def _batches(path: Path, source: Source, classes: int) -> Iterator[pa.RecordBatch]:
    """The images and labels of a file, in the columns of `SCHEMA`, batch by batch."""
    columns = [source.image, source.label]
    with read(path) as file:
        for batch in file.iter_batches(BLOCK, columns=columns):
            try:
                rows = batch.select(columns).rename_columns(SCHEMA.names).cast(SCHEMA)
            except (pa.ArrowException, KeyError) as error:
                raise InputError(
                    f"{path.name} of {source.repo} must have the image {{bytes, path}} in {source.image!r} and an integer "
                    f"in {source.label!r} ({error}); its columns are {', '.join(file.schema_arrow.names)}; name the right "
                    "ones"
                ) from error
            wrong = sum(label is None or not 0 <= label < classes for label in rows["label"].to_pylist())
            empty = rows["image"].field("bytes").null_count
            if wrong or empty:
                raise InputError(
                    f"every row of {path.name} must have an image and a label in 0..{classes - 1}; {empty} have no image, "
                    f"{wrong} have no such label; choose another split"
                )
            yield rows
