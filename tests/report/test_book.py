"""The whole way in a temporary clone: study, notebooks, book, a second build, and a notebook on its own."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report.clones import BIN, run


@pytest.fixture(scope="module")
def clone(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the clone in which the book was built, from nothing and by the literal command; it may be changed."""
    return shutil.copytree(pages.parents[1], tmp_path_factory.mktemp("clone") / "vpcore", symlinks=True)


class Requests(HTMLParser):
    """What a page would load when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag in ("script", "img", "iframe"):
            self.found.append(values.get("src") or "")
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev", "index", "search", "genindex"):
            self.found.append(values.get("href") or "")


@pytest.mark.slow
def test_the_literal_command_builds_everything_from_nothing(clone: Path) -> None:
    for page in (clone / "_build" / "html").glob("*.html"):
        for raw in ("```", "{num}", "{said}", "{verdict}", "{across}"):
            assert raw not in page.read_text(), f"{page.name} shows {raw}, which was not understood"
    pages = clone / "_build" / "html"
    results = "intro claims methods tickets accuracy budget calibration ways choices defects explore trust"
    for name in results.split():
        text = (pages / f"{name}.html").read_text()
        assert "problematic" not in text
        assert "<h1" in text
        assert '<meta name="description" content="' in text
        shown = re.findall(r'<img alt="([^"]*)" class="only-', text)
        assert all(words.strip() for words in shown), f"{name} has a figure without words"
        assert len(shown) >= 2 * (name not in ("methods", "claims")), f"{name} has no figure"
    assert (pages / "llms.txt").read_text().count("](") == len(list(pages.glob("*.html"))) - 3  # index, genindex, search
    assert "mini-toy" in (pages / "intro.html").read_text()
    numbers = json.loads((clone / "book" / "generated" / "tickets" / "numbers.json").read_text())
    assert f"{numbers['numbers']['dense_accuracy']:.1%}" in (pages / "tickets.html").read_text()
    assert numbers["provenance"]["profile"] == "mini-toy"


@pytest.mark.slow
def test_nothing_that_is_shown_names_a_path_of_this_machine(clone: Path, pages: Path) -> None:
    shown = [
        *(clone / "_build" / "html").rglob("*.html"),
        *(
            path
            for path in (clone / "book" / "generated").rglob("*.*")
            if path.suffix in (".ipynb", ".csv", ".svg", ".json")
        ),
    ]
    for path in shown:
        text = path.read_text()
        for place in (pages.parents[1], BIN.parent, Path.home()):
            assert f"{place}/" not in text, path


@pytest.mark.slow
def test_the_pages_ask_nothing_of_the_network(clone: Path) -> None:
    pages = clone / "_build" / "html"
    for page in pages.rglob("*.html"):
        parser = Requests()
        parser.feed(page.read_text())
        outside = [url for url in parser.found if url.startswith(("http:", "https:", "//"))]
        assert outside == [], page
    assert (pages / "mathjax" / "tex-svg.js").exists()
    assert "mathjax/tex-svg.js" in (pages / "methods.html").read_text()


@pytest.mark.slow
def test_a_second_build_computes_nothing(clone: Path) -> None:
    watched = [p for folder in ("results", "book/generated") for p in (clone / folder).rglob("*") if p.is_file()]
    before = {path: path.stat().st_mtime_ns for path in watched}
    again = run(clone, "jupyter-book", "build", "book/", "-W", "-n", "--keep-going")
    assert again.returncode == 0
    assert "unchanged" in again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in watched} == before


@pytest.mark.slow
def test_the_build_after_one_that_was_cut_short_is_whole(clone: Path) -> None:
    """Sphinx copies pictures last, and would take pages for finished that have none."""
    picture, unfinished = (clone / "_build" / "html" / name for name in ("_images/claims.svg", ".unfinished"))
    picture.unlink()
    unfinished.touch()
    assert run(clone, "jupyter-book", "build", "book/", "-W", "-n", "--keep-going").returncode == 0
    assert picture.exists()
    assert not unfinished.exists()


@pytest.mark.slow
def test_one_notebook_through_papermill(clone: Path, tmp_path: Path) -> None:
    toy = ("-y", "{toy: true}", "-k", "python3")
    out = str(tmp_path / "out.ipynb")
    bad = run(clone, "papermill", "notebooks/accuracy.ipynb", out, *toy, "-p", "budget", "1")
    assert bad.returncode != 0  # papermill makes a number of 1, the parameter is text
    assert "parameter `budget` must be str, such as 'largest', got 1" in bad.stderr
    good = run(
        clone, "papermill", "notebooks/accuracy.ipynb", out, *toy, "-r", "budget", "1", "-r", "output", str(tmp_path / "o")
    )
    assert good.returncode == 0, good.stderr[-2000:]
    assert json.loads((tmp_path / "o" / "numbers.json").read_text())["numbers"]["budget"] == "1 images per class"
    bad = run(clone, "papermill", "notebooks/accuracy.ipynb", out, *toy, "-p", "profil", "small")
    assert bad.returncode != 0
    assert "unknown parameter 'profil'; did you mean 'profile'" in bad.stderr


def build_with(clone: Path, name: str, old: str, new: str) -> subprocess.CompletedProcess:
    """Build the book with one text in one file replaced, and put the file back."""
    path = clone / name
    whole = path.read_text()
    assert old in whole
    path.write_text(whole.replace(old, new))
    done = run(clone, "jupyter-book", "build", "book/", "-W", "-n", "--keep-going")
    path.write_text(whole)
    return done


@pytest.mark.slow
def test_a_failing_notebook_fails_the_build(clone: Path) -> None:
    broken = build_with(clone, "notebooks/tickets.ipynb", "source = study.source", "source = study.sauce")
    assert broken.returncode != 0
    assert "has no attribute 'sauce'" in broken.stdout + broken.stderr


@pytest.mark.slow
def test_a_number_that_is_not_there_fails_the_build(clone: Path) -> None:
    broken = build_with(clone, "book/tickets.md", "tickets:dense_accuracy", "tickets:dense_acuracy")
    assert broken.returncode != 0
    assert "dense_acuracy" in broken.stdout + broken.stderr
