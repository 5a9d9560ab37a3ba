"""What machines read of the book: a description and a picture of each page, `llms.txt`, a sitemap, no more scripts than due.

A page is described by its first paragraph. `llms.txt` lists the pages in their order, each with its description; the sitemap
is written where `html_baseurl` says at which address the book is published; $BOOK_URL may say it for a single build.

    ```{launch}      links that open the first notebook on Colab and Binder, from the repository of the book

The repository is `vpcore_repository` in _config.yml, or, where that still says OWNER, the one whose workflow builds the book
($GITHUB_REPOSITORY); a copy that knows neither says how to open the notebook here.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective

from vpcore.report import prose

MOST = 300  # characters of a description
PREVIEW = "preview.png"  # the figure of the answer, which other sites show beside a link
UNFINISHED = ".unfinished"  # lies in the folder of a build until it ends
START = "binder/start.ipynb"  # the notebook that opens elsewhere


def described(doctree: nodes.document) -> str:
    """The first paragraph of a page, cut at a word."""
    text = " ".join(next((found.astext() for found in doctree.findall(nodes.paragraph)), "").split())
    return text if len(text) <= MOST else text[:MOST].rsplit(" ", 1)[0] + " ..."


def tell_apart(app: Sphinx, page: str, source: list[str]) -> None:
    """A notebook that was run for a second study, generated/PROFILE/NOTEBOOK, names the study in its title."""
    parts = page.split("/")
    if parts[0] == "generated" and len(parts) == 4:
        notebook = json.loads(source[0])
        first = notebook["cells"][0]
        title, *rest = "".join(first["source"]).split("\n")
        first["source"] = "\n".join([f"{title}, {prose.study_of(parts[1])}", *rest])
        source[0] = json.dumps(notebook)


def add_description(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Put the description of a page into its head."""
    if doctree is not None:
        text = html.escape(described(doctree), quote=True)
        told = f'\n<meta name="description" content="{text}" />\n<meta property="og:description" content="{text}" />'
        title = html.escape(app.env.titles[page].astext(), quote=True)
        told += f'\n<meta property="og:title" content="{title}" />\n<meta property="og:type" content="article" />'
        if base := app.config.html_baseurl:
            told += f'\n<meta property="og:image" content="{base}{PREVIEW}" />'
            told += f'\n<meta property="og:url" content="{base}{page}.html" />'
        context["metatags"] = context.get("metatags", "") + told


