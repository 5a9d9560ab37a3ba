"""The command of a release: `vpcore edition`."""

from __future__ import annotations

from pathlib import Path

import click

from vpcore.commands.options import a_folder
from vpcore.errors import InputError
from vpcore.files import write_atomically
from vpcore.study.provenance import versions


@click.command()
@click.option("--book", default="book/generated", type=a_folder, show_default=True, help="Output of its notebooks.")
@click.option("--results", default="results", type=a_folder, show_default=True, help="Folder of the results.")
@click.option("--name", default=versions()["vpcore"], show_default="the version", help="Of the edition.")
def edition(book: Path, results: Path, name: str) -> None:
    """Keep the verdicts of the book as an edition.

    \b
    make book && vpcore edition --name 0.2.0

    Writes results/editions/NAME.json, with which the next edition is compared. The published results are described anew:
    results/README.md has a card for each table and ticket, results/ro-crate-metadata.json says the same for machines.
    """
    try:
        from vpcore.report import cards, crate, editions, overview
    except ImportError as error:
        raise InputError(
            f"an edition needs packages that are not installed ({error.name}); use: pip install 'vpcore[book]'"
        ) from error
    path = editions.keep(overview.found(book), name, results / "editions")
    write_atomically(results / "README.md", cards.text(results))
    crate.write(results)
    click.echo(f"wrote {path}, {results / 'README.md'} and {results / 'ro-crate-metadata.json'}")
