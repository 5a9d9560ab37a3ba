"""What machines read of the book: a description of each page, `llms.txt`, a sitemap, and no more scripts than it needs.

A page is described by its first paragraph. `llms.txt` lists the pages in their order, each with its description; the sitemap
is written where `html_baseurl` says at which address the book is published.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

MOST = 300  # characters of a description


def described(doctree: nodes.document) -> str:
    """The first paragraph of a page, cut at a word."""
    text = " ".join(next((found.astext() for found in doctree.findall(nodes.paragraph)), "").split())
    return text if len(text) <= MOST else text[:MOST].rsplit(" ", 1)[0] + " ..."


def add_description(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Put the description of a page into its head."""
    if doctree is not None:
        text = html.escape(described(doctree), quote=True)
        context["metatags"] = context.get("metatags", "") + f'\n<meta name="description" content="{text}" />'


def drop_mathjax(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Load MathJax only for the equations of a page itself; Sphinx does so for those of the pages below it, too."""
    if doctree is None or not any(doctree.findall(lambda node: isinstance(node, nodes.math | nodes.math_block))):
        told = [(file, f"{file.filename}{file.attributes.get('body', '')}".lower()) for file in context["script_files"]]
        context["script_files"] = [file for file, text in told if "mathjax" not in text]


def in_order(app: Sphinx, page: str) -> Iterator[str]:
    """A page and those below it, as the table of contents has them."""
    yield page
    for below in app.env.toctree_includes.get(page, []):
        yield from in_order(app, below)


def write_lists(app: Sphinx, failed: Exception | None) -> None:
    """Write `llms.txt`, and `sitemap.xml` for a book that has an address; what nobody reads is left out."""
    if failed or app.builder.format != "html":
        return
    pages = [page for page in in_order(app, app.config.root_doc) if not page.startswith("generated/")]
    lines = [f"# {app.config.html_title}", ""]
    for page in pages:
        lines.append(f"- [{app.env.titles[page].astext()}]({page}.html): {described(app.env.get_doctree(page))}")
    (Path(app.outdir) / "llms.txt").write_text("\n".join(lines) + "\n")
    for path in (Path(app.outdir) / "_static").rglob("*.map"):  # for developers of the theme
        path.unlink()
    if base := app.config.html_baseurl:
        urls = "".join(f"<url><loc>{base.rstrip('/')}/{page}.html</loc></url>" for page in pages)
        sitemap = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>\n'
        (Path(app.outdir) / "sitemap.xml").write_text(sitemap)


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("html-page-context", add_description)
    app.connect("html-page-context", drop_mathjax, priority=900)
    app.connect("build-finished", write_lists)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