def drop_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Load MathJax only for the equations of a page itself, where Sphinx looks at those of the pages below it as well, and
    never Thebe, which Jupyter Book loads even where it is off."""
    unused = ["thebe"]
    if doctree is None or not any(doctree.findall(lambda node: isinstance(node, nodes.math | nodes.math_block))):
        unused.append("mathjax")
    for kind in ("script_files", "css_files"):
        told = [
            (file, f"{getattr(file, 'filename', file)}{getattr(file, 'attributes', '')}".lower()) for file in context[kind]
        ]
        context[kind] = [file for file, text in told if not any(name in text for name in unused)]


def open_up(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """What those need who use a keyboard or hear a page: names of the chevrons, and tables that can be scrolled."""
    if make := context.get("generate_toctree_html"):
        context["generate_toctree_html"] = lambda *given, **named: str(make(*given, **named)).replace(
            "<summary>", '<summary aria-label="the pages of this one">'
        )
    if "body" in context:
        body = context["body"].replace("<table", '<div class="scroll" tabindex="0" role="group" aria-label="table"><table')
        body = body.replace("</table>", "</table></div>")
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')  # deprecated, in the list of references


def in_order(app: Sphinx, page: str) -> Iterator[str]:
    """A page and those below it, as the table of contents has them."""
    yield page
    for below in app.env.toctree_includes.get(page, []):
        yield from in_order(app, below)


def write_lists(app: Sphinx, failed: Exception | None) -> None:
    """Write `llms.txt`, and `sitemap.xml` for a book that has an address; what nobody reads is left out."""
    if failed or app.builder.format != "html":
        return
    picture = Path(app.srcdir) / "generated" / "verdicts" / PREVIEW
    if picture.exists():
        shutil.copy(picture, app.outdir)
    pages = [page for page in in_order(app, app.config.root_doc) if not page.startswith("generated/")]
    lines = [f"# {app.config.html_title}", ""]
    for page in pages:
        lines.append(f"- [{app.env.titles[page].astext()}]({page}.html): {described(app.env.get_doctree(page))}")
    (Path(app.outdir) / "llms.txt").write_text("\n".join(lines) + "\n")
    if base := app.config.html_baseurl:
        urls = "".join(f"<url><loc>{base.rstrip('/')}/{page}.html</loc></url>" for page in pages)
        sitemap = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>\n'
        (Path(app.outdir) / "sitemap.xml").write_text(sitemap)


def begin(app: Sphinx) -> None:
    """Write every page anew after a build that was cut short: it copies pictures last, and its pages would go without."""
    unfinished = Path(app.outdir) / UNFINISHED
    for page in Path(app.outdir).rglob("*.html") if unfinished.exists() else ():
        page.unlink()
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    unfinished.touch()


def end(app: Sphinx, failed: Exception | None) -> None:
    if not failed:
        (Path(app.outdir) / UNFINISHED).unlink(missing_ok=True)


def lighten(app: Sphinx, failed: Exception | None) -> None:
    """Leave out what no page loads or shows; notebooks to download come without their outputs, which their pages show."""
    if failed or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    for end in ("*.map", "*.ttf", "fa-brands*", "fa-regular*", "fontawesome.js", "*macros.html"):
        for path in static.rglob(end):
            path.unlink()
    shutil.rmtree(static / "locales", ignore_errors=True)
    for path in (Path(app.outdir) / "_images").glob("*.svg"):
        plain = re.sub(r"<metadata>.*?</metadata>", "", path.read_text(), flags=re.DOTALL)
        plain = re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", plain))
        hundredths = re.sub(r"\b[1-9]\d*\.\d{5,}", lambda place: f"{float(place[0]):.2f}", plain)
        path.write_text(hundredths)
    for path in (Path(app.outdir) / "_images").glob("*.png"):  # outputs of notebooks: 256 colours are a third of the bytes
        with Image.open(path) as picture:
            if picture.mode != "P" and picture.convert("RGBA").getextrema()[3][0] == 255:
                picture.convert("RGB").quantize(256).save(path)
    for path in (Path(app.outdir) / "_sources").rglob("*.ipynb"):
        notebook = json.loads(path.read_text())
        for cell in notebook["cells"]:
            cell |= {"outputs": []} if cell["cell_type"] == "code" else {}
        path.write_text(json.dumps(notebook))


def take_address(app: Sphinx, config: Config) -> None:
    """The address at which the book is published, from the environment where the configuration has none."""
    address = config.html_baseurl or os.environ.get("BOOK_URL", "").strip("/")
    config.html_baseurl = f"{address.rstrip('/')}/" if address else ""


def repository(config: Config) -> str:
    """OWNER/NAME of the repository on GitHub; "" where nobody knows it."""
    given = str(config.vpcore_repository)
    return os.environ.get("GITHUB_REPOSITORY", "") if given.startswith("OWNER/") else given


class Launch(SphinxDirective):
    """```{launch}"""

    def run(self) -> list[nodes.Node]:
        name = repository(self.config)
        if not name:
            told = nodes.Text("To run it on this machine, open "), nodes.literal(text=START), nodes.Text(" with Jupyter.")
            return [nodes.paragraph("", "", *told)]
        places = {
            "Open in Colab": f"https://colab.research.google.com/github/{name}/blob/main/{START}",
            "Open in Binder": f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/{START}",
        }
        line = nodes.paragraph(classes=["launch"])
        for label, address in places.items():
            line += [nodes.Text(" ")] * bool(len(line))
            line += nodes.reference("", label, refuri=address, classes=["sd-btn", "sd-btn-outline-primary"])
        return [line]


def setup(app: Sphinx) -> dict[str, object]:
    app.add_config_value("vpcore_repository", "", "env")
    app.connect("config-inited", take_address)
    app.add_directive("launch", Launch)
    app.connect("source-read", tell_apart)
    app.connect("html-page-context", add_description)
    app.connect("html-page-context", drop_scripts, priority=900)
    app.connect("html-page-context", open_up, priority=900)
    app.connect("build-finished", write_lists)
    app.connect("builder-inited", begin)
    app.connect("build-finished", end)
    app.connect("build-finished", lighten)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
