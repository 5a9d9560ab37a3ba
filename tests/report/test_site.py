"""The book as files: every link leads somewhere, references can be followed, the whole is small, and no name is left out."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import vpcore

BOOK = Path(__file__).parents[2] / "book"
MOST = 25_000_000  # bytes of the whole site


class Page(HTMLParser):
    """The addresses that a page names, and the places in it that can be named."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = {"", "top"}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value is not None:
                self.links.add(value)
            if name == "id" and value:
                self.places.add(value)


@pytest.mark.slow
def test_every_link_leads_somewhere(pages: Path) -> None:
    read = {path: Page(path) for path in pages.rglob("*.html")}
    broken = []
    for path, page in read.items():
        for link in page.links:
            to = urlsplit(link)
            if to.scheme in ("http", "https", "data", "mailto"):
                continue
            target = (path.parent / unquote(to.path)).resolve() if to.path else path
            if not target.is_file() or (target in read and unquote(to.fragment) not in read[target].places):
                broken.append(f"{path.relative_to(pages)}: {link}")
    assert broken == []
    assert sum(len(page.links) for page in read.values()) > 1000


@pytest.mark.slow
def test_the_site_is_small_and_pages_without_equations_load_no_mathjax(pages: Path) -> None:
    assert sum(path.stat().st_size for path in pages.rglob("*") if path.is_file()) < MOST
    for path in pages.glob("*.html"):
        text = path.read_text()
        assert ("tex-svg.js" in text) == ('class="math ' in text), path.name
    assert "tex-svg.js" in (pages / "methods.html").read_text()


def test_every_reference_can_be_followed() -> None:
    entries = re.split(r"\n(?=@)", (BOOK / "references.bib").read_text())
    assert len(entries) > 50
    dead = [entry.split(",")[0] for entry in entries if not re.search(r"^ *(doi|eprint|url) *= ", entry, re.MULTILINE)]
    assert dead == []


def test_the_reference_has_every_public_name_once() -> None:
    page = (BOOK / "api.md").read_text()
    named = re.findall(r"^\.\. (?:auto(?:function|class|exception)|py:data):: (\w+)$", page, re.MULTILINE)
    assert sorted(named) == vpcore.__all__
