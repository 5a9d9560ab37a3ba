"""The commands that bring image sets into the data folder: `vpcore fetch` downloads, `vpcore pack` takes your own files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from vpcore.commands.options import a_path, data_option
from vpcore.data import hub, tasks
from vpcore.data.packing import TEST_SHARE
from vpcore.data.packing import pack as write_set
from vpcore.errors import InputError, entry


@click.command()
@click.argument("name")
@data_option
@click.option("--revision", help="Commit of a set on the Hugging Face hub, 40 hexadecimal digits.")
@click.option("--repo", help="OWNER/NAME of a set on the hub that is not known here.")
@click.option("--train", help="Pattern of its training files, such as data/train-*.parquet.")
@click.option("--test", help="Pattern of the files that serve as test split.")
@click.option("--image", help="Its column of images.")
@click.option("--label", help="Its column of labels.")
def fetch(name: str, data: Path | None, revision: str | None, repo: str | None, **columns: str | None) -> None:
    """Download an image set into the data folder.

    \b
    vpcore fetch tv-cifar10 --data DIR                        through torchvision, with its checks
    vpcore fetch eurosat --data DIR --revision COMMIT         from the Hugging Face hub, as Parquet
    vpcore fetch mine --data DIR --revision COMMIT --repo OWNER/NAME --train 'data/train-*' --test 'data/test-*'

    Nothing else downloads images: a run whose set is missing says so, and names this command.
    """
    folder = _named(data)
    given = {key: value for key, value in columns.items() if value is not None}
    source = hub.Source(repo, **given) if repo else None
    if given and not repo:
        source = dataclasses.replace(entry("set on the hub", name, hub.HUB_SETS), **given)
    click.echo(f"wrote {tasks.fetch(name, folder, source=source, revision=revision)}")


@click.command()
@click.argument("path", type=a_path, metavar="FOLDER")
@data_option
@click.option("--name", help="Name of the set, by which runs call their task.  [default: the name of FOLDER]")
@click.option(
    "--test-share", default=TEST_SHARE, show_default=True, help="Of each class, where FOLDER holds no train and test."
)
def pack(path: Path, data: Path | None, name: str | None, test_share: float) -> None:
    """Make an image set of a folder of class folders.

    FOLDER holds a folder of images for each class, or the folders train and test that hold them. The set lies in the data
    folder as Parquet files and a dataset.json; every command then takes it as a task by its name.

    \b
    vpcore pack photos --data DIR
    vpcore measure --profile mini --data DIR task=photos method=vp budget=10
    """
    click.echo(f"wrote {write_set(path, _named(data), name=name, test_share=test_share)}")


def _named(data: Path | None) -> Path:
    if data is None:
        raise InputError("`data` must name the folder that image sets are kept in; use --data DIR or set VPCORE_DATA")
    return data
